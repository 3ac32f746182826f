"""A worker's process: takes a journal, recovers it, serves the sockets its supervisor bound.

Order of start (MONEY section 8): lock and check the journal, claim its epoch, end what a crash cut off, then
serve. Until then requests are answered 503, so that a client learns at once that it may try again.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farebox.base import clock, limits
from farebox.base.counters import Counters
from farebox.base.errors import FaultError, Refusal, Refused, StoreDownError, StoreUnknownError
from farebox.config.load import load
from farebox.config.secrets import credentials
from farebox.config.settings import Endpoint as EndpointSettings
from farebox.config.settings import Service, Settings
from farebox.journal.journal import Journal, take
from farebox.meter import plain_models
from farebox.proxy.service import ServiceHandler, compile_book
from farebox.proxy.worker import Worker
from farebox.run.paths import counters_file, writer_socket
from farebox.run.process import StopSignals, first_of, run, tune_garbage_collection
from farebox.store.remote import RemoteStore
from farebox.wire.incoming import Incoming
from farebox.wire.server import Server
from farebox.wire.upstream import Endpoint, Pool, verifying_tls
from farebox.writer.recovery import Recovered, recover

_log = logging.getLogger("farebox.worker")
_RETRY_S = 0.25
_JOURNAL_CHECK_S = 1.0


async def main(number: int, descriptors: list[int], config: list[Path]) -> int:
    """Serve until told to stop."""
    settings = load(config)
    loop = asyncio.get_running_loop()
    signals = StopSignals(loop)
    servers = [Server(_not_ready) for _ in settings.services]
    for server, descriptor in zip(servers, descriptors, strict=True):
        await server.start(socket.socket(fileno=descriptor))
    pushes = _Pushes()
    store = RemoteStore(writer_socket(settings), pushes)
    await store.open()
    journal = take(settings.journal_dir)
    counters = Counters(counters_file(settings, number))
    try:
        recovered = await _recovered(journal, store, settings, signals)
        if recovered is None:
            return 0
        worker = _worker(settings, store, journal, counters, loop)
        worker.leases.remember_unbooked(recovered.unapplied)
        pushes.to(worker)
        for server, service in zip(servers, settings.services, strict=True):
            server.handle = ServiceHandler(worker, service, await _book(store, service))
        beats = _Beats(store, journal)
        worker.ready = beats.trouble
        worker.spawn(beats.run())
        tune_garbage_collection()
        _log.info("worker %d serves with journal %s, epoch %d", number, journal.id, journal.epoch)
        await first_of(signals.drain.wait, lambda: _journal_broken(journal))
        await _stop(worker, servers, signals)
        return 0 if journal.broken is None else 1
    finally:
        for server in servers:
            await server.close()
        journal.close()
        await store.close()
        counters.close()


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
async def _recovered(
    journal: Journal, store: RemoteStore, settings: Settings, signals: StopSignals
) -> Recovered | None:
    """Recover, trying again while the store is away; None when told to stop meanwhile."""
    loop = asyncio.get_running_loop()
    said = False
    while not signals.drain.is_set():
        try:
            return await recover(
                journal,
                store,
                now_ms=clock.wall_ms(),
                host=socket.gethostname(),
                schedule=loop.call_soon,
                wake=loop.call_soon_threadsafe,
                durability="disk" if settings.durability == "disk" else "process",
            )
        except (StoreDownError, StoreUnknownError) as error:
            if not said:
                _log.warning("waiting for the store: %s", error)
                said = True
            await asyncio.sleep(_RETRY_S)
    return None


def _worker(
    settings: Settings,
    store: RemoteStore,
    journal: Journal,
    counters: Counters,
    loop: asyncio.AbstractEventLoop,
) -> Worker:
    secrets = credentials(settings)
    pools = {
        (service.name, endpoint.name): Pool(
            _endpoint(service, endpoint, secrets.get((service.name, endpoint.name))), loop
        )
        for service in settings.services
        for endpoint in service.endpoints.values()
    }
    return Worker(
        store,
        journal,
        counters,
        pools,
        loop=loop,
        lease_wait_s=settings.lease_wait_s,
        written_off_pico_max=min(service.written_off_per_user_pico_max for service in settings.services),
    )


def _endpoint(service: Service, endpoint: EndpointSettings, credential: Any) -> Endpoint:
    return Endpoint(
        name=endpoint.name,
        scheme="https" if endpoint.tls else "http",
        host=endpoint.host,
        port=endpoint.port,
        path_prefix=endpoint.prefix,
        credential=credential,
        credential_style="x-api-key" if endpoint.auth == "x-api-key" else "bearer",
        user_agent=service.user_agent,
        connect_timeout_s=endpoint.connect_timeout_s,
        first_byte_timeout_s=endpoint.first_byte_timeout_s,
        idle_stream_timeout_s=endpoint.idle_timeout_s,
        total_timeout_s=endpoint.total_timeout_s,
        tls=verifying_tls(str(endpoint.ca_file) if endpoint.ca_file else None) if endpoint.tls else None,
    )


async def _book(store: RemoteStore, service: Service) -> Any:
    """The service's price book under the version number the store gives its content."""
    now_ms = clock.wall_ms()
    draft = compile_book(service, 0, now_ms)
    version = await store.put_price_book({"models": plain_models(draft.models)}, draft.content_hash, now_ms)
    return compile_book(service, version, now_ms)


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


if __name__ == "__main__":
    raise SystemExit(
        run(
            main(
                int(sys.argv[1]),
                [int(part) for part in sys.argv[2].split(",")],
                [Path(name) for name in sys.argv[3:]],
            )
        )
    )
