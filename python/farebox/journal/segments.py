"""A journal's directory: its name, its lock, its segment files and their headers.

`root/{J}/lock` is held by the one process that appends; `root/{J}/{sequence}.segment` are read in order of
their sequence. A header repeats journal and sequence, so that a renamed, copied or foreign file is noticed;
`last_pos` says after which record the segment goes on: the last one of the segment before, or the last
synced one, when the segment before ended with a failed sync and its unsynced records were written again
here.
"""

import struct
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from farebox.base.errors import JournalDamagedError, JournalError, JournalLockedError
from farebox.base.ids import is_journal_id, new_journal_id
from farebox.journal.files import Files

_MAGIC: Final = b"FAREBOX"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<7sBQQQQ")
_CRC: Final = struct.Struct("<I")
HEADER_BYTES: Final = _HEADER.size + _CRC.size
SEGMENT_SUFFIX: Final = ".segment"
_LOCK: Final = "lock"
_EPOCH: Final = "epoch"


class Header(NamedTuple):
    """First bytes of a segment; `crc` is what its first frame is chained to."""

    sequence: int
    last_pos: int
    synced_pos: int
    crc: int


def number_of(journal: str) -> int:
    """A journal id as it stands in frames."""
    return int(journal, 16)


def segment_path(directory: Path, sequence: int) -> Path:
    """The file of a segment."""
    return directory / f"{sequence:012d}{SEGMENT_SUFFIX}"


def sequences(files: Files, directory: Path) -> list[int]:
    """Sequence numbers of a journal's segments, ascending. Raises JournalError when it cannot be listed."""
    try:
        names = files.names(directory)
    except OSError as error:
        raise JournalError(f"journal directory {directory} cannot be read: {error}") from error
    stems = [name.removesuffix(SEGMENT_SUFFIX) for name in names if name.endswith(SEGMENT_SUFFIX)]
    return sorted(int(stem) for stem in stems if stem.isdigit())


def encode_header(journal: int, sequence: int, last_pos: int, synced_pos: int) -> tuple[bytes, int]:
    """Bytes of a segment header and its CRC."""
    head = _HEADER.pack(_MAGIC, _VERSION, journal, sequence, last_pos, synced_pos)
    crc = crc32(head)
    return head + _CRC.pack(crc), crc


def decode_header(data: bytes, path: Path, journal: int, sequence: int) -> Header | None:
    """The header of a segment; None when it is torn or damaged.

    Raises JournalDamagedError when it is whole but of another version, journal or sequence.
    """
    if len(data) < HEADER_BYTES:
        return None
    magic, version, owner, number, last_pos, synced_pos = _HEADER.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _HEADER.size)
    if magic != _MAGIC or crc32(data[: _HEADER.size]) != crc:
        return None
    if version != _VERSION:
        raise JournalDamagedError(str(path), 0, f"format version {version} is not known to this Farebox")
    if owner != journal:
        raise JournalDamagedError(str(path), 0, f"the segment belongs to journal {owner:016x}")
    if number != sequence:
        raise JournalDamagedError(str(path), 0, f"the segment was written as number {number}")
    return Header(sequence, last_pos, synced_pos, crc)


def create_directory(files: Files, root: Path) -> tuple[Path, int]:
    """A new journal directory under a fresh id, and its lock. Raises JournalError with the reason."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = root / new_journal_id()
        directory.mkdir(mode=0o700)
        files.sync_directory(root)
    except OSError as error:
        raise JournalError(f"no journal can be made in {root}: {error}") from error
    return directory, lock_directory(files, directory)


def lock_directory(files: Files, directory: Path) -> int:
    """The lock of a journal. Raises JournalLockedError when another process holds it, JournalError
    otherwise.
    """
    try:
        descriptor = files.lock(directory / _LOCK)
    except OSError as error:
        raise JournalError(f"journal {directory} cannot be locked: {error}") from error
    if descriptor is None:
        raise JournalLockedError(f"journal {directory} is in use by another process")
    return descriptor


def journal_directories(files: Files, root: Path) -> list[Path]:
    """All journal directories under a root; none when the root does not exist."""
    try:
        names = files.names(root)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise JournalError(f"journal root {root} cannot be read: {error}") from error
    return [root / name for name in names if is_journal_id(name)]


def last_written_ns(files: Files, directory: Path) -> int:
    """When the newest segment of a journal was last written; 0 where there is none. Raises JournalError."""
    newest = max(sequences(files, directory), default=None)
    return 0 if newest is None else files.modified_ns(segment_path(directory, newest))


def read_epoch(directory: Path) -> int:
    """The highest epoch this directory was ever meant to be claimed under; 0 for none."""
    try:
        text = (directory / _EPOCH).read_text()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise JournalError(f"the epoch of journal {directory} cannot be read: {error}") from error
    if not text.strip().isdigit():
        raise JournalDamagedError(str(directory / _EPOCH), 0, "not an epoch number")
    return int(text)


def write_epoch(files: Files, directory: Path, epoch: int) -> None:
    """Durably note that `epoch` is about to be claimed. Raises JournalError."""
    temporary = directory / f"{_EPOCH}.new"
    try:
        temporary.write_text(f"{epoch}\n")
        descriptor = files.open(temporary)
        try:
            files.fdatasync(descriptor)
        finally:
            files.close(descriptor)
        temporary.rename(directory / _EPOCH)
        files.sync_directory(directory)
    except OSError as error:
        raise JournalError(f"the epoch of journal {directory} cannot be written: {error}") from error
