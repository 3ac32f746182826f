"""The writer of one host: applies every journal under a root, serves the workers, tells them what changed.

Promises: it reads journals and never writes a record; one journal's trouble delays no other; a store that is
down is tried again for ever, with a bounded pause; a clean stop books what the journals held when it was
asked.

Each journal is applied by a `JournalApplier` of its own, in turn, a batch at a time. Pushes to workers (see
`store/remote.py`): `applied`, `fence`, `change`, `connected`.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from farebox.base import clock, limits
from farebox.base.counters import FLUSH, Cells
from farebox.base.errors import (
    FaultError,
    InvariantBrokenError,
    JournalError,
    JournalLockedError,
    StoreDownError,
    StoreRefusedError,
)
from farebox.store.base import JournalState, Store
from farebox.store.server import StoreServer
from farebox.writer.adopt import adopt
from farebox.writer.apply import JournalApplier
from farebox.writer.conservation import ConservationCheck
from farebox.writer.dead_letter import DeadLetters
from farebox.writer.journals import JournalSource, dead_letter_path, journal_paths
from farebox.writer.silence import Silence
from farebox.writer.sweep import (
    Claims,
    adopt_request_logs,
    expire_request_logs,
    expire_sessions,
    sweep_expired_lots,
)

_log = logging.getLogger(__name__)
_CHANGES_PAGE: Final = 1000

OnPush = Callable[[Mapping[str, object]], None]


class Writer:
    """Run it with `run()` until `stop()`; or call `drain()` alone to apply what is there (CLI, tests, one
    process).

    Without a `socket_path` it serves nobody; `on_push` then hears what workers would. The store is the
    caller's to open and close. All methods belong to one event loop.
    """

    def __init__(
        self,
        store: Store,
        journals_root: Path,
        socket_path: Path | None = None,
        *,
        on_push: OnPush | None = None,
        wall_ms: Callable[[], int] = clock.wall_ms,
    ) -> None:
        self._store = store
        self._root = journals_root
        self._server = None if socket_path is None else StoreServer(store, socket_path)
        self._on_push = on_push
        self._wall_ms = wall_ms
        self._journals: dict[str, _Applied] = {}
        self._damaged: dict[str, str] = {}
        self._store_error = ""
        self._store_errors = 0
        self._lots_expired = 0
        self._flush = Cells(FLUSH)
        self._changes_seen = 0
        self._conservation = ConservationCheck(store)
        self._stopping = asyncio.Event()

    # -- life ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve and apply until `stop`; then apply once more and release everything.

        Workers are served only once the change feed's end is known: a change that came between a worker's
        question and the first poll would never be told.
        """
        while not self._stopping.is_set() and not await self._try(self._skip_old_changes):
            await self._pause(limits.changes_poll_interval_s)
        if self._server is not None:
            await self._server.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._apply_until_stopped(), name="apply")
                tasks.create_task(self._tell_changes_until_stopped(), name="changes")
                tasks.create_task(self._collect_until_stopped(), name="claims")
                tasks.create_task(self._watch_until_stopped(), name="watch")
                tasks.create_task(self._tidy_until_stopped(), name="tidy")
                tasks.create_task(self._check_until_stopped(), name="check")
            with contextlib.suppress(FaultError, TimeoutError):
                async with asyncio.timeout(limits.shutdown_drain_s):
                    await self.drain()
        finally:
            self.close()
            if self._server is not None:
                await self._server.close()

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stopping.set()

    @property
    def workers(self) -> int:
        """How many workers are connected; they may still give money back."""
        return 0 if self._server is None else self._server.workers

    def close(self) -> None:
        """Let go of the journals' files; for callers of `drain` without `run`."""
        for journal in tuple(self._journals):
            self._let_go(journal)

    async def drain(self) -> None:
        """Apply all journals up to what they hold now. Raises FaultError when the store does not let it."""
        is_behind = True
        while is_behind:
            is_behind = await self._round() or any(
                one.applier.is_unfinished for one in self._journals.values()
            )

    def status(self) -> dict[str, object]:
        """How far each journal is, for /metrics and /readyz; times in seconds."""
        now_ms = self._wall_ms()
        journals = {name: applied.status(now_ms) for name, applied in self._journals.items()}
        return {
            "journals": journals,
            "damaged": dict(self._damaged),
            "store_error": self._store_error,
            "conservation": self._conservation.status(),
            "parked": sum(applied.applier.parked_count for applied in self._journals.values()),
            "booked": sum(applied.applier.booked_count for applied in self._journals.values()),
            "store_errors": self._store_errors,
            "lots_expired": self._lots_expired,
            "flush": self._flush.status(),
        }

    # -- applying --------------------------------------------------------------------------------------------

    async def _apply_until_stopped(self) -> None:
        pause_s = limits.apply_interval_s
        while not self._stopping.is_set():
            try:
                is_behind = await self._round()
            except FaultError as error:
                self._note_store_error(str(error))
                pause_s = min(pause_s * 2, limits.store_retry_max_s)
                await self._pause(pause_s)
                continue
            self._note_store_error("")
            pause_s = limits.apply_interval_s
            if not is_behind:
                await self._pause(pause_s)

    async def _round(self) -> bool:
        """One step of every journal; whether one of them has more than a step can take."""
        paths = {path.name: path for path in journal_paths(self._root)}
        if self._is_quiet(paths.keys()):
            return False
        states = {state.journal: state for state in await self._store.journal_states()}
        self._meet_journals(paths, states)
        is_behind = False
        for name in tuple(self._journals):
            if name in states:
                is_behind |= await self._step(name, states[name])
        return is_behind

    def _is_quiet(self, names: Collection[str]) -> bool:
        """Whether the store need not be asked: no directory came or went, and no journal has anything to
        apply.
        """
        return set(names) == self._journals.keys() and all(
            one.source.is_quiet() and not one.applier.is_unfinished for one in self._journals.values()
        )

    def _meet_journals(self, paths: Mapping[str, Path], states: Mapping[str, JournalState]) -> None:
        """Begin with directories that are new (and known to the store), let go of those that have gone."""
        for name in self._journals.keys() - paths.keys():
            self._let_go(name)
        for name in paths.keys() & states.keys() - self._journals.keys():
            letters = DeadLetters(dead_letter_path(paths[name]))
            source = JournalSource(paths[name], states[name].applied, whole=True)
            self._journals[name] = _Applied(
                JournalApplier(name, self._store, source, letters, self._fence), source
            )

    async def _step(self, name: str, state: JournalState) -> bool:
        applied = self._journals[name]
        try:
            booked, began_s = applied.applier.booked_count, clock.monotonic_s()
            is_behind = await applied.applier.step(state, self._wall_ms())
            if applied.applier.booked_count > booked:
                self._flush.observe(clock.monotonic_s() - began_s)
            await applied.source.delete_applied(state.applied)
        except JournalError as error:
            self._note_damage(name, str(error))
            return False
        except StoreDownError:
            raise
        except FaultError as error:
            self._store_errors += 1
            _log.warning("journal %s: %s; it is tried again", name, error)
            applied.last_error = str(error)
            return False
        self._damaged.pop(name, None)
        applied.last_error = ""
        if applied.applier.applied > applied.told:
            applied.told = applied.applier.applied
            self._push({"applied": [name, applied.told]})
        return is_behind

    def _let_go(self, name: str) -> None:
        self._journals.pop(name).source.close()

    def _note_damage(self, name: str, error: str) -> None:
        """Begin this journal anew with the next round; until then the others go on."""
        if not (self._root / name).exists():  # put away by an operator or by whoever retired it
            self._let_go(name)
            return
        if self._damaged.get(name) != error:
            _log.error("journal %s cannot be read: %s", name, error)
        self._damaged[name] = error
        self._let_go(name)

    def _note_store_error(self, error: str) -> None:
        self._store_errors += bool(error)
        if error and error != self._store_error:
            _log.error("the store does not take what is settled; trying again: %s", error)
        elif self._store_error and not error:
            _log.info("the store is back")
        self._store_error = error

    # -- telling workers -------------------------------------------------------------------------------------

    def _fence(self, journal: str, user: str) -> None:
        self._push({"fence": [journal, user]})

    def _push(self, message: Mapping[str, object]) -> None:
        if self._server is not None:
            self._server.push(message)
        if self._on_push is not None:
            self._on_push(message)

    async def _tell_changes_until_stopped(self) -> None:
        while not self._stopping.is_set():
            await self._try(self._tell_changes)
            await self._pause(limits.changes_poll_interval_s)

    async def _skip_old_changes(self) -> None:
        while changes := await self._store.changes_after(self._changes_seen, _CHANGES_PAGE):
            self._changes_seen = changes[-1].number

    async def _tell_changes(self) -> None:
        """Tell what is new. The feed keeps a bounded tail: where it has lost some, everything workers
        remember is old, as after a connection made anew.
        """
        while changes := await self._store.changes_after(self._changes_seen, _CHANGES_PAGE):
            if changes[0].number > self._changes_seen + 1:
                _log.warning("the feed of changes has gone on too far: workers read everything anew")
                self._push({"connected": []})
            for change in changes:
                self._push({"change": [change.number, change.kind, change.subject, change.journal]})
            self._changes_seen = changes[-1].number

    # -- tidying ---------------------------------------------------------------------------------------------

    async def _collect_until_stopped(self) -> None:
        claims = Claims(self._store)
        while not self._stopping.is_set():
            await self._try(lambda: claims.collect_some(self._wall_ms()))
            await self._pause(limits.claims_interval_s)

    async def _watch_until_stopped(self) -> None:
        silence = Silence()
        while not self._stopping.is_set():
            await self._try(lambda: self._abandon_silent(silence))
            await self._pause(limits.beat_look_interval_s)

    async def _abandon_silent(self, silence: Silence) -> None:
        states = await self._store.journal_states()
        for state in silence.look(states, clock.monotonic_s()):
            if await self._store.end_journal(state.journal, "lost", state):
                _log.warning(
                    "journal %s shows no sign of life: its leases are abandoned; charges it has still come",
                    state.journal,
                )

    async def _tidy_until_stopped(self) -> None:
        while not self._stopping.is_set():
            await self._try(self._sweep_expired_lots)
            await self._try(lambda: adopt_request_logs(self._store))
            await self._try(lambda: expire_request_logs(self._store, self._wall_ms()))
            await self._try(lambda: expire_sessions(self._store, self._wall_ms()))
            await self._pause(limits.tidy_interval_s)
            if not self._stopping.is_set():
                await self._try(self._adopt_orphans)

    async def _sweep_expired_lots(self) -> None:
        self._lots_expired += await sweep_expired_lots(self._store, self._wall_ms())

    async def _check_until_stopped(self) -> None:
        while not self._stopping.is_set():
            await self._try(lambda: self._conservation.round(self._pause, self._stopping.is_set))
            await self._pause(limits.conservation_interval_s)

    async def _adopt_orphans(self) -> None:
        """Retire journals that no worker has taken; not at once, so that starting workers find theirs."""
        for path in journal_paths(self._root):
            try:
                if await adopt(path, self._store, socket.gethostname(), wall_ms=self._wall_ms):
                    _log.info("journal %s, which no worker took, is applied and retired", path.name)
            except JournalLockedError:
                continue
            except (JournalError, StoreRefusedError) as error:
                _log.error("journal %s, which no worker took: %s", path.name, error)

    async def _try(self, work: Callable[[], Awaitable[object]]) -> bool:
        """Work that may as well be done a little later; whether it was done.

        What must not be stops this work until then, and no booking: an operator is told.
        """
        try:
            await work()
        except FaultError as error:
            self._note_store_error(str(error))
            return False
        except InvariantBrokenError:
            _log.exception("a task beside the bookings met what must not be; it is tried again later")
            return False
        return True

    async def _pause(self, duration_s: float) -> None:
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((stopped,), timeout=duration_s)
        finally:
            stopped.cancel()


class _Applied:
    """A journal that is being applied."""

    __slots__ = ("applier", "last_error", "source", "told")

    def __init__(self, applier: JournalApplier, source: JournalSource) -> None:
        self.applier = applier
        self.source = source
        self.told = 0
        self.last_error = ""

    def status(self, now_ms: int) -> dict[str, object]:
        oldest_ms = self.applier.oldest_unbooked_ms()
        return {
            "applied": self.applier.applied,
            "unbooked": self.applier.unbooked_count,
            "lag_s": 0.0 if oldest_ms is None else max(0, now_ms - oldest_ms) / 1000,
            "booked": self.applier.booked_count,
            "parked": self.applier.parked_count,
            "dead_letters": self.applier.dead_letters.count,
            "error": self.last_error,
        }
