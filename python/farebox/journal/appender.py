"""Appending to a journal from one event loop: all frames of a turn leave in one write (MONEY section 7).

Promises: positions rise by one in file order and are never used for two records; a `then` is called once,
in order, after its frame is completely written (with `durability="disk"`: synced), or with the error that
prevented it; a full disk or budget refuses new opens while every exchange already open keeps room for its
settle.

Everything runs on the loop's thread but `take_unsynced` and `publish`, which the sync thread calls; the
lock guards what they share.
"""

import errno
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from farebox.base import frames as kinds
from farebox.base import limits
from farebox.base.errors import InvariantBrokenError, JournalError, JournalFullError
from farebox.base.ids import position
from farebox.journal.files import Files
from farebox.journal.frames import OVERHEAD_BYTES, Frame, check_length, encode
from farebox.journal.payloads import exchange_of
from farebox.journal.segments import encode_header, number_of, segment_path, sequences

_log = logging.getLogger("farebox.journal")

Then = Callable[[Exception | None], None]
Schedule = Callable[[Callable[[], None]], object]

_SPACE_LOOK_BYTES = 2**20
_ENDS = frozenset({kinds.SETTLE, kinds.VOID})


class _Open:
    """The records of an exchange that has not ended, as they would be carried forward."""

    __slots__ = ("opened", "progress", "sent", "sequence", "turn")

    def __init__(self, opened: bytes, sent: bytes | None, sequence: int, turn: int) -> None:
        self.opened = opened
        self.sent = sent
        self.progress: bytes | None = None
        self.sequence = sequence
        self.turn = turn

    def records(self) -> list[tuple[int, bytes]]:
        found = [(kinds.OPEN, self.opened)]
        if self.sent is not None:
            found.append((kinds.SENT, self.sent))
        if self.progress is not None:
            found.append((kinds.PROGRESS, self.progress))
        return found


_Queued = tuple[int, bytes, Then | None, _Open | None]
"""Kind, payload, then, and what an end took off the open exchanges. Plain tuples: this is the hot path."""

_Record = tuple[int, int, bytes]
"""Kind, position, payload: what a Frame is, at a third of its cost."""


class Written(NamedTuple):
    """What must be synced before `pos` may be called synced.

    All `descriptors` but the last are closed afterwards, `abandoned` ones without a sync.
    """

    descriptors: tuple[int, ...]
    abandoned: tuple[int, ...]
    pos: int


class Appender:
    """The end of one journal. `schedule` runs a callback later on the same thread (loop.call_soon)."""

    def __init__(
        self, files: Files, directory: Path, schedule: Schedule, *, durable: bool, dirty: Callable[[], None]
    ) -> None:
        """`dirty` is called after each write: something waits to be synced."""
        self._files = files
        self._directory = directory
        self._journal = number_of(directory.name)
        self._schedule = schedule
        self._durable = durable
        self._dirty = dirty
        self._lock = threading.Lock()
        self._descriptor = -1
        self._retiring: list[int] = []
        self._abandoned: list[int] = []
        self._sequence = 0
        self._offset = 0
        self._crc = 0
        self._ends: list[_Queued] = []
        self._rest: list[_Queued] = []
        self._scheduled = False
        self._turn = 0
        self._opens: dict[bytes, _Open] = {}
        self._prices: deque[bytes] = deque(maxlen=limits.price_versions_carried_max)
        self._unsynced: deque[tuple[list[_Record], int]] = deque()  # of each write, and its length
        self._unsynced_bytes = 0
        self._awaiting: deque[tuple[int, Then]] = deque()
        self._carried_bytes = 0
        self._opens_max = 0
        self._look_again_at_bytes = 0
        self.broken: Exception | None = None
        self._next_pos = 0
        self.last_pos = 0
        self.synced_pos = 0
        self.bytes_total = 0
        self.writes_total = 0
        self.progress_dropped_total = 0

    # -- beginning and end -----------------------------------------------------------------------------------
    def begin(self, epoch: int, synced_pos: int, unsynced: Iterable[Frame]) -> None:
        """Open a new segment for `epoch`. Records after `synced_pos` are written again in it and synced.

        What the page cache shows after a restart may be pages whose sync failed: only a new copy is sure
        (J28).
        """
        self.synced_pos = self.last_pos = synced_pos
        self._unsynced.append((list(unsynced), 0))
        self._sequence = max(sequences(self._files, self._directory), default=0)
        self._look_at_space()
        self._start_again()
        try:
            self._files.fdatasync(self._descriptor)
        except OSError as error:
            raise JournalError(f"journal {self._directory} cannot be synced: {error}") from error
        self.synced_pos = self.last_pos
        self._forget_synced()
        self._next_pos = position(epoch, 1)

    def close(self) -> tuple[int, list[int]]:
        """Write what is queued. The last position and the descriptors to sync and close, once the sync
        thread is gone.

        Abandoned segments are closed here.
        """
        self._flush()
        self.broken = self.broken or JournalError("the journal is closed")
        for descriptor in self._abandoned:
            self._files.close(descriptor)
        descriptors = [*self._retiring, self._descriptor]
        self._abandoned, self._retiring, self._descriptor = [], [], -1
        return self.last_pos, descriptors

    # -- appending -------------------------------------------------------------------------------------------
    def append(self, kind: int, payload: bytes, then: Then | None = None) -> None:
        """Queue a record for this turn's write; settles and voids go first.

        `then` is called with None once the frame is written (durable: synced), or with the error: the
        record is not in the journal then, and a settle must be appended again. It must not raise. A
        progress record may be dropped, with its `then`, when room is short. Raises JournalFullError for an
        `open` without room, JournalError when the journal cannot be written any more.
        """
        self._check_usable(kind, payload)
        queue, ended = self._rest, None
        if kind in _ENDS:
            ended = self._opens.pop(exchange_of(payload), None)
            if ended is None or ended.turn != self._turn:
                queue = self._ends
        elif kind == kinds.OPEN:
            self._note_open(payload, None)
        elif not self._note(kind, payload):
            return
        queue.append((kind, payload, then, ended))
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self._flush)

    def append_open(self, opened: bytes, sent: bytes, then: Then) -> None:
        """Queue the `open` and `sent` of one exchange; what `append` does for each, at the cost of one.

        `then` belongs to `sent`: it is called with an error also where `open` alone was written.
        """
        self._check_usable(kinds.OPEN, opened)
        self._note_open(opened, sent)
        self._rest += ((kinds.OPEN, opened, None, None), (kinds.SENT, sent, then, None))
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self._flush)

    def _check_usable(self, kind: int, payload: bytes) -> None:
        if self.broken is not None:
            raise JournalError(f"the journal cannot be written: {self.broken}")
        if len(payload) > limits.frame_bytes_max:
            check_length(kind, payload)

    def _note_open(self, opened: bytes, sent: bytes | None) -> None:
        """Follow an exchange from here on, so that it can be carried forward. Raises JournalFullError."""
        if not self._has_room():
            raise JournalFullError("no room in the journal for another exchange")
        self._opens[exchange_of(opened)] = _Open(opened, sent, self._sequence, self._turn)

    def _note(self, kind: int, payload: bytes) -> bool:
        """Follow a record that does not begin or end an exchange; False when it is dropped."""
        if kind == kinds.PRICES:
            self._prices.append(payload)
            return True
        opened = self._opens.get(exchange_of(payload))
        if kind == kinds.SENT:
            if opened is not None:
                opened.sent = payload
            return True
        if kind != kinds.PROGRESS:
            raise InvariantBrokenError(f"there is no journal record of kind {kind}")
        if not self._has_room():
            self.progress_dropped_total += 1
            return False
        if opened is not None:
            opened.progress = payload
        return True

    # -- room ------------------------------------------------------------------------------------------------
    def _has_room(self) -> bool:
        """Whether one more record fits beside the room kept for the settles of all open exchanges."""
        if self._unsynced_bytes > limits.journal_unsynced_bytes_max:
            return False
        if len(self._opens) < self._opens_max and self.bytes_total < self._look_again_at_bytes:
            return True
        self._look_at_space()
        return len(self._opens) < self._opens_max

    def _look_at_space(self) -> None:
        """Ask the disk how many exchanges may be open; good for the next megabyte of our own writes."""
        try:
            disk_left = self._files.free_bytes(self._directory) - limits.journal_disk_free_bytes_min
            used = sum(
                self._files.file_size(segment_path(self._directory, sequence))
                for sequence in sequences(self._files, self._directory)
            )
        except (OSError, JournalError):
            self._opens_max = 0
            return
        left = min(disk_left, limits.journal_bytes_max - used) - _SPACE_LOOK_BYTES
        self._opens_max = left // limits.settle_reserve_bytes
        self._look_again_at_bytes = self.bytes_total + _SPACE_LOOK_BYTES

    # -- writing ---------------------------------------------------------------------------------------------
    def _flush(self) -> None:
        """Write this turn's frames at once, then tell their callers."""
        self._scheduled = False
        self._turn += 1
        queued = self._ends + self._rest
        self._ends, self._rest = [], []
        if not queued:
            return
        if self.broken is not None:
            _tell(queued, self.broken)
            return
        frames = [(one[0], pos, one[1]) for pos, one in enumerate(queued, start=self._next_pos)]
        error = self._write_or_move(frames)
        complete = len(queued) if error is None else sum(pos <= self.last_pos for _, pos, _ in frames)
        self._next_pos += complete
        self._dirty()
        self._tell_written(queued, frames, complete, error)
        if self._offset >= limits.segment_bytes_max + self._carried_bytes and self.broken is None:
            self._rotate()

    def _tell_written(
        self, queued: list[_Queued], frames: list[_Record], complete: int, error: OSError | None
    ) -> None:
        failed = queued[complete:]
        written = queued[:complete] if failed else queued
        for kind, payload, _, ended in failed:
            if kind == kinds.OPEN:
                self._opens.pop(exchange_of(payload), None)
            elif ended is not None:
                self._opens[exchange_of(payload)] = ended
        if self._durable:
            for (_, _, then, _), (_, pos, _) in zip(written, frames, strict=False):
                if then is not None:
                    self._awaiting.append((pos, then))
        else:
            _tell(written, None)
        if failed:
            _tell(failed, self.broken or JournalFullError(f"the journal's disk is full: {error}"))

    def _write_or_move(self, frames: list[_Record]) -> OSError | None:
        """Write frames; a disk that fails other than by being full ends the segment, and a new one is tried
        once.
        """
        error = self._write(frames)
        if error is None or error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return error
        with self._lock:
            self._unsynced.append(([frame for frame in frames if frame[1] > self.last_pos], 0))
            try:
                self._start_again()
            except JournalError as failure:
                self.broken = failure
        return error

    def _write(self, frames: list[_Record]) -> OSError | None:
        """Write frames at the tracked offset, keep those that are whole, leave the rest to be overwritten."""
        data, crcs = encode(frames, self._journal, self.synced_pos, self._crc)
        written, error = self._write_all(data)
        self.bytes_total += written
        whole, length = (len(frames), written) if error is None else _whole_frames(frames, written)
        if whole:
            with self._lock:
                self._offset += length
                self._crc = crcs[whole - 1]
                self.last_pos = frames[whole - 1][1]
                self._unsynced.append((frames if error is None else frames[:whole], length))
                self._unsynced_bytes += length
        return error

    def _write_all(self, data: bytes) -> tuple[int, OSError | None]:
        """Bytes written at the tracked offset, and what stopped it; a short write goes on where it ended."""
        written = 0
        while written < len(data):
            self.writes_total += 1
            rest = memoryview(data)[written:] if written else data
            try:
                count = self._files.pwrite(self._descriptor, rest, self._offset + written)
            except InterruptedError:
                continue
            except OSError as error:
                return written, error
            if count <= 0:
                return written, OSError(errno.ENOSPC, "nothing was written")
            written += count
        return written, None

    # -- segments --------------------------------------------------------------------------------------------
    def _rotate(self) -> None:
        """Go on in a new segment. Prices and exchanges open since before the last one are carried into it."""
        with self._lock:
            try:
                self._new_segment(self.last_pos)
            except JournalError:
                return
        self._look_at_space()
        self._rest += [(kinds.PRICES, payload, None, None) for payload in self._prices]
        old = [opened for opened in self._opens.values() if opened.sequence < self._sequence - 1]
        for opened in old:
            opened.sequence, opened.turn = self._sequence, self._turn
            self._rest += [(kind, payload, None, None) for kind, payload in opened.records()]
        self._carried_bytes = sum(OVERHEAD_BYTES + len(payload) for _, payload, _, _ in self._rest)
        if self._rest and not self._scheduled:
            self._scheduled = True
            self._schedule(self._flush)

    def _new_segment(self, last_pos: int) -> None:
        """Create the next segment, durable before any record stands in it (J15). Raises JournalError,
        changes nothing.

        The lock is held, or nobody else knows this appender yet.
        """
        sequence = self._sequence + 1
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
        self._descriptor, self._sequence = descriptor, sequence
        self._offset, self._crc = len(header), crc

    def _start_again(self) -> None:
        """A new segment that goes on after the last synced record, with all later ones written again."""
        frames = [frame for turn, _ in self._unsynced for frame in turn if frame[1] > self.synced_pos]
        self._new_segment(self.synced_pos)
        self._abandoned += self._retiring
        self._retiring = []
        data, crcs = encode(frames, self._journal, self.synced_pos, self._crc)
        written, error = self._write_all(data)
        if error is not None:
            raise JournalError(f"journal {self._directory} cannot be written again: {error}") from error
        self.bytes_total += written
        self._offset += written
        if frames:
            self._crc, self.last_pos = crcs[-1], frames[-1][1]
        self._unsynced = deque([(frames, len(data))])
        self._unsynced_bytes = len(data)

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

    def _forget_synced(self) -> None:
        """Drop the copies kept for a failed sync."""
        unsynced = self._unsynced
        while unsynced and (not unsynced[0][0] or unsynced[0][0][-1][1] <= self.synced_pos):
            self._unsynced_bytes -= unsynced.popleft()[1]

    def after_sync(self) -> None:
        """On the loop: call every `then` that waited for its record to be on disk."""
        while self._awaiting and self._awaiting[0][0] <= self.synced_pos:
            self._awaiting.popleft()[1](None)

    def sync_failed(self, error: OSError) -> None:
        """The current segment cannot be trusted any more: its unsynced records move (J27)."""
        with self._lock:
            try:
                self._start_again()
            except JournalError as failure:
                self.broken = failure
                failure.__cause__ = error

    def fail_waiting(self) -> None:
        """On the loop, once the journal is broken: nobody waits for a sync that will not come."""
        reason = self.broken or InvariantBrokenError("a waiting record was failed although the journal works")
        while self._awaiting:
            self._awaiting.popleft()[1](reason)


def _whole_frames(frames: list[_Record], written: int) -> tuple[int, int]:
    """How many frames stand whole in the first `written` bytes, and how long they are together."""
    length = 0
    for whole, (_, _, payload) in enumerate(frames):
        end = length + OVERHEAD_BYTES + len(payload)
        if end > written:
            return whole, length
        length = end
    return len(frames), length


def _tell(queued: list[_Queued], error: Exception | None) -> None:
    for _, _, then, _ in queued:
        if then is not None:
            try:
                then(error)
            except Exception:  # noqa: BLE001 - whatever failed, the others are told
                _log.exception("what follows a journal record failed")
