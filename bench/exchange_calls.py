"""What one plain exchange costs the worker, without sockets: everything but the kernel and the event loop.

    python bench/exchange_calls.py [--exchanges 6400] [--profile]
    valgrind --tool=callgrind python bench/exchange_calls.py --exchanges N

A real worker with its journal, leases, price book and SQLite store in a temporary folder; client and
upstream connections have transports that only count. Two runs under callgrind with different N give the
instructions of one exchange, which do not depend on what else the machine does.
"""

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import tempfile
import time
from pathlib import Path

import rig
from farebox.base import clock
from farebox.base.counters import INDEX, Counters
from farebox.config.load import load
from farebox.journal.journal import take
from farebox.proxy.settlement_log import SettlementLog
from farebox.proxy.worker import Worker
from farebox.run.process import tune_garbage_collection
from farebox.run.serving import Serving
from farebox.store import open_store
from farebox.wire.client import ClientConnection
from farebox.wire.incoming import Incoming
from farebox.wire.server import Server
from farebox.wire.upstream import Connection, Pool
from farebox.writer.recovery import recover
from wire_calls import ANSWER, Transport

CONNECTIONS = 64
SETTLED = INDEX["settled_exact_total"]


async def make_worker(folder: Path, upstream_port: int = 10_001) -> tuple[Worker, Server, Pool, str]:
    """A worker as its process makes one, on a store of its own; with one user's key."""
    loop = asyncio.get_running_loop()
    url = f"sqlite:///{folder / 'farebox.sqlite'}"
    key = await rig.make_account(url)
    store = open_store(url)
    await store.open()
    path = folder / "config.json"
    path.write_text(json.dumps(rig.farebox_config(10_000, folder, upstream_port)))
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
    server = Server(_nobody)
    serving = Serving(worker, [server], store)
    await serving.put_in_force(settings)
    ((_, place),) = serving._places.values()
    return worker, server, place.target, key


async def _nobody(client: Incoming) -> None:
    raise AssertionError(client.path)


class Rig:
    """Client and upstream connections of one worker."""

    def __init__(self, server: Server, pool: Pool, key: str) -> None:
        self.clients: list[ClientConnection] = []
        self.upstreams: list[Connection] = []
        for _ in range(CONNECTIONS):
            client = server()
            client.connection_made(Transport())  # type: ignore[arg-type]
            self.clients.append(client)
            upstream = Connection(pool)
            upstream.connection_made(Transport())  # type: ignore[arg-type]
            pool.put_back(upstream)
            self.upstreams.append(upstream)
        body = rig.PLAIN_BODY.encode()
        self.request = (
            b"POST %b HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (rig.PATH.encode(), key.encode(), len(body), body)
        )

    async def turn(self) -> None:
        """One exchange on every connection."""
        for client in self.clients:
            client.data_received(self.request)
        while any(client.current is not None for client in self.clients):
            await asyncio.sleep(0)
            for upstream in self.upstreams:
                if upstream.receiver is not None:
                    upstream.data_received(ANSWER)


async def run(exchanges: int, with_profile: bool) -> None:
    os.environ["BENCH_UPSTREAM_KEY"] = "sk-bench"
    with tempfile.TemporaryDirectory() as folder:
        worker, server, pool, key = await make_worker(Path(folder))
        connections = Rig(server, pool, key)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        worker.settlement_log = SettlementLog(worker.loop, worker.settlement_log.flush, nowhere)
        for _ in range(20):
            await connections.turn()
            await asyncio.sleep(0.01)
        tune_garbage_collection()
        profile = cProfile.Profile()
        if with_profile:
            profile.enable()
        worker.settlement_log.flush()
        settled_before = worker.counters[SETTLED]
        started_s = time.process_time()
        for _ in range(exchanges // CONNECTIONS):
            await connections.turn()
        took_s = time.process_time() - started_s
        profile.disable()
        worker.settlement_log.flush()
        count = worker.counters[SETTLED] - settled_before
        print(f"{count} exchanges, {took_s / count * 1e6:.1f} µs each")
        if with_profile:
            stats = pstats.Stats(profile)
            print(f"{stats.total_calls / count:.1f} calls each")  # type: ignore[attr-defined]
            stats.sort_stats("tottime").print_stats(45)
        os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of an exchange in the worker, without sockets.")
    parser.add_argument("--exchanges", type=int, default=6400)
    parser.add_argument("--profile", action="store_true", help="list the hottest functions")
    options = parser.parse_args()
    asyncio.run(run(options.exchanges, options.profile))


if __name__ == "__main__":
    main()
