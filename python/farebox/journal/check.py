"""Walking a whole journal in order, and telling a torn tail from damage (MONEY section 7, fault rows J18 to
J24, J30).

The one place that decides what a bad byte means: behind the last position any valid frame knows synced it
is a torn tail, to be cut with all that follows (sectors persist in any order); at or before it, nothing may
be changed. Memory: one segment at a time.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from farebox.base import frames as kinds
from farebox.base.errors import JournalDamagedError, JournalError
from farebox.base.ids import epoch_of, position
from farebox.journal.files import Files
from farebox.journal.frames import Broken, Frame, decode, latest_synced
from farebox.journal.segments import (
    HEADER_BYTES,
    Header,
    decode_header,
    number_of,
    segment_path,
    sequences,
)

OnFrame = Callable[[Frame, int], None]
"""Called with a record and the last position known synced so far."""


class Place(NamedTuple):
    """Behind a frame of a segment: offset, the frame's CRC and position, and the highest position that any
    frame so far knows synced.
    """

    offset: int
    crc: int
    pos: int
    synced_pos: int


OnRun = Callable[[bytes, int, Place, int], tuple[int, int, int, int]]
"""Called with a segment, the journal's number, a place in it, and the position up to which records have been
given. Takes the frames that follow each other from there as far as it likes; the place behind them.
"""


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a torn tail begins; the segments after it go too."""

    sequence: int
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Walked:
    """A walk's beginning (the position before the oldest record) and end: last good record, last position
    known synced, and the torn tail if there is one.
    """

    first_pos: int
    last_pos: int
    synced_pos: int
    sequence: int
    cut: Cut | None


@dataclass(frozen=True, slots=True)
class _End:
    """Where the good frames of one segment end; no reason when that is the end of the file."""

    pos: int
    offset: int
    reason: str


def follows(pos: int, last_pos: int) -> bool:
    """Whether `pos` may stand right behind `last_pos`: the next number, or the first of a later epoch."""
    return pos == last_pos + 1 or (epoch_of(pos) > epoch_of(last_pos) and pos == position(epoch_of(pos), 1))


def walk(files: Files, directory: Path, on_frame: OnFrame, on_run: OnRun | None = None) -> Walked:
    """Give every record once, in order: to `on_run` many at a time, where it takes them, else to `on_frame`.

    Raises JournalDamagedError; JournalError when a file cannot be read.
    """
    numbers = sequences(files, directory)
    if not numbers:
        return Walked(0, 0, 0, 0, None)
    for before, after in itertools.pairwise(numbers):
        if after != before + 1:
            missing = segment_path(directory, before + 1)
            raise JournalDamagedError(str(missing), 0, "the segment is missing, others follow it")
    return _Walk(files, directory, numbers, on_frame, on_run).run()


class _Walk:
    """State of one walk."""

    def __init__(
        self, files: Files, directory: Path, numbers: list[int], on_frame: OnFrame, on_run: OnRun | None
    ) -> None:
        self.files = files
        self.directory = directory
        self.journal = number_of(directory.name)
        self.numbers = numbers
        self.on_frame = on_frame
        self.on_run = on_run
        self.first_pos = 0
        self.pos = 0
        self.synced_pos = 0

    def run(self) -> Walked:
        index: int | None = 0
        while index is not None:
            data = self.load(index)
            header = self.header(index, data)
            if header is None:
                end = _End(self.pos, 0, "the segment's header is torn")
            else:
                if index == 0:  # what stood before it has gone, so it was applied, and synced before that
                    self.first_pos = self.pos = self.synced_pos = header.last_pos
                self.synced_pos = max(self.synced_pos, header.synced_pos)
                end = self.frames(data, header)
            here, index = index, self.next_after(index)
            if index is None and (end.reason or here + 1 < len(self.numbers)):
                return self.cut(here, data, end)
            data = b""  # before the next segment takes as much memory again
        return Walked(self.first_pos, self.pos, self.synced_pos, self.numbers[-1], None)

    def load(self, index: int) -> bytes:
        path = segment_path(self.directory, self.numbers[index])
        try:
            return self.files.read(path)
        except OSError as error:
            raise JournalError(f"journal segment {path} cannot be read: {error}") from error

    def head(self, index: int) -> bytes:
        """The first bytes of a segment."""
        path = segment_path(self.directory, self.numbers[index])
        try:
            descriptor = self.files.open(path, write=False)
            try:
                return self.files.pread(descriptor, HEADER_BYTES, 0)
            finally:
                self.files.close(descriptor)
        except OSError as error:
            raise JournalError(f"journal segment {path} cannot be read: {error}") from error

    def header(self, index: int, data: bytes) -> Header | None:
        sequence = self.numbers[index]
        return decode_header(data, segment_path(self.directory, sequence), self.journal, sequence)

    def frames(self, data: bytes, header: Header) -> _End:
        """Give the records of one segment that have not been given yet."""
        pos, crc, offset = header.last_pos, header.crc, HEADER_BYTES
        while offset < len(data):
            if self.on_run is not None:
                place = Place(offset, crc, pos, self.synced_pos)
                offset, crc, pos, self.synced_pos = self.on_run(data, self.journal, place, self.pos)
                self.pos = max(self.pos, pos)
                if offset == len(data):
                    break
            read = decode(data, offset, self.journal)
            if isinstance(read, Broken):
                return _End(pos, offset, read.reason)
            if read.before_crc != crc or not follows(read.frame.pos, pos):
                return _End(pos, offset, "the frame does not follow the one before it")
            if read.frame.kind not in kinds.NAMES:
                path = segment_path(self.directory, header.sequence)
                reason = f"kind {read.frame.kind} is not known to this Farebox"
                raise JournalDamagedError(str(path), offset, reason)
            pos, crc, offset = read.frame.pos, read.crc, read.end
            self.synced_pos = max(self.synced_pos, read.synced_pos)
            if pos > self.pos:
                self.pos = pos
                self.on_frame(read.frame, self.synced_pos)
        return _End(pos, offset, "")

    def next_after(self, index: int) -> int | None:
        """The next segment that goes on at or before the last good record, else None."""
        for later in range(index + 1, len(self.numbers)):
            header = self.header(later, self.head(later))
            if header is not None and header.last_pos <= self.pos:
                return later
        return None

    def cut(self, index: int, data: bytes, end: _End) -> Walked:
        """A torn tail, unless something behind it knows that it was synced."""
        known_synced = max(self.synced_pos, latest_synced(data, end.offset, self.journal))
        for later in range(index + 1, len(self.numbers)):
            rest = self.load(later)
            header = self.header(later, rest)
            known_synced = max(known_synced, header.synced_pos if header is not None else 0)
            known_synced = max(known_synced, latest_synced(rest, 0, self.journal))
        sequence = self.numbers[index]
        reason = end.reason or "the records up to the next segment are missing"
        if known_synced > self.pos:
            raise JournalDamagedError(str(segment_path(self.directory, sequence)), end.offset, reason)
        return Walked(self.first_pos, self.pos, self.synced_pos, sequence, Cut(sequence, end.offset, reason))


def cut_tail(files: Files, directory: Path, cut: Cut) -> None:
    """Remove a torn tail for good: later segments from the last backwards, then the end of this one."""
    try:
        for sequence in reversed(sequences(files, directory)):
            if sequence > cut.sequence or (sequence == cut.sequence and cut.offset < HEADER_BYTES):
                files.unlink(segment_path(directory, sequence))
                files.sync_directory(directory)
            elif sequence == cut.sequence:
                descriptor = files.open(segment_path(directory, sequence))
                try:
                    files.truncate(descriptor, cut.offset)
                    files.fdatasync(descriptor)
                finally:
                    files.close(descriptor)
    except OSError as error:
        raise JournalError(f"the torn tail of journal {directory} cannot be cut: {error}") from error
