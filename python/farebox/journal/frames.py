"""One frame of the journal, to bytes (by the compiled module) and back (MONEY section 7). Pure.

Layout, little-endian: payload length u32, kind u8, journal u64, pos u64, synced_pos u64, CRC of the frame
before u32, own CRC-32 u32 over all of that and the payload, payload. 37 bytes around each payload. A payload
is its record; that of a settle frame is packed: usual words are one byte each (rust_meter/src/packed.rs).

Each frame checks out by itself, so valid frames can be found behind a damaged one; the CRC of the frame
before ties it to its place, so that old content of a disk is never read as a record.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple
from zlib import crc32

from farebox._meter import encode_frames, unpack
from farebox.base import frames as kinds
from farebox.base import limits
from farebox.base.errors import InvariantBrokenError

_HEAD: Final = struct.Struct("<IBQQQI")
_CRC: Final = struct.Struct("<I")
_HEAD_AND_CRC: Final = struct.Struct("<IBQQQII")
_JOURNAL_AT: Final = 5
OVERHEAD_BYTES: Final = _HEAD.size + _CRC.size


class Frame(NamedTuple):
    """A record with its position; `payload` is the record, not packed."""

    kind: int
    pos: int
    payload: bytes


class Read(NamedTuple):
    """A frame found at an offset, with what ties it to its neighbours."""

    frame: Frame
    synced_pos: int
    before_crc: int
    crc: int
    end: int


class Broken(NamedTuple):
    """Why there is no frame at an offset; `needed_bytes` > 0 when more bytes may make it one."""

    reason: str
    needed_bytes: int = 0


def length_max(kind: int) -> int:
    """The longest payload of a kind."""
    return limits.prices_frame_bytes_max if kind == kinds.PRICES else limits.frame_bytes_max


def check_length(kind: int, payload: bytes) -> None:
    """Raises InvariantBrokenError for a payload no frame may hold."""
    if len(payload) > limits.frame_bytes_max and len(payload) > length_max(kind):
        raise InvariantBrokenError(f"M10: a frame of {len(payload)} bytes is too long for kind {kind}")


def encode(
    frames: Iterable[tuple[int, int, bytes]], journal: int, synced_pos: int, before_crc: int
) -> tuple[bytes, list[int]]:
    """Bytes of frames (kind, position, payload) that stand behind each other, and each one's CRC.

    Positions may skip; where they do not, `encode_frames` of the compiled module takes a whole list at once.
    """
    parts: list[bytes] = []
    crcs = [before_crc]
    for kind, pos, payload in frames:
        data, crc = encode_frames([(kind, payload)], journal, pos, synced_pos, crcs[-1])
        parts.append(data)
        crcs.append(crc)
    return b"".join(parts), crcs[1:]


def decode(data: bytes, offset: int, journal: int) -> Read | Broken:
    """The frame of `journal` at `offset`, whatever came before it. Never raises, never allocates beyond the
    data.
    """
    if len(data) - offset < OVERHEAD_BYTES:
        return Broken("the file ends inside a frame's header", OVERHEAD_BYTES)
    length, kind, owner, pos, synced_pos, before_crc = _HEAD.unpack_from(data, offset)
    if owner != journal:
        return Broken("the frame does not belong to this journal")
    if length > limits.prices_frame_bytes_max:
        return Broken(f"a frame cannot be {length} bytes long")
    start = offset + OVERHEAD_BYTES
    end = start + length
    if end > len(data):
        return Broken("the file ends inside a frame", OVERHEAD_BYTES + length)
    payload = data[start:end]
    (crc,) = _CRC.unpack_from(data, start - _CRC.size)
    if crc32(payload, crc32(data[offset : start - _CRC.size])) != crc:
        return Broken("the frame's checksum is wrong")
    record = unpack(payload) if kind == kinds.SETTLE else payload
    return Read(Frame(kind, pos, record), synced_pos, before_crc, crc, end)


def frames_in(data: bytes, journal: int) -> Iterator[Frame]:
    """The frames of bytes that were encoded here; they need not follow each other."""
    read = decode(data, 0, journal)
    while isinstance(read, Read):
        yield read.frame
        read = decode(data, read.end, journal)


def whole_part(data: bytes, written: int, before_crc: int) -> tuple[int, int, int]:
    """Of encoded frames of which the first `written` bytes are there: how many are whole, their length, the
    last one's CRC (`before_crc` where none is whole).
    """
    whole, length, crc = 0, 0, before_crc
    while length + OVERHEAD_BYTES <= written:
        payload_bytes, *_, frame_crc = _HEAD_AND_CRC.unpack_from(data, length)
        if length + OVERHEAD_BYTES + payload_bytes > written:
            break
        whole, length, crc = whole + 1, length + OVERHEAD_BYTES + payload_bytes, frame_crc
    return whole, length, crc


def latest_synced(data: bytes, offset: int, journal: int) -> int:
    """The highest synced_pos that any valid frame at or after `offset` bears witness to; 0 without one."""
    mark = journal.to_bytes(8, "little")
    latest = 0
    found = data.find(mark, offset + _JOURNAL_AT)
    while found >= 0:
        read = decode(data, found - _JOURNAL_AT, journal)
        if isinstance(read, Read):
            latest = max(latest, read.synced_pos)
        found = data.find(mark, found + 1)
    return latest
