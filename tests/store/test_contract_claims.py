"""Claims: a debit that meets leased money takes what is there, is granted nothing meanwhile, and ends."""

import dataclasses

import pytest

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import Claim, LotAmount
from farebox.ledger.settlement import expiry_rows
from farebox.store.base import Event, EventResult


def claim(amount=50, reference="c1", lot=None, **more):
    return Claim(reference, "credits", lot, amount, **more)


async def claims_of(scene, user="alice"):
    return (await scene.store.account(user)).claims


async def refund(scene, amount, lots=(), reference="r1", now=None):
    row = scene.row("alice", "refund", "credits", -amount, lots, reference)
    result = await scene.store.apply_event(Event((row,), claims=True), now or scene.NOW)
    await scene.sound()
    return result


async def collect(scene, reference="r1", now=None):
    asked = await scene.store.collect("alice", reference, now or scene.NOW)
    await scene.sound()
    return asked


async def grant(scene, need, want=None, journal=None, op=0):
    return await scene.store.grant(
        "alice", "ohmygpt", journal or scene.J, 1, op, need, want or need, scene.NOW
    )


async def give_back(scene, part, op):
    assert await scene.store.give_back("alice", scene.J, 1, op, [part], scene.NOW) == op + 1


async def leased(scene, left, amount, **more):
    """Alice with one lot of `left`, `amount` of it leased."""
    await scene.user("alice")
    lot = await scene.credit("alice", left, **more)
    await scene.journal()
    (part,) = await scene.lease("alice", amount)
    return lot, part


async def test_hole_16_a_claim_lowers_what_is_granted_at_once_and_recalls_the_leases(scene):
    await leased(scene, 100, 60)
    before = (await scene.store.changes_after(0, 100))[-1].number
    assert await scene.store.set_claim("alice", claim(70))
    assert (await grant(scene, 1, op=1)).reason == "short"
    assert (await grant(scene, 1, op=1)).available_pico == -30
    (change,) = await scene.store.changes_after(before, 100)
    assert (change.kind, change.subject, change.journal) == ("want", "alice", "")
    assert await scene.store.claims(9) == [("alice", claim(70))]
    await scene.store.drop_claim("alice", "c1")
    await scene.store.drop_claim("alice", "c1")
    assert (await grant(scene, 40, op=1)).reason == ""
    assert await scene.store.claims(9) == []


async def test_claims_are_found_page_by_page(scene):
    for user in ("bob", "alice"):
        await scene.user(user, usd=1)
        for reference in ("c2", "c1"):
            assert await scene.store.set_claim(user, claim(5, reference))
    pages = [[(user, one.reference) for user, one in await scene.store.claims(3)]]
    pages.append([(user, one.reference) for user, one in await scene.store.claims(3, pages[0][-1])])
    assert pages == [[("alice", "c1"), ("alice", "c2"), ("bob", "c1")], [("bob", "c2")]]
    assert await scene.store.claims(3, pages[1][-1]) == []


async def test_a_claim_that_only_meets_what_expires_moves_the_account_on(scene):
    await scene.user("alice")
    await scene.credit("alice", 100, expires=scene.NOW + 10)
    before = (await scene.store.account("alice")).rev
    assert await scene.store.set_claim("alice", claim(70, "c1", type="refund"))
    set_at = (await scene.store.account("alice")).rev
    assert await scene.store.collect("alice", "c1", scene.NOW + 20) == 70
    assert await scene.balance("alice") == 0
    assert before < set_at < (await scene.store.account("alice")).rev


async def test_hole_16_a_transfer_that_claimed_takes_the_money_as_it_comes_back(scene):
    _, part = await leased(scene, 100, 60)
    await scene.user("bob")
    lot = LotAmount(scene.fresh(), "credits", 50)
    out = scene.row("alice", "transfer_out", "credits", -50, reference="t1")
    event = Event((out, scene.row("bob", "transfer_in", "credits", 50, (lot,), "t1")))
    assert await scene.store.apply_event(event, scene.NOW) is EventResult.SHORT
    assert await scene.store.set_claim("alice", claim(50, "t1"))
    await give_back(scene, part._replace(amount_pico=20), 1)
    assert (await grant(scene, 20, op=2)).reason == "short"
    assert await collect(scene, "t1") == 50
    assert await scene.store.apply_event(event, scene.NOW) is EventResult.DONE
    assert await claims_of(scene) == ()
    assert await collect(scene, "t1") is None
    assert (await scene.balance("alice"), await scene.balance("bob")) == (50, 50)
    await scene.sound()


async def test_a_claim_of_a_reference_is_set_once_and_of_one_debit(scene):
    await scene.user("alice", usd=1)
    assert not await scene.store.set_claim("nobody", claim())
    assert await scene.store.set_claim("alice", claim(50, since_ms=5))
    assert await scene.store.set_claim("alice", claim(60))
    assert await claims_of(scene) == (claim(50, since_ms=5),)
    with pytest.raises(InvariantBrokenError, match="another debit"):
        await scene.store.set_claim("alice", claim(50, type="refund"))
    with pytest.raises(InvariantBrokenError, match="another debit"):
        await refund(scene, 2 * scene.USD, reference="c1")
    with pytest.raises(InvariantBrokenError, match="asks for nothing"):
        await scene.store.set_claim("alice", claim(0))
    assert await scene.balance("alice") == scene.USD
    assert await claims_of(scene) == (claim(50, since_ms=5),)


async def test_hole_51_a_claim_on_a_lot_blocks_grants_of_that_lot_only(scene):
    lot, _ = await leased(scene, 100, 60)
    await scene.credit("alice", 30)
    assert await refund(scene, 100, (lot,)) is EventResult.DONE
    assert await scene.balance("alice") == 90
    answer = await grant(scene, 30, 99, op=1)
    assert [part.amount_pico for part, _ in answer.added] == [30]
    assert (await grant(scene, 1, op=2)).reason == "short"


async def test_hole_16_a_refund_ends_with_what_there_was_once_nobody_leases_its_lot(scene):
    lot, part = await leased(scene, 100, 60)
    assert await refund(scene, 100, (lot,)) is EventResult.DONE
    assert await refund(scene, 100, (lot,)) is EventResult.DUPLICATE
    assert await scene.balance("alice") == 60
    assert await collect(scene) == 60
    await give_back(scene, part._replace(amount_pico=25), 1)
    assert await collect(scene) == 35
    await scene.book(scene.settlement("alice", 20, (part._replace(amount_pico=20),)))
    assert await collect(scene) == 35
    await give_back(scene, part._replace(amount_pico=15), 2)
    assert await collect(scene) is None
    assert await scene.balance("alice") == 0
    assert await claims_of(scene) == ()
    rows = [row for row in await scene.store.transactions("alice", 9) if row.type == "refund"]
    assert [row.amount_pico for row in rows] == [-15, -25, -40]
    assert {row.reference.partition(":")[0] for row in rows} == {"r1"}
    assert rows[-1].charge == {"asked_pico": 100}
    assert await refund(scene, 100, (lot,)) is EventResult.DUPLICATE
    with pytest.raises(InvariantBrokenError, match="other content"):
        await refund(scene, 99, (lot._replace(amount_pico=99),))


async def test_hole_51_a_frozen_lot_is_open_to_its_own_debit_and_to_nobody_else(scene):
    lot, part = await leased(scene, 100, 60)
    assert await scene.store.set_claim("alice", claim(100, "frozen", lot.lot))
    assert await refund(scene, 30, reference="debt") is EventResult.DONE
    assert await scene.balance("alice") == 100
    assert await refund(scene, 100, (lot,)) is EventResult.DONE
    assert await scene.balance("alice") == 60
    await give_back(scene, part, 1)
    assert (await grant(scene, 1, op=2)).reason == "short"
    assert await collect(scene, "debt") == 30
    assert await collect(scene) is None
    assert await scene.balance("alice") == 0
    assert {one.reference for one in await claims_of(scene)} == {"debt", "frozen"}


async def test_hole_16_a_disputes_rest_stays_as_debt_and_takes_the_next_purchase(scene):
    await scene.user("alice")
    await scene.journal()
    await scene.credit("alice", 30)
    assert await refund(scene, 100) is EventResult.DONE
    assert await scene.balance("alice") == 0
    assert await collect(scene) == 70
    await scene.credit("alice", 50)
    assert (await grant(scene, 1)).reason == "short"
    assert await collect(scene) == 20
    await scene.credit("alice", 50)
    assert (await grant(scene, 30)).reason == ""
    assert await collect(scene) is None
    assert await scene.balance("alice") == 30


async def test_a_debit_that_is_covered_leaves_no_claim(scene):
    await scene.user("alice", usd=1)
    assert await refund(scene, 100) is EventResult.DONE
    assert await claims_of(scene) == ()
    assert await scene.balance("alice") == scene.USD - 100


async def test_hole_51_two_collectors_do_not_wait_for_each_other(scene):
    _, part = await leased(scene, 100, 100)
    for reference in ("r2", "r1"):
        await refund(scene, 60, reference=reference, now=scene.NOW + (reference == "r1"))
    await give_back(scene, part, 1)
    assert await collect(scene, "r1") == 20
    assert await collect(scene, "r2") is None
    assert await collect(scene, "r1") == 20
    assert await scene.balance("alice") == 0


async def test_hole_51_a_dead_collectors_claim_ends(scene):
    await leased(scene, 100, 60)
    await scene.store.set_claim("alice", claim(70, ends_ms=scene.NOW + 5))
    assert await collect(scene, "c1") == 70
    before = (await scene.store.changes_after(0, 100))[-1].number
    assert await collect(scene, "c1", scene.NOW + 4) == 70
    (recalled,) = await scene.store.changes_after(before, 100)
    assert recalled.kind == "want"
    assert await collect(scene, "c1", scene.NOW + 5) is None
    assert await claims_of(scene) == ()
    assert await scene.store.collect("nobody", "c1", scene.NOW) is None


async def test_hole_17_a_claim_takes_no_expired_money(scene):
    lot, part = await leased(scene, 100, 60, expires=scene.NOW + 10)
    await refund(scene, 100, (lot,))
    later = scene.NOW + 10
    await give_back(scene, part, 1)
    assert await collect(scene, now=later) is None
    kinds = [(row.type, row.amount_pico) for row in await scene.store.transactions("alice", 2)]
    assert kinds == [("expired", -60), ("refund", -40)]


async def test_M2_a_named_debit_leaves_what_others_claim(scene):
    await scene.user("alice")
    lot = await scene.credit("alice", 100)
    old = await scene.credit("alice", 100, expires=scene.NOW + 10)
    await scene.store.set_claim("alice", claim(70, lot=lot.lot))
    row = scene.row("alice", "adjustment", "credits", -40, (lot._replace(amount_pico=40),))
    assert await scene.store.apply_event(Event((row,)), scene.NOW) is EventResult.SHORT
    await scene.store.set_claim("alice", claim(100, "c2"))
    row = scene.row("alice", "adjustment", "credits", -40, (old._replace(amount_pico=40),))
    assert await scene.store.apply_event(Event((row,)), scene.NOW) is EventResult.SHORT
    due = expiry_rows(await scene.store.account("alice"), scene.NOW + 10)
    assert await scene.store.apply_event(Event(due), scene.NOW + 10) is EventResult.DONE
    assert await scene.balance("alice") == 100
    await scene.sound()


async def test_a_parked_account_is_collected_from_by_nobody(scene, outside):
    await scene.user("alice")
    await refund(scene, 40)
    await scene.credit("alice", 100)
    outside.park("alice", "because")
    assert await collect(scene) == 40
    outside.park("alice", None)
    assert await collect(scene) is None
    assert await scene.balance("alice") == 60


async def test_only_a_debit_of_one_lot_or_of_its_pool_can_claim(scene):
    await scene.user("alice")
    parts = (await scene.credit("alice", 5), await scene.credit("alice", 5))
    row = scene.row("alice", "refund", "credits", -10, parts)
    with pytest.raises(InvariantBrokenError, match="one lot, or of its pool"):
        await scene.store.apply_event(Event((row,), claims=True), scene.NOW)
    bonus = scene.row("alice", "earned_bonus", "credits", 5, (parts[0],))
    both = (bonus, dataclasses.replace(row, lots=(), amount_pico=-20))
    assert await scene.store.apply_event(Event(both, claims=True), scene.NOW) is EventResult.DONE
    assert (await claims_of(scene))[0].amount_pico == 5
    await scene.sound()
