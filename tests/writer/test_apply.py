"""The applier books each settlement once, whatever the store answers and wherever the writer dies (M1, M4,
J11-J14).
"""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from farebox.base import limits
from farebox.base.errors import (
    InvariantBrokenError,
    StoreConflictError,
    StoreDownError,
    StoreRefusedError,
    StoreUnknownError,
)
from farebox.base.ids import position
from farebox.base.records import Settlement
from farebox.writer.apply import JournalApplier
from farebox.writer.dead_letter import DeadLetters

USD = 10**12


def applier_of(world: Any, store: Any, source: Any, fences: list[Any] | None = None) -> JournalApplier:
    letters = DeadLetters(world.path.parent / "dead_letter.jsonl")
    told = [] if fences is None else fences
    return JournalApplier(world.J, store, source, letters, lambda journal, user: told.append((journal, user)))


async def finish(world: Any, applier: JournalApplier, steps: int = 6) -> None:
    for _ in range(steps):
        await applier.step(await world.state(), world.NOW)


async def three_users(world: Any) -> list[Any]:
    """Settlements of three users, each with a lease, interleaved."""
    for user in ("alice", "bob", "carol"):
        await world.user(user, 10)
        await world.lease(user, 5)
    users = ("alice", "bob", "alice", "carol", "bob", "alice")
    return [world.settlement(user, (index + 1) * USD // 10) for index, user in enumerate(users)]


async def test_M4_each_record_is_booked_once_logged_once_and_rolled_up_once(
    world: Any, in_memory: Any
) -> None:
    records = await three_users(world)
    applier = applier_of(world, world.store, in_memory(records))
    await finish(world, applier)
    dump = world.dump()
    assert len(dump["credit_transactions"]) == 3 + 6
    assert len(dump["request_logs"]) == 6
    assert sum(row[3] for row in dump["rollups"]) == 6
    assert dump["journals"] == [(position(1, 6), position(1, 6))]
    assert applier.applied == position(1, 6)
    assert applier.booked_count == 6
    assert await world.differences() == []


async def test_an_empty_journal_asks_nothing_of_the_store(world: Any, in_memory: Any, faulty: Any) -> None:
    store = faulty(world.store)
    applier = applier_of(world, store, in_memory([]))
    assert await applier.step(await world.state(), world.NOW) is False
    assert store.calls == []
    assert applier.oldest_unbooked_ms() is None


async def test_frames_without_a_settlement_raise_applied_alone(world: Any, in_memory: Any) -> None:
    applier = applier_of(world, world.store, in_memory([None, None]))
    await finish(world, applier)
    assert (await world.state()).applied == position(1, 2)
    assert world.dump()["request_logs"] == []


async def test_a_full_batch_says_that_there_is_more(
    world: Any, in_memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = await three_users(world)
    monkeypatch.setattr(limits, "users_per_transaction_max", 2)
    applier = applier_of(world, world.store, in_memory(records, batch=4))
    assert await applier.step(await world.state(), world.NOW) is True
    assert await applier.step(await world.state(), world.NOW) is False
    assert len(world.dump()["request_logs"]) == 6
    assert sum(row[3] for row in world.dump()["rollups"]) == 6


async def every_kill_point(
    new_world: Callable[[], Any], faulty: Any, killed: type[BaseException], run: Callable[[Any, Any], Any]
) -> tuple[Any, list[Any]]:
    """The store's content after an uninterrupted run, and after a run killed once at every call, then begun
    anew.
    """
    world = await new_world()
    store = faulty(world.store)
    await run(world, store)
    expected, calls = world.dump(), len(store.calls)
    found = []
    for index in range(calls):
        for when in ("before", "after"):
            world = await new_world()
            store = faulty(world.store)
            store.kill_at = (index, when)
            with pytest.raises(killed):
                await run(world, store)
            store.kill_at = None
            await run(world, store)
            assert await world.differences() == []
            found.append(((store.calls[index], when), world.dump()))
    return expected, found


@pytest.mark.parametrize("joint", [True, False])
async def test_J11_J12_J13_J14_killed_at_any_call_and_begun_anew_the_end_is_the_same(
    new_world: Any, faulty: Any, killed: Any, in_memory: Any, monkeypatch: pytest.MonkeyPatch, joint: bool
) -> None:
    """A late charge, a quarantined one and a refusal are among the records."""
    monkeypatch.setattr(limits, "users_per_transaction_max", 1)
    made: dict[int, list[Any]] = {}

    async def run(world: Any, store: Any) -> None:
        store.joint = joint
        if id(world) not in made:
            records = await three_users(world)
            records.append(world.settlement("bob", 20 * USD))
            records.append(world.settlement("carol", 0, takes=records[3].takes, quarantine="no price line"))
            records.append(world.settlement("alice", 0, outcome="refused", status=402, evidence="none"))
            made[id(world)] = [world, records]
        source = in_memory(made[id(world)][1], after=(await world.state()).applied)
        await finish(world, applier_of(world, store, source), 3)

    expected, found = await every_kill_point(new_world, faulty, killed, run)
    assert len(found) > 10
    for where, dump in found:
        assert dump == expected, where


@pytest.mark.parametrize("when", ["before", "after"])
async def test_S05_S11_an_unknown_outcome_is_asked_before_anything_is_repeated(
    world: Any, faulty: Any, in_memory: Any, when: str
) -> None:
    store = faulty(world.store)
    store.fail("book", 0, when, StoreUnknownError("connection cut"))
    applier = applier_of(world, store, in_memory(await three_users(world)))
    await applier.step(await world.state(), world.NOW)
    assert store.calls[:2] == ["book", "row_ids"]
    await finish(world, applier)
    assert len(world.dump()["credit_transactions"]) == 3 + 6
    assert len(world.dump()["request_logs"]) == 6
    assert await world.differences() == []


async def test_S04_an_unknown_outcome_of_one_user_waits_alone(
    world: Any, faulty: Any, in_memory: Any
) -> None:
    store = faulty(world.store)
    store.fail("book", 0, "before", StoreConflictError("busy"))
    store.fail("book", 1, "after", StoreUnknownError("no answer"))
    applier = applier_of(world, store, in_memory(await three_users(world)))
    await applier.step(await world.state(), world.NOW)
    assert applier.unbooked_count == 3
    assert applier.oldest_unbooked_ms() == world.NOW
    assert (await world.state()).applied == position(1, 1) - 1
    await finish(world, applier)
    assert applier.unbooked_count == 0
    assert (await world.state()).applied == position(1, 6)
    assert await world.differences() == []


class SlowStore:
    """A store that has no time for more than `most` records in one call."""

    def __init__(self, store: Any, most: int, error: Exception) -> None:
        self.store, self.most, self.error = store, most, error
        self.sizes: list[int] = []

    def _in_time(self, records: Any) -> None:
        self.sizes.append(len(records))
        if len(records) > self.most:
            raise self.error

    async def book(self, journal: str, epoch: int, records: Any, now_ms: int) -> Any:
        self._in_time(records)
        return await self.store.book(journal, epoch, records, now_ms)

    async def log(self, records: Any, charged: Any) -> Any:
        self._in_time(records)
        return await self.store.log(records, charged)

    async def finish(self, journal: str, epoch: int, to_log: Any, *rest: Any) -> Any:
        self._in_time(to_log)
        return await self.store.finish(journal, epoch, to_log, *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@pytest.mark.parametrize("error", [StoreDownError("no time"), StoreUnknownError("no time")], ids=repr)
@pytest.mark.parametrize("users", [1, 3])
async def test_S03_a_store_too_slow_for_a_batch_is_asked_for_less_and_caught_up_with(
    world: Any, in_memory: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, users: int
) -> None:
    monkeypatch.setattr(limits, "records_at_once_min", 2)
    names = [f"user{number}" for number in range(users)]
    for name in names:
        await world.user(name, 10)
        await world.lease(name, 5)
    records = [world.settlement(names[number % users], USD // 1000) for number in range(90)]
    store = SlowStore(world.store, 7, error)
    applier = applier_of(world, store, in_memory(records))
    for _ in range(40):
        with contextlib.suppress(StoreDownError, StoreUnknownError):
            await applier.step(await world.state(), world.NOW)
    assert max(store.sizes) > 7
    assert not applier.is_unfinished
    dump = world.dump()
    assert len(dump["credit_transactions"]) == users + 90
    assert len(dump["request_logs"]) == 90
    assert sum(row[3] for row in dump["rollups"]) == 90
    assert await world.differences() == []
    store.most = 10**6
    store.sizes.clear()
    more = [world.settlement(names[0], USD // 1000) for _ in range(60)]
    applier._source.rest = in_memory(more, after=0, epoch=2).frames
    for _ in range(3):
        await applier.step(await world.state(), world.NOW)
    assert len(world.dump()["credit_transactions"]) == users + 150
    assert max(store.sizes) > 7


async def test_S10_log_rows_that_spoil_a_call_ahead_of_the_marks_go_to_the_dead_letters(
    world: Any, in_memory: Any, faulty: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "records_per_batch_max", 2)
    records = await three_users(world)
    store = faulty(world.store)
    store.joint = True
    store.fail("log", 0, "before", ValueError("spoilt"))
    applier = applier_of(world, store, in_memory(records))
    await finish(world, applier)
    assert len(world.dump()["credit_transactions"]) == 3 + 6
    assert len(world.dump()["request_logs"]) == 4
    assert applier.dead_letters.count == 2
    assert (await world.state()).applied == position(1, 6)


async def test_hole_58_one_user_s_conflicts_hold_up_nobody_else(
    world: Any, faulty: Any, in_memory: Any
) -> None:
    records = await three_users(world)
    store = faulty(world.store)
    store.fail("book", 0, "before", StoreConflictError("busy"))
    for number in (1, 4, 7):
        store.fail("book", number, "before", StoreConflictError("alice is busy"))
    source = in_memory([*records, world.settlement("alice", USD), world.settlement("bob", USD)])
    rest, source.rest = source.rest[6:], source.rest[:6]
    applier = applier_of(world, store, source)
    await applier.step(await world.state(), world.NOW)
    assert {row[1] for row in world.dump()["request_logs"]} == {"bob", "carol"}
    source.rest = rest
    await applier.step(await world.state(), world.NOW)
    assert len([row for row in world.dump()["request_logs"] if row[1] == "bob"]) == 3
    await finish(world, applier)
    assert (await world.state()).applied == position(1, 8)
    assert len(world.dump()["request_logs"]) == 8


async def test_a_journal_full_of_waiting_records_is_read_no_further(
    world: Any, faulty: Any, in_memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "records_per_batch_max", 3)
    store = faulty(world.store)
    for number in range(8):
        store.fail("book", number, "before", StoreConflictError("busy"))
    applier = applier_of(world, store, in_memory(await three_users(world), batch=3))
    await applier.step(await world.state(), world.NOW)
    assert await applier.step(await world.state(), world.NOW) is False
    assert applier.unbooked_count == 3
    await finish(world, applier, 9)
    assert (await world.state()).applied == position(1, 6)


@pytest.mark.parametrize("method", ["log", "roll_up"])
async def test_M10_records_whose_rest_fails_are_not_heaped_up(
    world: Any, faulty: Any, in_memory: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(limits, "records_per_batch_max", 2)
    store = faulty(world.store)
    for number in range(4):
        store.fail(method, number, "before", StoreConflictError("busy"))
    source = in_memory(await three_users(world), batch=2)
    applier = applier_of(world, store, source)
    for _ in range(4):
        with pytest.raises(StoreConflictError):
            await applier.step(await world.state(), world.NOW)
    assert len(source.rest) == 4
    await finish(world, applier)
    assert len(world.dump()["request_logs"]) == 6
    assert (await world.state()).applied == position(1, 6)


@pytest.mark.parametrize("method", ["book", "log", "roll_up", "advance_applied", "finish"])
@pytest.mark.parametrize(
    ("error", "when"),
    [
        (StoreDownError, "before"),
        (StoreRefusedError, "before"),
        (StoreConflictError, "before"),
        (StoreUnknownError, "before"),
        (StoreUnknownError, "after"),
    ],
)
async def test_S02_a_store_that_fails_costs_time_and_never_the_place(
    world: Any, faulty: Any, in_memory: Any, method: str, when: str, error: type[Exception]
) -> None:
    store = faulty(world.store)
    store.joint = method == "finish"
    store.fail(method, 0, when, error("failing"))
    applier = applier_of(world, store, in_memory(await three_users(world)))
    for _ in range(4):
        try:
            await applier.step(await world.state(), world.NOW)
        except error:
            continue
    dump = world.dump()
    assert len(dump["credit_transactions"]) == 3 + 6
    assert len(dump["request_logs"]) == 6
    assert sum(row[3] for row in dump["rollups"]) == 6
    assert dump["journals"] == [(position(1, 6), position(1, 6))]


async def test_S08_the_same_record_again_is_dropped_and_logged_with_what_it_took(
    world: Any, in_memory: Any
) -> None:
    await world.user("alice", 3)
    late = world.settlement("alice", 5 * USD, takes=())
    await world.store.book(world.J, 1, [late], world.NOW)
    await finish(world, applier_of(world, world.store, in_memory([late])))
    assert [row[2:4] for row in world.dump()["request_logs"]] == [(5 * USD, 3 * USD)]


async def test_S09_other_content_under_a_booked_id_is_parked_with_an_alarm(
    world: Any, in_memory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await world.user("alice", 10)
    await world.lease("alice", 5)
    first = world.settlement("alice", USD)
    other = dataclasses.replace(
        first, amount_pico=2 * USD, takes=(first.takes[0]._replace(amount_pico=2 * USD),)
    )
    fences: list[Any] = []
    applier = applier_of(world, world.store, in_memory([first, other]), fences)
    await finish(world, applier)
    parked = await world.store.parked()
    assert [one["exchange"] for one in parked] == [first.exchange]
    assert (await world.store.account("alice")).balances["credits"] == 9 * USD
    assert applier.parked_count == 1
    assert fences == [(world.J, "alice")]
    assert "is parked" in caplog.text
    assert (await world.state()).applied == position(1, 2)


async def test_late_and_quarantined_records_fence_the_worker(world: Any, in_memory: Any) -> None:
    await world.user("alice", 3)
    await world.user("bob", 3)
    await world.lease("bob", 2)
    fences: list[Any] = []
    late = world.settlement("alice", 5 * USD)
    unsure = world.settlement(
        "bob", 0, takes=(world.lots["bob"][0]._replace(amount_pico=USD),), quarantine="why"
    )
    await finish(world, applier_of(world, world.store, in_memory([late, unsure]), fences))
    assert fences == [(world.J, "alice"), (world.J, "bob")]
    charged = {row[1]: row[3] for row in world.dump()["request_logs"]}
    assert charged == {"alice": 3 * USD, "bob": 0}
    assert await world.differences() == []


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        b"{}",
        b'["0123","alice"]',
        orjson.dumps(["e" * 32, "alice", *[None] * 26]),
        orjson.dumps([1, 2]),
        b"a record without counts",
    ],
)
async def test_J24_a_record_nobody_can_read_is_parked_and_kept(
    world: Any, in_memory: Any, payload: bytes
) -> None:
    await world.user("alice", 3)
    await world.lease("alice", 2)
    good = world.settlement("alice", USD)
    if payload == b"a record without counts":
        fields = orjson.loads(world.settlement("alice", USD).encode())
        names = [one.name for one in dataclasses.fields(Settlement)]
        fields[names.index("counts")] = None
        payload = orjson.dumps(fields)
    applier = applier_of(world, world.store, in_memory([payload, good]))
    await finish(world, applier)
    parked = await world.store.parked()
    assert len(parked) == 1
    assert "unreadable record" in str(parked[0]["reason"]) or "no such user" in str(parked[0]["reason"])
    assert (await world.store.account("alice")).balances["credits"] == 2 * USD
    assert (await world.state()).applied == position(1, 2)
    letter = orjson.loads(applier.dead_letters.path.read_bytes())
    assert letter["pos"] == position(1, 1)
    assert letter["record"][1] == ("alice" if b"alice" in payload else "")


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_pico": 2**63, "takes": ()},
        {"amount_pico": -1, "takes": ()},
        {"amount_pico": "1", "takes": ()},
        {"amount_pico": True, "takes": ()},
        {"counts": {"input": 2**63}},
        {"ended_ms": None},
    ],
)
async def test_S10_numbers_no_store_can_add_up_are_parked(world: Any, in_memory: Any, changes: Any) -> None:
    await world.user("alice", 3)
    await world.lease("alice", 2)
    bad = dataclasses.replace(world.settlement("alice", USD), **changes)
    await finish(world, applier_of(world, world.store, in_memory([bad, world.settlement("alice", USD)])))
    assert [one["exchange"] for one in await world.store.parked()] == [bad.exchange]
    assert (await world.store.account("alice")).balances["credits"] == 2 * USD
    assert sum(row[3] for row in world.dump()["rollups"]) == 2


async def test_S10_a_poisoned_record_is_found_and_parked_and_the_others_go_on(
    world: Any, in_memory: Any
) -> None:
    records = await three_users(world)
    poison = world.settlement("alice", USD, wallet="no such wallet")
    applier = applier_of(world, world.store, in_memory([*records[:3], poison, *records[3:]]))
    await finish(world, applier)
    parked = await world.store.parked()
    assert [one["exchange"] for one in parked] == [poison.exchange]
    assert "dead letters" in str(parked[0]["reason"])
    assert (await world.state()).applied == position(1, 7)
    assert await world.differences() == []
    assert len(world.dump()["request_logs"]) == 7


async def test_poison_met_by_a_conflict_waits_for_the_next_step(
    world: Any, faulty: Any, in_memory: Any
) -> None:
    await world.user("alice", 3)
    await world.lease("alice", 2)
    poison = world.settlement("alice", USD, wallet="no such wallet")
    store = faulty(world.store)
    store.fail("book", 3, "before", StoreConflictError("busy"))
    applier = applier_of(world, store, in_memory([poison, world.settlement("alice", USD)]))
    await applier.step(await world.state(), world.NOW)
    assert applier.unbooked_count == 2
    await finish(world, applier)
    assert len(await world.store.parked()) == 1
    assert applier.dead_letters.count == 1
    assert (await world.state()).applied == position(1, 2)


async def test_S10_a_record_that_is_parked_for_its_poison_may_wait_for_the_store(
    world: Any, faulty: Any, in_memory: Any
) -> None:
    await world.user("alice", 3)
    await world.lease("alice", 2)
    store = faulty(world.store)
    together, alone, one_by_one, stand_in = range(4)
    for number in (together, alone, one_by_one):
        store.fail("book", number, "before", InvariantBrokenError("a value cannot be stored"))
    store.fail("book", stand_in, "before", StoreConflictError("busy"))
    poison, sound = world.settlement("alice", USD), world.settlement("alice", USD)
    applier = applier_of(world, store, in_memory([poison, sound]))
    await applier.step(await world.state(), world.NOW)
    assert applier.unbooked_count == 2
    await finish(world, applier)
    assert [one["exchange"] for one in await world.store.parked()] == [poison.exchange]
    assert await world.store.row_ids([("alice", sound.exchange)]) == {sound.exchange}
    assert (await world.store.account("alice")).balances["credits"] == 2 * USD


@pytest.mark.parametrize("method", ["log", "roll_up"])
async def test_S10_a_fault_of_records_in_logs_or_rollups_never_delays_money(
    world: Any, faulty: Any, in_memory: Any, method: str
) -> None:
    store = faulty(world.store)
    for number in range(2):
        store.fail(method, number, "before", InvariantBrokenError("a value cannot be stored"))
    applier = applier_of(world, store, in_memory(await three_users(world)))
    await applier.step(await world.state(), world.NOW)
    state = await world.state()
    assert (state.rolled, state.applied) == (position(1, 6), position(1, 6))
    assert await world.differences() == []
    assert applier.dead_letters.count == (6 if method == "log" else 0)


@pytest.mark.parametrize("method", ["log", "roll_up"])
async def test_S02_a_store_that_goes_down_while_it_is_tried_apart_keeps_the_place(
    world: Any, faulty: Any, in_memory: Any, method: str
) -> None:
    store = faulty(world.store)
    store.joint = True
    store.fail("finish", 0, "before", InvariantBrokenError("a value cannot be stored"))
    store.fail(method, 0, "before", StoreDownError("no server"))
    applier = applier_of(world, store, in_memory(await three_users(world)))
    with pytest.raises(StoreDownError):
        await applier.step(await world.state(), world.NOW)
    assert (await world.state()).applied == 0
    await finish(world, applier)
    dump = world.dump()
    assert (len(dump["request_logs"]), sum(row[3] for row in dump["rollups"])) == (6, 6)
    assert (await world.state()).applied == position(1, 6)


async def test_a_log_row_the_store_refuses_goes_to_the_dead_letters(
    world: Any, in_memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.user("alice", 3)
    await world.lease("alice", 2)
    bad = world.settlement("alice", USD)
    finish_all = world.store.finish

    async def refuse_one(journal: str, epoch: int, to_log: Any, *rest: Any) -> list[str]:
        good = [record for record in to_log if record.exchange != bad.exchange]
        failed = await finish_all(journal, epoch, good, *rest)
        return [*failed, bad.exchange] if len(good) < len(to_log) else failed

    monkeypatch.setattr(world.store, "finish", refuse_one)
    applier = applier_of(world, world.store, in_memory([bad, world.settlement("alice", USD)]))
    await finish(world, applier)
    assert applier.dead_letters.count == 1
    assert len(world.dump()["request_logs"]) == 1
    assert (await world.store.account("alice")).balances["credits"] == USD


async def test_hole_27_what_was_rolled_up_before_a_crash_is_not_again_when_more_has_come(
    world: Any, faulty: Any, in_memory: Any
) -> None:
    records = await three_users(world)
    store = faulty(world.store)
    store.fail("advance_applied", 0, "before", StoreDownError("killed here"))
    with pytest.raises(StoreDownError):
        await applier_of(world, store, in_memory(records[:4])).step(await world.state(), world.NOW)
    state = await world.state()
    assert (state.rolled, state.applied) == (position(1, 4), 0)
    await finish(world, applier_of(world, world.store, in_memory(records)))
    assert sum(row[3] for row in world.dump()["rollups"]) == 6
    assert len(world.dump()["request_logs"]) == 6


@pytest.mark.parametrize("apart", [False, True])
async def test_hole_27_rollups_of_a_call_whose_effect_comes_late_are_not_added_again(
    world: Any, faulty: Any, in_memory: Any, apart: bool
) -> None:
    """The state was read before the first call had its effect, and more has been read since."""
    records = await three_users(world)
    store = faulty(world.store)
    store.joint = True
    source = in_memory(records[:4])
    applier = applier_of(world, store, source)
    before = await world.state()
    store.fail("finish", 0, "after", StoreUnknownError("no answer in time"))
    if apart:
        store.fail("finish", 1, "before", InvariantBrokenError("a value cannot be stored"))
    with pytest.raises(StoreUnknownError):
        await applier.step(before, world.NOW)
    source.rest = in_memory(records, after=position(1, 4)).rest
    await applier.step(before, world.NOW)
    assert sum(row[3] for row in world.dump()["rollups"]) == 4
    assert (await world.state()).applied == position(1, 4)
    await applier.step(await world.state(), world.NOW)
    assert sum(row[3] for row in world.dump()["rollups"]) == 6
    assert (await world.state()).applied == position(1, 6)


async def test_an_epoch_claimed_meanwhile_only_repeats_the_marks(world: Any, in_memory: Any) -> None:
    applier = applier_of(world, world.store, in_memory(await three_users(world)))
    old = await world.state()
    await world.store.claim_epoch(world.J, 2, "host", world.NOW + 1)
    await applier.step(old, world.NOW)
    assert (await world.state()).applied == 0
    await applier.step(await world.state(), world.NOW)
    assert (await world.state()).applied == position(1, 6)
    assert sum(row[3] for row in world.dump()["rollups"]) == 6


async def test_M10_dead_letters_are_bounded_and_a_full_disk_is_no_stop(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from farebox.writer.batch import Finished

    letters = DeadLetters(tmp_path / "letters.jsonl")
    record = Finished(7, world.settlement("alice", 0))
    letters.append([record], "why")
    size = letters.path.stat().st_size
    monkeypatch.setattr(limits, "dead_letter_bytes_max", size)
    letters.append([record], "why")
    assert letters.path.stat().st_size == size
    assert "move it away" in caplog.text
    assert letters.count == 2


async def test_what_was_taken_is_found_behind_many_newer_rows(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from farebox.writer.charged import charged_of

    await world.user("alice", 300)
    await world.lease("alice", 290)
    wanted = world.settlement("alice", USD)
    later = [world.settlement("alice", USD // 10) for _ in range(450)]
    await world.store.book(world.J, 1, [wanted, *later], world.NOW)
    assert await charged_of(world.store, [wanted, later[3]]) == {
        wanted.exchange: USD,
        later[3].exchange: USD // 10,
    }
    monkeypatch.setattr(limits, "records_per_batch_max", 100)
    assert await charged_of(world.store, [wanted]) == {wanted.exchange: 0}, "the search has an end (M10)"
