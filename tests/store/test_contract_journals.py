"""Journals: an epoch has one owner, positions only rise, and an ended journal leaves no money behind."""

import pytest

from farebox.base import limits
from farebox.base.errors import InvariantBrokenError, StoreRefusedError
from farebox.store.base import Booked, JournalState


async def test_epochs_are_claimed_one_after_the_other(scene):
    first = await scene.store.claim_epoch(scene.J, 1, "host", 100)
    assert first == JournalState(scene.J, 1, 0, 0, "live", "host", 100)
    second = await scene.store.claim_epoch(scene.J, 2, "host2", 200)
    assert second == JournalState(scene.J, 2, 0, 0, "live", "host2", 200)
    assert await scene.store.journal_states() == [second]


async def test_a_claim_asked_again_is_answered_alike(scene):
    first = await scene.store.claim_epoch(scene.J, 1, "host", 100)
    assert await scene.store.claim_epoch(scene.J, 1, "host", 100) == first


@pytest.mark.parametrize(("epoch", "says"), [(1, "clone"), (2, "clone"), (4, "backup"), (9, "backup")])
async def test_S17_a_copy_or_a_restored_store_is_refused(scene, epoch, says):
    await scene.store.claim_epoch(scene.J, 1, "host", 100)
    await scene.store.claim_epoch(scene.J, 2, "host", 100)
    with pytest.raises(StoreRefusedError, match=says):
        await scene.store.claim_epoch(scene.J, epoch, "host", 101)
    assert (await scene.store.journal_states())[0].epoch == 2


async def test_S17_hole_22_a_store_that_never_saw_the_journal_is_refused(scene):
    with pytest.raises(StoreRefusedError, match="backup"):
        await scene.store.claim_epoch(scene.J, 3, "host", 100)
    assert await scene.store.journal_states() == []


async def test_a_beat_counts_for_the_live_epoch_alone(scene):
    await scene.journal()
    assert await scene.store.beat(scene.J, 1, 500)
    assert (await scene.store.journal_states())[0].beat_ms == 500
    assert not await scene.store.beat(scene.J, 2, 600)
    assert not await scene.store.beat(scene.K, 1, 600)
    await scene.store.end_journal(scene.J, "lost")
    assert not await scene.store.beat(scene.J, 1, 700)
    assert (await scene.store.journal_states())[0].beat_ms == 500


async def test_S13_applied_only_rises_and_only_for_its_epoch(scene):
    await scene.journal()
    await scene.store.advance_applied(scene.J, 1, 50)
    await scene.store.advance_applied(scene.J, 1, 40)
    await scene.store.advance_applied(scene.J, 2, 90)
    assert (await scene.store.journal_states())[0].applied == 50


@pytest.mark.parametrize("ended", ["retired", "lost"])
async def test_M1_the_end_of_a_journal_returns_its_leases(scene, ended):
    await scene.user("alice", usd=1)
    await scene.user("bob")
    await scene.credit("bob", 70)
    await scene.credit("bob", 30, "refCredits")
    await scene.journal()
    await scene.journal(scene.K)
    await scene.lease("alice", 50)
    await scene.lease("alice", 25, journal=scene.K)
    await scene.lease("bob", 100)
    await scene.store.want("alice", scene.J, True)

    await scene.store.end_journal(scene.J, ended)
    await scene.store.end_journal(scene.J, ended)

    assert await scene.store.leases_of(scene.J) == []
    assert await scene.leased("alice", scene.K) == 25
    alice = await scene.store.account("alice")
    assert alice.wants == frozenset()
    assert (scene.J in alice.leases) is (ended == "lost")
    states = {state.journal: state.state for state in await scene.store.journal_states()}
    assert states == {scene.J: ended, scene.K: "live"}
    told = {
        (change.kind, change.subject, change.journal) for change in await scene.store.changes_after(0, 99)
    }
    assert ("fence", "bob", scene.J) in told
    await scene.sound()


async def test_M10_a_journal_that_leases_of_many_users_ends_page_by_page(scene, monkeypatch):
    monkeypatch.setattr(limits, "users_per_transaction_max", 2)
    await scene.journal()
    users = [await scene.user(f"user{number}", usd=1) for number in range(5)]
    for user in users:
        await scene.lease(user, 50)
    (spent,) = await scene.lease("user0", 10)
    await scene.book(scene.settlement("user0", 60, (spent._replace(amount_pico=60),)))
    await scene.store.end_journal(scene.J, "lost")
    assert [await scene.leased(user) for user in users] == [0] * 5
    assert [state.state for state in await scene.store.journal_states()] == ["lost"]
    await scene.sound()


async def _beats(scene):
    assert await scene.store.beat(scene.J, 1, scene.NOW + 5000)


async def _begins_anew(scene):
    await scene.store.claim_epoch(scene.J, 2, "host", scene.NOW)


async def _is_retired(scene):
    await scene.store.end_journal(scene.J, "retired")


@pytest.mark.parametrize("meanwhile", [_beats, _begins_anew, _is_retired])
async def test_M2_a_journal_that_came_back_meanwhile_is_not_given_up(scene, meanwhile):
    await scene.user("alice", usd=1)
    await scene.journal()
    await scene.lease("alice", 50)
    (seen,) = await scene.store.journal_states()
    await meanwhile(scene)
    (after,) = await scene.store.journal_states()
    assert not await scene.store.end_journal(scene.J, "lost", seen)
    assert await scene.store.journal_states() == [after]
    assert await scene.leased("alice") == (0 if meanwhile is _is_retired else 50)
    await scene.sound()


@pytest.mark.parametrize("users", [1, 5])
async def test_M2_a_journal_that_is_silent_as_it_was_seen_is_given_up(scene, users, monkeypatch):
    monkeypatch.setattr(limits, "users_per_transaction_max", 2)
    await scene.journal()
    for number in range(users):
        await scene.user(f"user{number}", usd=1)
        await scene.lease(f"user{number}", 50)
    (seen,) = await scene.store.journal_states()
    assert await scene.store.end_journal(scene.J, "lost", seen)
    assert [state.state for state in await scene.store.journal_states()] == ["lost"]
    assert [await scene.leased(f"user{number}") for number in range(users)] == [0] * users
    await scene.sound()


async def test_a_journal_ends_in_a_known_way(scene):
    await scene.journal()
    with pytest.raises(InvariantBrokenError, match="paused"):
        await scene.store.end_journal(scene.J, "paused")


async def test_hole_01_a_new_journal_id_starts_at_zero_and_books_everything(scene):
    await scene.user("alice", usd=1)
    await scene.journal()
    await scene.store.advance_applied(scene.J, 1, 1000)
    state = await scene.store.claim_epoch(scene.K, 1, "host", 5)
    assert (state.applied, state.rolled) == (0, 0)
    (part,) = await scene.lease("alice", 50, journal=scene.K)
    assert await scene.book(scene.settlement("alice", 50, (part,)), journal=scene.K) == [Booked.BOOKED]
