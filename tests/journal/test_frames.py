"""A frame comes back as it was written or not at all (J18, J20, J21, J23)."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox._meter import encode_frames
from farebox.base import frames as kinds
from farebox.base import limits
from farebox.base.errors import InvariantBrokenError
from farebox.journal.frames import (
    OVERHEAD_BYTES,
    Broken,
    Frame,
    Read,
    check_length,
    decode,
    decode_run,
    encode,
    latest_synced,
    whole_part,
)

J = 0xFEDCBA9876543210


def frame(payload: bytes, pos: int = 7, synced: int = 3, before: int = 9, kind: int = kinds.SETTLE) -> bytes:
    return encode([(kind, pos, payload)], J, synced, before)[0]


@given(
    st.binary(max_size=200), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
)
def test_a_frame_comes_back(payload: bytes, pos: int, synced: int, before: int) -> None:
    data, (crc,) = encode([(kinds.OPEN, pos, payload)], J, synced, before)
    read = decode(b"xx" + data + b"rest", 2, J)
    end = 2 + OVERHEAD_BYTES + len(payload)
    assert read == Read(Frame(kinds.OPEN, pos, payload), synced, before, crc, end)


@given(
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=99)), max_size=5), st.integers(0, 2**32 - 1)
)
def test_frames_are_written_as_the_layout_says(records: list[tuple[int, bytes]], before: int) -> None:
    expected, crc = b"", before
    for pos, (kind, payload) in enumerate(records, start=7):
        head = struct.pack("<IBQQQI", len(payload), kind, J, pos, 3, crc)
        crc = zlib.crc32(payload, zlib.crc32(head))
        expected += head + struct.pack("<I", crc) + payload
    assert encode_frames(records, J, 7, 3, before) == (expected, crc)


@given(st.lists(st.binary(max_size=20), max_size=4), st.integers(0, 400))
def test_whole_frames_are_told_from_a_part(payloads: list[bytes], written: int) -> None:
    data, crcs = encode([(5, pos, payload) for pos, payload in enumerate(payloads)], J, 3, 9)
    written = min(written, len(data))
    ends = [sum(OVERHEAD_BYTES + len(one) for one in payloads[: count + 1]) for count in range(len(payloads))]
    whole = sum(end <= written for end in ends)
    assert whole_part(data, written, 9) == (whole, [0, *ends][whole], [9, *crcs][whole])


def test_overhead_is_small() -> None:
    assert OVERHEAD_BYTES == 37


def test_J20_every_flipped_bit_is_noticed() -> None:
    data = frame(b'["e1"]')
    for index in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[index // 8] ^= 1 << index % 8
        assert isinstance(decode(bytes(flipped), 0, J), Broken)


def test_J18_a_shortened_frame_asks_for_what_it_needs() -> None:
    data = frame(b'["e1"]')
    for length in range(len(data)):
        read = decode(data[:length], 0, J)
        assert isinstance(read, Broken)
        assert length < read.needed_bytes <= len(data)


@pytest.mark.parametrize("length", [limits.prices_frame_bytes_max + 1, 2**31, 2**32 - 1])
def test_J23_an_enormous_length_is_damage_not_an_allocation(length: int) -> None:
    read = decode(struct.pack("<I", length) + frame(b"x")[4:], 0, J)
    assert isinstance(read, Broken)
    assert read.needed_bytes == 0


def test_J21_frames_of_another_journal_are_not_read() -> None:
    assert isinstance(decode(frame(b"x"), 0, J + 1), Broken)


def test_M10_lengths_are_bounded_when_written() -> None:
    check_length(kinds.SETTLE, bytes(limits.frame_bytes_max))
    check_length(kinds.PRICES, bytes(limits.prices_frame_bytes_max))
    for kind, length in (
        (kinds.SETTLE, limits.frame_bytes_max),
        (kinds.PRICES, limits.prices_frame_bytes_max),
    ):
        with pytest.raises(InvariantBrokenError, match="M10"):
            check_length(kind, bytes(length + 1))


def test_valid_frames_are_found_behind_damage() -> None:
    good = frame(b"a", synced=5) + frame(b"b", synced=8) + frame(b"c", synced=6)
    assert latest_synced(b"noise" + good, 0, J) == 8
    assert latest_synced(good[1:], 0, J) == 8
    assert latest_synced(b"noise", 0, J) == 0
    assert latest_synced(J.to_bytes(8, "little") * 3, 0, J) == 0


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(0, 5))
def test_frames_written_together_are_read_in_one_run_up_to_the_first_that_does_not_follow(
    payloads: list[bytes], broken: int
) -> None:
    records = [(kinds.SETTLE, 8 + index, payload) for index, payload in enumerate(payloads)]
    data, crcs = encode(records, J, 3, 9)
    assert decode_run(data, J, 9, 7) == (records, len(data), crcs[-1] if crcs else 9)
    if broken < len(records):
        good = sum(OVERHEAD_BYTES + len(payload) for payload in payloads[:broken])
        flipped = bytearray(data)
        flipped[good + OVERHEAD_BYTES - 1] ^= 1
        found, end, _ = decode_run(bytes(flipped), J, 9, 7)
        assert (found, end) == (records[:broken], good)
    assert decode_run(data, J, 8, 7)[1] == 0
    assert decode_run(data, J, 9, 6)[1] == 0
