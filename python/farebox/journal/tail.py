"""The end of one journal's files: bytes go out at a tracked offset, and copies stay until they are synced.

Promises: frames stand in file order at rising positions; a short write is overwritten in place; after a
failed sync, or a disk that fails other than by being full, everything not known synced stands again in a new
segment, under the same positions (J27).

Everything runs on the loop's thread but `take_unsynced` and `publish`, which the sync thread calls; the
lock guards what they share.
"""

import errno
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from farebox._meter import encode_frames
from farebox.base.errors import JournalError
from farebox.journal.files import Files
from farebox.journal.frames import Frame, encode, frames_in, whole_part
from farebox.journal.segments import encode_header, number_of, segment_path, sequences

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


Record = tuple[int, bytes, *tuple[object, ...]]
"""Kind and payload; whatever follows is the caller's own."""


class Written(NamedTuple):
    """What must be synced before `pos` may be called synced.

    All `descriptors` but the last are closed afterwards, `abandoned` ones without a sync.
    """

    descriptors: tuple[int, ...]
    abandoned: tuple[int, ...]
    pos: int


class Tail:
    """Where a journal is written. `dirty` is called after each write: something waits to be synced."""

    def __init__(self, files: Files, directory: Path, dirty: Callable[[], None]) -> None:
        self._files = files
        self._directory = directory
        self._dirty = dirty
        self._journal = number_of(directory.name)
        self._lock = threading.Lock()
        self._descriptor = -1
        self._retiring: list[int] = []
        self._abandoned: list[int] = []
        self._crc = 0
        self._unsynced: deque[tuple[int, bytes]] = deque()  # of each write: last position, and its bytes
        self.unsynced_bytes = 0
        self.sequence = 0
        self.offset = 0
        self.last_pos = 0
        self.synced_pos = 0
        self.bytes_total = 0
        self.writes_total = 0
        self.broken: Exception | None = None

    def begin(self, synced_pos: int, unsynced: Iterable[Frame]) -> None:
        """Open a new segment. Records after `synced_pos` are written again in it and synced.

        What the page cache shows after a restart may be pages whose sync failed: only a new copy is sure
        (J28).
        """
        self.synced_pos = self.last_pos = synced_pos
        data, _ = encode(unsynced, self._journal, synced_pos, 0)
        self._unsynced.append((synced_pos, data))
        self.sequence = max(sequences(self._files, self._directory), default=0)
        self._start_again()
        try:
            self._files.fdatasync(self._descriptor)
        except OSError as error:
            raise JournalError(f"journal {self._directory} cannot be synced: {error}") from error
        self.synced_pos = self.last_pos
        self._forget_synced()

    def close(self) -> list[int]:
        """The descriptors to sync and close, once the sync thread is gone; abandoned ones are closed here."""
        self.broken = self.broken or JournalError("the journal is closed")
        for descriptor in self._abandoned:
            self._files.close(descriptor)
        descriptors = [*self._retiring, self._descriptor]
        self._abandoned, self._retiring, self._descriptor = [], [], -1
        return descriptors

    # -- writing ---------------------------------------------------------------------------------------------
    def write(self, records: Sequence[Record], first_pos: int) -> tuple[int, OSError | None]:
        """Write records (kind, payload, ...) at positions from `first_pos` on.

        How many are complete in the journal now, and what stopped the others. A disk that fails other than by
        being full ends the segment, and a new one is tried once; then all are complete, or `broken` says why
        not.
        """
        data, crc = encode_frames(records, self._journal, first_pos, self.synced_pos, self._crc)
        length, error = self._write_all(data)
        self.bytes_total += length
        complete = len(records)
        if error is not None:
            complete, length, crc = whole_part(data, length, self._crc)
        if complete:
            with self._lock:
                self.offset += length
                self._crc = crc
                self.last_pos = first_pos + complete - 1
                self._unsynced.append((self.last_pos, data if error is None else data[:length]))
                self.unsynced_bytes += length
        if error is not None and error.errno not in _FULL:
            complete = self._write_elsewhere(data[length:], first_pos, len(records))
        self._dirty()
        return complete, error

    def _write_elsewhere(self, rest: bytes, first_pos: int, count: int) -> int:
        """Move to a new segment, with frames that did not get into this one; how many of `count` stand."""
        with self._lock:
            self._unsynced.append((first_pos + count - 1, rest))
            try:
                self._start_again()
            except JournalError as failure:
                self.broken = failure
        return max(0, self.last_pos - first_pos + 1)

    def _write_all(self, data: bytes) -> tuple[int, OSError | None]:
        """Bytes written at the tracked offset, and what stopped it; a short write goes on where it ended."""
        written, length = 0, len(data)
        while written < length:
            self.writes_total += 1
            rest = memoryview(data)[written:] if written else data
            try:
                count = self._files.pwrite(self._descriptor, rest, self.offset + written)
            except InterruptedError:
                continue
            except OSError as error:
                return written, error
            if count <= 0:
                return written, OSError(errno.ENOSPC, "nothing was written")
            written += count
        return written, None

    # -- segments --------------------------------------------------------------------------------------------
    def rotate(self) -> bool:
        """Go on in a new segment; False, and nothing changed, when none can be made."""
        with self._lock:
            try:
                self._new_segment(self.last_pos)
            except JournalError:
                return False
        return True

    def _new_segment(self, last_pos: int) -> None:
        """Create the next segment, durable before any record stands in it (J15). Raises JournalError,
        changes nothing.

        The lock is held, or nobody else knows this journal yet.
        """
        sequence = self.sequence + 1
        path = segment_path(self._directory, sequence)
        header, crc = encode_header(self._journal, sequence, last_pos, self.synced_pos)
        try:
            descriptor = self._files.open(path, create=True)
            try:
                if self._files.pwrite(descriptor, header, 0) != len(header):
                    raise OSError(errno.ENOSPC, "the header was written in part")
                self._files.fdatasync(descriptor)
                self._files.sync_directory(self._directory)
            except OSError:
                self._files.close(descriptor)
                self._files.unlink(path)
                raise
        except OSError as error:
            raise JournalError(f"journal segment {path} cannot be made: {error}") from error
        if self._descriptor >= 0:
            self._retiring.append(self._descriptor)
        self._descriptor, self.sequence = descriptor, sequence
        self.offset, self._crc = len(header), crc

    def _start_again(self) -> None:
        """A new segment that goes on after the last synced record, with all later ones written again."""
        copies = b"".join([data for _, data in self._unsynced])
        frames = [frame for frame in frames_in(copies, self._journal) if frame.pos > self.synced_pos]
        self._new_segment(self.synced_pos)
        self._abandoned += self._retiring
        self._retiring = []
        data, crcs = encode(frames, self._journal, self.synced_pos, self._crc)
        written, error = self._write_all(data)
        if error is not None:
            raise JournalError(f"journal {self._directory} cannot be written again: {error}") from error
        self.bytes_total += written
        self.offset += written
        if frames:
            self._crc, self.last_pos = crcs[-1], frames[-1].pos
        self._unsynced = deque([(self.last_pos, data)])
        self.unsynced_bytes = len(data)

    # -- syncing ---------------------------------------------------------------------------------------------
    def take_unsynced(self) -> Written | None:
        """For the sync thread: what to sync now; None when everything is."""
        with self._lock:
            left_over = self._retiring or self._abandoned
            if self._descriptor < 0 or (self.last_pos == self.synced_pos and not left_over):
                return None
            written = Written((*self._retiring, self._descriptor), tuple(self._abandoned), self.last_pos)
            self._retiring, self._abandoned = [], []
            return written

    def publish(self, pos: int) -> None:
        """For the sync thread: everything up to `pos` is on disk."""
        with self._lock:
            self.synced_pos = max(self.synced_pos, pos)
            self._forget_synced()

    def sync_failed(self, error: OSError) -> None:
        """The current segment cannot be trusted any more: its unsynced records move (J27)."""
        with self._lock:
            try:
                self._start_again()
            except JournalError as failure:
                self.broken = failure
                failure.__cause__ = error

    def _forget_synced(self) -> None:
        """Drop the copies kept for a failed sync."""
        unsynced = self._unsynced
        while unsynced and unsynced[0][0] <= self.synced_pos:
            self.unsynced_bytes -= len(unsynced.popleft()[1])
