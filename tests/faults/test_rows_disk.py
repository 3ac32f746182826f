"""Rows J26, J29, J34, J37 of the fault matrix: whichever call of the disk fails, nothing promised is lost."""

import errno
import random
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from farebox.base import frames as kinds
from farebox.base.errors import JournalError, JournalFullError, StoreDownError
from farebox.journal import Reader
from farebox.store.base import Booked
from journal.fault_files import FaultFiles, disk_error
from journal.rig import Rig, ended
from writer.conftest import World

CALLS_MAX = 400


@dataclass
class Work:
    """A fixed day of one journal: two lives, small segments, carried exchanges, deletions."""

    folder: Path
    files: FaultFiles
    acknowledged: list[str] = field(default_factory=list)
    appended: list[str] = field(default_factory=list)

    def run(self) -> Rig:
        rig = Rig(self.folder, self.files)
        reader = Reader(rig.directory, self.files)
        number = 0
        for _ in range(2):
            self._begin(rig)
            for _ in range(3):
                number += 1
                self._exchange(rig, f"e{number:02}")
                rig.sync_round()
            self._tail(rig, reader)
            rig.stop()
        return rig

    def _begin(self, rig: Rig) -> None:
        """A start that fails is tried again, by a supervisor."""
        for attempt in range(3):
            try:
                rig.begin(durable=True)
            except JournalError:
                assert attempt < 2
                rig.stop()
            else:
                return

    def _exchange(self, rig: Rig, name: str) -> None:
        try:
            rig.append(kinds.OPEN, name)
            rig.append(kinds.SENT, name)
            rig.turn()
            payload = ended(name, "x" * 300)
            self.appended.append(name)
            rig.appender.append(kinds.SETTLE, payload, lambda error: error or self.acknowledged.append(name))
            rig.turn()
        except JournalError:
            return

    def _tail(self, rig: Rig, reader: Reader) -> None:
        try:
            read = reader.read(0)
            while read:
                last = read[-1].pos
                read = reader.read(last)
            reader.delete(0)
        except JournalError:
            reader.close()


def settled(rig: Rig) -> list[str]:
    return [frame.payload[2:5].decode() for frame in rig.records() if frame.kind == kinds.SETTLE]


@pytest.mark.parametrize("error", [None, errno.EIO, errno.ENOSPC, errno.EINTR])
def test_J29_J37_whichever_call_fails_what_was_acknowledged_survives_a_power_cut(
    tmp_path: Path, error: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farebox.base.limits.segment_bytes_max", 900)
    number = 0
    while True:
        folder = tmp_path / str(number)
        folder.mkdir()
        files = FaultFiles()
        files.fail_call(number, None if error is None else disk_error(error))
        work = Work(folder, files)
        rig = work.run()
        reached = len(files.calls) > number
        assert work.acknowledged == [name for name in work.appended if name in work.acknowledged]
        files.failing = None
        files.crash(rig.directory, random.Random(number))
        rig.begin()
        found = settled(rig)
        assert found == sorted(set(found)), (number, files.calls[number])
        lost = set(work.acknowledged) - set(found)
        assert not lost, (number, files.calls[number] if reached else "")
        rig.stop()
        if not reached:
            break
        number += 1
        assert number < CALLS_MAX
    assert number > 50
    assert len(work.acknowledged) == 6


def test_J26_where_no_new_segment_fits_the_old_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farebox.base.limits.segment_bytes_max", 300)
    files = FaultFiles()
    rig = Rig(tmp_path, files)
    rig.begin()
    files.on_open = lambda path: disk_error(errno.ENOSPC) if path != rig.segment(1) else None
    for number in range(10):
        rig.append(kinds.VOID, f"e{number}", ended(f"e{number}", "x" * 100))
        rig.turn()
    assert not rig.segment(2).exists()
    files.on_open = lambda _path: None
    rig.append(kinds.VOID, "ea")
    rig.turn()
    assert rig.segment(2).exists()
    assert len(rig.records()) == 11


async def test_J26_a_store_without_room_changes_nothing_and_is_tried_again(world: World) -> None:
    await world.user("alice", 10)
    await world.lease("alice", 5)
    one = world.settlement("alice", 10**12, raw_usage="x" * 4000)
    before = world.dump()

    def room(pages: int) -> None:
        with sqlite3.connect(world.path) as connection:
            (used,) = connection.execute("PRAGMA page_count").fetchone()
        connection.close()
        world.store._writer._connection.execute(f"PRAGMA max_page_count = {used + pages}")

    room(0)
    many = [world.settlement("alice", 10**9, exchange=world.fresh(32)) for _ in range(2000)]
    with pytest.raises(StoreDownError, match="disk is full"):
        await world.store.book(world.J, 1, [one, *many], world.NOW)
    assert world.dump() == before
    room(10_000)
    assert (await world.store.book(world.J, 1, [one], world.NOW)) == [Booked.BOOKED]
    assert await world.differences() == []


def test_J34_too_much_unsynced_refuses_opens_and_never_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farebox.base.limits.journal_unsynced_bytes_max", 2000)
    rig = Rig(tmp_path)
    rig.begin()
    opened = 0
    while rig.tail.unsynced_bytes <= 2000:
        rig.append(kinds.OPEN, f"e{opened:02}")
        rig.turn()
        opened += 1
    assert 1 < opened < 99
    with pytest.raises(JournalFullError):
        rig.append(kinds.OPEN, "e99")
    for number in range(opened):
        rig.append(kinds.SETTLE, f"e{number:02}", ended(f"e{number:02}", "x" * 500))
        rig.turn()
    assert [error for _, error in rig.told if error is not None] == []
    rig.sync_round()
    rig.append(kinds.OPEN, "e99")
    rig.turn()
    assert len(rig.records()) == 2 * opened + 1
