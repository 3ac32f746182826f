"""A disk that is full, short, failing or cut off from power loses nothing that was promised (J03, J25 to J29,
J33).
"""

import errno
import random
from pathlib import Path

import pytest

from farebox.base import frames as kinds
from farebox.base import limits
from farebox.base.errors import InvariantBrokenError, JournalError, JournalFullError
from farebox.journal import scan
from journal.fault_files import FaultFiles, disk_error
from journal.rig import Rig, ended, opened


@pytest.fixture
def files() -> FaultFiles:
    return FaultFiles()


@pytest.fixture
def rig(tmp_path: Path, files: FaultFiles) -> Rig:
    rig = Rig(tmp_path, files)
    rig.begin()
    return rig


def names(rig: Rig) -> list[str]:
    return [one.payload[2:4].decode() for one in rig.records()]


@pytest.mark.parametrize("kept", range(1, 230, 7))
def test_J03_J29_a_short_write_is_continued(rig: Rig, files: FaultFiles, kept: int) -> None:
    fates = [kept, 1]
    files.on_write = lambda length: min(length, fates.pop(0)) if fates else length
    for name in ("e1", "e2", "e3"):
        rig.append(kinds.OPEN, name)
    rig.turn()
    assert names(rig) == ["e1", "e2", "e3"]
    assert rig.told == [("e1", None), ("e2", None), ("e3", None)]


@pytest.mark.parametrize("kept", range(0, 330, 11))
def test_J25_hole_33_a_full_disk_keeps_whole_frames_and_overwrites_the_rest(
    rig: Rig, files: FaultFiles, kept: int
) -> None:
    """Some bytes of the turn reach the disk, then it is full; later there is room again."""
    fates: list[int | OSError] = [kept, disk_error(errno.ENOSPC)] if kept else [disk_error(errno.ENOSPC)]
    files.on_write = lambda length: (
        (fate if isinstance(fate := fates.pop(0), OSError) else min(length, fate)) if fates else length
    )
    for name in ("e1", "e2", "e3"):
        rig.append(kinds.OPEN, name)
    rig.turn()
    fine = [name for name, error in rig.told if error is None]
    assert fine == ["e1", "e2", "e3"][: len(fine)]
    assert all(isinstance(error, JournalFullError) for _, error in rig.told[len(fine) :])
    assert names(rig) == fine
    fates.clear()
    rig.append(kinds.VOID, "e9")
    rig.turn()
    assert names(rig) == [*fine, "e9"]
    assert [one.pos & 0xFF for one in rig.records()] == list(range(1, len(fine) + 2))


def test_J25_a_settle_that_met_a_full_disk_may_be_appended_again(rig: Rig, files: FaultFiles) -> None:
    rig.append(kinds.OPEN, "e1")
    rig.turn()
    files.on_write = lambda _length: disk_error(errno.ENOSPC)
    rig.append(kinds.SETTLE, "e1")
    rig.turn()
    assert isinstance(rig.told[-1][1], JournalFullError)
    assert "e1" in scan(rig.directory).opens
    files.on_write = lambda length: length
    rig.append(kinds.SETTLE, "e1")
    rig.turn()
    assert rig.told[-1] == ("e1", None)
    assert not scan(rig.directory).opens


def test_J25_opens_are_refused_while_settles_have_their_room(rig: Rig, files: FaultFiles) -> None:
    room = limits.settle_reserve_bytes
    files.free = limits.journal_disk_free_bytes_min + 2**20 + 2 * room
    rig.appender._look_at_space()
    rig.append(kinds.OPEN, "e1")
    rig.append(kinds.OPEN, "e2")
    with pytest.raises(JournalFullError):
        rig.append(kinds.OPEN, "e3")
    rig.append(kinds.SENT, "e1")
    rig.append(kinds.PROGRESS, "e1")
    rig.turn()
    rig.append(kinds.SETTLE, "e1")
    rig.turn()
    rig.append(kinds.OPEN, "e4")
    rig.turn()
    assert names(rig) == ["e1", "e2", "e1", "e1", "e4"]
    assert rig.appender.progress_dropped_total == 1


def test_J25_the_budget_of_the_directory_is_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farebox.base.limits.journal_bytes_max", 2**20)
    rig.appender._look_at_space()
    with pytest.raises(JournalFullError):
        rig.append(kinds.OPEN, "e1")


def test_J25_a_disk_that_cannot_be_asked_counts_as_full(rig: Rig, files: FaultFiles) -> None:
    def fail(_directory: Path) -> int:
        raise disk_error()

    files.free_bytes = fail  # type: ignore[method-assign]
    rig.appender._look_at_space()
    with pytest.raises(JournalFullError):
        rig.append(kinds.OPEN, "e1")


def test_J33_a_slow_disk_sheds_opens(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farebox.base.limits.journal_unsynced_bytes_max", 100)
    rig.append(kinds.OPEN, "e1")
    rig.append(kinds.OPEN, "e2")
    rig.turn()
    with pytest.raises(JournalFullError):
        rig.append(kinds.OPEN, "e3")
    rig.append(kinds.SETTLE, "e1")
    rig.turn()
    rig.sync_round()
    rig.append(kinds.OPEN, "e3")


def test_J27_hole_34_after_a_failed_sync_records_move_and_positions_stay(rig: Rig, files: FaultFiles) -> None:
    for name in ("e1", "e2"):
        rig.append(kinds.OPEN, name)
        rig.turn()
        rig.sync_round()
    rig.append(kinds.OPEN, "e3")
    rig.turn()
    before = rig.records()
    failing = rig.segment(1)
    files.on_sync = lambda path: disk_error() if path == failing else None
    files.syncs.clear()
    rig.sync_round()
    rig.sync_round()
    assert files.syncs.count(failing) == 1
    assert rig.tail.synced_pos == rig.tail.last_pos == before[-1].pos
    rig.append(kinds.OPEN, "e4")
    rig.turn()
    assert rig.records()[:3] == before
    files.crash(rig.directory, random.Random(1))
    assert names(rig)[:3] == ["e1", "e2", "e3"]


def test_J27_when_the_new_segment_fails_too_the_journal_stops(rig: Rig, files: FaultFiles) -> None:
    rig.append(kinds.OPEN, "e1")
    rig.turn()
    files.on_sync = lambda _path: disk_error()
    rig.sync_round()
    assert rig.tail.broken is not None
    with pytest.raises(JournalError):
        rig.append(kinds.SETTLE, "e1")
    rig.sync_round()


def test_J27_J29_a_write_error_moves_the_turn_to_a_new_segment(rig: Rig, files: FaultFiles) -> None:
    fates: list[int | OSError] = [disk_error()]
    files.on_write = lambda length: fates.pop(0) if fates else length
    rig.append(kinds.OPEN, "e1")
    rig.append(kinds.OPEN, "e2")
    rig.turn()
    assert rig.told == [("e1", None), ("e2", None)]
    assert rig.segment(2).exists()
    rig.sync_round()
    assert names(rig) == ["e1", "e2"]


def test_J29_when_nothing_can_be_written_everyone_is_told(rig: Rig, files: FaultFiles) -> None:
    files.on_write = lambda _length: disk_error()
    rig.append(kinds.OPEN, "e1")
    rig.turn()
    assert isinstance(rig.told[0][1], JournalError)
    with pytest.raises(JournalError, match="cannot be written"):
        rig.append(kinds.OPEN, "e2")


def test_J29_an_interrupted_write_is_tried_again(rig: Rig, files: FaultFiles) -> None:
    fates: list[int | OSError] = [InterruptedError(), 0]
    files.on_write = lambda length: fates.pop(0) if fates else length
    rig.append(kinds.OPEN, "e1")
    rig.turn()
    assert isinstance(rig.told[0][1], JournalFullError)
    rig.append(kinds.OPEN, "e2")
    rig.turn()
    assert names(rig) == ["e2"]


def test_J04_durable_callers_wait_for_the_disk(tmp_path: Path, files: FaultFiles) -> None:
    rig = Rig(tmp_path, files)
    rig.begin(durable=True)
    rig.append(kinds.OPEN, "e1")
    rig.turn()
    assert rig.told == []
    rig.sync_round()
    assert rig.told == [("e1", None)]
    rig.append(kinds.OPEN, "e2")
    rig.turn()
    files.on_sync = lambda _path: disk_error()
    rig.sync_round()
    assert isinstance(rig.told[1][1], JournalError)


def test_J28_after_a_restart_unsynced_records_are_written_again(rig: Rig, files: FaultFiles) -> None:
    """The page cache still shows a record whose sync failed; only a new copy makes it durable."""
    rig.append(kinds.OPEN, "e1")
    rig.turn()
    rig.sync_round()
    rig.append(kinds.OPEN, "e2")
    rig.turn()
    files.on_sync = lambda _path: disk_error()
    rig.stop()
    files.dirty.clear()
    files.on_sync = lambda _path: None
    rig.begin()
    files.crash(rig.directory, random.Random(2))
    assert names(rig) == ["e1", "e2"]


def test_J15_a_segment_is_durable_before_a_record_stands_in_it(rig: Rig, files: FaultFiles) -> None:
    files.crash(rig.directory, random.Random(3))
    assert rig.segment(1).exists()
    assert scan(rig.directory).cut is None


def test_J15_a_segment_that_cannot_be_made_leaves_the_old_one_in_use(
    rig: Rig, files: FaultFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farebox.base.limits.segment_bytes_max", 100)
    files.on_open = lambda path: disk_error(errno.ENOSPC) if path == rig.segment(2) else None
    rig.append(kinds.OPEN, "e1")
    rig.turn()
    files.on_open = lambda _path: None
    fates: list[int] = [50, 3]
    files.on_write = lambda length: min(length, fates.pop(0)) if length == 44 and fates else length
    rig.append(kinds.OPEN, "e2")
    rig.turn()
    rig.append(kinds.OPEN, "e3")
    rig.turn()
    assert sorted(set(names(rig))) == ["e1", "e2", "e3"]


def test_begin_fails_when_the_disk_does(tmp_path: Path, files: FaultFiles) -> None:
    rig = Rig(tmp_path, files)
    files.on_write = lambda _length: 3
    with pytest.raises(JournalError, match="cannot be made"):
        rig.begin()
    files.on_write = lambda length: length
    calls: list[Path] = []

    def second_fails(path: Path) -> OSError | None:
        calls.append(path)
        return disk_error() if len(calls) == 2 else None

    files.on_sync = second_fails
    with pytest.raises(JournalError, match="cannot be synced"):
        rig.begin()


def test_wrong_use_is_an_error(rig: Rig) -> None:
    with pytest.raises(InvariantBrokenError, match="kind 99"):
        rig.append(99, "e1")
    with pytest.raises(InvariantBrokenError, match="exchange id"):
        rig.append(kinds.OPEN, "e1", b"[]")


@pytest.mark.parametrize("seed", range(60))
def test_J37_hole_46_power_cuts_at_any_time_lose_no_synced_record(
    tmp_path: Path, files: FaultFiles, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random work, random faults, power cut, restart, several times: what was called synced is there, in
    order.
    """
    monkeypatch.setattr("farebox.base.limits.segment_bytes_max", 1500)
    rng = random.Random(seed)
    rig = Rig(tmp_path, files)
    synced: dict[int, bytes] = {}
    number = 0
    for _ in range(4):
        files.on_sync = lambda _path: None
        rig.begin()
        files.on_sync = lambda _path: disk_error() if rng.random() < 0.1 else None
        for _ in range(rng.randint(0, 25)):
            number += 1
            if rig.tail.broken is not None:
                break
            rig.append(
                rng.choice([kinds.VOID, kinds.SETTLE]),
                f"x{number}",
                ended(f"x{number}", "y" * rng.randint(0, 900)),
            )
            if rng.random() < 0.7:
                rig.turn()
            if rng.random() < 0.3:
                rig.sync_round()
                shown = {one.pos: one.payload for one in rig.records()}
                synced.update({pos: shown[pos] for pos in shown if pos <= rig.tail.synced_pos})
        rig.tail._descriptor = -1
        files.crash(rig.directory, rng)
        found = {one.pos: one.payload for one in rig.records()}
        assert list(found) == sorted(found)
        assert {pos: found.get(pos) for pos in synced} == synced


def test_opened_record_helper_matches_the_real_form() -> None:
    from farebox.base.records import Opened

    assert Opened.decode(opened("e1")).exchange == "e1"
