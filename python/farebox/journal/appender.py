"""Appending to a journal from one event loop: all frames of a turn leave in one write (MONEY section 7).

Promises: positions rise by one in file order and are never used for two records; a `then` is called once,
in order, after its frame is completely written (with `durability="disk"`: synced), or with the error that
prevented it; a full disk or budget refuses new opens while every exchange already open keeps room for its
settle.

Everything here runs on the loop's thread; `tail` is what the sync thread shares.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from farebox.base import frames as kinds
from farebox.base import limits
from farebox.base.errors import InvariantBrokenError, JournalError, JournalFullError
from farebox.base.ids import position
from farebox.journal.files import Files
from farebox.journal.frames import OVERHEAD_BYTES, Frame, check_length
from farebox.journal.payloads import exchange_of
from farebox.journal.segments import segment_path, sequences
from farebox.journal.tail import Tail

_log = logging.getLogger("farebox.journal")

Then = Callable[[Exception | None], None]
Schedule = Callable[[Callable[[], None]], object]

_SPACE_LOOK_BYTES = 2**20
_new_tuple = tuple.__new__


class _Open(NamedTuple):
    """An exchange that has not ended: its records, as they would be carried forward, and since when."""

    kind: int
    opened: bytes
    progress: bytes | None
    sequence: int
    turn: int

    def records(self) -> list[tuple[int, bytes]]:
        found = [(self.kind, self.opened)]
        if self.progress is not None:
            found.append((kinds.PROGRESS, self.progress))
        return found


_Queued = tuple[int, bytes, Then | None, str, _Open | None]
"""Kind, payload, then, exchange, and what an end took off the open exchanges. Plain tuples: the hot path."""


class Appender:
    """The end of one journal. `schedule` runs a callback later on the same thread (loop.call_soon)."""

    def __init__(
        self, files: Files, directory: Path, schedule: Schedule, *, durable: bool, dirty: Callable[[], None]
    ) -> None:
        """`dirty` is called after each write: something waits to be synced."""
        self.tail = Tail(files, directory, dirty)
        self._files = files
        self._directory = directory
        self._schedule = schedule
        self._durable = durable
        self._ends: list[_Queued] = []
        self._rest: list[_Queued] = []
        self._scheduled = False
        self._turn = 0
        self._opens: dict[str, _Open] = {}
        self._prices: deque[bytes] = deque(maxlen=limits.price_versions_carried_max)
        self._awaiting: deque[tuple[int, Then]] = deque()
        self._carried_bytes = 0
        self._opens_max = 0
        self._opens_unasked = 0
        """So many exchanges may be open without another look at the room."""
        self._look_again_at_bytes = 0
        self._next_pos = 0
        self.progress_dropped_total = 0

    # -- beginning and end -----------------------------------------------------------------------------------
    def begin(self, epoch: int, synced_pos: int, unsynced: Iterable[Frame]) -> None:
        """Open a new segment for `epoch`; see `Tail.begin`. Raises JournalError."""
        self.tail.begin(synced_pos, unsynced)
        self._look_at_space()
        self._next_pos = position(epoch, 1)

    def close(self) -> list[int]:
        """Write what is queued; of a broken journal nobody is told that he is on disk.

        The descriptors to sync and close, once the sync thread is gone.
        """
        self._flush()
        if self.tail.broken is not None:
            self.fail_waiting(self.tail.broken)
        return self.tail.close()

    # -- appending -------------------------------------------------------------------------------------------
    def append(self, kind: int, payload: bytes, then: Then | None = None) -> None:
        """Queue a record for this turn's write; settles and voids go first.

        `then` is called with None once the frame is written (durable: synced), or with the error: the
        record is not in the journal then, and a settle must be appended again. It must not raise. A
        progress record may be dropped, with its `then`, when room is short. Raises JournalFullError for an
        `open` without room, JournalError when the journal cannot be written any more.
        """
        exchange = "" if kind == kinds.PRICES else exchange_of(payload).decode()
        if kind in kinds.ENDS:
            self.append_end(kind, exchange, payload, then)
            return
        self._check_usable(kind, payload)
        if kind in kinds.BEGINNINGS:
            self._note_open(kind, exchange, payload)
        elif not self._note(kind, exchange, payload):
            return
        self._rest.append((kind, payload, then, exchange, None))
        if not self._scheduled:
            self._wake()

    def append_open(self, exchange: str, opened: bytes, then: Then) -> None:
        """Queue the `open` and `sent` of one exchange in one frame: what `append` does."""
        self._check_usable(kinds.OPEN_SENT, opened)
        self._note_open(kinds.OPEN_SENT, exchange, opened)
        self._rest.append((kinds.OPEN_SENT, opened, then, exchange, None))
        if not self._scheduled:
            self._wake()

    def append_end(self, kind: int, exchange: str, payload: bytes, then: Then | None) -> None:
        """Queue the settle or void of an exchange: what `append` does."""
        self._check_usable(kind, payload)
        ended = self._opens.pop(exchange, None)
        queue = self._rest if ended is not None and ended.turn == self._turn else self._ends
        queue.append((kind, payload, then, exchange, ended))
        if not self._scheduled:
            self._wake()

    def _wake(self) -> None:
        self._scheduled = True
        self._schedule(self._flush)

    def _check_usable(self, kind: int, payload: bytes) -> None:
        if self.tail.broken is not None:
            raise JournalError(f"the journal cannot be written: {self.tail.broken}")
        if len(payload) > limits.frame_bytes_max:
            check_length(kind, payload)

    def _note_open(self, kind: int, exchange: str, opened: bytes) -> None:
        """Follow an exchange from here on, so that it can be carried forward. Raises JournalFullError."""
        opens = self._opens
        if len(opens) >= self._opens_unasked and not self._has_room():
            raise JournalFullError("no room in the journal for another exchange")
        kept = b"".join((opened, b""))  # a copy of its own length: what orjson makes occupies 4 KB
        opens[exchange] = _new_tuple(_Open, (kind, kept, None, self.tail.sequence, self._turn))

    def _note(self, kind: int, exchange: str, payload: bytes) -> bool:
        """Follow a record that does not begin or end an exchange; False when it is dropped."""
        if kind == kinds.PRICES:
            self._prices.append(payload)
            return True
        opened = self._opens.get(exchange)
        if kind == kinds.SENT:
            if opened is not None:
                self._opens[exchange] = opened._replace(kind=kinds.OPEN_SENT)
            return True
        if kind != kinds.PROGRESS:
            raise InvariantBrokenError(f"there is no journal record of kind {kind}")
        if not self._has_room():
            self.progress_dropped_total += 1
            return False
        if opened is not None:
            self._opens[exchange] = opened._replace(progress=payload)
        return True

    # -- room ------------------------------------------------------------------------------------------------
    def _has_room(self) -> bool:
        """Whether one more record fits beside the room kept for the settles of all open exchanges."""
        if self.tail.unsynced_bytes > limits.journal_unsynced_bytes_max:
            return False
        if self.tail.bytes_total >= self._look_again_at_bytes or len(self._opens) >= self._opens_max:
            self._look_at_space()
        self._opens_unasked = self._opens_max
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
            self._opens_max = self._opens_unasked = 0
            return
        left = min(disk_left, limits.journal_bytes_max - used) - _SPACE_LOOK_BYTES
        self._opens_max = self._opens_unasked = left // limits.settle_reserve_bytes
        self._look_again_at_bytes = self.tail.bytes_total + _SPACE_LOOK_BYTES

    # -- writing ---------------------------------------------------------------------------------------------
    def _flush(self) -> None:
        """Write this turn's frames at once, then tell their callers."""
        self._scheduled = False
        self._turn += 1
        queued = self._ends + self._rest
        self._ends, self._rest = [], []
        if not queued:
            return
        tail = self.tail
        if tail.broken is not None:
            _tell(queued, tail.broken)
            return
        first_pos = self._next_pos
        complete, error = tail.write(queued, first_pos)
        self._next_pos += complete
        if (
            tail.unsynced_bytes > limits.journal_unsynced_bytes_max
            or tail.bytes_total >= self._look_again_at_bytes
        ):
            self._opens_unasked = 0
        failed = queued[complete:]
        if failed:
            self._take_back(failed)
            del queued[complete:]
        if self._durable:
            self._await_sync(queued, first_pos)
        else:
            _tell(queued, None)
        if failed:
            _tell(failed, self._why_not(error))
        if tail.offset >= limits.segment_bytes_max + self._carried_bytes:
            self._rotate()

    def _take_back(self, failed: Sequence[_Queued]) -> None:
        """Records that are not in the journal: what they changed here is undone."""
        for kind, _, _, exchange, ended in failed:
            if kind in kinds.BEGINNINGS:
                self._opens.pop(exchange, None)
            elif ended is not None:
                self._opens[exchange] = ended

    def _why_not(self, error: OSError | None) -> Exception:
        return self.tail.broken or JournalFullError(f"the journal's disk is full: {error}")

    def _await_sync(self, written: Sequence[_Queued], first_pos: int) -> None:
        for pos, (_, _, then, _, _) in enumerate(written, start=first_pos):
            if then is not None:
                self._awaiting.append((pos, then))

    def _rotate(self) -> None:
        """Go on in a new segment. Prices and exchanges open since before the last one are carried into it."""
        if self.tail.broken is not None or not self.tail.rotate():
            return
        self._look_at_space()
        self._rest += [(kinds.PRICES, payload, None, "", None) for payload in self._prices]
        sequence = self.tail.sequence
        old = [(exchange, one) for exchange, one in self._opens.items() if one.sequence < sequence - 1]
        for exchange, opened in old:
            self._opens[exchange] = opened._replace(sequence=sequence, turn=self._turn)
            self._rest += [(kind, payload, None, exchange, None) for kind, payload in opened.records()]
        self._carried_bytes = sum(OVERHEAD_BYTES + len(record[1]) for record in self._rest)
        if self._rest and not self._scheduled:
            self._wake()

    # -- syncing ---------------------------------------------------------------------------------------------
    def after_sync(self) -> None:
        """On the loop: call every `then` that waited for its record to be on disk."""
        while self._awaiting and self._awaiting[0][0] <= self.tail.synced_pos:
            self._awaiting.popleft()[1](None)

    def fail_waiting(self, reason: Exception) -> None:
        """On the loop, once the journal is broken: nobody waits for a sync that will not come."""
        while self._awaiting:
            self._awaiting.popleft()[1](reason)


def _tell(queued: Sequence[_Queued], error: Exception | None) -> None:
    for _, _, then, _, _ in queued:
        if then is not None:
            try:
                then(error)
            except Exception:  # noqa: BLE001 - whatever failed, the others are told
                _log.exception("what follows a journal record failed")
