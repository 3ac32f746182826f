"""A worker's process: takes a journal, recovers it, serves the sockets its supervisor bound.

Order of start (MONEY section 8): lock and check the journal, claim its epoch, end what a crash cut off, then
serve. Clients wait in the sockets' queues until then (or are served by other workers of the same sockets); a
start that takes longer than `silent_start_s` answers 503, so that they learn that they may try again.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from farebox.base import clock, limits
from farebox.base.counters import JOURNAL_SYNC, Counters, observe
from farebox.base.errors import (
    FaultError,
    Refusal,
    Refused,
    StoreConflictError,
    StoreDownError,
    StoreUnknownError,
)
from farebox.config.load import load
from farebox.config.settings import Settings
from farebox.journal.journal import Journal, take
from farebox.proxy.gauges import live
from farebox.proxy.worker import Worker
from farebox.run.control import Answer, Command, ControlServer
from farebox.run.memory import ROOT_VARIABLE, MemoryWatch
from farebox.run.paths import control_socket, counters_file, writer_socket
from farebox.run.process import StopSignals, first_of, run, tune_garbage_collection
from farebox.run.serving import Serving
from farebox.store.remote import RemoteStore
from farebox.wire.incoming import Incoming
from farebox.wire.server import Server
from farebox.writer.recovery import Recovered, recover

T = TypeVar("T")

_log = logging.getLogger("farebox.worker")
_RETRY_FIRST_S = 0.01
_RETRY_MAX_S = 0.25
_JOURNAL_CHECK_S = 1.0


async def main(number: int, silent_start_s: float, descriptors: list[list[int]], config: list[Path]) -> int:
    """Serve until told to stop. `descriptors`: the listening sockets of each service."""
    settings = load(config)
    loop = asyncio.get_running_loop()
    signals = StopSignals(loop)
    life = _Life()
    control = ControlServer(control_socket(settings, number), life.commands())
    await control.start()
    servers = [Server(_not_ready) for _ in settings.services]
    listening = _Listening(servers, descriptors)
    loop.call_later(silent_start_s, listening.begin_soon)
    pushes = _Pushes()
    store = RemoteStore(writer_socket(settings), pushes)
    await store.open()
    journal = take(settings.journal_dir)
    counters = Counters(counters_file(settings, number))
    journal.on_sync = partial(observe, counters.values, JOURNAL_SYNC)
    # Before recovery, which may make a million records that the collector would look through again and again.
    tune_garbage_collection()
    try:
        recovered = await _while_store_is_away(lambda: _recover(journal, store, settings), signals)
        if recovered is None:
            return 0
        worker = _worker(settings, store, journal, counters, loop)
        worker.leases.remember(recovered.leased, recovered.unapplied)
        pushes.to(worker)
        serving = Serving(worker, servers, store)
        if not await _while_store_is_away(lambda: _put_in_force(serving, settings), signals):
            await worker.close()
            return 0
        beats = _Beats(store, journal)
        worker.ready = beats.trouble
        worker.spawn(beats.run())
        worker.upstream_connections = serving.open_connections
        root = Path(os.environ.get(ROOT_VARIABLE, "/"))
        worker.spawn(MemoryWatch(worker, servers, root).run())
        life.serve(worker, serving)
        await listening.begin()
        _log.info("worker %d serves with journal %s, epoch %d", number, journal.id, journal.epoch)
        await first_of(signals.drain.wait, life.retire.wait, lambda: _journal_broken(journal))
        if life.retire.is_set():
            await _retire(servers, signals)
        await _stop(worker, servers, signals)
        return 0 if journal.broken is None else 1
    finally:
        listening.give_up()
        for server in servers:
            await server.close()
        await control.close()
        journal.close()
        await store.close()
        counters.close()


class _Listening:
    """The sockets of each service's server, and whether they are listened on yet."""

    def __init__(self, servers: list[Server], descriptors: list[list[int]]) -> None:
        self._waiting = [
            (server, descriptor)
            for server, own in zip(servers, descriptors, strict=True)
            for descriptor in own
        ]
        self._turn = asyncio.Lock()
        self._soon: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Listen on every socket; does nothing when that was done before."""
        async with self._turn:
            while self._waiting:
                server, descriptor = self._waiting.pop()
                await server.start(socket.socket(fileno=descriptor))

    def begin_soon(self) -> None:
        """Begin, without being waited for."""
        self._soon = asyncio.get_running_loop().create_task(self.begin())

    def give_up(self) -> None:
        """Never begin."""
        self._waiting.clear()


class _Life:
    """What the supervisor may ask over the control socket, and what this worker says of itself."""

    def __init__(self) -> None:
        self.retire = asyncio.Event()
        self._state = "starting"
        self._worker: Worker | None = None
        self._serving: Serving | None = None

    def serve(self, worker: Worker, serving: Serving) -> None:
        """From now on requests are served."""
        self._worker, self._serving = worker, serving
        self._state = "serving"

    def commands(self) -> dict[str, Command]:
        """What the control socket answers."""
        return {"ping": self._ping, "live": self._live, "reload": self._reload, "retire": self._retire}

    async def _ping(self, request: Mapping[str, Any]) -> Answer:
        del request
        return {"state": self._state, "open": len(self._worker.exchanges) if self._worker is not None else 0}

    async def _live(self, request: Mapping[str, Any]) -> Answer:
        del request
        return {"exchanges": live(self._worker) if self._worker is not None else []}

    async def _reload(self, request: Mapping[str, Any]) -> Answer:
        if self._serving is None:
            return {"error": "it is still starting; ask again"}
        await self._serving.put_in_force(load([Path(name) for name in request["files"]]))
        return {"state": self._state}

    async def _retire(self, request: Mapping[str, Any]) -> Answer:
        del request
        self._state = "retiring"
        self.retire.set()
        return {"state": self._state}


class _Pushes:
    """Hands the writer's pushes to the worker once there is one; before, there is nothing to forget."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def to(self, worker: Worker) -> None:
        self._worker = worker

    def __call__(self, message: Mapping[str, Any]) -> None:
        if self._worker is not None:
            self._worker.on_push(message)


async def _not_ready(client: Incoming) -> None:
    if client.path in {"/healthz", "/health"}:
        client.answer(200, [("Content-Type", "application/json")], b'{"status":"ok"}')
        return
    raise Refused(Refusal.STORE_UNAVAILABLE, "Farebox is starting; try again.", retry_after_s=1, close=True)


# -- start ---------------------------------------------------------------------------------------------------
async def _while_store_is_away(work: Callable[[], Awaitable[T]], signals: StopSignals) -> T | None:
    """The result of `work`, which is tried again while the store is away; None when told to stop meanwhile.

    A worker that ended instead would come back with its recovery to do once more, and no sooner.
    """
    said = False
    pause_s = _RETRY_FIRST_S
    while not signals.drain.is_set():
        try:
            return await work()
        except (StoreDownError, StoreUnknownError, StoreConflictError) as error:
            if pause_s == _RETRY_MAX_S and not said:
                _log.warning("waiting for the store: %s", error)
                said = True
            await asyncio.sleep(pause_s)
            pause_s = min(_RETRY_MAX_S, 2 * pause_s)
    return None


async def _recover(journal: Journal, store: RemoteStore, settings: Settings) -> Recovered:
    loop = asyncio.get_running_loop()
    return await recover(
        journal,
        store,
        now_ms=clock.wall_ms(),
        host=socket.gethostname(),
        schedule=loop.call_soon,
        wake=loop.call_soon_threadsafe,
        durability="disk" if settings.durability == "disk" else "process",
        keeps_leases=True,
    )


async def _put_in_force(serving: Serving, settings: Settings) -> bool:
    await serving.put_in_force(settings)
    return True


def _worker(
    settings: Settings,
    store: RemoteStore,
    journal: Journal,
    counters: Counters,
    loop: asyncio.AbstractEventLoop,
) -> Worker:
    return Worker(
        store,
        journal,
        counters,
        loop=loop,
        lease_wait_s=settings.lease_wait_s,
        written_off_pico_max=min(service.written_off_per_user_pico_max for service in settings.services),
    )


# -- while serving -------------------------------------------------------------------------------------------
class _Beats:
    """Signs of life of this journal; without them for too long the worker may not go on (MONEY section 6)."""

    def __init__(self, store: RemoteStore, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self._acknowledged_s = clock.boot_s()

    def trouble(self) -> str:
        """Why nothing may be admitted; empty while all is well."""
        if clock.boot_s() - self._acknowledged_s > limits.fence_after_s:
            return "the store has not answered for too long"
        broken = self._journal.broken
        return "" if broken is None else f"the journal cannot be written: {broken}"

    async def run(self) -> None:
        while True:
            sent_s = clock.boot_s()
            try:
                if await self._store.beat(self._journal.id, self._journal.epoch, clock.wall_ms()):
                    self._acknowledged_s = sent_s
                else:
                    _log.critical("journal %s belongs to another process now: stopping", self._journal.id)
                    os._exit(3)
            except FaultError as error:
                _log.warning("no sign of life could be given: %s", error)
            await asyncio.sleep(limits.beat_interval_s)


async def _journal_broken(journal: Journal) -> None:
    while journal.broken is None:  # noqa: ASYNC110 - the journal's thread has no event to wait for
        await asyncio.sleep(_JOURNAL_CHECK_S)
    _log.critical("the journal cannot be written any more, stopping: %s", journal.broken)


# -- stop ----------------------------------------------------------------------------------------------------
async def _retire(servers: list[Server], signals: StopSignals) -> None:
    """A successor serves: take no more connections and end what is open, however long it runs."""
    _log.info("retiring: %d exchanges still run", sum(server.open_count for server in servers))

    async def ended() -> None:
        await asyncio.gather(*(server.retire(limits.upstream_total_timeout_s) for server in servers))

    await first_of(ended, signals.drain.wait)


async def _stop(worker: Worker, servers: list[Server], signals: StopSignals) -> None:
    """Let running exchanges end, at most for a while or until told again; settle what is left."""
    worker.draining = True
    _log.info("draining %d exchanges", len(worker.exchanges))
    for server in servers:
        server.stop_listening()

    async def drained() -> None:
        await asyncio.gather(*(server.drain(limits.shutdown_drain_s) for server in servers))

    await first_of(drained, signals.now.wait, timeout_s=limits.shutdown_drain_s)
    await worker.settle_all()
    await worker.close()


def begin(arguments: list[str]) -> int:
    """Run the process; `arguments` are those of `main` as the supervisor writes them."""
    number, silent_start_s, listening, *config = arguments
    descriptors = [[int(part) for part in service.split(",")] for service in listening.split(";")]
    return run(main(int(number), float(silent_start_s), descriptors, [Path(name) for name in config]))


if __name__ == "__main__":
    raise SystemExit(begin(sys.argv[1:]))
