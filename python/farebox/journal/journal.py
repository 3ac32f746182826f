"""The journal as its owner sees it: one directory, one lock, one appender, one sync thread.

Order of use (MONEY section 8): `create` or `take` (lock) - `scan` (check; cuts a torn tail) -
`intend_epoch`, claim it in the store - `begin_epoch` (new segment) - `append` - `close`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from farebox.base.errors import InvariantBrokenError, JournalError, JournalLockedError
from farebox.base.frames import SETTLE
from farebox.journal.appender import Appender, Schedule, Then
from farebox.journal.check import cut_tail
from farebox.journal.files import Files
from farebox.journal.recovery import JournalScan, scan
from farebox.journal.segments import (
    create_directory,
    journal_directories,
    last_written_ns,
    lock_directory,
    read_epoch,
    write_epoch,
)
from farebox.journal.sync import SyncThread, ignored

Durability = Literal["process", "disk"]


class Journal:
    """One locked journal directory. Only its holder appends; closing (or death) releases the lock."""

    def __init__(self, directory: Path, lock: int, files: Files) -> None:
        self.directory = directory
        self.id = directory.name
        self._lock = lock
        self._files = files
        self._scan: JournalScan | None = None
        self._appender: Appender | None = None
        self._sync: SyncThread | None = None
        self.on_sync: Callable[[int], None] = ignored
        """Told of each sync's microseconds, on the sync thread; set it before `begin_epoch`."""
        self.epoch = read_epoch(directory)
        """The highest epoch this directory may have been claimed under; after `begin_epoch` the current
        one.
        """

    # -- before appending ------------------------------------------------------------------------------------
    def scan(self) -> JournalScan:
        """Check the whole journal, cut a torn tail, and tell what it holds (see recovery.scan)."""
        found = scan(self.directory, self._files)
        if found.cut is not None:
            cut_tail(self._files, self.directory, found.cut)
        self._scan = found
        self.epoch = max(self.epoch, found.epoch)
        return found

    def intend_epoch(self, epoch: int) -> None:
        """Note durably that `epoch` is about to be claimed in the store, which may then be ahead by no more
        than it.
        """
        write_epoch(self._files, self.directory, epoch)
        self.epoch = max(self.epoch, epoch)

    def begin_epoch(
        self, epoch: int, schedule: Schedule, wake: Schedule, durability: Durability = "process"
    ) -> None:
        """Make ready to append as `epoch`: a new segment, synced with its directory.

        `schedule` is loop.call_soon, `wake` is loop.call_soon_threadsafe.
        """
        if self._scan is None or self._appender is not None or epoch < self.epoch:
            raise InvariantBrokenError(
                "a journal is scanned, then begun once, under an epoch not below its own"
            )
        found, self._scan = self._scan, None
        is_durable = durability == "disk"
        sync = SyncThread(self._files, wake, at_once=is_durable, on_sync=self.on_sync)
        appender = Appender(self._files, self.directory, schedule, durable=is_durable, dirty=sync.dirty)
        appender.begin(epoch, found.synced_pos, found.unsynced)
        self._sync, self._appender, self.epoch = sync, appender, epoch
        sync.start(appender)

    # -- appending -------------------------------------------------------------------------------------------
    def append(self, kind: int, payload: bytes, then: Then | None = None) -> None:
        """Queue a record for this turn's write (see Appender.append)."""
        (self._appender or self._begun()).append(kind, payload, then)

    def append_open(self, exchange: str, opened: bytes, then: Then) -> None:
        """Queue the `open` and `sent` of one exchange in one frame (see Appender.append)."""
        (self._appender or self._begun()).append_open(exchange, opened, then)

    def append_settle(self, exchange: str, payload: bytes, then: Then) -> None:
        """Queue the settlement of one exchange (see Appender.append)."""
        (self._appender or self._begun()).append_end(SETTLE, exchange, payload, then)

    def _begun(self) -> Appender:
        if self._appender is None:
            raise InvariantBrokenError("nothing may be appended before begin_epoch or after close")
        return self._appender

    @property
    def last_pos(self) -> int:
        """Position of the last record written; in a `then`, at or behind its own record."""
        return self._begun().tail.last_pos

    @property
    def synced_pos(self) -> int:
        """Every record up to here is on disk: what it freed may go back to the store (hole 24)."""
        return self._begun().tail.synced_pos

    @property
    def broken(self) -> Exception | None:
        """Why nothing can be appended any more; None while all is well."""
        return self._begun().tail.broken

    def statistics(self) -> dict[str, int]:
        """Counters since begin_epoch, under the names of base/counters.py, and dropped progress records."""
        appender = self._begun()
        return {
            "journal_bytes_total": appender.tail.bytes_total,
            "journal_writes_total": appender.tail.writes_total,
            "journal_syncs_total": self._sync.syncs_total if self._sync is not None else 0,
            "progress_dropped_total": appender.progress_dropped_total,
        }

    # -- the end ---------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Write and sync what is queued, tell those who wait, release the lock. Call it on the loop's thread.

        Raises JournalError when the last sync failed; the lock is released all the same.
        """
        appender, self._appender = self._appender, None
        try:
            if appender is not None and self._sync is not None:
                self._sync.stop()
                self._finish(appender)
        finally:
            self._files.close(self._lock)

    def _finish(self, appender: Appender) -> None:
        descriptors = appender.close()
        try:
            for descriptor in descriptors:
                self._files.fdatasync(descriptor)
        except OSError as error:
            failure = JournalError(f"the last sync of journal {self.directory} failed: {error}")
            appender.fail_waiting(failure)
            raise failure from error
        finally:
            for descriptor in descriptors:
                self._files.close(descriptor)
        appender.tail.publish(appender.tail.last_pos)
        appender.after_sync()


def create(root: Path, files: Files | None = None) -> Journal:
    """A journal in a new directory under a new id, locked. Raises JournalError with the reason."""
    files = files or Files()
    directory, lock = create_directory(files, root)
    return Journal(directory, lock, files)


def open_journal(directory: Path, files: Files | None = None) -> Journal:
    """The journal in an existing directory, locked. Raises JournalLockedError when somebody else has it."""
    files = files or Files()
    return Journal(directory, lock_directory(files, directory), files)


def take(root: Path, files: Files | None = None) -> Journal:
    """The journal under `root` that was written last and that nobody holds, or a new one.

    Where there are more journals than workers, as after a replacement, a killed worker's is then recovered
    by the next at once, and not minutes later as one that nobody takes.
    """
    files = files or Files()
    for directory in sorted(
        journal_directories(files, root), key=lambda each: last_written_ns(files, each), reverse=True
    ):
        try:
            return open_journal(directory, files)
        except JournalLockedError:
            continue
    return create(root, files)
