"""verify names every planted difference and raises no false alarm under traffic (M1-M4, holes 28, 29, 57)."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest

from farebox.base import limits
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
    assert heard == [(f"journal {booked.id}", 1), ("user alice", 1), ("user bob", 2)]
    assert report.lines()[-1] == "no differences"
    assert report.to_plain()["clean"] is True
    assert orjson.loads(orjson.dumps(report.to_plain()))["records"] == 6


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (
            "UPDATE pools SET balance_pico = 1, seen_pico = 1 WHERE user = 'alice'",
            "M1 alice",
        ),
        ("UPDATE pools SET balance_pico = 1 WHERE user = 'bob'", "written from outside"),
        ("UPDATE lots SET left_pico = left_pico + 1 WHERE user = 'alice'", "sum of lots"),
        ("UPDATE lots SET leased_pico = leased_pico + 1 WHERE user = 'alice'", "M2 alice"),
        ("DELETE FROM credit_transactions WHERE user = 'bob' AND type = 'spent'", "it has no rows"),
        ("UPDATE journals SET state = 'lost'", "has ended and still leases"),
    ],
)
async def test_S18_what_was_changed_by_hand_is_named(
    world: Any, root: Path, booked: Any, statement: str, words: str
) -> None:
    by_hand(world, statement)
    report = await verify(world.store, root)
    assert any(words in difference for difference in report.differences), report.differences
    assert report.lines()[-1].startswith("DIFFERENCES: ")
    assert report.to_plain()["clean"] is False


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

    monkeypatch.setattr(world.store, "account_with_rows", gone)
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
