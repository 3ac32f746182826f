"""A journal in a test's hands: the loop's turns and the sync thread's rounds happen when the test says so."""

from collections.abc import Callable
from pathlib import Path

from farebox.base import frames as kinds
from farebox.base.ids import new_journal_id
from farebox.journal.appender import Appender
from farebox.journal.check import cut_tail
from farebox.journal.files import Files
from farebox.journal.frames import Frame, encode
from farebox.journal.recovery import JournalScan, scan
from farebox.journal.sync import SyncThread


def opened(exchange: str, hold: int = 5) -> bytes:
    """An open record, in the form of base/records.Opened."""
    return b'["%s","alice","ohmygpt","k","m","chat",1,"u",true,1,2,%d]' % (exchange.encode(), hold)


def ended(exchange: str, filler: str = "") -> bytes:
    """A payload that begins like a settle or void record; the journal looks no further."""
    return b'["%s","alice","%s"]' % (exchange.encode(), filler.encode())


def frame_bytes(*records: Frame) -> int:
    """How many bytes the frames of records take in a segment."""
    return len(encode(((one.kind, one.pos, one.payload) for one in records), 0, 0, 0)[0])


class Rig:
    """One journal directory and whoever appends to it."""

    def __init__(self, root: Path, files: Files | None = None) -> None:
        self.files = files or Files()
        self.directory = root / new_journal_id()
        self.directory.mkdir()
        self.turns: list[Callable[[], None]] = []
        self.told: list[tuple[str, Exception | None]] = []
        self.epoch = 0

    def begin(self, *, durable: bool = False) -> JournalScan:
        """Check, cut and open the journal for its next epoch, as a restarted process does."""
        found = scan(self.directory, self.files)
        if found.cut is not None:
            cut_tail(self.files, self.directory, found.cut)
        self.epoch = max(self.epoch, found.epoch) + 1
        self.turns.clear()
        self.sync = SyncThread(self.files, self.turns.append, at_once=True)
        self.appender = Appender(
            self.files, self.directory, self.turns.append, durable=durable, dirty=self.sync.dirty
        )
        self.tail = self.appender.tail
        self.sync._appender = self.appender
        self.appender.begin(self.epoch, found.synced_pos, found.unsynced)
        return found

    def append(self, kind: int, exchange: str, payload: bytes | None = None) -> None:
        default = opened(exchange) if kind == kinds.OPEN else ended(exchange)
        self.appender.append(
            kind,
            payload if payload is not None else default,
            lambda error: self.told.append((exchange, error)),
        )

    def turn(self) -> None:
        """Run what the loop has been asked to run, until nothing is left."""
        while self.turns:
            self.turns.pop(0)()

    def sync_round(self) -> None:
        """One round of the sync thread, and what it makes the loop do."""
        self.sync.sync_once()
        self.turn()

    def stop(self) -> None:
        """The process dies: descriptors are closed, nothing is written."""
        for descriptor in (*self.tail._retiring, *self.tail._abandoned, self.tail._descriptor):
            if descriptor >= 0:
                self.files.close(descriptor)
        self.tail._descriptor = -1

    def records(self) -> list[Frame]:
        """Every record a restarted process would see."""
        return records(self.directory, self.files)

    def segment(self, sequence: int) -> Path:
        return self.directory / f"{sequence:012d}.segment"


def records(directory: Path, files: Files | None = None) -> list[Frame]:
    from farebox.journal.check import walk

    found: list[Frame] = []
    walk(files or Files(), directory, lambda frame, _synced: found.append(frame))
    return found
