"""Damage behind the last synced record is a torn tail, cut; at or before it nothing is changed (J18 to J24,
J30).

Sectors may persist in any order (hole 32), so a bad frame before a good one is not yet corruption.
"""

import shutil
import struct
import zlib
from pathlib import Path

import pytest

from farebox.base import frames as kinds
from farebox.base.errors import JournalDamagedError, JournalError
from farebox.journal import scan
from farebox.journal.frames import Frame, encode
from farebox.journal.segments import HEADER_BYTES, number_of
from journal.fault_files import FaultFiles, disk_error
from journal.rig import Rig, ended, frame_bytes, records


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    rig.begin()
    return rig


def write(rig: Rig, names: str, *, synced: bool) -> None:
    """One record per turn."""
    for name in names:
        rig.append(kinds.OPEN, name)
        rig.turn()
        if synced:
            rig.sync_round()


def test_J18_J03_truncated_anywhere_the_rest_is_a_prefix(rig: Rig) -> None:
    write(rig, "abc", synced=False)
    rig.stop()
    whole, path = rig.records(), rig.segment(1)
    data = path.read_bytes()
    starts = set()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        found = rig.records()
        assert found == whole[: len(found)]
        starts.add(len(found))
        cut = scan(rig.directory).cut
        at_frame_end = length in {HEADER_BYTES + frame_bytes(*whole[:n]) for n in range(4)}
        assert (cut is None) == at_frame_end
    assert starts == {0, 1, 2}


def test_J18_after_a_cut_the_journal_goes_on(rig: Rig) -> None:
    write(rig, "abc", synced=False)
    rig.stop()
    path = rig.segment(1)
    path.write_bytes(path.read_bytes()[:-1])
    found = rig.begin()
    assert found.cut is not None
    write(rig, "d", synced=True)
    rig.stop()
    assert [one.payload[2:3] for one in rig.records()] == [b"a", b"b", b"d"]
    assert scan(rig.directory).cut is None


def test_J18_a_torn_header_of_the_newest_segment_is_removed(rig: Rig) -> None:
    write(rig, "ab", synced=True)
    rig.stop()
    for torn in (b"", rig.segment(1).read_bytes()[: HEADER_BYTES - 1]):
        rig.segment(2).write_bytes(torn)
        rig.begin()
        rig.stop()
        assert len(rig.records()) == 2
        rig.segment(2).unlink()
        Path(rig.directory / "epoch").unlink(missing_ok=True)
        rig.epoch = 0


def test_J19_sectors_of_the_last_turn_in_any_state(rig: Rig) -> None:
    write(rig, "ab", synced=True)
    for name in "cdefghijklmnopqrst":
        rig.append(kinds.SETTLE, name, ended(name, "x" * 100))
    rig.turn()
    rig.stop()
    whole, path = rig.records(), rig.segment(1)
    data = path.read_bytes()
    start = HEADER_BYTES + frame_bytes(*whole[:2])
    for sector in range(start // 512, len(data) // 512 + 1):
        begin, end = max(start, sector * 512), min(len(data), sector * 512 + 512)
        for filler in (b"\0", b"\xff", data[begin - 512 : begin - 511]):
            path.write_bytes(data[:begin] + filler * (end - begin) + data[end:])
            found = rig.records()
            assert found == whole[: len(found)]
            assert len(found) >= 2


def test_J20_a_flip_in_every_byte_of_a_synced_journal_is_refused_or_harmless(
    rig: Rig, tmp_path: Path
) -> None:
    write(rig, "abcd", synced=True)
    rig.stop()
    whole, path = rig.records(), rig.segment(1)
    data = path.read_bytes()
    last = len(data) - frame_bytes(whole[3])
    for index in range(len(data)):
        path.write_bytes(data[:index] + bytes([data[index] ^ 0x10]) + data[index + 1 :])
        if index < last:
            with pytest.raises(JournalDamagedError) as caught:
                rig.records()
            assert caught.value.path == str(path)
            assert 0 <= caught.value.offset <= index
            assert path.stat().st_size == len(data)
        else:
            assert rig.records() == whole[:3]


def test_J20_the_message_names_file_offset_and_what_to_do(rig: Rig) -> None:
    write(rig, "abc", synced=True)
    rig.stop()
    data = bytearray(rig.segment(1).read_bytes())
    data[HEADER_BYTES + 40] ^= 1
    rig.segment(1).write_bytes(data)
    with pytest.raises(JournalDamagedError, match=rf"{rig.segment(1)} at byte {HEADER_BYTES}: .*keep a copy"):
        rig.begin()


def test_hole_32_a_bad_frame_before_a_good_unsynced_one_is_a_torn_tail(rig: Rig) -> None:
    write(rig, "abcd", synced=False)
    rig.stop()
    data = bytearray(rig.segment(1).read_bytes())
    data[-37 - 50 - 60] ^= 1
    rig.segment(1).write_bytes(data)
    found = rig.records()
    assert 0 < len(found) < 4
    assert rig.begin().cut is not None


@pytest.mark.parametrize("noise", ["zeros", "old", "foreign", "copy", "text"])
def test_J21_noise_behind_the_tail_is_never_a_record(rig: Rig, tmp_path: Path, noise: str) -> None:
    write(rig, "abc", synced=True)
    rig.stop()
    whole, path = rig.records(), rig.segment(1)
    data = path.read_bytes()
    other = Rig(tmp_path)
    other.begin()
    write(other, "xyz", synced=False)
    tails = {
        "zeros": bytes(4096),
        "old": data[HEADER_BYTES:],
        "foreign": other.segment(1).read_bytes()[HEADER_BYTES:],
        "copy": data[-frame_bytes(whole[2]) :],
        "text": b"GET / HTTP/1.1\r\n" * 9,
    }
    path.write_bytes(data + tails[noise])
    assert rig.records() == whole
    assert scan(rig.directory).cut is not None


@pytest.fixture
def segments(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Three synced segments with records in each."""
    monkeypatch.setattr("farebox.base.limits.segment_bytes_max", 200)
    write(rig, "abcdefg", synced=True)
    rig.stop()
    assert rig.segment(3).exists()
    return rig


def test_J22_a_missing_middle_segment_is_refused(segments: Rig) -> None:
    segments.segment(2).unlink()
    with pytest.raises(JournalDamagedError, match="missing"):
        segments.records()


def test_J22_swapped_names_are_refused(segments: Rig) -> None:
    spare = segments.directory / "spare"
    segments.segment(2).rename(spare)
    segments.segment(3).rename(segments.segment(2))
    spare.rename(segments.segment(3))
    with pytest.raises(JournalDamagedError, match="written as number 3"):
        segments.records()


def test_J22_a_copied_segment_is_refused(segments: Rig) -> None:
    last = max(int(path.stem) for path in segments.directory.glob("*.segment"))
    shutil.copy(segments.segment(1), segments.segment(last + 1))
    with pytest.raises(JournalDamagedError, match="written as number 1"):
        segments.records()


def test_J22_a_segment_of_another_journal_is_refused(segments: Rig, tmp_path: Path) -> None:
    other = Rig(tmp_path)
    other.begin()
    other.stop()
    shutil.copy(other.segment(1), segments.segment(1))
    with pytest.raises(JournalDamagedError, match="belongs to journal"):
        segments.records()


def test_J22_a_synced_segment_cut_at_a_frame_is_refused(segments: Rig) -> None:
    first = [one for one in segments.records() if one.payload]
    path = segments.segment(1)
    path.write_bytes(path.read_bytes()[: HEADER_BYTES + frame_bytes(first[0])])
    with pytest.raises(JournalDamagedError, match="up to the next segment"):
        segments.records()


def test_J22_a_synced_segment_with_a_damaged_header_is_refused(segments: Rig) -> None:
    for sequence in (1, 2):
        data = segments.segment(sequence).read_bytes()
        segments.segment(sequence).write_bytes(b"X" + data[1:])
        with pytest.raises(JournalDamagedError, match=r"header is torn|up to the next segment"):
            segments.records()
        segments.segment(sequence).write_bytes(data)


def test_J24_an_unknown_format_version_is_refused(rig: Rig) -> None:
    data = rig.segment(1).read_bytes()
    head = data[:7] + b"\x02" + data[8 : HEADER_BYTES - 4]
    rig.segment(1).write_bytes(head + struct.pack("<I", zlib.crc32(head)))
    with pytest.raises(JournalDamagedError, match="version 2"):
        rig.records()


def test_J24_an_unknown_kind_of_record_is_refused_not_skipped(rig: Rig) -> None:
    write(rig, "a", synced=True)
    rig.stop()
    appender = rig.appender
    frames = [(99, appender.tail.last_pos + 1, b"new")]
    data, _ = encode(frames, number_of(rig.directory.name), 0, appender.tail._crc)
    with rig.segment(1).open("ab") as file:
        file.write(data)
    with pytest.raises(JournalDamagedError, match="kind 99"):
        rig.records()


def test_J21_a_gap_in_positions_ends_the_good_part(rig: Rig) -> None:
    write(rig, "a", synced=True)
    rig.stop()
    appender = rig.appender
    frames = [(kinds.VOID, appender.tail.last_pos + 2, ended("a"))]
    data, _ = encode(frames, number_of(rig.directory.name), 0, appender.tail._crc)
    with rig.segment(1).open("ab") as file:
        file.write(data)
    assert len(rig.records()) == 1


def test_J30_a_read_error_is_not_the_end_of_the_file(tmp_path: Path) -> None:
    files = FaultFiles()
    rig = Rig(tmp_path, files)
    rig.begin()
    write(rig, "ab", synced=True)
    rig.stop()
    files.on_read = lambda _path: disk_error()
    with pytest.raises(JournalError, match="cannot be read"):
        rig.begin()


def test_J30_a_later_segment_that_cannot_be_opened_is_not_missing(tmp_path: Path) -> None:
    files = FaultFiles()
    rig = Rig(tmp_path, files)
    for _ in range(2):
        rig.begin()
        write(rig, "ab", synced=True)
        rig.stop()
    files.on_open = lambda path: disk_error() if path == rig.segment(2) else None
    with pytest.raises(JournalError, match=r"000000000002\.segment cannot be read"):
        rig.records()


def test_an_empty_directory_is_an_empty_journal(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert rig.records() == []
    with pytest.raises(JournalError, match="cannot be read"):
        records(tmp_path / "0123456789abcdef")


def test_a_cut_that_fails_is_an_error(tmp_path: Path) -> None:
    files = FaultFiles()
    rig = Rig(tmp_path, files)
    rig.begin()
    write(rig, "ab", synced=False)
    rig.stop()
    path = rig.segment(1)
    path.write_bytes(path.read_bytes()[:-1])
    files.on_open = lambda _path: disk_error()
    with pytest.raises(JournalError, match="cannot be cut"):
        rig.begin()


def test_positions_and_payloads_survive(rig: Rig) -> None:
    write(rig, "ab", synced=True)
    assert rig.records() == [
        Frame(kinds.OPEN, (1 << 40) + 1, rig.records()[0].payload),
        Frame(kinds.OPEN, (1 << 40) + 2, rig.records()[1].payload),
    ]
