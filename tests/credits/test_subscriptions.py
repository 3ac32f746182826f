"""Subscriptions: an invoice grants once, plans reset or accumulate, spending takes permanent credit first."""

from dataclasses import replace
from decimal import Decimal

import pytest

from farebox.base.errors import UsageError
from farebox.config.plans import Plan
from farebox.credits import subscriptions
from farebox.credits.moves import Move
from farebox.credits.subscriptions import PaidPeriod, grant_period
from farebox.credits.transfers import perform
from farebox.ledger.conservation import differences
from farebox.store.base import Booked, EventResult
from store.conftest import Scene

NOW = 1_770_000_000_000
USD = 10**12
MONTH = 30 * 86_400_000
PRO = Plan("pro", "Pro", Decimal(500), Decimal("0.01"), 5 * USD, True, ("price_1",))
BASIC = replace(PRO, id="basic", name="Basic", resets=False)
J = "a" * 16


def period(number: int, plan: Plan = PRO, **changes) -> PaidPeriod:
    first = PaidPeriod("stripe:sub_1", "alice", plan, f"in_{number}", NOW, NOW)
    return replace(first, starts_ms=NOW + (number - 1) * MONTH, ends_ms=NOW + number * MONTH, **changes)


@pytest.fixture(autouse=True)
async def sound(store):
    """A user and a journal; M1 and M2 at the end."""
    await store.create_user("alice", "user", "test", NOW)
    await store.claim_epoch(J, 1, "host", NOW)
    yield
    assert differences(*(await store.account_with_rows("alice"))) == []


async def monthly(store, pool="credits_monthly"):
    return (await store.account("alice")).balances[pool]


async def types(store):
    return [row.type for row in reversed(await store.transactions("alice", 50))]


async def test_M4_an_invoice_grants_once_in_whatever_order_its_deliveries_come(store):
    assert await grant_period(store, period(1), "stripe", NOW) is EventResult.DONE
    assert await grant_period(store, period(1), "stripe", NOW + 9) is EventResult.DUPLICATE
    assert await grant_period(store, period(2), "stripe", NOW + MONTH) is EventResult.DONE
    assert await grant_period(store, period(1), "stripe", NOW + MONTH) is EventResult.DUPLICATE
    assert await monthly(store) == 5 * USD
    (lot,) = [lot for lot in (await store.account("alice")).lots if lot.left_pico]
    assert lot.expires_at_ms == NOW + 2 * MONTH


async def test_a_renewal_before_the_end_resets_the_pool(store):
    await grant_period(store, period(1), "stripe", NOW)
    await grant_period(store, period(2), "stripe", NOW + MONTH - 1000)
    assert await monthly(store) == 5 * USD
    assert await types(store) == ["earned_subscription", "expired", "earned_subscription"]


async def test_an_accumulating_plan_keeps_what_is_left(store):
    await grant_period(store, period(1, BASIC), "stripe", NOW)
    await grant_period(store, period(2, BASIC), "stripe", NOW + 2 * MONTH)
    assert await monthly(store) == 10 * USD
    assert {lot.expires_at_ms for lot in (await store.account("alice")).lots} == {None}


async def test_a_late_invoice_of_an_older_period_is_granted_and_resets_nothing(store):
    await grant_period(store, period(2), "stripe", NOW + MONTH)
    assert await grant_period(store, period(1), "stripe", NOW + MONTH) is EventResult.DONE
    assert await monthly(store) == 10 * USD
    assert {lot.expires_at_ms for lot in (await store.account("alice")).lots} == {NOW + 2 * MONTH}
    assert (await store.record("subscription", "stripe:sub_1")).due_ms == NOW + 2 * MONTH


async def test_a_reset_leaves_other_pools_and_other_subscriptions_alone(store):
    await grant_period(store, period(1, subscription="stripe:sub_2", invoice="other"), "stripe", NOW)
    await perform(store, Move("grant", "g1", "alice", "credits_permanent", USD, "gift", "root"), NOW)
    await perform(store, Move("grant", "g2", "alice", "credits_monthly", USD, "gift", "root"), NOW)
    await grant_period(store, period(1), "stripe", NOW)
    assert await monthly(store) == 10 * USD
    assert await monthly(store, "credits_permanent") == USD


async def test_M2_a_reset_takes_leased_credit_only_when_it_comes_back(store):
    await grant_period(store, period(1), "stripe", NOW)
    leased = await store.grant("alice", "subscription", J, 1, 0, 2 * USD, 2 * USD, NOW)
    assert await grant_period(store, period(2), "stripe", NOW + 5) is EventResult.DONE
    assert await monthly(store) == 7 * USD
    (claim,) = (await store.account("alice")).claims
    assert claim.amount_pico == 2 * USD
    await store.give_back("alice", J, 1, leased.op, [part for part, _ in leased.added], NOW + 6)
    assert await store.collect("alice", claim.reference, NOW + 7) is None
    assert await monthly(store) == 5 * USD
    assert (await store.account("alice")).claims == ()


async def test_expired_monthly_credit_is_not_revived_by_a_late_renewal(store):
    await grant_period(store, period(1), "stripe", NOW)
    await grant_period(store, period(2), "stripe", NOW + MONTH + 1000)
    assert await monthly(store) == 5 * USD
    assert sorted(await types(store)) == ["earned_subscription", "earned_subscription", "expired"]


async def test_spending_takes_permanent_then_monthly_with_a_row_for_each_pool(store):
    await grant_period(store, period(1), "stripe", NOW)
    await perform(store, Move("grant", "g1", "alice", "credits_permanent", USD, "gift", "root"), NOW)
    scene = Scene(store)
    takes = await scene.lease("alice", 3 * USD, wallet="subscription")
    spent = scene.settlement("alice", 3 * USD, takes, wallet="subscription")
    assert await store.book(J, 1, [spent], NOW) == [Booked.BOOKED]
    rows = [row for row in await store.transactions("alice", 9) if row.type == "spent"]
    assert [(row.pool, row.amount_pico) for row in reversed(rows)] == [
        ("credits_permanent", -USD),
        ("credits_monthly", -2 * USD),
    ]
    assert await monthly(store, "credits_permanent") == 0
    assert (await subscriptions.wallet_document(store, "alice"))["total_spent"] == "3"


async def test_a_subscription_is_canceled_by_its_owner_with_its_period(store):
    await grant_period(store, period(1), "stripe", NOW)
    with pytest.raises(UsageError, match="no subscription"):
        await subscriptions.cancel(store, "stripe:sub_1", "bob", NOW, owner="bob")
    with pytest.raises(UsageError, match="no subscription"):
        await subscriptions.cancel(store, "stripe:sub_9", "root", NOW)
    for _ in range(2):
        canceled = await subscriptions.cancel(store, "stripe:sub_1", "alice", NOW, owner="alice")
        assert canceled.document["cancel_at_period_end"] is True
    before = await subscriptions.subscriptions_document(store, "alice", NOW + MONTH - 1)
    assert before["active_subscription"]["cancel_at_period_end"] is True
    shown = await subscriptions.subscriptions_document(store, "alice", NOW + MONTH)
    assert [s["status"] for s in shown["subscriptions"]] == ["canceled"]
    assert shown["active_subscription"] is None
    assert await monthly(store) == 5 * USD


async def test_a_manual_subscription_is_past_due_after_its_period_and_others_as_told(store):
    await grant_period(store, period(1, subscription="manual:1", invoice="m1"), "root", NOW)
    await grant_period(store, period(1), "stripe", NOW)
    shown = await subscriptions.subscriptions_document(store, "alice", NOW + MONTH)
    states = {one["subscription_id"]: one["status"] for one in shown["subscriptions"]}
    assert states == {"manual:1": "past_due", "stripe:sub_1": "active"}


async def test_older_news_of_a_status_is_ignored(store):
    change = subscriptions.set_status
    assert await change(store, "stripe:sub_1", "active", 5, "stripe", NOW) is EventResult.UNKNOWN_USER
    await grant_period(store, period(1), "stripe", NOW)
    assert await change(store, "stripe:sub_1", "past_due", 50, "stripe", NOW) is EventResult.DONE
    assert await change(store, "stripe:sub_1", "active", 40, "stripe", NOW) is EventResult.DUPLICATE
    assert await change(store, "stripe:sub_1", "past_due", 50, "stripe", NOW) is EventResult.DUPLICATE
    assert (await store.record("subscription", "stripe:sub_1")).status == "past_due"
    end = await change(store, "stripe:sub_1", "canceled", 60, "stripe", NOW, cancel_at_period_end=True)
    assert end is EventResult.DONE
    with pytest.raises(UsageError, match="no status"):
        await change(store, "stripe:sub_1", "dormant", 70, "stripe", NOW)
    await grant_period(store, period(2), "stripe", NOW)
    assert (await store.record("subscription", "stripe:sub_1")).status == "canceled"


async def test_a_period_of_nonsense_or_of_another_user_is_refused(store):
    with pytest.raises(UsageError, match="ends before"):
        await grant_period(store, replace(period(1), ends_ms=NOW), "stripe", NOW)
    await grant_period(store, period(1), "stripe", NOW)
    await store.create_user("bob", "user", "test", NOW)
    with pytest.raises(UsageError, match="another user"):
        await grant_period(store, replace(period(2), user="bob"), "stripe", NOW)
    assert await grant_period(store, replace(period(1), user="nobody"), "s", NOW) is EventResult.UNKNOWN_USER


async def test_the_wallet_is_shown_as_the_two_pool_system_did(store):
    await grant_period(store, period(1), "stripe", NOW + 7)
    await perform(store, Move("grant", "g1", "alice", "credits_permanent", USD // 4, "gift", "root"), NOW)
    shown = await subscriptions.wallet_document(store, "alice")
    assert shown == {
        "user_id": "alice",
        "credits_monthly": "5",
        "credits_permanent": "0.25",
        "balance": "5.25",
        "total_earned": "5.25",
        "total_spent": "0",
        "last_updated": NOW,
    }
    with pytest.raises(UsageError, match="no user"):
        await subscriptions.wallet_document(store, "nobody")
