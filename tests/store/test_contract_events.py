"""Events: all rows and all effects or none; a redelivery changes nothing; expired money stays expired."""

import asyncio

import pytest

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import LotAmount
from farebox.ledger.settlement import expiry_rows
from farebox.store.base import Booked, Event, EventResult


async def apply(scene, *rows, expires=None, now=None, **more):
    result = await scene.store.apply_event(Event(tuple(rows), expires, **more), now or scene.NOW)
    await scene.sound()
    return result


def credit(scene, user, pool, amount, type_="earned_purchase", reference="", lot=""):
    part = LotAmount(lot or scene.fresh(), pool, amount)
    return scene.row(user, type_, pool, amount, (part,), reference)


async def test_M6_a_purchase_makes_a_lot(scene):
    await scene.user("alice")
    row = credit(scene, "alice", "credits", 500)
    assert await apply(scene, row, expires=scene.NOW + 9, source="sepay", actor="console") is EventResult.DONE
    (lot,) = (await scene.store.account("alice")).lots
    assert (lot.pool, lot.left_pico, lot.expires_at_ms, lot.source) == (
        "credits",
        500,
        scene.NOW + 9,
        "sepay",
    )
    assert await scene.balance("alice") == 500
    assert (await scene.store.lifetime("alice"))["total_earned_pico"] == 500
    assert (await scene.store.transactions("alice", 5)) == [row]


async def test_a_top_up_of_a_lot_keeps_its_expiry(scene):
    await scene.user("alice")
    part = await scene.credit("alice", 100, expires=scene.NOW + 50)
    assert await apply(scene, credit(scene, "alice", "credits", 5, lot=part.lot)) is EventResult.DONE
    (lot,) = (await scene.store.account("alice")).lots
    assert (lot.left_pico, lot.expires_at_ms) == (105, scene.NOW + 50)


async def test_a_row_of_nothing_is_booked_once_too(scene):
    await scene.user("alice")
    row = credit(scene, "alice", "credits", 0, "opening")
    assert await apply(scene, row) is EventResult.DONE
    assert await apply(scene, row) is EventResult.DUPLICATE
    assert (await scene.store.account("alice")).lots == ()


async def test_the_dates_of_a_purchase_are_kept_per_pool(scene, outside):
    await scene.user("alice")
    await scene.credit("alice", 5, "credits", expires=scene.NOW + 1000)
    await scene.credit("alice", 5, "creditsNew")
    await apply(scene, credit(scene, "alice", "refCredits", 5, "earned_referral"))
    await apply(scene, credit(scene, "alice", "credits", 5, "earned_referral"))
    assert outside.dates("alice") == (scene.NOW, scene.NOW + 1000, scene.NOW, None)


async def test_M4_a_redelivered_event_changes_nothing(scene):
    await scene.user("alice")
    row = credit(scene, "alice", "credits", 500)
    assert await apply(scene, row) is EventResult.DONE
    assert await apply(scene, row) is EventResult.DUPLICATE
    assert await scene.balance("alice") == 500


async def test_hole_05_two_deliveries_at_once_credit_once(scene):
    await scene.user("alice")
    event = Event((credit(scene, "alice", "credits", 500),))
    results = await asyncio.gather(*(scene.store.apply_event(event, scene.NOW) for _ in range(4)))
    assert sorted(result.value for result in results) == ["done", *["duplicate"] * 3]
    assert await scene.balance("alice") == 500


async def test_hole_09_another_amount_under_the_same_id_is_never_success(scene):
    await scene.user("alice")
    await apply(scene, credit(scene, "alice", "credits", 500, reference="pay1", lot="1" * 24))
    with pytest.raises(InvariantBrokenError, match="other content"):
        await apply(scene, credit(scene, "alice", "credits", 600, reference="pay1", lot="1" * 24))
    with pytest.raises(InvariantBrokenError, match="other content"):
        await apply(scene, credit(scene, "alice", "credits", 500, reference="pay1", lot="2" * 24))
    assert await scene.balance("alice") == 500
    await apply(scene, scene.row("alice", "adjustment", "credits", -5, reference="a1"))
    with pytest.raises(InvariantBrokenError, match="other content"):
        await apply(scene, scene.row("alice", "adjustment", "credits", -6, reference="a1"))
    assert await scene.balance("alice") == 495


async def test_hole_50_the_rows_of_an_event_are_booked_together_or_not_at_all(scene):
    await scene.user("alice")
    amount = credit(scene, "alice", "credits", 500, reference="pay1")
    bonus = credit(scene, "alice", "credits", 50, "earned_bonus", reference="pay1")
    await apply(scene, amount)
    with pytest.raises(InvariantBrokenError, match="only 1 of 2"):
        await apply(scene, amount, bonus)
    assert await scene.balance("alice") == 500


async def test_hole_07_purchase_bonus_and_referral_rows_do_not_collide(scene):
    await scene.user("alice")
    await scene.user("bob")
    rows = (
        credit(scene, "alice", "credits", 500, reference="pay1"),
        credit(scene, "alice", "credits", 50, "earned_bonus", reference="pay1"),
        credit(scene, "alice", "refCredits", 20, "earned_referral", reference="pay1"),
        credit(scene, "bob", "refCredits", 20, "earned_referral", reference="pay1"),
    )
    assert await apply(scene, *rows) is EventResult.DONE
    assert (await scene.balance("alice"), await scene.balance("bob", "refCredits")) == (550, 20)


async def test_a_transfer_debits_and_credits_in_one_transaction(scene):
    await scene.user("alice")
    first = await scene.credit("alice", 30, expires=scene.NOW + 10)
    await scene.credit("alice", 100)
    await scene.user("bob")
    out = scene.row("alice", "transfer_out", "credits", -50, reference="t1")
    into = credit(scene, "bob", "credits", 50, "transfer_in", reference="t1")
    assert await apply(scene, out, into) is EventResult.DONE
    assert await apply(scene, out, into) is EventResult.DUPLICATE
    assert (await scene.balance("alice"), await scene.balance("bob")) == (80, 50)
    debit = (await scene.store.transactions("alice", 1))[0]
    assert debit.lots[0] == LotAmount(first.lot, "credits", -30)
    assert sum(part.amount_pico for part in debit.lots) == -50
    assert (await scene.store.lifetime("bob"))["total_earned_pico"] == 0


async def test_hole_15_a_transfer_to_nobody_debits_nobody(scene):
    await scene.user("alice", usd=1)
    out = scene.row("alice", "transfer_out", "credits", -50)
    into = credit(scene, "nobody", "credits", 50, "transfer_in")
    assert await apply(scene, out, into) is EventResult.UNKNOWN_USER
    assert await scene.balance("alice") == scene.USD


async def test_hole_16_a_debit_that_meets_leased_money_is_short_and_changes_nothing(scene):
    await scene.user("alice")
    part = await scene.credit("alice", 100)
    await scene.user("bob")
    await scene.journal()
    await scene.lease("alice", 60)
    into = credit(scene, "bob", "credits", 50, "transfer_in")
    for named in ((), (part._replace(amount_pico=50),)):
        out = scene.row("alice", "transfer_out", "credits", -50, named)
        assert await apply(scene, into, out) is EventResult.SHORT
    assert (await scene.balance("alice"), await scene.balance("bob")) == (100, 0)
    assert await scene.store.transactions("bob", 5) == []
    named = (part._replace(amount_pico=40),)
    assert await apply(scene, scene.row("alice", "refund", "credits", -40, named)) is EventResult.DONE


async def test_rows_of_one_user_see_each_other(scene):
    await scene.user("alice")
    await scene.credit("alice", 100)
    out = scene.row("alice", "adjustment", "credits", -80)
    more = scene.row("alice", "adjustment", "credits", -30)
    assert await apply(scene, out, more) is EventResult.SHORT
    assert await apply(scene, out) is EventResult.DONE


async def test_hole_17_a_purchase_does_not_revive_expired_money(scene):
    await scene.user("alice")
    await scene.credit("alice", 100, expires=scene.NOW + 10)
    later = scene.NOW + 20
    assert await apply(scene, credit(scene, "alice", "credits", 7), now=later) is EventResult.DONE
    assert await scene.balance("alice") == 7
    kinds = [(row.type, row.amount_pico) for row in await scene.store.transactions("alice", 5)]
    assert kinds == [("earned_purchase", 7), ("expired", -100), ("earned_purchase", 100)]


async def test_hole_18_leased_money_of_an_expired_lot_is_swept_when_it_comes_back(scene):
    await scene.user("alice")
    await scene.credit("alice", 100, expires=scene.NOW + 10)
    await scene.journal()
    (part,) = await scene.lease("alice", 60)
    later = scene.NOW + 20

    async def sweep():
        account = await scene.store.account("alice")
        return await apply(scene, *expiry_rows(account, later), now=later)

    assert await sweep() is EventResult.DONE
    assert await scene.balance("alice") == 60
    assert await scene.book(scene.settlement("alice", 25, (part._replace(amount_pico=25),)), now=later) == [
        Booked.BOOKED
    ]
    await scene.store.give_back("alice", scene.J, 1, 1, [part._replace(amount_pico=35)], later)
    assert await sweep() is EventResult.DONE
    assert await scene.balance("alice") == 0


async def test_an_old_sweep_finds_nothing_left_to_take(scene):
    await scene.user("alice")
    await scene.credit("alice", 100, expires=scene.NOW + 10)
    later = scene.NOW + 20
    old = expiry_rows(await scene.store.account("alice"), later)
    await apply(scene, credit(scene, "alice", "credits", 7), now=later)
    assert await apply(scene, *old, now=later) is EventResult.DUPLICATE
    await scene.store.set_user_active("alice", True, "test", later)
    moved = scene.row("alice", "expired", "credits", -100, old[0].lots, reference="other:9")
    assert await apply(scene, moved, now=later) is EventResult.SHORT
    assert await scene.balance("alice") == 7


async def test_a_parked_account_takes_no_event(scene, outside):
    await scene.user("alice", usd=1)
    await scene.user("bob")
    outside.park("alice", "because")
    out = scene.row("alice", "transfer_out", "credits", -5)
    assert await apply(scene, credit(scene, "bob", "credits", 5, "transfer_in"), out) is EventResult.PARKED
    assert await scene.balance("bob") == 0


async def test_hole_55_a_foreign_write_parks_the_user_before_an_event_touches_him(scene, outside):
    await scene.user("alice", usd=1)
    outside.write_balance("alice", "credits", 3)
    event = Event((credit(scene, "alice", "credits", 5),))
    assert await scene.store.apply_event(event, scene.NOW) is EventResult.PARKED
    account = await scene.store.account("alice")
    assert "outside" in account.parked
    assert account.balances["credits"] == 3


async def test_S18_a_foreign_write_is_adopted_as_adjustments_by_an_operator(scene, outside):
    await scene.user("alice")
    await scene.credit("alice", 100)
    await scene.credit("alice", 100, "creditsNew")
    assert await scene.store.adopt_balances("alice", "operator", scene.NOW) is EventResult.DUPLICATE
    assert await scene.store.adopt_balances("nobody", "operator", scene.NOW) is EventResult.UNKNOWN_USER
    outside.write_balance("alice", "credits", 130)
    outside.write_balance("alice", "creditsNew", 60)
    event = Event((credit(scene, "alice", "credits", 5),))
    assert await scene.store.apply_event(event, scene.NOW) is EventResult.PARKED

    assert await scene.store.adopt_balances("alice", "operator", scene.NOW) is EventResult.DONE

    await scene.sound()
    assert (await scene.balance("alice"), await scene.balance("alice", "creditsNew")) == (130, 60)
    assert (await scene.store.account("alice")).parked is None
    adopted = [(row.type, row.pool, row.amount_pico) for row in await scene.store.transactions("alice", 2)]
    assert sorted(adopted) == [("adjustment", "credits", 30), ("adjustment", "creditsNew", -40)]
    assert await scene.store.apply_event(event, scene.NOW) is EventResult.DONE
    assert await scene.store.adopt_balances("alice", "operator", scene.NOW) is EventResult.DUPLICATE


async def test_S18_a_foreign_write_put_right_outside_ends_the_parking(scene, outside):
    await scene.user("alice", usd=1)
    outside.park("alice", "a balance was written from outside")
    assert await scene.store.adopt_balances("alice", "operator", scene.NOW) is EventResult.DONE
    assert (await scene.store.account("alice")).parked is None
    await scene.sound()


async def test_M2_a_foreign_write_below_what_is_leased_is_not_adopted(scene, outside):
    await scene.user("alice")
    await scene.credit("alice", 100)
    await scene.journal()
    await scene.lease("alice", 60)
    outside.write_balance("alice", "credits", 50)
    assert await scene.store.adopt_balances("alice", "operator", scene.NOW) is EventResult.SHORT
    assert (await scene.store.account("alice")).balances["credits"] == 50
    await scene.store.end_journal(scene.J, "lost")
    assert await scene.store.adopt_balances("alice", "operator", scene.NOW) is EventResult.DONE
    await scene.sound()


async def test_hole_53_a_disabled_user_can_be_credited_and_refunded(scene):
    await scene.user("alice", usd=1)
    await scene.store.set_user_active("alice", False, "test", scene.NOW)
    assert await apply(scene, credit(scene, "alice", "credits", 5)) is EventResult.DONE
    assert await apply(scene, scene.row("alice", "refund", "credits", -5)) is EventResult.DONE


async def test_workers_are_told_of_every_event(scene):
    await scene.user("alice")
    before = (await scene.store.changes_after(0, 100))[-1].number
    await apply(scene, credit(scene, "alice", "credits", 5))
    (change,) = await scene.store.changes_after(before, 100)
    assert (change.kind, change.subject) == ("user", "alice")


@pytest.mark.parametrize(
    "change",
    [
        {"type_": "spent", "amount": -5},
        {"type_": "written_off", "amount": 5},
        {"type_": "gift", "amount": 5},
        {"pool": "gold"},
        {"type_": "transfer_out", "amount": 5},
        {"type_": "earned_bonus", "amount": -5},
        {"lots": ()},
        {"lots": (LotAmount("1" * 24, "credits", 4),)},
        {"lots": (LotAmount("1" * 24, "refCredits", 5),)},
        {"amount": 2**63, "lots": (LotAmount("1" * 24, "credits", 2**63),)},
    ],
)
async def test_rows_that_cannot_be_booked_are_refused(scene, change):
    await scene.user("alice")
    wanted = {"type_": "earned_purchase", "pool": "credits", "amount": 5} | change
    lots = wanted.pop("lots", (LotAmount("1" * 24, wanted["pool"], wanted["amount"]),))
    row = scene.row("alice", wanted["type_"], wanted["pool"], wanted["amount"], lots)
    with pytest.raises(InvariantBrokenError):
        await apply(scene, row)
    await scene.sound()
    assert await scene.store.transactions("alice", 5) == []


async def test_an_event_has_rows_and_none_of_them_twice(scene):
    await scene.user("alice")
    row = credit(scene, "alice", "credits", 5)
    for rows in ((), (row, row)):
        with pytest.raises(InvariantBrokenError, match="no row twice"):
            await apply(scene, *rows)


async def test_a_lot_belongs_to_one_pool_for_ever(scene):
    await scene.user("alice")
    part = await scene.credit("alice", 5)
    with pytest.raises(InvariantBrokenError, match="cannot be stored"):
        await apply(scene, credit(scene, "alice", "refCredits", 5, lot=part.lot))


async def test_a_balance_beyond_what_the_store_holds_is_refused_whole(scene):
    await scene.user("alice")
    await scene.credit("alice", 2**62)
    with pytest.raises(InvariantBrokenError, match="cannot be stored"):
        await apply(scene, credit(scene, "alice", "credits", 2**62))
    assert await scene.balance("alice") == 2**62


async def test_rows_of_one_type_are_paged_by_themselves(scene):
    await scene.user("alice")
    for number in range(3):
        await apply(scene, credit(scene, "alice", "credits", 5, reference=f"p{number}:x"))
        await apply(scene, scene.row("alice", "adjustment", "credits", -1, reference=f"a{number}"))
    rows = await scene.store.transactions("alice", 2, kind="earned_purchase")
    assert [row.reference for row in rows] == ["p2:x", "p1:x"]
    (last,) = await scene.store.transactions("alice", 2, rows[-1].id, kind="earned_purchase")
    assert last.reference == "p0:x"
