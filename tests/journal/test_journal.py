"""A journal as its owner uses it: locked, begun under an epoch, appended to by turns, closed (J01, J02, J31,
J32).
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farebox.base import frames as kinds
from farebox.base.errors import (
    InvariantBrokenError,
    JournalDamagedError,
    JournalError,
    JournalLockedError,
)
from farebox.base.ids import is_journal_id, position
from farebox.journal import Journal, create, open_journal, scan, take
from farebox.journal.files import Files
from farebox.journal.frames import Frame
from farebox.journal.segments import SEGMENT_SUFFIX, read_epoch, write_epoch
from journal.fault_files import FaultFiles, disk_error
from journal.rig import Rig, ended, opened


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def begun(journal: Journal, epoch: int = 1, turns: list[Callable[[], None]] | None = None) -> Journal:
    journal.scan()
    journal.intend_epoch(epoch)
    turns = [] if turns is None else turns
    journal.begin_epoch(epoch, turns.append, lambda callback: callback())
    return journal


def test_hole_01_a_new_directory_is_a_new_id(tmp_path: Path) -> None:
    first, second = create(tmp_path / "new" / "root"), create(tmp_path / "new" / "root")
    assert first.id != second.id
    assert is_journal_id(first.id)
    assert first.directory == tmp_path / "new" / "root" / first.id
    first.close()
    second.close()


def test_J32_hole_02_one_directory_has_one_owner(tmp_path: Path) -> None:
    first = take(tmp_path)
    with pytest.raises(JournalLockedError):
        open_journal(first.directory)
    other = take(tmp_path)
    assert other.id != first.id
    first.close()
    assert take(tmp_path).id == first.id
    other.close()


def test_J12_the_journal_written_last_is_taken_first(tmp_path: Path) -> None:
    """A killed worker's journal is recovered by the next, whatever older ones are left from replacements."""
    journals = [begun(take(tmp_path)) for _ in range(3)]
    for age_s, journal in zip((20, 0, 10), journals, strict=True):
        newest = max(journal.directory.glob("*" + SEGMENT_SUFFIX))
        journal.close()
        os.utime(newest, (0, 10**9 - age_s))
    taken = [take(tmp_path) for _ in range(3)]
    assert [one.id for one in taken] == [journals[index].id for index in (1, 2, 0)]


def test_J32_hole_38_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    journal = take(tmp_path)
    assert not os.get_inheritable(journal._lock)
    journal.close()


def test_J31_a_root_that_cannot_be_used_is_an_error_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot be read|no journal can be made"):
        take(tmp_path / "file")
    with pytest.raises(JournalError, match="no journal can be made"):
        create(tmp_path / "file")
    (tmp_path / "0123456789abcdef").write_text("")
    with pytest.raises(JournalError, match="cannot be locked"):
        open_journal(tmp_path / "0123456789abcdef")


def test_epochs_are_noted_before_they_are_claimed(tmp_path: Path) -> None:
    journal = take(tmp_path)
    assert (journal.epoch, journal.scan().epoch) == (0, 0)
    journal.intend_epoch(1)
    journal.close()
    journal = take(tmp_path)
    assert journal.epoch == journal.scan().epoch == 1
    with pytest.raises(InvariantBrokenError):
        journal.begin_epoch(0, lambda _c: None, lambda _c: None)
    journal.close()
    (journal.directory / "epoch").write_text("x")
    with pytest.raises(JournalDamagedError, match="not an epoch"):
        open_journal(journal.directory)


def test_an_epoch_that_cannot_be_read_or_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "epoch").mkdir()
    with pytest.raises(JournalError, match="cannot be read"):
        read_epoch(tmp_path)
    with pytest.raises(JournalError, match="cannot be written"):
        write_epoch(Files(), tmp_path / "absent", 1)


def test_nothing_is_appended_before_the_epoch_or_after_the_end(tmp_path: Path) -> None:
    journal = take(tmp_path)
    with pytest.raises(InvariantBrokenError, match="begin_epoch"):
        journal.append(kinds.OPEN, opened("e1"))
    with pytest.raises(InvariantBrokenError, match="scanned"):
        journal.begin_epoch(1, lambda _c: None, lambda _c: None)
    begun(journal)
    journal.close()
    with pytest.raises(InvariantBrokenError, match="close"):
        journal.append(kinds.OPEN, opened("e1"))


def test_closing_writes_syncs_and_tells(tmp_path: Path) -> None:
    journal = begun(take(tmp_path))
    told: list[Exception | None] = []
    journal.append(kinds.SETTLE, ended("e1"), told.append)
    assert journal.broken is None
    journal.close()
    assert told == [None]
    assert scan(journal.directory).last_pos == position(1, 1)


def test_a_last_sync_that_fails_is_told_and_the_lock_released(tmp_path: Path) -> None:
    files = FaultFiles()
    journal = begun(take(tmp_path, files))
    files.on_sync = lambda _path: disk_error()
    journal.append(kinds.SETTLE, ended("e1"))
    with pytest.raises(JournalError, match="last sync"):
        journal.close()
    take(tmp_path).close()


def test_J31_a_journal_whose_disk_fails_at_its_beginning_can_be_closed(tmp_path: Path) -> None:
    files = FaultFiles()
    journal = take(tmp_path, files)
    journal.scan()
    files.on_open = lambda _path: disk_error()
    with pytest.raises(JournalError):
        journal.begin_epoch(1, lambda _c: None, lambda _c: None)
    journal.close()
    files.on_open = lambda _path: None
    assert take(tmp_path, files).id == journal.id


def durable(folder: Path, files: FaultFiles, turns: list[Callable[[], None]]) -> Journal:
    """A journal whose callers wait for the disk."""
    journal = take(folder, files)
    journal.scan()
    journal.intend_epoch(1)
    journal.begin_epoch(1, turns.append, turns.append, "disk")
    return journal


def run(turns: list[Callable[[], None]]) -> None:
    while turns:
        turns.pop(0)()


def test_J27_a_sync_that_fails_while_the_journal_is_closed_is_not_repeated_on_that_file(
    tmp_path: Path,
) -> None:
    files = FaultFiles()
    turns: list[Callable[[], None]] = []
    journal = durable(tmp_path, files, turns)
    first = journal.directory / "000000000001.segment"
    entered, closing = threading.Event(), threading.Event()

    def fails(path: Path) -> OSError | None:
        if path != first:
            return None
        entered.set()
        assert closing.wait(60)
        return disk_error()

    files.on_sync = fails
    files.syncs.clear()
    told: list[Exception | None] = []
    journal.append(kinds.OPEN, opened("e1"), told.append)
    run(turns)
    assert entered.wait(60)
    closing.set()
    journal.close()
    run(turns)
    assert files.syncs.count(first) == 1
    assert told == [None]
    second = journal.directory / "000000000002.segment"
    assert opened("e1") in files.durable[second]
    assert not (journal.directory / "000000000003.segment").exists()


def test_J27_nobody_is_told_that_he_is_on_disk_by_the_close_of_a_broken_journal(tmp_path: Path) -> None:
    files = FaultFiles()
    turns: list[Callable[[], None]] = []
    journal = durable(tmp_path, files, turns)
    entered, going_on = threading.Event(), threading.Event()

    def slow(_path: Path) -> None:
        entered.set()
        assert going_on.wait(60)

    files.on_sync = slow
    told: dict[str, Exception | None] = {}
    journal.append(kinds.OPEN, opened("e1"), lambda error: told.setdefault("e1", error))
    run(turns)
    assert entered.wait(60)
    journal.append(kinds.OPEN, opened("e2"), lambda error: told.setdefault("e2", error))
    run(turns)
    files.on_sync = lambda _path: None
    fates: list[int | OSError] = [disk_error()]  # the write; then the new segment's header, then its copies
    headers: list[int] = []

    def failing(length: int) -> int | OSError:
        if fates:
            return fates.pop()
        if not headers:
            headers.append(length)
            return length
        return disk_error()

    files.on_write = failing
    journal.append(kinds.OPEN, opened("e3"), lambda error: told.setdefault("e3", error))
    run(turns)
    going_on.set()
    assert journal.broken is not None
    journal.close()
    run(turns)
    assert isinstance(told["e2"], JournalError)
    assert isinstance(told["e3"], JournalError)


def test_J18_a_torn_tail_is_cut_before_the_journal_goes_on(tmp_path: Path) -> None:
    journal = begun(take(tmp_path))
    journal.append(kinds.SETTLE, ended("e1"))
    journal.close()
    segment = journal.directory / "000000000001.segment"
    whole = segment.read_bytes()
    segment.write_bytes(whole + b"torn")
    again = open_journal(journal.directory)
    assert again.scan().cut is not None
    assert segment.read_bytes() == whole
    again.close()


def test_an_exchange_is_opened_and_settled_through_its_own_calls(tmp_path: Path) -> None:
    journal = begun(take(tmp_path))
    told: list[Exception | None] = []
    journal.append_open("e1", opened("e1"), told.append)
    journal.append_open("e2", opened("e2"), told.append)
    journal.append_settle("e1", ended("e1"), told.append)
    journal.close()
    assert told == [None] * 3
    found = scan(journal.directory)
    assert {name: one.sent for name, one in found.opens.items()} == {"e2": True}
    assert [frame.payload for frame in found.finished if isinstance(frame, Frame)] == [ended("e1")]


def test_J12_a_segment_that_went_meanwhile_is_the_oldest_of_all(tmp_path: Path) -> None:
    files = Files()
    assert files.modified_ns(tmp_path / "gone") == files.file_size(tmp_path / "gone") == 0


def test_what_is_written_while_the_sync_thread_goes_to_sleep_is_synced(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.begin()
    rig.append(kinds.SETTLE, "e1")
    rig.turn()
    rig.sync._park()
    assert rig.tail.synced_pos == rig.tail.last_pos
    assert not rig.sync._is_parked


def test_a_write_wakes_the_sync_thread_that_sleeps(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.begin()
    rig.sync.start(rig.appender)
    wait_until(lambda: rig.sync._is_parked)
    rig.append(kinds.SETTLE, "e1")
    rig.turn()
    wait_until(lambda: rig.tail.synced_pos == rig.tail.last_pos)
    rig.sync.stop()
    assert rig.sync.syncs_total == 1


def test_the_sync_thread_ends_with_the_loop_it_tells(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.begin()
    rig.append(kinds.SETTLE, "e1")
    rig.turn()

    def closed(_callback: object) -> None:
        raise RuntimeError("Event loop is closed")

    rig.sync._wake = closed
    rig.sync.start(rig.appender)
    rig.sync._thread.join(60)
    assert not rig.sync._thread.is_alive()
    assert rig.tail.synced_pos == rig.tail.last_pos


async def test_positions_rise_and_the_sync_thread_follows(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    journal = take(tmp_path)
    journal.scan()
    journal.begin_epoch(1, loop.call_soon, loop.call_soon_threadsafe, "disk")
    for index in range(3):
        written: asyncio.Future[Exception | None] = loop.create_future()
        journal.append(kinds.OPEN, opened(f"e{index}"), written.set_result)
        assert await written is None
        assert journal.synced_pos == journal.last_pos == position(1, index + 1)
    statistics = journal.statistics()
    assert statistics["journal_writes_total"] == 3
    assert statistics["journal_syncs_total"] >= 3
    assert (
        statistics["journal_bytes_total"] == (journal.directory / "000000000001.segment").stat().st_size - 44
    )
    journal.close()


def test_J01_J02_a_turn_is_one_write_with_ends_first(tmp_path: Path) -> None:
    files = FaultFiles()
    rig = Rig(tmp_path, files)
    rig.begin()
    rig.append(kinds.OPEN, "e1")
    rig.turn()
    files.writes = 0
    rig.append(kinds.OPEN, "e2")
    rig.append(kinds.SENT, "e2")
    rig.append(kinds.SETTLE, "e1")
    rig.append(kinds.VOID, "e9")
    assert files.writes == 0
    assert rig.told == [("e1", None)]
    rig.turn()
    assert files.writes == 1
    assert [(one.kind, one.payload[2:4]) for one in rig.records()[1:]] == [
        (kinds.SETTLE, b"e1"),
        (kinds.VOID, b"e9"),
        (kinds.OPEN, b"e2"),
        (kinds.SENT, b"e2"),
    ]
    assert [name for name, _ in rig.told[1:]] == ["e1", "e9", "e2", "e2"]


def test_M3_an_end_never_stands_before_its_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened and ended in one turn, or ended in the turn in which it is carried forward."""
    monkeypatch.setattr("farebox.base.limits.segment_bytes_max", 100)
    rig = Rig(tmp_path)
    rig.begin()
    rig.append(kinds.OPEN, "e1")
    rig.append(kinds.VOID, "e1")
    rig.turn()
    assert not scan(rig.directory).opens
    rig.append(kinds.OPEN, "e2")
    rig.turn()
    while rig.appender._opens["e2"].sequence == 2:
        rig.append(kinds.SETTLE, "zz")
        rig.turns.pop(0)()
    rig.append(kinds.SETTLE, "e2")
    rig.turn()
    assert not scan(rig.directory).opens


def test_recovery_finds_what_a_crash_cut_off(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.begin()
    for kind, name, payload in (
        (kinds.OPEN, "e1", None),
        (kinds.OPEN, "e2", None),
        (kinds.SENT, "e2", None),
        (kinds.PROGRESS, "e2", b'["e2",41]'),
        (kinds.OPEN, "e3", None),
        (kinds.SETTLE, "e3", None),
        (kinds.SENT, "e3", None),
        (kinds.VOID, "e4", None),
    ):
        rig.append(kind, name, payload)
        rig.turn()
    rig.stop()
    found = scan(rig.directory)
    assert {name: (one.sent, one.progress) for name, one in found.opens.items()} == {
        "e1": (False, None),
        "e2": (True, 41),
    }
    assert found.opens["e1"].opened.hold_pico == 5
    assert [one.pos for one in found.finished] == [position(1, 6), position(1, 8)]
    assert (found.last_pos, found.epoch) == (position(1, 8), 1)


def test_an_open_record_that_does_not_decode_is_damage(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.begin()
    rig.append(kinds.OPEN, "e1", b'["e1"]')
    rig.turn()
    with pytest.raises(JournalDamagedError, match="does not decode"):
        scan(rig.directory)


def test_positions_are_never_reused_by_a_later_epoch(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    seen: set[int] = set()
    for _ in range(3):
        rig.begin()
        rig.append(kinds.VOID, "e1")
        rig.turn()
        new = {one.pos for one in rig.records()} - seen
        assert new == {position(rig.epoch, 1)}
        seen |= new
        rig.stop()
