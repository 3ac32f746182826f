"""Leases: granted once, returned once, fenced after a doubt; nothing late or old changes anything (MONEY
section 6).
"""

import asyncio

import pytest

from farebox.base import limits
from farebox.base.errors import StoreRefusedError
from farebox.base.records import LotAmount
from farebox.store.base import Booked, Change, Event


async def grant(scene, op=0, need=1, want=1, journal=None, epoch=1, wallet="ohmygpt", user="alice", now=None):
    return await scene.store.grant(user, wallet, journal or scene.J, epoch, op, need, want, now or scene.NOW)


async def test_M2_a_grant_sets_money_of_lots_aside(scene):
    await scene.user("alice")
    part = await scene.credit("alice", 100, expires=scene.NOW + 5000)
    await scene.journal()
    answer = await grant(scene, need=10, want=60)
    assert answer.reason == ""
    assert answer.op == 1
    assert answer.added == ((LotAmount(part.lot, "credits", 60), scene.NOW + 5000),)
    assert (answer.remaining_pico, answer.available_pico) == (100, 40)
    account = await scene.store.account("alice")
    assert account.lots[0].leased_pico == 60
    assert dict(account.leases[scene.J].lots) == {part.lot: 60}
    await scene.sound()


async def test_earliest_expiry_and_wallet_order_are_spent_first(scene):
    await scene.user("alice")
    late = await scene.credit("alice", 50, expires=scene.NOW + 9000)
    soon = await scene.credit("alice", 50, expires=scene.NOW + 1000)
    bonus = await scene.credit("alice", 50, "refCredits")
    await scene.journal()
    answer = await grant(scene, need=120, want=120)
    assert [part for part, _ in answer.added] == [soon, late, bonus._replace(amount_pico=20)]


async def test_a_second_grant_adds_to_the_lease(scene):
    await scene.user("alice", usd=1)
    await scene.journal()
    await grant(scene, need=10, want=10)
    answer = await grant(scene, op=1, need=10, want=10)
    assert answer.op == 2
    assert await scene.leased("alice") == 20
    await scene.sound()


async def test_a_grant_below_its_need_grants_nothing(scene):
    await scene.user("alice")
    await scene.credit("alice", 100)
    await scene.journal()
    answer = await grant(scene, need=101, want=200)
    assert (answer.reason, answer.added, answer.op) == ("short", (), 0)
    assert (answer.remaining_pico, answer.available_pico) == (100, 100)
    assert await scene.leased("alice") == 0


async def test_when_money_is_scarce_the_rest_is_granted(scene):
    await scene.user("alice")
    await scene.credit("alice", 100)
    await scene.journal()
    answer = await grant(scene, need=50, want=1000)
    assert sum(part.amount_pico for part, _ in answer.added) == 100
    assert answer.available_pico == 0


async def test_why_nothing_is_granted(scene, outside):
    await scene.user("alice")
    await scene.journal()
    assert (await grant(scene, user="nobody")).reason == "unknown"
    assert (await grant(scene)).reason == "short"
    await scene.credit("alice", 5, expires=scene.NOW + 10)
    assert (await grant(scene, now=scene.NOW + 10)).reason == "expired"
    await scene.store.set_user_active("alice", False, "test", scene.NOW)
    assert (await grant(scene)).reason == "inactive"
    outside.park("alice", "because")
    assert (await grant(scene)).reason == "parked"


async def test_M10_with_too_many_exchanges_in_quarantine_no_more_is_granted(scene, monkeypatch):
    await scene.user("alice", usd=1)
    await scene.journal()
    (part,) = await scene.lease("alice", 50)
    monkeypatch.setattr(limits, "quarantined_per_user_max", 1)
    assert (await grant(scene, op=1)).reason == ""
    await scene.book(scene.settlement("alice", 0, (part,), quarantine="no price"))
    assert (await grant(scene, op=2)).reason == "quarantined"


async def test_S18_no_grant_on_a_balance_written_from_outside(scene, outside):
    await scene.user("alice", usd=1)
    await scene.journal()
    outside.write_balance("alice", "credits", 7)
    assert (await grant(scene)).reason == "parked"
    assert "outside" in (await scene.store.account("alice")).parked


async def test_claims_lower_what_can_be_granted(scene, outside):
    await scene.user("alice")
    part = await scene.credit("alice", 100)
    await scene.journal()
    outside.add_claim("alice", "r1", "credits", None, 70)
    assert (await grant(scene, need=31, want=31)).reason == "short"
    outside.add_claim("alice", "r1", "credits", part.lot, 70)
    answer = await grant(scene, need=30, want=100)
    assert sum(part.amount_pico for part, _ in answer.added) == 30
    assert (await scene.store.account("alice")).claims[0].lot == part.lot


async def test_a_return_frees_the_money_once(scene):
    await scene.user("alice", usd=1)
    await scene.journal()
    (part,) = await scene.lease("alice", 50)
    assert (
        await scene.store.give_back("alice", scene.J, 1, 1, [part._replace(amount_pico=20)], scene.NOW) == 2
    )
    assert await scene.leased("alice") == 30
    assert (
        await scene.store.give_back("alice", scene.J, 1, 1, [part._replace(amount_pico=20)], scene.NOW)
        is None
    )
    assert await scene.leased("alice") == 30
    await scene.sound()


@pytest.mark.parametrize("wrong", ["amount", "sum", "negative", "lot", "owner", "user", "journal"])
async def test_a_return_that_does_not_match_changes_nothing(scene, wrong):
    await scene.user("alice", usd=1)
    await scene.user("bob", usd=1)
    await scene.journal()
    await scene.journal(scene.K)
    (part,) = await scene.lease("alice", 50)
    parts = {
        "amount": [part._replace(amount_pico=51)],
        "sum": [part._replace(amount_pico=30), part._replace(amount_pico=30)],
        "negative": [part._replace(amount_pico=-1)],
        "lot": [part._replace(lot="e" * 24)],
    }.get(wrong, [part])
    user = "bob" if wrong == "user" else "alice"
    journal = scene.K if wrong == "journal" else scene.J
    epoch = 2 if wrong == "owner" else 1
    assert await scene.store.give_back(user, journal, epoch, 1, parts, scene.NOW) is None
    assert await scene.leased("alice") == 50
    await scene.sound()


async def test_an_empty_part_of_a_return_hinders_nothing(scene):
    await scene.user("alice", usd=1)
    await scene.journal()
    (part,) = await scene.lease("alice", 50)
    parts = [part._replace(lot="f" * 24, amount_pico=0), part]
    assert await scene.store.give_back("alice", scene.J, 1, 1, parts, scene.NOW) == 2
    assert await scene.leased("alice") == 0
    await scene.sound()


async def test_hole_10_a_delayed_return_or_grant_does_not_land_after_a_fence(scene):
    await scene.user("alice", usd=1)
    await scene.journal()
    (part,) = await scene.lease("alice", 50)
    fenced = await scene.store.fence("alice", scene.J, 1, [], scene.NOW)
    assert fenced.op == 2
    assert await scene.store.give_back("alice", scene.J, 1, 1, [part], scene.NOW) is None
    assert (await grant(scene, op=1, need=5, want=5)).reason == "stale"
    assert await scene.leased("alice") == 50


async def test_a_fence_reads_lease_and_booked_exchanges_in_one_snapshot(scene):
    await scene.user("alice")
    await scene.credit("alice", 1000, expires=scene.NOW + 99)
    await scene.journal()
    (part,) = await scene.lease("alice", 500)
    booked = scene.settlement("alice", 100, (part._replace(amount_pico=100),))
    held = scene.settlement("alice", 0, (part._replace(amount_pico=50),), quarantine="unpriced")
    assert await scene.book(booked, held) == [Booked.BOOKED, Booked.PARKED]
    fenced = await scene.store.fence(
        "alice", scene.J, 1, [booked.exchange, held.exchange, "f" * 32], scene.NOW
    )
    assert fenced.lots == ((part._replace(amount_pico=350), scene.NOW + 99),)
    assert fenced.booked == {booked.exchange, held.exchange}
    assert not fenced.dead


async def test_a_fence_creates_the_entry_and_knows_its_users(scene):
    await scene.user("alice", usd=1)
    await scene.journal()
    assert await scene.store.fence("nobody", scene.J, 1, [], scene.NOW) is None
    fenced = await scene.store.fence("alice", scene.J, 1, [], scene.NOW)
    assert (fenced.op, fenced.lots) == (1, ())
    assert (await grant(scene, op=0)).reason == "stale"
    assert (await grant(scene, op=1)).reason == ""


async def test_hole_52_a_delayed_grant_of_the_old_epoch_does_not_land_after_recovery(scene):
    await scene.user("alice", usd=1)
    await scene.journal()
    await scene.journal(epoch=2)
    late = await grant(scene, op=0, epoch=1, need=50, want=50)
    assert late.reason == "stale"
    assert await scene.leased("alice") == 0
    assert (await scene.store.fence("alice", scene.J, 2, [], scene.NOW)).op == 1
    assert (await grant(scene, op=1, epoch=2, need=50, want=50)).reason == ""


async def test_an_entry_of_the_old_epoch_is_taken_over_by_a_fence(scene):
    await scene.user("alice", usd=1)
    await scene.journal()
    (part,) = await scene.lease("alice", 50)
    await scene.journal(epoch=2)
    assert (await grant(scene, op=1, epoch=2)).reason == "stale"
    with pytest.raises(StoreRefusedError, match="epoch 1 is over"):
        await scene.store.fence("alice", scene.J, 1, [], scene.NOW)
    fenced = await scene.store.fence("alice", scene.J, 2, [], scene.NOW)
    assert fenced.lots == ((part, None),)
    assert await scene.store.give_back("alice", scene.J, 2, fenced.op, [part], scene.NOW) == fenced.op + 1


async def test_M2_money_leased_by_one_journal_is_not_granted_to_another(scene):
    await scene.user("alice")
    await scene.credit("alice", 100)
    await scene.journal()
    await scene.journal(scene.K)
    await grant(scene, need=60, want=60)
    answer = await grant(scene, journal=scene.K, need=10, want=60)
    assert sum(part.amount_pico for part, _ in answer.added) == 40
    await scene.sound()


async def test_hole_56_a_lease_is_ended_with_what_it_holds_now(scene):
    await scene.user("alice", usd=1)
    await scene.journal()
    (part,) = await scene.lease("alice", 500)
    await scene.book(scene.settlement("alice", 100, (part._replace(amount_pico=100),)))
    await scene.store.end_journal(scene.J, "lost")
    account = await scene.store.account("alice")
    assert account.lots[0].leased_pico == 0
    assert account.leases[scene.J].dead
    assert account.leases[scene.J].lots == {}
    await scene.sound()


async def test_a_dead_lease_serves_nothing_until_its_next_epoch(scene):
    await scene.user("alice", usd=1)
    await scene.journal()
    (part,) = await scene.lease("alice", 500)
    await scene.store.end_journal(scene.J, "lost")
    assert (await grant(scene, op=2)).reason == "stale"
    assert await scene.store.give_back("alice", scene.J, 1, 2, [part], scene.NOW) is None
    with pytest.raises(StoreRefusedError):
        await scene.store.fence("alice", scene.J, 1, [], scene.NOW)
    await scene.journal(epoch=2)
    entry = (await scene.store.account("alice")).leases[scene.J]
    assert (entry.dead, entry.owner_epoch, dict(entry.lots)) == (False, 2, {})
    assert (await grant(scene, op=entry.op, epoch=2)).reason == ""
    await scene.sound()


async def test_wants_are_kept_once_told_each_time_and_cleared(scene):
    await scene.user("alice", usd=1)
    start = (await scene.store.changes_after(0, 100))[-1].number
    await scene.store.want("alice", scene.J, True)
    await scene.store.want("alice", scene.J, True)
    await scene.store.want("nobody", scene.J, True)
    assert (await scene.store.account("alice")).wants == {scene.J}
    told = await scene.store.changes_after(start, 100)
    assert told == [Change(start + number, "want", "alice", scene.J) for number in (1, 2)]
    await scene.store.want("alice", scene.J, False)
    assert (await scene.store.account("alice")).wants == frozenset()


async def test_recovery_is_told_who_has_money_on_lease(scene):
    await scene.user("alice", usd=1)
    await scene.user("bob", usd=1)
    await scene.user("carol", usd=1)
    await scene.journal()
    await scene.lease("bob", 5)
    (part,) = await scene.lease("alice", 5)
    assert await scene.store.leases_of(scene.J) == ["alice", "bob"]
    await scene.store.give_back("alice", scene.J, 1, 1, [part], scene.NOW)
    assert await scene.store.leases_of(scene.J) == ["bob"]
    assert await scene.store.leases_of(scene.K) == []


async def test_hole_39_a_busy_users_bookings_starve_no_grant(scene):
    await scene.user("alice", usd=1)
    await scene.journal()
    await scene.journal(scene.K)
    (part,) = await scene.lease("alice", 10_000)

    async def book() -> None:
        for _ in range(20):
            record = scene.settlement("alice", 5, (part._replace(amount_pico=5),))
            assert await scene.store.book(scene.J, 1, [record], scene.NOW) == [Booked.BOOKED]

    async def grants() -> list[str]:
        return [(await grant(scene, op=op, need=7, want=7, journal=scene.K)).reason for op in range(20)]

    _, reasons = await asyncio.gather(book(), grants())
    assert reasons == [""] * 20
    await scene.sound()


async def test_hole_44_a_journal_of_any_name_is_no_part_of_a_path_and_a_retired_one_leaves_nothing(scene):
    await scene.user("alice", usd=1)
    await scene.store.claim_epoch(scene.J, 1, "db-1.example.com$x", scene.NOW)
    await scene.lease("alice", 5)
    assert set((await scene.store.account("alice")).leases) == {scene.J}
    await scene.store.end_journal(scene.J, "retired")
    assert (await scene.store.account("alice")).leases == {}


async def test_hole_45_what_must_be_unique_is_unique_for_its_user(scene):
    for user in ("alice", "bob"):
        await scene.user(user)
        await scene.store.apply_event(
            Event(
                (scene.row(user, "earned_bonus", "credits", 5, (LotAmount("1" * 24, "credits", 5),), "p1"),)
            ),
            scene.NOW,
        )
        (row,) = await scene.store.transactions(user, 9)
        assert row.id == f"{user}:earned_bonus:p1:credits"
    await scene.sound()
