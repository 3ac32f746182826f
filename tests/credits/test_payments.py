"""Purchases: what is paid is credited once, with its bonus and its end; the rest waits for a person."""

import asyncio
from dataclasses import replace

import pytest

from credits.shop import DAY, MINUTE, NOW
from farebox.base.errors import UsageError
from farebox.credits.orders import find_code, order_state, order_view
from farebox.credits.payments import Purchase, accept, enter_payment, refuse
from farebox.writer.sweep import sweep_expired_lots

PROMOTION = {
    "name": "new year",
    "begins": "2025-10-09T00:00:00+07:00",
    "ends": "2025-10-10T00:00:00+07:00",
    "percent": "20",
}


pytestmark = pytest.mark.usefixtures("sound")


async def test_checklist_a_purchase_credits_creditsNew_and_nothing_else(shop):
    order = await shop.order("20")
    assert order.document["amount"] == "50000"
    assert (await shop.pays(order)).word == "credited"
    assert await shop.rows() == [("earned_purchase", "creditsNew", "20")]
    assert (await shop.balance("creditsNew"), await shop.balance("credits")) == ("20", "0")
    payment = await shop.payment_record()
    assert (payment.status, payment.user) == ("credited", "alice")
    assert (payment.document["creditsBefore"], payment.document["creditsAfter"]) == ("0", "20")
    paid = await shop.store.record("order", order.id)
    assert (paid.status, paid.reference) == ("paid", "sepay:1")


async def test_checklist_what_was_bought_expires_after_seven_days(shop):
    await shop.pays(await shop.order("20"))
    shop.now += 7 * DAY - 1
    assert await sweep_expired_lots(shop.store, shop.now) == 0
    shop.now += 1
    assert await sweep_expired_lots(shop.store, shop.now) == 1
    assert await shop.rows() == [("earned_purchase", "creditsNew", "20"), ("expired", "creditsNew", "-20")]


async def test_a_purchase_resets_the_date_of_the_whole_pool(shop):
    await shop.pays(await shop.order("20"))
    shop.now += 6 * DAY
    await shop.pays(await shop.order("30"))
    account = await shop.store.account("alice")
    assert {lot.expires_at_ms for lot in account.lots} == {NOW + 13 * DAY}
    assert await shop.balance() == "50"


async def test_per_lot_validity_leaves_each_lot_its_own_end(shop):
    shop.opens_with(validity={"creditsNew": {"days": 30, "rule": "lot"}})
    await shop.pays(await shop.order("20"))
    shop.now += DAY
    await shop.pays(await shop.order("30"))
    account = await shop.store.account("alice")
    assert sorted(lot.expires_at_ms for lot in account.lots) == [NOW + 30 * DAY, NOW + 31 * DAY]


async def test_hole_17_a_purchase_after_the_end_does_not_revive_what_expired(shop):
    await shop.pays(await shop.order("20"))
    shop.now += 7 * DAY
    await shop.pays(await shop.order("30"))
    assert await shop.balance() == "30"
    assert (await shop.payment_record("sepay:2")).document["creditsBefore"] == "0"


async def test_checklist_a_promotion_is_a_row_of_its_own(shop):
    shop.opens_with(promotions=[PROMOTION])
    order = await shop.order("50")
    assert (await shop.pays(order)).word == "credited"
    assert await shop.rows() == [
        ("earned_purchase", "creditsNew", "50"),
        ("earned_bonus", "creditsNew", "10"),
    ]
    assert (await shop.payment_record()).document["creditsAfter"] == "60"


async def test_a_fixed_bonus_may_go_to_a_pool_of_its_own(shop):
    fixed = {**PROMOTION, "credits": "5", "pool": "refCredits", "min_credits": "30"}
    del fixed["percent"]
    shop.opens_with(promotions=[PROMOTION | {"percent": "1"}, fixed])
    await shop.pays(await shop.order("30"))
    assert await shop.balance("refCredits") == "5"
    lots = {lot.pool: lot.expires_at_ms for lot in (await shop.store.account("alice")).lots}
    assert lots == {"creditsNew": NOW + 7 * DAY, "refCredits": None}
    await shop.pays(await shop.order("20"))
    assert (await shop.rows())[-1] == ("earned_bonus", "creditsNew", "0.2")


async def test_a_promotion_ends_at_its_moment_and_binds_orders_made_before(shop):
    shop.opens_with(promotions=[PROMOTION])
    shop.now = 1_760_029_200_000 - 1
    promised = await shop.order("20")
    shop.now += 1
    late = await shop.order("20")
    assert promised.document["bonus"]["credits"] == "4"
    assert late.document["bonus"]["credits"] == "0"
    await shop.pays(promised)
    assert await shop.balance() == "24"


async def test_P1_any_number_of_deliveries_credits_once(shop):
    order = await shop.order("20")
    notice = shop.payment(order)
    told = [shop.pays(order, payment=notice.payment) for _ in range(12)]
    words = [outcome.word for outcome in await asyncio.gather(*told)]
    assert sorted(words) == ["credited", *["duplicate"] * 11]
    assert await shop.balance() == "20"


async def test_P1_two_payments_for_one_order_credit_one_and_keep_the_other(shop):
    order = await shop.order("20")
    words = {(await shop.pays(order)).word, (await shop.pays(order)).word}
    assert words == {"credited", "review"}
    assert "already" in (await shop.payment_record("sepay:2")).document["reason"]
    assert await shop.balance() == "20"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"amount": "49999"}, "less"),
        ({"amount": "50001"}, "more"),
        ({"currency": "USD"}, "order is in VND"),
        ({"order": ""}, "no order code"),
        ({"order": "TROLLAAAAAAAAAAAA"}, "there is no order"),
        ({"at_ms": NOW + 15 * MINUTE}, "expired"),
    ],
)
async def test_P1_what_does_not_fit_its_order_waits_for_review(shop, told, reason):
    order = await shop.order("20")
    outcome = await shop.pays(order, **told)
    assert outcome.word == "review"
    assert reason in outcome.reason
    assert (await shop.payment_record()).status == "review"
    assert await shop.rows() == []
    again = await shop.pays(order, **{"payment": "sepay:1", **told})
    assert (again.word, again.reason) == ("duplicate", "review")


async def test_hole_09_a_replayed_id_with_another_content_is_no_success(shop):
    order = await shop.order("20")
    await shop.pays(order)
    outcome = await shop.pays(order, payment="sepay:1", amount="99000")
    assert outcome.word == "conflict"
    assert await shop.balance() == "20"


async def test_a_late_payment_is_credited_when_an_operator_accepts_it(shop):
    order = await shop.order("20")
    shop.now += 16 * MINUTE
    assert order_state(order, shop.now) == "expired"
    await shop.pays(order)
    accepted = await accept(shop.store, shop.settings, "sepay:1", "admin:eve", shop.now, note="came late")
    assert (accepted.status, accepted.document["decided_by"]) == ("credited", "admin:eve")
    assert await shop.balance() == "20"
    assert (await shop.store.record("order", order.id)).status == "paid"
    again = await accept(shop.store, shop.settings, "sepay:1", "admin:eve", shop.now, note="came late")
    assert again == accepted
    with pytest.raises(UsageError, match="credited; only one under review"):
        await accept(shop.store, shop.settings, "sepay:1", "admin:eve", shop.now)


async def test_a_short_payment_is_accepted_for_what_it_pays(shop):
    await shop.pays(await shop.order("20"), amount="40000.5")
    await accept(shop.store, shop.settings, "sepay:1", "admin:eve", shop.now)
    assert await shop.rows() == [("earned_purchase", "creditsNew", "16.0002")]


async def test_an_unmatched_payment_needs_a_name(shop):
    await shop.user("bob")
    await shop.pays(amount="25000")
    with pytest.raises(UsageError, match="whom to credit"):
        await accept(shop.store, shop.settings, "sepay:1", "admin:eve", shop.now)
    with pytest.raises(UsageError, match="no user 'nobody'"):
        await accept(shop.store, shop.settings, "sepay:1", "admin:eve", shop.now, user="nobody")
    for wrong in ("0", "-1", "much"):
        with pytest.raises(UsageError):
            await accept(
                shop.store, shop.settings, "sepay:1", "eve", shop.now, user="bob", credits_given=wrong
            )
    await accept(shop.store, shop.settings, "sepay:1", "admin:eve", shop.now, user="bob")
    assert await shop.balance(user="bob") == "10"
    await shop.pays(amount="1", currency="EUR")
    with pytest.raises(UsageError, match="how many credits"):
        await accept(shop.store, shop.settings, "sepay:2", "admin:eve", shop.now, user="bob")
    await accept(shop.store, shop.settings, "sepay:2", "admin:eve", shop.now, user="bob", credits_given="1.5")
    assert await shop.balance(user="bob") == "11.5"


async def test_two_operators_accept_once(shop):
    await shop.pays(await shop.order("20"), amount="25000")
    both = [accept(shop.store, shop.settings, "sepay:1", f"admin:{n}", shop.now) for n in range(2)]
    results = await asyncio.gather(*both, return_exceptions=True)
    assert sum(isinstance(result, UsageError) for result in results) <= 1
    assert await shop.balance() == "10"


async def test_a_refused_payment_credits_nothing_and_stays_refused(shop):
    order = await shop.order("20")
    await shop.pays(order, amount="1")
    refused = await refuse(shop.store, "sepay:1", "admin:eve", "sent back by bank", shop.now)
    assert (refused.status, refused.document["note"]) == ("refused", "sent back by bank")
    assert (await shop.pays(order, payment="sepay:1", amount="1")).reason == "refused"
    assert await refuse(shop.store, "sepay:1", "admin:eve", "sent back by bank", shop.now) == refused
    with pytest.raises(UsageError, match="refused"):
        await refuse(shop.store, "sepay:1", "admin:eve", "", shop.now)
    with pytest.raises(UsageError, match="no payment"):
        await refuse(shop.store, "sepay:7", "admin:eve", "", shop.now)
    assert (await shop.pays(order)).word == "credited"


async def test_an_account_on_hold_keeps_its_payment_for_review(shop, tamper):
    order = await shop.order("20")
    tamper.park("alice", "foreign write")
    outcome = await shop.pays(order)
    assert (outcome.word, outcome.reason) == ("review", "its user's account is on hold")
    with pytest.raises(UsageError, match="on hold"):
        await accept(shop.store, shop.settings, "sepay:1", "admin:eve", shop.now)
    tamper.park("alice", None)
    assert (await accept(shop.store, shop.settings, "sepay:1", "admin:eve", shop.now)).status == "credited"


async def test_a_payment_taken_by_hand_is_entered_once(shop):
    notice = replace(shop.payment(amount="10", currency="USD"), payment="manual:receipt-7")
    purchase = Purchase("alice", "creditsNew", 10 * 10**12)
    enter = [
        enter_payment(shop.store, shop.settings, notice, purchase, "cash", "admin:eve", shop.now)
        for _ in range(2)
    ]
    for done in enter:
        assert (await done).status == "credited"
    assert await shop.balance() == "10"
    other = replace(purchase, credits_pico=11 * 10**12)
    with pytest.raises(UsageError, match="another reference"):
        await enter_payment(shop.store, shop.settings, notice, other, "cash", "admin:eve", shop.now)
    nobody = replace(purchase, user="nobody")
    fresh = replace(notice, payment="manual:receipt-8")
    with pytest.raises(UsageError, match="no user"):
        await enter_payment(shop.store, shop.settings, fresh, nobody, "cash", "admin:eve", shop.now)


@pytest.mark.parametrize("wanted", ["19", "101", "20.5", "-20", "0", "NaN", "1e99", "twenty"])
async def test_what_is_not_sold_is_refused(shop, wanted):
    with pytest.raises(UsageError):
        await shop.order(wanted)
    assert await shop.store.records("order", limit=5) == []


async def test_orders_need_a_currency_that_is_sold_and_a_user(shop):
    with pytest.raises(UsageError, match="pay in VND, USD"):
        await shop.order(currency="EUR")
    with pytest.raises(UsageError, match="no user"):
        await shop.order(user="nobody")
    shop.opens_with(rates={})
    with pytest.raises(UsageError, match="nothing is sold"):
        await shop.order()


async def test_P3_a_request_made_again_finds_its_order(shop):
    first = await shop.order(request="r1")
    shop.now += 5
    assert await shop.order(request="r1") == first
    assert (await shop.order(request="r2")).id != first.id
    with pytest.raises(UsageError, match="new Idempotency-Key"):
        await shop.order("30", request="r1")


async def test_M10_open_orders_of_a_user_are_limited(shop):
    shop.opens_with(orders_open_max=2)
    await shop.order()
    shop.now += MINUTE
    await shop.order()
    with pytest.raises(UsageError, match="2 unpaid orders"):
        await shop.order()
    shop.now += 14 * MINUTE
    await shop.order()


async def test_an_order_says_how_to_pay_it(shop):
    shop.opens_with(sepay={"api_key_env": "KEY", "sub_account": "VA1", "bank": "MB"})
    order = await shop.order()
    view = order_view(order, shop.settings, shop.now + MINUTE)
    assert view["transfer"] == {"bank": "MB", "account": "VA1", "amount": "50000", "text": order.id}
    assert (view["status"], view["remaining_seconds"]) == ("pending", 14 * 60)
    assert "transfer" not in order_view(await shop.order(currency="USD"), shop.settings, shop.now)


@pytest.mark.parametrize(
    "text",
    ["{0}alice", "MBVCB.12.{0}.CT tu 01 toi 02", "thanh toan {0}", "{1}", "nap-tien-{2}"],
)
def test_an_order_code_is_found_whatever_the_bank_does_to_it(text):
    code = "TROLLABCDEFGH2345"
    spaced = " ".join(code[i : i + 4] for i in range(0, len(code), 4))
    assert find_code("TROLL", "nothing here", text.format(code, spaced, code.lower())) == code
    assert find_code("TROLL", "TROLL20D17000", "") == ""
