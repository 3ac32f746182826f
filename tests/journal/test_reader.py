"""The writer's reader gives each synced record once and in order, and says which segments may go (holes 4,
23, 34).
"""

import random
from pathlib import Path

import pytest

from farebox.base import frames as kinds
from farebox.base.errors import JournalDamagedError, JournalError
from farebox.journal import Reader, prices_payload, scan
from farebox.journal.segments import HEADER_BYTES
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


def write(rig: Rig, *names: str, kind: int = kinds.OPEN) -> None:
    for name in names:
        rig.append(kind, name)
        rig.turn()


def drain(reader: Reader, after: int = 0, bytes_max: int = 2**20) -> list[str]:
    found: list[str] = []
    while frames := reader.read(after, bytes_max):
        after = frames[-1].pos
        found += [one.payload[2:4].decode() for one in frames]
    return found


def test_records_come_as_they_are_written(rig: Rig) -> None:
    reader = Reader(rig.directory, rig.files)
    assert reader.read(0) == []
    write(rig, "e1", "e2")
    last = reader.read(0)[-1].pos
    assert reader.read(last) == []
    write(rig, "e3")
    assert [one.payload[2:4] for one in reader.read(last)] == [b"e3"]
    assert drain(reader, 0) == ["e1", "e2", "e3"]
    assert drain(reader, last) == ["e3"]
    reader.close()
    reader.close()


@pytest.mark.parametrize("bytes_max", [1, 40, 100, 130, 1000])
def test_any_read_size_gives_the_same(rig: Rig, bytes_max: int) -> None:
    write(rig, "e1", "e2", "e3", "e4")
    assert drain(Reader(rig.directory, rig.files), 0, bytes_max) == ["e1", "e2", "e3", "e4"]


def test_hole_04_what_was_given_survives_a_power_cut(rig: Rig, files: FaultFiles) -> None:
    write(rig, "e1", "e2")
    given = drain(Reader(rig.directory, files))
    files.crash(rig.directory, random.Random(5))
    assert [one.payload[2:4].decode() for one in rig.records()] == given == ["e1", "e2"]


def test_a_half_written_frame_waits(rig: Rig) -> None:
    write(rig, "e1", "e2")
    path = rig.segment(1)
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    reader = Reader(rig.directory, rig.files)
    assert drain(reader) == ["e1"]
    path.write_bytes(data)
    assert drain(reader, reader._last_pos) == ["e2"]


def test_the_reader_follows_into_new_segments(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farebox.base.limits.segment_bytes_max", 200)
    reader = Reader(rig.directory, rig.files)
    write(rig, *(f"e{index}" for index in range(9)), kind=kinds.SETTLE)
    assert rig.segment(3).exists()
    assert drain(reader) == [f"e{index}" for index in range(9)]
    rig.segment(rig.tail.sequence + 1).write_bytes(b"torn")
    assert reader.read(reader._last_pos) == []


def test_hole_34_records_written_again_come_once(rig: Rig, files: FaultFiles) -> None:
    reader = Reader(rig.directory, files)
    write(rig, "e1")
    rig.sync_round()
    write(rig, "e2")
    assert drain(reader) == ["e1", "e2"]
    files.on_sync = lambda path: disk_error() if path == rig.segment(1) else None
    rig.sync_round()
    write(rig, "e3")
    assert drain(reader, reader._last_pos) == ["e3"]
    assert drain(Reader(rig.directory, files)) == ["e1", "e2", "e3"]


def test_J27_behind_its_own_failed_sync_the_reader_waits_for_the_new_copy(
    rig: Rig, files: FaultFiles
) -> None:
    write(rig, "e1")
    rig.sync_round()
    write(rig, "e2")
    files.on_sync = lambda path: disk_error() if path == rig.segment(1) else None
    reader = Reader(rig.directory, files)
    assert reader.read(0) == []
    rig.sync_round()
    rig.sync_round()
    assert drain(reader) == ["e1", "e2"]


def test_a_journal_without_a_segment_has_nothing_to_read_or_to_remove(tmp_path: Path) -> None:
    reader = Reader(Rig(tmp_path).directory, FaultFiles())
    assert reader.read(0) == []
    assert reader.deletable(1 << 60) == []


def test_missing_records_are_damage(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farebox.base.limits.segment_bytes_max", 200)
    write(rig, *(f"e{index}" for index in range(9)), kind=kinds.SETTLE)
    path = rig.segment(1)
    data = path.read_bytes()
    path.write_bytes(data[: HEADER_BYTES + 40])
    with pytest.raises(JournalDamagedError, match="up to the next segment"):
        drain(Reader(rig.directory, rig.files))


def test_J30_a_file_that_cannot_be_read_is_an_error(rig: Rig, files: FaultFiles) -> None:
    files.on_open = lambda _path: disk_error()
    with pytest.raises(JournalError, match="cannot be read"):
        Reader(rig.directory, files).read(0)


def test_hole_23_a_segment_goes_when_applied_and_its_open_records_are_carried(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farebox.base.limits.segment_bytes_max", 300)
    reader = Reader(rig.directory, rig.files)
    rig.append(kinds.PRICES, "p", prices_payload(7, b'{"a":1}'))
    rig.append(kinds.OPEN, "x1", opened("x1"))
    rig.append(kinds.SENT, "x1", b'["x1"]')
    rig.append(kinds.PROGRESS, "x1", b'["x1",5]')
    rig.turn()
    for index in range(10, 18):
        write(rig, f"{index}", kind=kinds.SETTLE)
        drain(reader, reader._last_pos)
        assert reader.delete(0) == 0
    assert reader.deletable(1 << 60)
    gone = reader.delete(1 << 60)
    assert gone >= 2
    assert not rig.segment(1).exists()
    found = scan(rig.directory)
    assert found.opens["x1"].sent
    assert found.opens["x1"].progress == 5
    assert found.prices == {7: b'{"a":1}'}
    assert found.last_pos == rig.tail.last_pos
    again = Reader(rig.directory, rig.files)
    assert drain(again)[-1] == "17"


def test_the_segment_being_read_and_one_with_an_open_record_stay(rig: Rig) -> None:
    reader = Reader(rig.directory, rig.files)
    write(rig, "x1")
    rig.sync_round()
    write(rig, "e1", kind=kinds.VOID)
    drain(reader)
    assert reader.deletable(1 << 60) == []
    rig.stop()
    rig.begin()
    write(rig, "e2", kind=kinds.SETTLE)
    drain(reader, reader._last_pos)
    assert reader.deletable(1 << 60) == []
    write(rig, "x1", kind=kinds.VOID)
    drain(reader, reader._last_pos)
    assert [path.name for path in reader.deletable(1 << 60)] == [rig.segment(1).name]


def test_a_deletion_that_fails_is_an_error(
    rig: Rig, files: FaultFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(rig.directory, files)
    write(rig, "e1", kind=kinds.SETTLE)
    rig.stop()
    rig.begin()
    write(rig, "e2", kind=kinds.SETTLE)
    drain(reader)

    def fail(_path: Path) -> None:
        raise disk_error()

    monkeypatch.setattr(files, "unlink", fail)
    with pytest.raises(JournalError, match="cannot be removed"):
        reader.delete(1 << 60)


def test_ended_payloads_begin_with_their_exchange() -> None:
    assert ended("e1").startswith(b'["e1"')


def test_J14_a_journal_whose_applied_segments_went_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader synced and deleted what the header of the next segment did not know to be synced."""
    monkeypatch.setattr("farebox.base.limits.segment_bytes_max", 100)
    rig = Rig(tmp_path)
    rig.begin()
    for name in ("e1", "e2"):
        rig.append(kinds.VOID, name)
    rig.turn()
    last_pos = rig.appender.tail.last_pos
    reader = Reader(rig.directory)
    assert reader.read(0)[-1].pos == last_pos
    assert reader.read(last_pos) == []
    for _ in range(3):
        reader.delete(last_pos)
        rig.stop()
        assert rig.begin().last_pos == last_pos
        assert reader.read(last_pos) == []
    assert not rig.segment(1).exists()
