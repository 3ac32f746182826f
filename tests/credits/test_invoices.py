"""Invoices as a provider tells of them: granted once with their payment, reviewed where nobody knows them."""

from dataclasses import replace
from decimal import Decimal

import pytest

from credits.desk import PRO
from credits.shop import NOW
from farebox.credits.intake import take
from farebox.credits.notices import InvoicePaid, MoneyReturned, SubscriptionChanged
from farebox.writer.verify import verify

DAY = 86_400_000
PLANS = [
    {"id": "pro", "name": "Pro", "credits_monthly": "500", "usd_per_credit": "0.01", "price_ids": ["p1"]}
]
PAID = InvoicePaid(
    payment="stripe:in_1",
    subscription="sub_1",
    plan="p1",
    amount=Decimal("4.99"),
    currency="USD",
    period_begins_ms=NOW,
    period_ends_ms=NOW + 30 * DAY,
    at_ms=NOW,
    reference="stripe:pi_1",
    metadata={"user": "alice"},
)
CHANGED = SubscriptionChanged("sub_1", "past_due", "p1", NOW, NOW, False, NOW + 5)


@pytest.fixture
async def plans(shop):
    shop.opens_with(plans=[PRO])
    await shop.user()
    yield shop
    await shop.sound()
    assert (await verify(shop.store, None)).differences == []


async def told(shop, notice):
    return (await take(shop.store, shop.settings, notice, NOW)).word


async def test_M4_an_invoice_grants_once_and_is_a_payment(plans):
    assert await told(plans, PAID) == "credited"
    assert await told(plans, PAID) == "duplicate"
    assert await plans.balance("credits_monthly") == "5"
    payment = await plans.payment_record("stripe:in_1")
    assert (payment.status, payment.document["creditsBefore"], payment.document["creditsAfter"]) == (
        "credited",
        "0",
        "5",
    )
    assert payment.document["rows"][0]["type"] == "earned_subscription"


async def test_the_next_invoice_needs_no_name(plans):
    await told(plans, PAID)
    second = replace(PAID, payment="stripe:in_2", metadata={}, period_ends_ms=NOW + 60 * DAY)
    assert await told(plans, second) == "credited"
    assert await plans.balance("credits_monthly") == "5"


@pytest.mark.parametrize(
    "changes", [{"plan": "p9"}, {"metadata": {}}, {"metadata": {"user": "nobody"}}, {"period_ends_ms": 0}]
)
async def test_an_invoice_nobody_can_place_is_kept_for_review(plans, changes):
    assert await told(plans, replace(PAID, **changes)) == "review"
    assert await plans.balance("credits_monthly") == "0"
    assert (await plans.payment_record("stripe:in_1")).document["details"]["subscription"] == "sub_1"


async def test_a_change_of_plan_between_periods_grants_nothing_by_itself(plans):
    await told(plans, PAID)
    for number, amount in enumerate(("0", "0.03", "0")):
        change = replace(
            PAID, payment=f"stripe:in_9{number}", amount=Decimal(amount), at_ms=NOW + 1, begins_period=False
        )
        assert await told(plans, change) == ("review" if Decimal(amount) else "ignored")
    assert await plans.balance("credits_monthly") == "5"
    assert (await plans.payment_record("stripe:in_91")).document["details"]["plan"] == "p1"


async def test_an_invoice_whose_money_went_back_before_it_came_waits_for_an_operator(plans):
    back = MoneyReturned("stripe:pi_1", Decimal("4.99"), Decimal("4.99"), "USD", NOW)
    assert await told(plans, back) == "review"
    assert await told(plans, PAID) == "review"
    assert await told(plans, PAID) == "duplicate"
    assert await plans.balance("credits_monthly") == "0"


async def test_a_period_that_costs_nothing_is_granted_too(plans):
    assert await told(plans, replace(PAID, amount=Decimal(0))) == "credited"
    assert await plans.balance("credits_monthly") == "5"


async def test_a_refund_takes_exactly_the_invoices_lot(plans):
    await told(plans, PAID)
    await told(plans, replace(PAID, payment="stripe:in_2", subscription="sub_2", reference="stripe:pi_2"))
    back = MoneyReturned("stripe:pi_1", Decimal("4.99"), Decimal("4.99"), "USD", NOW)
    assert await told(plans, back) == "returned"
    assert await plans.balance("credits_monthly") == "5"
    (row,) = [row for row in await plans.store.transactions("alice", 9) if row.type == "refund"]
    assert row.lots[0].lot == (await plans.payment_record("stripe:in_1")).document["rows"][0]["lot"]


async def test_news_of_a_subscription_is_noted(plans):
    assert await told(plans, CHANGED) == "ignored"
    await told(plans, PAID)
    assert await told(plans, CHANGED) == "noted"
    assert await told(plans, CHANGED) == "duplicate"
    assert await told(plans, replace(CHANGED, status="paused")) == "ignored"
    assert (await plans.store.record("subscription", "stripe:sub_1")).status == "past_due"
