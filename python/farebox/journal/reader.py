"""Following a journal from another process: new records as they come, each only once it is on disk.

Promises: records in order, each once, none that a power cut could take back (the file is synced up to the
length that is read, hole 4); a record written again in a new segment after a failed sync comes once (hole
34). Also knows which segments nobody needs any more.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeGuard

from farebox._meter import decode_run
from farebox.base import frames as kinds
from farebox.base.errors import JournalDamagedError, JournalError
from farebox.journal.check import follows
from farebox.journal.files import Files
from farebox.journal.frames import Broken, Frame, Read, decode
from farebox.journal.payloads import exchange_of
from farebox.journal.segments import (
    HEADER_BYTES,
    Header,
    decode_header,
    number_of,
    segment_path,
    sequences,
)

_RESTORED: Final = (
    "the store was restored from a backup, or a segment was removed: put back the newer store or the "
    "segment, or abandon the journal with `farebox lease release --lost`"
)


class Reader:
    """A place in one journal, read by one task. `close` releases its file."""

    def __init__(
        self, directory: Path, files: Files | None = None, *, whole: bool = False, only_ends: bool = False
    ) -> None:
        """`whole`: records right behind the first asked position must be there; else it reads what is.
        `only_ends`: leave out records that do not end an exchange, but for some that show how far it is.
        """
        self._files = files or Files()
        self._whole = whole
        self._only_ends = only_ends
        self.bytes_read = 0
        self._directory = directory
        self._journal = number_of(directory.name)
        self._rewind()

    def _rewind(self) -> None:
        self._descriptor = -1
        self._sequence = 0
        self._offset = 0
        self._crc = 0
        self._place = 0
        self._size_seen = 0
        self._sync_failed = False
        self._trusted_pos = 0
        self._last_pos = 0
        self._ends: dict[int, int] = {}
        self._opens: dict[bytes, int] = {}

    @property
    def place(self) -> int:
        """The position behind which reading goes on; where a first segment begins, before it has records."""
        return self._place

    @property
    def reached(self) -> tuple[str, int]:
        """File name of the segment that is being read, and up to which byte; later ones are greater."""
        return segment_path(self._directory, self._sequence).name, self._offset

    def close(self) -> None:
        """Release the segment; reading again starts from the beginning."""
        if self._descriptor >= 0:
            self._files.close(self._descriptor)
        self._rewind()

    def read(self, after_pos: int, bytes_max: int = 2**20) -> list[Frame]:
        """Records after `after_pos`, about `bytes_max` of them at most; none when there is nothing new.

        Call it with the last position it gave; a lower one starts over. Raises JournalError when a file
        cannot be read or synced (try again), JournalDamagedError when records are missing.
        """
        if after_pos < self._last_pos:
            self.close()
        found: list[Frame] = []
        try:
            while not found:
                if self._descriptor < 0 and not self._begin(after_pos):
                    return found
                progressed = self._read_some(after_pos, bytes_max, found)
                if not progressed and not self._move_on():
                    return found
        except OSError as error:
            raise JournalError(f"journal {self._directory} cannot be read: {error}") from error
        self._last_pos = found[-1].pos
        return found

    # -- one segment -----------------------------------------------------------------------------------------
    def _read_some(self, after_pos: int, bytes_max: int, found: list[Frame]) -> bool:
        """Read on in the current segment; whether the place moved."""
        size = self._size_seen = self._files.size(self._descriptor)
        if size <= self._offset:
            return False
        if not self._sync_failed:
            try:
                self._files.fdatasync(self._descriptor)
            except OSError:
                self._sync_failed = True
        data = self._files.pread(self._descriptor, min(size - self._offset, bytes_max), self._offset)
        first = decode(data, 0, self._journal)
        while isinstance(first, Broken) and len(data) < first.needed_bytes <= size - self._offset:
            data = self._files.pread(self._descriptor, first.needed_bytes, self._offset)
            first = decode(data, 0, self._journal)
        return self._take(data, after_pos, found)

    def _take(self, data: bytes, after_pos: int, found: list[Frame]) -> bool:
        """Walk over whole frames; behind a failed sync only those that somebody else knows synced."""
        start = 0
        while start < len(data):
            if not self._sync_failed:
                start += self._take_run(data[start:] if start else data, after_pos, found)
            read = decode(data, start, self._journal)
            if not self._is_next(read):
                break
            start = read.end
            self._crc = read.crc
            self._note(read.frame, after_pos, found)
        self._offset += start
        self.bytes_read += start
        return start > 0

    def _take_run(self, data: bytes, after_pos: int, found: list[Frame]) -> int:
        """Walk over the frames at the start of `data` that follow each other; the bytes they take."""
        frames, length, self._crc, self._place = decode_run(
            Frame,
            data,
            self._journal,
            self._crc,
            self._place,
            self._opens,
            self._sequence,
            self._only_ends,
        )
        if frames:
            self._give(frames, after_pos, found)
        return length

    def _is_next(self, read: Read | Broken) -> TypeGuard[Read]:
        return (
            isinstance(read, Read)
            and read.before_crc == self._crc
            and follows(read.frame.pos, self._place)
            and (not self._sync_failed or read.frame.pos <= self._trusted_pos)
        )

    def _note(self, frame: Frame, after_pos: int, found: list[Frame]) -> None:
        """Give one frame, and follow which segment the open exchanges need."""
        if frame.kind in kinds.BEGINNINGS:
            self._opens[exchange_of(frame.payload)] = self._sequence
        elif frame.kind in kinds.ENDS:
            self._opens.pop(exchange_of(frame.payload), None)
        self._place = frame.pos
        self._give([frame], after_pos, found)

    def _give(self, frames: list[Frame], after_pos: int, found: list[Frame]) -> None:
        """Give those frames that are new; the last one is where the segment ends so far."""
        self._ends[self._sequence] = frames[-1].pos
        given_pos = max(after_pos, self._last_pos)
        if frames[0].pos <= given_pos:
            frames = [frame for frame in frames if frame.pos > given_pos]
        if frames:
            found += frames
            self._last_pos = frames[-1].pos

    # -- from segment to segment -----------------------------------------------------------------------------
    def _begin(self, after_pos: int) -> bool:
        """Enter the oldest segment there is, once its header stands; whether there is one."""
        header = next(self._headers_after(0), None)
        if header is not None and self._whole and header.last_pos > after_pos:
            path = str(segment_path(self._directory, header.sequence))
            begins = f"it goes on behind position {header.last_pos}"
            raise JournalDamagedError(path, 0, f"{begins}, the store has applied only {after_pos}", _RESTORED)
        return self._enter(header)

    def _headers_after(self, sequence: int) -> Iterator[Header]:
        for number in sequences(self._files, self._directory):
            if number > sequence:
                path = segment_path(self._directory, number)
                header = decode_header(self._head_of(path), path, self._journal, number)
                if header is not None:
                    yield header

    def _head_of(self, path: Path) -> bytes:
        descriptor = self._files.open(path, write=False)
        try:
            return self._files.pread(descriptor, HEADER_BYTES, 0)
        finally:
            self._files.close(descriptor)

    def _enter(self, header: Header | None) -> bool:
        """Make a segment the current one; whether there is one."""
        if header is None:
            return False
        descriptor = self._files.open(segment_path(self._directory, header.sequence), write=False)
        if self._descriptor >= 0:
            self._files.close(self._descriptor)
        self._descriptor, self._sequence = descriptor, header.sequence
        self._offset, self._crc, self._place = HEADER_BYTES, header.crc, header.last_pos
        self._sync_failed = False
        self._ends[header.sequence] = header.last_pos
        return True

    def _move_on(self) -> bool:
        """At the end of a segment: go to the one that continues here. Whether there may be more to read
        now.
        """
        if sequences(self._files, self._directory)[-1:] == [self._sequence]:
            return False
        later = list(self._headers_after(self._sequence))
        for header in later:
            if header.last_pos <= self._place:
                return self._enter(header)
        if self._sync_failed:
            trusted_pos = max((header.synced_pos for header in later), default=0)
            grown, self._trusted_pos = trusted_pos > self._trusted_pos, trusted_pos
            return grown
        if not later or self._files.size(self._descriptor) != self._size_seen:
            return bool(later)
        path = str(segment_path(self._directory, self._sequence))
        raise JournalDamagedError(path, self._offset, "the records up to the next segment are missing")

    # -- what may go -----------------------------------------------------------------------------------------
    def deletable(self, applied_pos: int) -> list[Path]:
        """The oldest segments that nobody needs: applied, and without the only copy of an open record.

        Never the one being read: so its successor is whole, and a carried record in it is synced.
        """
        needed = set(self._opens.values())
        paths: list[Path] = []
        for sequence in sequences(self._files, self._directory):
            end = self._ends.get(sequence)
            if sequence >= self._sequence or sequence in needed or end is None or end > applied_pos:
                break
            paths.append(segment_path(self._directory, sequence))
        return paths

    def delete(self, applied_pos: int) -> int:
        """Remove what `deletable` names, oldest first and durably one by one, so that no gap can appear."""
        paths = self.deletable(applied_pos)
        try:
            for path in paths:
                self._files.unlink(path)
                self._files.sync_directory(self._directory)
        except OSError as error:
            raise JournalError(f"segments of {self._directory} cannot be removed: {error}") from error
        return len(paths)
