"""Refunds take exactly what their payment brought, once, and never what exchanges hold; so do referrals."""

import asyncio

import pytest

from credits.shop import DAY, PROMOTION
from farebox.base.errors import StoreConflictError, UsageError
from farebox.base.units import pico_from_usd
from farebox.credits.payments import accept
from farebox.credits.referrals import refer

REFERRAL = {"percent": "50", "min_bonus": "5", "max_bonus": "30"}


pytestmark = pytest.mark.usefixtures("sound")


async def test_a_full_refund_takes_the_purchase_and_its_bonus_and_no_other_lot(shop):
    shop.opens_with(promotions=[PROMOTION])
    await shop.pays(await shop.order("20"))
    await shop.pays(await shop.order("40"))
    assert (await shop.returns("sepay:1", "50000")).word == "returned"
    assert await shop.balance() == "44"
    assert (await shop.rows())[-1] == ("refund", "creditsNew", "-22")
    payment = await shop.payment_record()
    assert (payment.status, payment.document["returned"]) == ("refunded", "50000")


async def test_refunds_in_parts_add_up_to_the_whole_in_any_order_and_number(shop):
    shop.opens_with(promotions=[PROMOTION])
    await shop.pays(await shop.order("20"))
    assert (await shop.returns("sepay:1", "33333")).word == "returned"
    assert (await shop.payment_record()).status == "credited"
    assert await shop.balance() == "7.33348"
    for told, word in (("10000", "duplicate"), ("33333", "duplicate"), ("50000", "returned")):
        assert (await shop.returns("sepay:1", told)).word == word
    assert await shop.balance() == "0"
    assert (await shop.returns("sepay:1", "99999")).word == "duplicate"


async def test_M4_parallel_refunds_take_once(shop):
    await shop.pays(await shop.order("20"))
    outcomes = await asyncio.gather(*(shop.returns("sepay:1", "25000") for _ in range(6)))
    assert sorted(outcome.word for outcome in outcomes) == [*["duplicate"] * 5, "returned"]
    assert await shop.balance() == "10"


async def test_hole_16_a_refund_waits_for_what_exchanges_hold_and_takes_the_rest_later(shop):
    await shop.pays(await shop.order("20"))
    await shop.lease("15")
    await shop.returns("sepay:1", "50000")
    assert await shop.balance() == "15"
    assert await shop.claims() == {(True, pico_from_usd("15"))}
    await shop.come_back()
    assert await shop.balance() == "0"
    assert await shop.claims() == set()


async def test_a_refund_of_what_was_spent_takes_what_there_is_and_leaves_no_debt(shop):
    await shop.pays(await shop.order("20"))
    await shop.spend("15")
    await shop.pays(await shop.order("30"))
    await shop.returns("sepay:1", "50000")
    assert (await shop.rows())[-1] == ("refund", "creditsNew", "-5")
    assert await shop.balance() == "30"
    assert await shop.claims() == set()


async def test_a_refund_of_an_unknown_payment_is_kept_and_the_payment_then_reviewed(shop):
    assert (await shop.returns("sepay:1", "50000")).word == "review"
    assert (await shop.returns("sepay:1", "50000")).word == "returned"
    order = await shop.order("20")
    assert (await shop.pays(order, payment="sepay:1")).word == "review"
    assert (await shop.pays(order, payment="sepay:1")).word == "duplicate"
    assert await shop.rows() == []
    payment = await shop.payment_record()
    assert (payment.user, payment.document["order"], payment.document["returned"]) == (
        "alice",
        order.id,
        "50000",
    )


async def test_a_refund_of_a_payment_under_review_is_noted(shop):
    await shop.pays(await shop.order("20"), amount="1")
    assert "review" in (await shop.returns("sepay:1", "0.25", "1")).reason
    assert (await shop.payment_record()).document["returned"] == "0.25"
    await shop.returns("sepay:1", "1", "1")
    with pytest.raises(UsageError, match="gone back"):
        await accept(shop.store, shop.settings, "sepay:1", "eve", shop.now)


async def test_what_is_left_of_a_payment_under_review_can_be_accepted(shop):
    await shop.pays(await shop.order("20"), amount="60000")
    await shop.returns("sepay:1", "10000", "60000")
    await accept(shop.store, shop.settings, "sepay:1", "eve", shop.now)
    assert await shop.balance() == "20"


async def test_what_had_gone_back_before_acceptance_is_not_taken_again(shop):
    """50,000 paid, 10,000 back before 16 credits were given for the other 40,000: 10,000 of those are 4."""
    await shop.pays(await shop.order("40"), amount="50000")
    await shop.returns("sepay:1", "10000")
    await accept(shop.store, shop.settings, "sepay:1", "eve", shop.now)
    assert await shop.balance() == "16"
    await shop.returns("sepay:1", "20000")
    assert await shop.balance() == "12"
    await shop.disputes("sepay:1", "open", "10000")
    assert await shop.claims() == {(True, pico_from_usd("4"))}
    await shop.disputes("sepay:1", "lost", "10000")
    assert await shop.balance() == "8"
    await shop.returns("sepay:1", "50000")
    assert await shop.balance() == "0"


async def test_a_refund_of_expired_credit_books_nothing_twice(shop):
    await shop.pays(await shop.order("20"))
    shop.now += 8 * DAY
    assert (await shop.returns("sepay:1", "50000")).word == "returned"
    assert await shop.balance() == "0"
    assert [row[0] for row in await shop.rows()] == ["earned_purchase", "expired", "refund"]


async def test_an_account_on_hold_makes_the_provider_come_again(shop, tamper):
    await shop.pays(await shop.order("20"))
    tamper.park("alice", "foreign write")
    for told in (shop.returns("sepay:1", "50000"), shop.disputes("sepay:1", "lost")):
        with pytest.raises(StoreConflictError, match="again"):
            await told


async def test_referral_both_sides_get_their_bonus_once(shop):
    shop.opens_with(referral=REFERRAL)
    await shop.user("bob")
    await refer(shop.store, "alice", "bob", "test", shop.now)
    order = await shop.order("20")
    await asyncio.gather(*(shop.pays(order, payment="sepay:1") for _ in range(5)))
    await shop.pays(await shop.order("40"))
    for user in ("alice", "bob"):
        assert await shop.balance("refCredits", user) == "10"
    assert await shop.rows("bob") == [("earned_referral", "refCredits", "10")]
    (lot,) = (await shop.store.account("bob")).lots
    assert lot.expires_at_ms is None


@pytest.mark.parametrize(("wanted", "bonus"), [("20", "10"), ("100", "30")])
async def test_referral_bonus_has_its_bounds(shop, wanted, bonus):
    shop.opens_with(referral=REFERRAL)
    await shop.user("bob")
    await refer(shop.store, "alice", "bob", "test", shop.now)
    await shop.pays(await shop.order(wanted))
    assert await shop.balance("refCredits", "bob") == bonus


async def test_referral_is_reversed_once_with_the_refund(shop):
    shop.opens_with(referral=REFERRAL)
    await shop.user("bob")
    await refer(shop.store, "alice", "bob", "test", shop.now)
    await shop.pays(await shop.order("20"))
    await shop.returns("sepay:1", "25000")
    assert await shop.balance("refCredits", "bob") == "10"
    await shop.returns("sepay:1", "50000")
    await shop.returns("sepay:1", "50000")
    for user in ("alice", "bob"):
        assert await shop.balance("refCredits", user) == "0"
    assert [row[0] for row in await shop.rows("bob")] == ["earned_referral", "refund"]


async def test_referral_of_an_account_on_hold_is_reversed_when_the_provider_comes_again(shop, tamper):
    shop.opens_with(referral=REFERRAL)
    await shop.user("bob")
    await refer(shop.store, "alice", "bob", "test", shop.now)
    await shop.pays(await shop.order("20"))
    tamper.park("bob", "foreign write")
    with pytest.raises(StoreConflictError, match="on hold"):
        await shop.returns("sepay:1", "50000")
    tamper.park("bob", None)
    assert (await shop.returns("sepay:1", "50000")).word == "duplicate"
    assert await shop.balance("refCredits", "bob") == "0"


async def test_referral_of_a_lost_dispute_is_reversed_too(shop):
    shop.opens_with(referral=REFERRAL)
    await shop.user("bob")
    await refer(shop.store, "alice", "bob", "test", shop.now)
    await shop.pays(await shop.order("20"))
    await shop.disputes("sepay:1", "lost")
    assert await shop.balance("refCredits", "bob") == "0"


async def test_referral_needs_two_people_and_a_first_purchase(shop):
    await shop.user("bob")
    await shop.user("carol")
    for user, referrer, said in (
        ("alice", "alice", "himself"),
        ("alice", "nobody", "no user"),
        ("nobody", "alice", "no user"),
    ):
        with pytest.raises(UsageError, match=said):
            await refer(shop.store, user, referrer, "test", shop.now)
    first = await refer(shop.store, "alice", "bob", "test", shop.now)
    assert await refer(shop.store, "alice", "bob", "test", shop.now + 1) == first
    with pytest.raises(UsageError, match="somebody else"):
        await refer(shop.store, "alice", "carol", "test", shop.now)
    await shop.pays(await shop.order("20", user="carol"))
    with pytest.raises(UsageError, match="bought before"):
        await refer(shop.store, "carol", "bob", "test", shop.now)


async def test_referral_without_a_configured_bonus_gives_nothing(shop):
    await shop.user("bob")
    await refer(shop.store, "alice", "bob", "test", shop.now)
    await shop.pays(await shop.order("20"))
    shop.opens_with(referral={"percent": "0"})
    await shop.pays(await shop.order("20"))
    assert await shop.balance("refCredits", "bob") == "0"
    shop.opens_with(referral=REFERRAL)
    await shop.pays(await shop.order("20"))
    assert await shop.balance("refCredits", "bob") == "10"
