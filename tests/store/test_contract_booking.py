"""Booking: one settlement, one effect; what is late is paid from elsewhere; what cannot be booked is parked."""

from dataclasses import replace

from farebox.store.base import Booked


async def test_M1_a_covered_charge_moves_balance_lot_and_lease(scene):
    await scene.user("alice", usd=10)
    await scene.journal()
    (part,) = await scene.lease("alice", 3 * scene.USD)
    charge = scene.settlement("alice", scene.USD, (part._replace(amount_pico=scene.USD),))

    assert await scene.book(charge) == [Booked.BOOKED]

    assert await scene.balance("alice") == 9 * scene.USD
    assert await scene.leased("alice") == 2 * scene.USD
    spent, bought = await scene.store.transactions("alice", 10)
    assert (spent.type, spent.amount_pico, spent.reference) == ("spent", -scene.USD, charge.exchange)
    assert spent.charge["counts"] == charge.counts
    assert bought.type == "earned_purchase"


async def test_M4_a_replayed_batch_changes_nothing(scene):
    await scene.user("alice", usd=10)
    await scene.journal()
    (part,) = await scene.lease("alice", 3 * scene.USD)
    charges = [scene.settlement("alice", 5, (part._replace(amount_pico=5),)) for _ in range(3)]

    assert await scene.book(*charges) == [Booked.BOOKED] * 3
    assert await scene.book(*charges) == [Booked.DUPLICATE] * 3
    assert await scene.book(charges[1], charges[1]) == [Booked.DUPLICATE] * 2

    assert await scene.balance("alice") == 10 * scene.USD - 15


async def test_M4_the_same_record_twice_in_one_batch_is_booked_once(scene):
    await scene.user("alice", usd=10)
    await scene.journal()
    (part,) = await scene.lease("alice", scene.USD)
    charge = scene.settlement("alice", 7, (part._replace(amount_pico=7),))

    assert await scene.book(charge, charge) == [Booked.BOOKED, Booked.DUPLICATE]
    assert await scene.balance("alice") == 10 * scene.USD - 7
