"""A whole worker without sockets: its journal, leases, price book and SQLite store are real, its client and
upstream connections have transports that only count what is written.

So everything of an exchange is there but the kernel and the event loop's own work, and what it costs does not
depend on what else the machine does.
"""

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import rig
from farebox.base import clock
from farebox.base.counters import INDEX, Counters
from farebox.config.load import load
from farebox.journal.journal import take
from farebox.proxy.settlement_log import SettlementLog
from farebox.proxy.worker import Worker
from farebox.run.serving import Serving
from farebox.store import open_store
from farebox.wire.client import ClientConnection
from farebox.wire.incoming import Incoming
from farebox.wire.server import Server
from farebox.wire.upstream import Connection, Pool
from farebox.writer.recovery import recover
from wire_calls import ANSWER, CHUNK, STREAM_HEAD, Transport

SETTLED = INDEX["settled_exact_total"]
STREAM_BODY = json.dumps(
    {"model": rig.MODEL, "stream": True, "messages": [{"role": "user", "content": "Say hello to the world."}]}
)
_USAGE_EVENT = (
    b'data: {"id":"c","model":"m","choices":[],"usage":'
    b'{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}\n\n'
)
_DONE_EVENT = b"data: [DONE]\n\n"
STREAM_END = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (
    len(_USAGE_EVENT),
    _USAGE_EVENT,
    len(_DONE_EVENT),
    _DONE_EVENT,
)
_TURNS_MAX = 10_000
"""Turns of the event loop that anything may take here."""


class CountingTransport(Transport):
    """Takes everything and counts the writes: each would be a system call of its own."""

    def __init__(self) -> None:
        self.writes = 0

    def write(self, data: bytes) -> None:  # noqa: ARG002 - a transport's signature
        self.writes += 1

    def writelines(self, parts: tuple[bytes, ...]) -> None:  # noqa: ARG002 - the same
        self.writes += 1


def _as_it_is(_: Path) -> None: ...


async def make_worker(
    folder: Path,
    upstream_port: int = 10_001,
    fill: Callable[[Path], None] = _as_it_is,
    models: Sequence[str] = (rig.MODEL,),
) -> tuple[Worker, Server, Pool, str]:
    """A worker as its process makes one, on a store of its own (`fill` adds to the closed file); with one
    user's key. It cannot be closed: end the process.
    """
    os.environ["BENCH_UPSTREAM_KEY"] = "sk-bench"
    loop = asyncio.get_running_loop()
    url = f"sqlite:///{folder / 'farebox.sqlite'}"
    key = await rig.make_account(url)
    fill(folder / "farebox.sqlite")
    store = open_store(url)
    await store.open()
    path = folder / "config.json"
    config = rig.farebox_config(10_000, folder, upstream_port)
    config["models"] = [{**config["models"][0], "id": model, "name": model} for model in models]
    path.write_text(json.dumps(config))
    settings = load([path])
    journal = take(settings.journal_dir)
    counters = Counters(folder / "counters")
    await recover(
        journal,
        store,
        now_ms=clock.wall_ms(),
        host="bench",
        schedule=loop.call_soon,
        wake=loop.call_soon_threadsafe,
        durability="process",
    )
    worker = Worker(
        store,
        journal,
        counters,
        loop=loop,
        lease_wait_s=settings.lease_wait_s,
        written_off_pico_max=settings.services[0].written_off_per_user_pico_max,
    )
    nowhere = os.open(os.devnull, os.O_WRONLY)
    worker.settlement_log = SettlementLog(worker.loop, worker.settlement_log.flush, nowhere)
    server = Server(_nobody)
    serving = Serving(worker, [server], store)
    await serving.put_in_force(settings)
    ((_, place),) = serving._places.values()
    return worker, server, place.target, key


async def _nobody(client: Incoming) -> None:
    raise AssertionError(client.path)


def request_of(key: str, body: str) -> bytes:
    """A client's request for a chat completion."""
    return b"POST %b HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/json\r\n" % (
        rig.PATH.encode()
    ) + b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (key.encode(), len(body), body.encode())


class Connections:
    """Client and upstream connections of one worker, as many of each."""

    def __init__(self, server: Server, pool: Pool, key: str, count: int) -> None:
        self.clients: list[ClientConnection] = []
        self.upstreams: list[Connection] = []
        self.client_transport = CountingTransport()
        for _ in range(count):
            client = server()
            client.connection_made(self.client_transport)  # type: ignore[arg-type]
            self.clients.append(client)
            upstream = Connection(pool)
            upstream.connection_made(CountingTransport())  # type: ignore[arg-type]
            pool.watch.add(upstream.watched, upstream)
            pool.put_back(upstream)
            self.upstreams.append(upstream)
        self.plain = [request_of(key, rig.PLAIN_BODY)] * count
        """The requests of the next plain exchanges, one of a client; the clients behind them ask nothing."""
        self._is_warm = False
        self._streamed = request_of(key, STREAM_BODY)

    async def plain_turn(self, pause_s: float = 0.0) -> None:
        """One plain exchange of each client that has a request. Where something is waited for that takes time
        (the store), a pause keeps the looking from being counted.
        """
        for client, request in zip(self.clients, self.plain, strict=False):
            client.data_received(request)
        while self._any_open():
            await asyncio.sleep(pause_s)
            for upstream in self.upstreams:
                if upstream.receiver is not None:
                    upstream.data_received(ANSWER)

    async def begin_streams(self) -> None:
        """Open one stream on every connection; its head has come."""
        for client in self.clients:
            client.data_received(self._streamed)
        for _ in range(_TURNS_MAX):
            if all(upstream.receiver is not None for upstream in self.upstreams):
                break
            await asyncio.sleep(0 if self._is_warm else 0.001)
        else:
            raise AssertionError("a stream does not begin")
        self._is_warm = True
        for upstream in self.upstreams:
            upstream.data_received(STREAM_HEAD)

    def chunks(self, count: int) -> None:
        """So many chunks on every stream, each in a read of its own."""
        for upstream in self.upstreams:
            for _ in range(count):
                upstream.data_received(CHUNK)

    async def end_streams(self) -> None:
        """The usage and the end, until every stream is settled."""
        for upstream in self.upstreams:
            upstream.data_received(STREAM_END)
        for _ in range(_TURNS_MAX):
            if not self._any_open():
                return
            await asyncio.sleep(0)
        raise AssertionError("a stream does not end")

    def _any_open(self) -> bool:
        return any(client.current is not None for client in self.clients)
