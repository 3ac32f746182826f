"""verify names every planted difference and raises no false alarm under traffic (M1-M4, holes 28, 29, 57)."""

import asyncio
import gc
import sqlite3
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest

from farebox.base import limits
from farebox.console.metrics import FareboxCollector
from farebox.writer.conservation import ConservationCheck
from farebox.writer.service import Writer
from farebox.writer.verify import verify

USD = 10**12


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "journals"


@pytest.fixture
async def booked(world: Any, root: Path) -> Any:
    """Two users with booked exchanges; the journal is closed."""
    journal = await world.journal(root)
    for user in ("alice", "bob"):
        await world.user(user, 10)
        await world.lease(user, 5, journal=journal.id)
        for _ in range(3):
            world.put(journal, world.settlement(user, USD))
    await asyncio.sleep(0)
    journal.close()
    writer = Writer(world.store, root)
    await writer.drain()
    writer.close()
    return journal


def by_hand(world: Any, statement: str, *values: object) -> None:
    with sqlite3.connect(world.path) as connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        connection.execute(statement, values)
    connection.close()


async def test_nothing_wrong_is_found_where_nothing_is(world: Any, root: Path, booked: Any) -> None:
    heard: list[tuple[str, int]] = []
    report = await verify(world.store, root, lambda what, count: heard.append((what, count)))
    assert report.differences == []
    assert (report.users, report.rows, report.journals, report.records) == (2, 8, 1, 6)
    assert heard == [(f"journal {booked.id}", 6), ("user alice", 1), ("user bob", 2)]
    assert report.lines()[-1] == "no differences"
    assert report.to_plain()["clean"] is True
    assert orjson.loads(orjson.dumps(report.to_plain()))["records"] == 6


PLANTED = [
    ("UPDATE pools SET balance_pico = 1, seen_pico = 1 WHERE user = 'alice'", "M1 alice", "row of alice"),
    ("UPDATE pools SET balance_pico = 1 WHERE user = 'bob'", "written from outside", "wallet adopt bob"),
    ("UPDATE lots SET left_pico = left_pico + 1 WHERE user = 'alice'", "sum of lots", "by -1 pico"),
    ("UPDATE lots SET leased_pico = leased_pico + 1 WHERE user = 'alice'", "M2 alice", "stop workers first"),
    ("UPDATE lots SET leased_pico = -1 WHERE user = 'alice'", "leased -1", "keep a copy of the store"),
    ("DELETE FROM lots WHERE user = 'alice'", "does not exist", "restore the lot"),
    (
        "DELETE FROM credit_transactions WHERE user = 'bob' AND type = 'spent'",
        "it has no rows",
        "book it again",
    ),
    ("UPDATE journals SET state = 'lost'", "has ended and still leases", "lease release --lost"),
    ("INSERT INTO reserved VALUES ('bob', 'e9', 'l1', 5)", "waits for nobody", "remove reserved.e9"),
    ("UPDATE journals SET applied = applied + 100", "its files in", "put back the newest copy"),
]


@pytest.mark.parametrize(("statement", "words", "repair"), PLANTED)
async def test_S18_what_was_changed_by_hand_is_named_with_what_would_mend_it(
    world: Any, root: Path, booked: Any, statement: str, words: str, repair: str
) -> None:
    by_hand(world, statement)
    before = world.dump()
    report = await verify(world.store, root)
    assert any(words in difference for difference in report.differences), report.differences
    assert any(repair in plan for plan in report.repairs), report.repairs
    assert len(report.repairs) == len(report.differences)
    assert report.lines()[-1].startswith("DIFFERENCES: ")
    assert report.to_plain()["clean"] is False
    assert world.dump() == before


async def test_without_journals_the_store_alone_is_verified(world: Any, root: Path, booked: Any) -> None:
    by_hand(world, "DELETE FROM journals")
    assert (await verify(world.store, None)).journals == 0
    report = await verify(world.store, root)
    assert report.pending == {booked.id: 6}
    assert "not known to the store" in report.notes[0]
    assert report.differences == []


async def test_records_beyond_applied_are_pending_and_refusals_owe_no_rows(world: Any, root: Path) -> None:
    journal = await world.journal(root)
    await world.user("alice", 1)
    world.put(journal, world.settlement("alice", 0, outcome="refused", status=402, evidence="none"))
    await asyncio.sleep(0)
    journal.close()
    assert (await verify(world.store, root)).pending == {journal.id: 1}
    writer = Writer(world.store, root)
    await writer.drain()
    writer.close()
    report = await verify(world.store, root)
    assert (report.pending, report.records, report.differences) == ({}, 1, [])


async def test_what_waits_for_an_operator_is_listed_and_no_difference(
    world: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await world.journal(root)
    await world.user("alice", 5)
    await world.lease("alice", 4, journal=journal.id)
    for _ in range(3):
        world.put(journal, world.settlement("alice", 0, quarantine="no price line for image"))
    await asyncio.sleep(0)
    journal.close()
    writer = Writer(world.store, root)
    await writer.drain()
    writer.close()
    monkeypatch.setattr(limits, "findings_max", 2)
    report = await verify(world.store, root)
    assert (report.differences, report.parked_total, len(report.parked)) == ([], 3, 2)
    assert "no price line for image" in report.parked[0]
    by_hand(world, "UPDATE users SET parked = 'written from outside'")
    assert any("is parked" in note for note in (await verify(world.store, root)).notes)


async def test_M10_findings_are_bounded_and_counted(
    world: Any, root: Path, booked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "findings_max", 2)
    by_hand(world, "DELETE FROM credit_transactions WHERE type = 'spent'")
    report = await verify(world.store, root)
    assert len(report.differences) == 2
    assert report.differences_total > 6


async def test_J20_a_damaged_journal_is_a_difference(world: Any, root: Path, booked: Any) -> None:
    from zlib import crc32

    segment = next(booked.directory.glob("*.segment"))
    data = bytearray(segment.read_bytes())
    data[7] = 99
    data[40:44] = crc32(bytes(data[:40])).to_bytes(4, "little")
    segment.write_bytes(bytes(data))
    report = await verify(world.store, root)
    assert any("journal damaged" in difference for difference in report.differences)


async def test_an_account_that_vanishes_is_a_difference(world: Any, booked: Any, monkeypatch: Any) -> None:
    async def gone(_user: str) -> None:
        return None

    monkeypatch.setattr(world.store, "account_with_sums", gone)
    report = await verify(world.store, None)
    assert "has disappeared" in report.differences[0]


async def test_hole_29_hole_57_online_there_is_no_false_alarm(world: Any, root: Path) -> None:
    """Verify while exchanges are booked, money is granted and returned, and journals retire."""
    users = ("alice", "bob", "carol")
    journal = await world.journal(root)
    for user in users:
        await world.user(user, 100)
        await world.lease(user, 20, journal=journal.id)
    writer = Writer(world.store, root)
    ending = asyncio.Event()

    async def traffic() -> None:
        while not ending.is_set():
            for user in users:
                world.put(journal, world.settlement(user, USD // 1000))
            await asyncio.sleep(0)
            await writer.drain()

    async def other_journal() -> None:
        while not ending.is_set():
            name = world.fresh(16)
            await world.store.claim_epoch(name, 1, "other", world.NOW)
            for user in users:
                await world.lease(user, 1, journal=name)
            await world.store.end_journal(name, "retired")

    tasks = [asyncio.create_task(traffic()), asyncio.create_task(other_journal())]
    report = await verify(world.store, root)
    while report.rows < 300 and not report.differences:
        report = await verify(world.store, root)
    assert report.differences == []
    ending.set()
    await asyncio.gather(*tasks)
    writer.close()
    journal.close()


async def test_hole_57_a_lost_journal_that_leases_again_meanwhile_is_no_difference(
    world: Any, root: Path, booked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state was read as lost; before its user is read it has claimed its next epoch and leased."""
    await world.store.end_journal(booked.id, "lost")
    read = world.store.account_with_sums

    async def revived_meanwhile(user: str) -> Any:
        if (await world.state(booked.id)).epoch == 1:
            await world.store.claim_epoch(booked.id, 2, "host", world.NOW)
            entry = (await world.store.account("alice")).leases[booked.id]
            await world.store.grant("alice", "ohmygpt", booked.id, 2, entry.op, USD, USD, world.NOW)
        return await read(user)

    monkeypatch.setattr(world.store, "account_with_sums", revived_meanwhile)
    assert (await verify(world.store, root)).differences == []


async def test_hole_57_a_lease_seen_before_its_journal_ended_is_no_difference(
    world: Any, root: Path, booked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_states, count = world.store.journal_states, 0

    async def ended_meanwhile() -> Any:
        nonlocal count
        count += 1
        if count == 2:
            await world.store.end_journal(booked.id, "retired")
        return await read_states()

    stale = await world.store.account_with_sums("alice")
    await world.store.end_journal(booked.id, "retired")

    async def seen_before(user: str) -> Any:
        return stale if user == "alice" else await read(user)

    read = world.store.account_with_sums
    monkeypatch.setattr(world.store, "account_with_sums", seen_before)
    monkeypatch.setattr(world.store, "journal_states", ended_meanwhile)
    assert (await verify(world.store, root)).differences == []


async def test_hole_57_an_operator_who_decides_meanwhile_raises_no_alarm(
    world: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await world.journal(root)
    await world.user("alice", 5)
    await world.lease("alice", 4, journal=journal.id)
    held = world.settlement("alice", USD).takes
    waiting = world.settlement("alice", 0, takes=held, quarantine="no price line")
    await world.store.book(journal.id, 1, [waiting], world.NOW)
    assert (await verify(world.store, root)).differences == []
    read = world.store.parked

    async def decided_meanwhile() -> Any:
        await world.store.resolve_parked(waiting.exchange, USD, "operator", world.NOW)
        return await read()

    monkeypatch.setattr(world.store, "parked", decided_meanwhile)
    assert (await verify(world.store, root)).differences == []
    journal.close()


@pytest.fixture
async def many_segments(world: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A journal of several segments, all of it booked and none of it removed."""
    monkeypatch.setattr(limits, "segment_bytes_max", 2048)
    journal = await world.journal(root)
    await world.user("alice", 10)
    await world.lease("alice", 8, journal=journal.id)
    records = [world.settlement("alice", 1000) for _ in range(30)]
    for record in records:
        world.put(journal, record)
        await asyncio.sleep(0)
    last_pos = journal.last_pos
    journal.close()
    await world.store.book(journal.id, 1, records, world.NOW)
    await world.store.advance_applied(journal.id, 1, last_pos)
    assert len(list(journal.directory.glob("*.segment"))) > 4
    return journal


async def test_hole_57_segments_that_go_while_they_are_read_are_no_difference(
    world: Any, root: Path, many_segments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "batch_bytes", 2048)
    look_up, count = world.store.row_ids, 0

    async def removed_meanwhile(pairs: Any) -> Any:
        nonlocal count
        count += 1
        if count == 1:
            for segment in sorted(many_segments.directory.glob("*.segment"))[:-1]:
                segment.unlink()
        return await look_up(pairs)

    monkeypatch.setattr(world.store, "row_ids", removed_meanwhile)
    report = await verify(world.store, root)
    assert (report.differences, report.pending) == ([], {})
    assert 0 < report.records < 30


async def test_hole_57_a_journal_retired_while_it_is_read_is_no_difference(
    world: Any, root: Path, many_segments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "batch_bytes", 2048)
    look_up = world.store.row_ids

    async def retired_meanwhile(pairs: Any) -> Any:
        if many_segments.directory.exists():
            many_segments.directory.rename(many_segments.directory.with_suffix(".retired"))
        return await look_up(pairs)

    monkeypatch.setattr(world.store, "row_ids", retired_meanwhile)
    report = await verify(world.store, root)
    assert report.differences == []
    assert any("retired meanwhile" in note for note in report.notes)


async def test_J20_a_bit_flipped_in_the_middle_is_named_with_file_and_offset(
    world: Any, root: Path, many_segments: Any
) -> None:
    segment = sorted(many_segments.directory.glob("*.segment"))[2]
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(bytes(data))
    report = await verify(world.store, root)
    (difference,) = report.differences
    assert str(segment) in difference
    assert "at byte " in difference
    assert "keep a copy" in report.repairs[0]
    assert segment.read_bytes() == bytes(data)


async def test_J21_a_journal_that_ends_before_what_is_applied_is_named(
    world: Any, root: Path, many_segments: Any
) -> None:
    for segment in sorted(many_segments.directory.glob("*.segment"))[2:]:
        segment.unlink()
    applied = (await world.state(many_segments.id)).applied
    (difference,) = (await verify(world.store, root)).differences
    assert f"applied up to {applied}" in difference


async def peak_bytes(world: Any, root: Path) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        await verify(world.store, root)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_M10_memory_does_not_grow_with_a_users_rows(world: Any, root: Path) -> None:
    await world.user("alice", 10)
    add_rows = """
        INSERT INTO credit_transactions
        (user, type, reference, pool, amount_pico, lots, cause, created_ms, charge)
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
        SELECT 'alice', 'adjustment', ? || i, 'credits', 0, '[]', 'test', 0, '' FROM n"""
    by_hand(world, add_rows, 1_000, "a")
    few = await peak_bytes(world, root)
    by_hand(world, add_rows, 50_000, "b")
    many = await peak_bytes(world, root)
    report = await verify(world.store, root)
    assert (report.rows, report.differences) == (51_001, [])
    assert many < few + 2**20


async def test_M1_the_writers_own_check_counts_the_money_in_question(
    world: Any, root: Path, caplog: Any
) -> None:
    for user in ("alice", "bob"):
        await world.user(user, 10)
    paused: list[float] = []

    async def pause(duration_s: float) -> None:
        paused.append(duration_s)

    check = ConservationCheck(world.store)
    await check.round(pause, lambda: False)
    clean = {"delta_pico": 0, "differences": 0, "users": 2, "rounds": 1}
    assert check.status() == {**clean, "written_off_pico": 0, "leased_pico": 0}
    by_hand(world, "UPDATE lots SET left_pico = left_pico - 7 WHERE user = 'bob'")
    await check.round(pause, lambda: True)
    assert check.status()["rounds"] == 1
    await check.round(pause, lambda: False)
    assert check.status() == {
        **clean,
        "delta_pico": 7,
        "differences": 1,
        "rounds": 2,
        "written_off_pico": 0,
        "leased_pico": 0,
    }
    assert "bob" in caplog.text
    assert len(paused) == 5
    assert all(duration_s > 0 for duration_s in paused)


async def test_the_money_in_question_is_a_metric(world: Any, root: Path, tmp_path: Path) -> None:
    writer = Writer(world.store, root)
    status = tmp_path / "writer.json"
    status.write_bytes(orjson.dumps(writer.status()))
    found = {metric.name: metric for metric in FareboxCollector(list, status).collect()}
    (sample,) = found["farebox_conservation_delta_pico"].samples
    assert sample.value == 0
