"""A frame comes back as it was written or not at all (J18, J20, J21, J23)."""

import struct
import zlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox._meter import decode_run, encode_frames, unpack
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
    encode,
    latest_synced,
    whole_part,
)
from farebox.journal.payloads import exchange_of

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
    data, last_crc = encode_frames(records, J, 7, 3, before)
    crc = before
    for pos, (kind, record) in enumerate(records, start=7):
        (length,) = struct.unpack_from("<I", data)
        payload = data[OVERHEAD_BYTES : OVERHEAD_BYTES + length]
        head = struct.pack("<IBQQQI", length, kind, J, pos, 3, crc)
        crc = zlib.crc32(payload, zlib.crc32(head))
        assert data[:OVERHEAD_BYTES] == head + struct.pack("<I", crc)
        assert record == (unpack(payload) if kind == kinds.SETTLE else payload)
        data = data[OVERHEAD_BYTES + length :]
    assert (data, last_crc) == (b"", crc)


@given(st.lists(st.binary(max_size=20), max_size=4), st.integers(0, 400))
def test_whole_frames_are_told_from_a_part(payloads: list[bytes], written: int) -> None:
    data, crcs = encode([(5, pos, payload) for pos, payload in enumerate(payloads)], J, 3, 9)
    written = min(written, len(data))
    ends = [sum(OVERHEAD_BYTES + len(one) for one in payloads[: count + 1]) for count in range(len(payloads))]
    whole = sum(end <= written for end in ends)
    assert whole_part(data, written, 9) == (whole, [0, *ends][whole], [9, *crcs][whole])


SETTLED = (
    b'["e1","u","openhands","5e","m","chat",1,"1","exact",[],{"input":12,"output":5},{},12,"",65,'
    b'[["l","creditsNew",65]],"","ok",200,"up","m","r",false,1,2,3,'
    rb'"{\"prompt_tokens\":12,\"completion_tokens\":5,\"total_tokens\":17}",false]'
)


def frame_as_it_was(kind: int, payload: bytes, pos: int, before: int) -> tuple[bytes, int]:
    """A frame as it was written before records were packed."""
    head = struct.pack("<IBQQQI", len(payload), kind, J, pos, 3, before)
    crc = zlib.crc32(payload, zlib.crc32(head))
    return head + struct.pack("<I", crc) + payload, crc


def test_a_record_takes_half_its_bytes_and_its_exchange_stands_in_clear() -> None:
    data = frame(SETTLED)
    assert len(data) - OVERHEAD_BYTES < len(SETTLED) / 2
    assert data[OVERHEAD_BYTES:].startswith(b'["e1"')
    assert decode(data, 0, J) == Read(
        Frame(kinds.SETTLE, 7, SETTLED), 3, 9, zlib.crc32(data[37:], zlib.crc32(data[:33])), len(data)
    )


def test_a_journal_from_before_records_were_packed_is_read() -> None:
    opened, crc = frame_as_it_was(kinds.OPEN_SENT, b'["e1","u",false,1]', 8, 9)
    settled, _ = frame_as_it_was(kinds.SETTLE, SETTLED, 9, crc)
    check_run(opened + settled)
    frames, *_ = decode_run(Frame, opened + settled, J, 9, 7, {}, 4, False)
    assert [one.payload for one in frames] == [b'["e1","u",false,1]', SETTLED]


@pytest.mark.parametrize("kind", sorted(set(kinds.NAMES) - {kinds.SETTLE}))
def test_only_settle_records_are_packed(kind: int) -> None:
    record = b'["e1",false,{},false]'
    assert frame(record, kind=kind)[OVERHEAD_BYTES:] == record
    assert frame(record)[OVERHEAD_BYTES:] != record


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


def run_of_single_frames(
    data: bytes, before_crc: int, last_pos: int, opens: dict[bytes, int], only_ends: bool
) -> tuple[list[Frame], int, int, int]:
    """What `decode_run` must give: frame by frame, by `decode`."""
    found: list[Frame] = []
    end = 0
    read = decode(data, end, J)
    while isinstance(read, Read) and (read.before_crc, read.frame.pos) == (before_crc, last_pos + 1):
        frame = read.frame
        if frame.kind in kinds.BEGINNINGS | kinds.ENDS:
            try:
                name = exchange_of(frame.payload)
            except InvariantBrokenError:
                break
            opens.pop(name, None)
            if frame.kind in kinds.BEGINNINGS:
                opens[name] = 4
        found.append(frame)
        end, before_crc, last_pos = read.end, read.crc, frame.pos
        read = decode(data, end, J)
    if only_ends:
        last = found[-1:]
        found = [one for one in found if one.kind in kinds.ENDS or one in last]
    return found, end, before_crc, last_pos


def check_run(data: bytes, before_crc: int = 9, last_pos: int = 7) -> None:
    for only_ends in (False, True):
        opens, expected = {b"old": 1, b"e1": 2}, {b"old": 1, b"e1": 2}
        run = decode_run(Frame, data, J, before_crc, last_pos, opens, 4, only_ends)
        assert run == run_of_single_frames(data, before_crc, last_pos, expected, only_ends)
        assert opens == expected
        assert all(type(one) is Frame for one in run[0])


payloads_of = st.one_of(
    st.sampled_from([b'["e1"]', b'["e2",7]', b'["old","u"]', b'["",1]', b"[]", b'[""', b'["x', b""]),
    st.binary(max_size=50),
)
records_of = st.lists(st.tuples(st.integers(0, 8), payloads_of), max_size=8)


@given(records_of, st.integers(0, 2**32 - 1), st.sampled_from([7, 0, 2**40 - 1, 2**64 - 20]))
def test_frames_written_together_are_read_in_one_run(
    records: list[tuple[int, bytes]], before: int, last_pos: int
) -> None:
    data, crc = encode_frames(records, J, last_pos + 1, 3, before)
    check_run(data, before, last_pos)
    check_run(data, before ^ 1, last_pos)
    check_run(data, before, last_pos + 1)
    named = [(kinds.SENT, payload) for _, payload in records]
    data, crc = encode_frames(named, J, last_pos + 1, 3, before)
    run = decode_run(Frame, data, J, before, last_pos, {}, 4, False)
    assert run[1:] == (len(data), crc, last_pos + len(named))


@given(records_of, st.randoms(use_true_random=False))
def test_J20_a_run_ends_at_what_is_damaged_as_single_frames_do(
    records: list[tuple[int, bytes]], rng: Random
) -> None:
    data = bytearray(encode_frames(records, J, 8, 3, 9)[0]) + encode_frames(records, J, 2**40, 3, 9)[0]
    for _ in range(rng.randint(0, 2) if data else 0):
        at = rng.randrange(len(data))
        data[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
    check_run(bytes(data))


def test_J18_a_run_cut_or_flipped_anywhere_ends_as_single_frames_do() -> None:
    data, _ = encode_frames(
        [(kinds.OPEN, b'["e1"]'), (kinds.SENT, b"x"), (kinds.VOID, b'["e1"]')], J, 8, 3, 9
    )
    for length in range(len(data)):
        check_run(data[:length])
    for index in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[index // 8] ^= 1 << index % 8
        check_run(bytes(flipped))
