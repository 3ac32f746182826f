"""The thread that syncs a journal's writes to disk, soon after each, and says how far it got.

Promises: `synced_pos` is published only after fdatasync of everything up to it succeeded; a failed
fdatasync is never repeated on the same file, because the kernel forgets the error with the pages (J27): the
records move instead.
"""

import threading
import time
from collections.abc import Callable

from farebox.base import limits
from farebox.journal.appender import Appender, Schedule
from farebox.journal.files import Files
from farebox.journal.tail import Written

_IDLE_ROUNDS = 20
"""So often the thread finds nothing before it waits to be told: being woken costs the loop far more than a
look, as both want the interpreter at that moment.
"""


def ignored(sync_us: int) -> None:
    """Nobody measures how long syncs take."""


class SyncThread:
    """Owns the thread. `wake` runs a callback on the appender's loop (loop.call_soon_threadsafe); `on_sync`
    is told of each sync's microseconds.
    """

    def __init__(
        self, files: Files, wake: Schedule, *, at_once: bool, on_sync: Callable[[int], None] = ignored
    ) -> None:
        self._files = files
        self._on_sync = on_sync
        self._wake = wake
        self._at_once = at_once
        self._delay_s = 0.0 if at_once else limits.sync_interval_s / 2
        self._idle_rounds_max = 0 if at_once else _IDLE_ROUNDS
        self._is_parked = False
        self._dirty = threading.Event()
        self._ending = threading.Event()
        self._appender: Appender | None = None
        self._failure: OSError | None = None
        """Of the last sync, until its records have moved."""
        self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
        self.syncs_total = 0

    def start(self, appender: Appender) -> None:
        """Begin to sync what `appender` writes."""
        self._appender = appender
        self._thread.start()

    def dirty(self) -> None:
        """Something has been written. Nearly free while the thread is looking anyway."""
        if self._is_parked:
            self._dirty.set()

    def stop(self) -> None:
        """End the thread, which finishes the sync it is in; records whose sync failed have moved then.

        Call it on the loop's thread.
        """
        self._ending.set()
        self._dirty.set()
        self._thread.join()
        self._move()

    def _run(self) -> None:
        idle_rounds = 0
        while not self._ending.is_set():
            time.sleep(self._delay_s)
            idle_rounds = 0 if self.sync_once() else idle_rounds + 1
            if idle_rounds > self._idle_rounds_max:
                self._park()
                idle_rounds = 0

    def _park(self) -> None:
        """Sleep until something is written. What was written before this could be seen is synced here."""
        self._is_parked = True
        if not self.sync_once():
            self._dirty.wait()
        self._is_parked = False
        self._dirty.clear()

    def sync_once(self) -> bool:
        """Sync everything written so far; False when there was nothing.

        After a failure the file is left alone until its records have moved.
        """
        appender = self._appender
        if appender is None or appender.tail.broken is not None or self._failure is not None:
            return False
        written = appender.tail.take_unsynced()
        if written is None:
            return False
        error = self._sync(written)
        if error is None:
            appender.tail.publish(written.pos)
            if self._at_once:
                self._call(appender.after_sync)
        else:
            self._failure = error
            self._call(self._move)
        return True

    def _move(self) -> None:
        """On the loop: write the records of a failed sync again in a new segment, and sync that."""
        appender, failure = self._appender, self._failure
        if appender is None or failure is None:
            return
        tail = appender.tail
        tail.sync_failed(failure)
        if tail.broken is not None:
            appender.fail_waiting(tail.broken)
        self._failure = None
        self.dirty()

    def _sync(self, written: Written) -> OSError | None:
        """Sync the files in order, closing all but the current one; the first error."""
        failure: OSError | None = None
        for descriptor in written.descriptors:
            try:
                if failure is None:
                    began_ns = time.monotonic_ns()
                    self._files.fdatasync(descriptor)
                    self.syncs_total += 1
                    self._on_sync((time.monotonic_ns() - began_ns) // 1000)
            except OSError as error:
                failure = error
        for descriptor in (*written.abandoned, *written.descriptors[:-1]):
            self._files.close(descriptor)
        return failure

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            self._wake(callback)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._ending.set()
