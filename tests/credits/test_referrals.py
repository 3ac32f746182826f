"""Promise: a referral's bonus never outlives the payment that earned it, whoever is first."""

import pytest

from farebox.base.errors import StoreConflictError
from farebox.credits.referrals import award, refer
from farebox.store.base import EventResult


@pytest.fixture
async def brought(shop):
    """A shop where bob has brought alice, and she has an order."""
    shop.opens_with(referral={"percent": "50", "min_bonus": "5", "max_bonus": "30"})
    await shop.user()
    await shop.user("bob")
    await refer(shop.store, "alice", "bob", "test", shop.now)
    yield shop
    await shop.sound()


def before_each_bonus(shop, act, monkeypatch):
    """Call `act` between the decision on a bonus and its booking."""
    book = shop.store.apply_event

    async def booked(event, now_ms):
        if event.rows and event.rows[0].type == "earned_referral":
            await act()
        return await book(event, now_ms)

    monkeypatch.setattr(shop.store, "apply_event", booked)


async def test_M4_a_refund_on_another_host_between_decision_and_bonus_leaves_none(brought, monkeypatch):
    async def refund():
        await brought.returns("sepay:1", "50000")

    order = await brought.order("20")
    before_each_bonus(brought, refund, monkeypatch)
    assert (await brought.pays(order)).word == "credited"
    assert (await brought.payment_record()).status == "refunded"
    assert [await brought.balance("refCredits", user) for user in ("alice", "bob")] == ["0", "0"]
    assert (await brought.store.record("referral", "alice")).status == "waiting"


async def test_a_payment_that_keeps_changing_is_to_be_delivered_again(brought, monkeypatch):
    order = await brought.order("20")
    monkeypatch.setattr("farebox.credits.referrals._award", lambda *_: stale())
    with pytest.raises(StoreConflictError, match="again for its referral"):
        await brought.pays(order)
    monkeypatch.undo()
    await award(brought.store, brought.settings, "sepay:1", brought.now)
    assert await brought.balance("refCredits", "bob") == "10"


async def stale():
    return EventResult.STALE
