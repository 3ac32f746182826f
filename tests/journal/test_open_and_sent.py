"""`open` and `sent` of an exchange are one frame, written before anybody is told (MONEY section 7); who is
told and fails hinders nobody (J05, J25, hole 33).
"""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from farebox.base import frames as kinds
from farebox.base.errors import InvariantBrokenError, JournalError, JournalFullError
from farebox.journal.frames import OVERHEAD_BYTES, Frame
from farebox.journal.recovery import scan
from journal.fault_files import FaultFiles, disk_error
from journal.rig import Rig, ended, frame_bytes, opened


@pytest.fixture
def files() -> FaultFiles:
    return FaultFiles()


@pytest.fixture
def journal(tmp_path: Path, files: FaultFiles) -> Iterator[Rig]:
    made = Rig(tmp_path, files)
    made.begin()
    yield made
    made.stop()


def begin(journal: Rig, exchange: str) -> None:
    journal.appender.append_open(
        exchange, opened(exchange), lambda error: journal.told.append((exchange, error))
    )


def kinds_of(journal: Rig) -> list[int]:
    return [record.kind for record in journal.records()]


def test_J05_open_and_sent_stand_before_the_first_byte_may_leave(journal: Rig) -> None:
    begin(journal, "e1")
    assert journal.told == []
    journal.turn()
    assert journal.told == [("e1", None)]
    assert kinds_of(journal) == [kinds.OPEN_SENT]
    assert scan(journal.directory).opens["e1"].sent


def test_ends_go_first_but_never_before_their_own_open(journal: Rig) -> None:
    begin(journal, "e1")
    journal.turn()
    begin(journal, "e2")
    journal.append(kinds.VOID, "e2")
    journal.append(kinds.SETTLE, "e1")
    journal.turn()
    later = [(record.kind, record.payload[2:4]) for record in journal.records()[1:]]
    e1, e2 = b"e1", b"e2"
    assert later == [(kinds.SETTLE, e1), (kinds.OPEN_SENT, e2), (kinds.VOID, e2)]


@pytest.mark.parametrize(
    "kept", [0, OVERHEAD_BYTES, frame_bytes(Frame(kinds.OPEN_SENT, 1, opened("e1"))) - 1]
)
def test_J25_an_open_that_is_not_written_whole_was_not_sent(
    journal: Rig, files: FaultFiles, kept: int
) -> None:
    fates: list[int | OSError] = [kept, disk_error(errno.ENOSPC)] if kept else [disk_error(errno.ENOSPC)]
    files.on_write = lambda length: (
        (fate if isinstance(fate := fates.pop(0), OSError) else min(length, fate)) if fates else length
    )
    begin(journal, "e1")
    journal.turn()
    assert [(name, type(error)) for name, error in journal.told] == [("e1", JournalFullError)]
    assert scan(journal.directory).opens == {}
    begin(journal, "e2")
    journal.turn()
    assert journal.told[-1] == ("e2", None)


def test_an_end_that_failed_is_taken_back_so_that_its_exchange_is_carried_forward(
    journal: Rig, files: FaultFiles
) -> None:
    begin(journal, "e1")
    journal.turn()
    files.on_write = lambda _length: disk_error(errno.ENOSPC)
    journal.append(kinds.SETTLE, "e1")
    journal.append(kinds.SETTLE, "never opened here")
    journal.turn()
    assert list(journal.appender._opens) == ["e1"]


def test_a_listener_that_fails_hinders_nobody(journal: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_error: Exception | None) -> None:
        raise ValueError("listener")

    journal.appender.append_open("e1", opened("e1"), fail)
    begin(journal, "e2")
    journal.turn()
    assert journal.told == [("e2", None)]
    assert "what follows a journal record failed" in caplog.text


def test_M10_a_record_too_long_for_a_frame_is_refused(journal: Rig) -> None:
    with pytest.raises(InvariantBrokenError, match="M10"):
        journal.appender.append(kinds.SETTLE, ended("e1", "x" * 2**20))


def test_progress_of_an_exchange_that_has_ended_is_written_and_followed_by_nobody(journal: Rig) -> None:
    journal.append(kinds.PROGRESS, "e1")
    journal.append(kinds.SENT, "e1")
    journal.turn()
    assert journal.appender._opens == {}
    assert kinds_of(journal) == [kinds.PROGRESS, kinds.SENT]


def test_J28_a_journal_that_breaks_with_records_queued_tells_them(journal: Rig, files: FaultFiles) -> None:
    begin(journal, "e1")
    journal.tail.broken = JournalError("the disk is gone")
    journal.turn()
    assert [name for name, error in journal.told if error is journal.tail.broken] == ["e1"]
    with pytest.raises(JournalError, match="cannot be written"):
        begin(journal, "e2")


def test_what_an_abandoned_segment_kept_open_is_closed_at_the_end(journal: Rig, files: FaultFiles) -> None:
    begin(journal, "e1")
    journal.turn()
    journal.tail.sync_failed(disk_error())
    assert journal.tail._abandoned
    for descriptor in journal.appender.close():
        files.close(descriptor)
    assert journal.tail._abandoned == []
    assert [record.kind for record in journal.records()] == [kinds.OPEN_SENT]


def test_J27_a_disk_that_refuses_the_second_copy_too_breaks_the_journal(
    journal: Rig, files: FaultFiles
) -> None:
    begin(journal, "e1")
    journal.turn()
    fates: list[OSError | None] = [None, disk_error()]
    files.on_write = lambda length: fates.pop(0) or length
    journal.tail.sync_failed(disk_error())
    assert "cannot be written again" in str(journal.tail.broken)


def test_with_durability_disk_sending_waits_for_the_sync(tmp_path: Path) -> None:
    journal = Rig(tmp_path)
    journal.begin(durable=True)
    journal.appender.append(kinds.PROGRESS, ended("e0"))
    begin(journal, "e1")
    journal.turn()
    assert journal.told == []
    journal.sync_round()
    assert journal.told == [("e1", None)]
    journal.stop()
