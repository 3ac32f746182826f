"""What a journal says about the past: its last position, exchanges without an end, records not yet booked,
prices.

Reading only; what recovery does with it (MONEY section 8) is decided by the writer's recovery.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from farebox._meter import RunFolder
from farebox.base import frames as kinds
from farebox.base.errors import JournalDamagedError
from farebox.base.ids import epoch_of
from farebox.base.records import Debit, LotAmount, Opened
from farebox.journal.check import Cut, Place, walk
from farebox.journal.files import Files
from farebox.journal.frames import Frame
from farebox.journal.payloads import exchange_of, prices_of, progress_count
from farebox.journal.segments import read_epoch

_RUNS: Final = RunFolder(Frame, Debit, LotAmount)


@dataclass(frozen=True, slots=True)
class OpenExchange:
    """An exchange without settle or void. `progress` is the output count last seen, None when none was
    recorded.
    """

    opened: Opened
    sent: bool
    progress: int | None


@dataclass(frozen=True, slots=True)
class JournalScan:
    """One look at a whole journal. `epoch` is the highest it may ever have been claimed under.

    `finished`: settle and void records, in order; those of settlements in the plain current form as the
    debits they are. `unsynced`: all records after `synced_pos`. `first_pos`: the position before the oldest
    record that is still there.
    """

    last_pos: int
    synced_pos: int
    epoch: int
    opens: Mapping[str, OpenExchange]
    finished: list[Debit | Frame]
    unsynced: tuple[Frame, ...]
    prices: Mapping[int, bytes]
    cut: Cut | None
    first_pos: int = 0


def scan(directory: Path, files: Files | None = None) -> JournalScan:
    """Read a journal, changing nothing; a torn tail is reported in `cut`.

    Raises JournalDamagedError for damage at or before a position known synced or a record that does not
    decode, JournalError when a file cannot be read.
    """
    folded = Fold()
    walked = walk(files or Files(), directory, folded.add, folded.add_run)
    try:
        opens = {exchange.decode(): _open_exchange(frames) for exchange, frames in folded.opens.items()}
    except (ValueError, TypeError) as error:
        raise JournalDamagedError(str(directory), 0, f"an open record does not decode: {error}") from error
    return JournalScan(
        last_pos=walked.last_pos,
        synced_pos=min(walked.synced_pos, walked.last_pos),
        epoch=max(epoch_of(walked.last_pos), read_epoch(directory)),
        opens=opens,
        finished=folded.finished,
        unsynced=tuple(frame for frame in folded.recent if frame.pos > walked.synced_pos),
        prices=folded.prices,
        cut=walked.cut,
        first_pos=walked.first_pos,
    )


class Fold:
    """Records in order, folded to what is still of interest."""

    def __init__(self) -> None:
        self.opens: dict[bytes, dict[int, bytes]] = {}
        self.finished: list[Debit | Frame] = []
        self.recent: deque[Frame] = deque()
        self.prices: dict[int, bytes] = {}

    def add(self, frame: Frame, synced_pos: int) -> None:
        """Fold one record."""
        self.recent.append(frame)
        self._forget_synced(synced_pos)
        if frame.kind == kinds.PRICES:
            version, book = prices_of(frame.payload)
            self.prices[version] = book
            return
        exchange = exchange_of(frame.payload)
        if frame.kind in kinds.BEGINNINGS:
            said = self.opens.setdefault(exchange, {})
            said[kinds.OPEN] = frame.payload
            if frame.kind == kinds.OPEN_SENT:
                said[kinds.SENT] = b""
        elif frame.kind in kinds.ENDS:
            self.opens.pop(exchange, None)
            self.finished.append(frame)
        elif exchange in self.opens:
            self.opens[exchange][frame.kind] = frame.payload

    def add_run(self, data: bytes, journal: int, place: Place, given_pos: int) -> tuple[int, int, int, int]:
        """Fold many records at once, up to one that is odd or not about an exchange: see `walk`."""
        end, finished, unsynced = _RUNS.fold(data, journal, *place, given_pos, self.opens)
        self.finished += finished
        self.recent += unsynced
        self._forget_synced(end[-1])
        return end

    def _forget_synced(self, synced_pos: int) -> None:
        while self.recent and self.recent[0].pos <= synced_pos:
            self.recent.popleft()


def _open_exchange(frames: Mapping[int, bytes]) -> OpenExchange:
    progress = frames.get(kinds.PROGRESS)
    return OpenExchange(
        opened=Opened.decode(frames[kinds.OPEN]),
        sent=kinds.SENT in frames,
        progress=None if progress is None else progress_count(progress),
    )
