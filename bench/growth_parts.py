"""One step of `make bench-growth`: what exchanges cost where there is so much of one thing.

    python bench/growth_parts.py keys|streams|models|rows SIZE [--store FILE]
    python bench/growth_parts.py keys|rows SIZE --fill FILE

The worker is that of `socketless.py`, the writer and the store are the real ones. Run plainly it measures CPU
time (user and system, all threads, the least of several repetitions) and memory; under callgrind its
instructions are counted instead; the store is filled by a run before, because that takes long there. The last
line is one JSON object: line of the chart -> how many were done, and what one cost.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import rig
from callgrind import Marks
from farebox.base import limits
from farebox.base.keys import key_digest
from farebox.base.units import PICO_PER_USD
from farebox.config.load import load as load_settings
from farebox.proxy.gauges import write_gauges
from farebox.run.process import tune_garbage_collection
from farebox.store import rollups
from farebox.store.rollups import DAY_MS
from farebox.store.sqlite import SQLiteStore
from farebox.store.statistics import LogQuery
from farebox.writer.service import Writer
from journal_load import NOW_MS, WALLET, Load, begin_journal
from socketless import Connections, make_worker, request_of
from writer_micro import booked_by

REPETITIONS = 7
CONNECTIONS = 64
USERS = 1000
"""Of a log."""
LEARNT = 4
"""Chunks of a stream after which its relay and meter know how they begin."""
FEW = 10
"""Users of a batch that is of few."""
TOUCHED = 640
"""Keys whose first request is measured."""
BOOKED = 1600
"""Exchanges that a batch of the writer books."""
_CHANCE = random.Random(8)


class Told:
    """What was measured: line -> figures."""

    def __init__(self) -> None:
        self.lines: dict[str, dict[str, float]] = {}
        self._marks = Marks()

    async def cost(
        self, line: str, each: int, work: Callable[[], Awaitable[object]], times: int = REPETITIONS
    ) -> None:
        """The cost of `work`, which does `each` of what the line is about; once under callgrind."""
        gc.collect()
        if self._marks.counting:
            self._marks.begin()
            await work()
            self._marks.end(line)
            self.lines[line] = {"each": each}
            return
        costs_s = []
        for _ in range(times):
            began_s = time.process_time()
            await work()
            costs_s.append(time.process_time() - began_s)
        self.lines[line] = {"each": each, "cpu_us": 1e6 * min(costs_s) / each}

    def memory(self, line: str, before_bytes: int, each: int) -> None:
        """What resident memory has grown by."""
        self.lines[line] = {"each": each, "bytes": (rig.rss_of(os.getpid()) - before_bytes) / each}


# ---- keys --------------------------------------------------------------------------------------------------


def key_of(number: int) -> str:
    return f"sk-trollllm-{number:064x}"


def user_of(number: int) -> str:
    return f"user-{number:07}"


def multiply_users(path: Path, count: int) -> None:
    """So many users with one key each, in everything like the one that is there."""
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.create_function("digest_of", 1, lambda number: key_digest(key_of(number)))
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        for table in ("users", "pools", "lots", "credit_transactions", "api_keys"):
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            made = {"user": "printf('user-%07d', n)", "sequence": "NULL", "digest": "digest_of(n)"}
            cells = ", ".join(made.get(name, name) for name in names)
            connection.execute(
                f"WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?)"
                f" INSERT INTO {table} SELECT {cells} FROM numbers, {table} WHERE user = 'bench'",
                (count,),
            )
        connection.execute("COMMIT")
    connection.close()


async def keys(told: Told, folder: Path, size: int, store: Path) -> None:
    """Exchanges of keys in use, first requests of keys, and bookings spread over all users."""

    def copied(path: Path) -> None:
        shutil.copyfile(store, path)

    _, server, pool, _ = await make_worker(folder, fill=copied)
    connections = Connections(server, pool, "", CONNECTIONS)

    def ask_with(numbers: list[int]) -> None:
        connections.plain = [request_of(key_of(number), rig.PLAIN_BODY) for number in numbers]

    known = size // 2
    busy = [_CHANCE.randrange(known) for _ in range(CONNECTIONS)]
    ask_with(busy)
    for _ in range(20):
        await connections.plain_turn()
    await told.cost("a key in use", 10 * CONNECTIONS, lambda: times(10, connections.plain_turn))
    fresh = _CHANCE.sample(range(known, size), min(size - known, TOUCHED))

    async def first_requests() -> None:
        for at in range(0, len(fresh), CONNECTIONS):
            ask_with(fresh[at : at + CONNECTIONS])
            await connections.plain_turn(pause_s=0.002)

    before_bytes = rig.rss_of(os.getpid())
    await told.cost("first request of a key", len(fresh), first_requests, 1)
    told.memory("memory of a known key", before_bytes, len(fresh))
    few = _CHANCE.sample(range(size), FEW)
    anybody = [_CHANCE.randrange(size) for _ in range(BOOKED)]
    for line, users in (("booking, of 10 users", few), ("booking, of anybody", anybody)):
        store_of_line = await booking(told, line, Path(tempfile.mkdtemp(dir=folder)), copied, users)
        await store_of_line.close()


async def times(count: int, work: Callable[[], Awaitable[None]]) -> None:
    for _ in range(count):
        await work()


# ---- the writer --------------------------------------------------------------------------------------------


async def booking(
    told: Told, line: str, folder: Path, fill: Callable[[Path], None], users: Iterable[int]
) -> SQLiteStore:
    """What the writer spends on an exchange, of these users in turn; the store is left open."""
    path = folder / "farebox.sqlite"
    await rig.make_account(f"sqlite:///{path}")
    fill(path)
    store = SQLiteStore(path)
    await store.open()
    journal = await begin_journal(store, folder / "journals")
    lots = []
    for number in set(users):
        user = user_of(number)
        granted = await store.grant(user, WALLET, journal.id, 1, 0, PICO_PER_USD, PICO_PER_USD, NOW_MS)
        lots.append((user, granted.added[0][0].lot))
    load = Load(journal, lots)
    writer = Writer(store, folder / "journals")

    async def book() -> None:
        while booked_by(writer) < load.made:
            await writer._round()

    await load.make(BOOKED)
    await load.synced()
    await book()
    await load.make(BOOKED)
    await load.synced()
    await told.cost(line, BOOKED, book, 1)
    writer.close()
    journal.close()
    return store


# ---- streams -----------------------------------------------------------------------------------------------


async def streams(told: Told, folder: Path, size: int, _: Path) -> None:
    """A chunk of one of so many open streams, and what they cost while nothing is said."""
    limits.upstream_connections_max = 4 * size
    worker, server, pool, key = await make_worker(folder)
    groups: list[Connections] = []
    gc.collect()
    before_bytes = rig.rss_of(os.getpid())
    while (missing := size - CONNECTIONS * len(groups)) > 0:
        group = Connections(server, pool, key, min(missing, CONNECTIONS))
        await group.begin_streams()
        groups.append(group)
    told.memory("memory of an open stream", before_bytes, size)
    rounds = max(1, 2000 // size)

    async def chunks() -> None:
        for _ in range(rounds):
            for group in groups:
                group.chunks(1)

    for _ in range(LEARNT):
        await chunks()
    await told.cost("a chunk", rounds * size, chunks)

    async def second() -> None:
        for _ in range(4):
            worker.streams.sweep(worker.loop.time())
        for _ in range(2):
            server.watch.sweep(worker.loop.time())
        pool.watch.sweep(worker.loop.time())
        write_gauges(worker)

    for _ in range(2):
        await second()
    await told.cost("a second of a silent stream", size, second)


# ---- models ------------------------------------------------------------------------------------------------


async def models(told: Told, folder: Path, size: int, _: Path) -> None:
    """Exchanges with any of so many models, and reading the configuration that offers them."""
    names = [f"model-{number:05}" for number in range(size)]
    gc.collect()
    before_bytes = rig.rss_of(os.getpid())
    _, server, pool, key = await make_worker(folder, models=names)
    told.memory("memory of a model", before_bytes, size)
    connections = Connections(server, pool, key, CONNECTIONS)
    bodies = [rig.PLAIN_BODY.replace(rig.MODEL, _CHANCE.choice(names)) for _ in range(CONNECTIONS)]
    connections.plain = [request_of(key, body) for body in bodies]
    for _ in range(20):
        await connections.plain_turn()
    await told.cost("an exchange", 10 * CONNECTIONS, lambda: times(10, connections.plain_turn))

    async def read() -> None:
        load_settings([folder / "config.json"])

    await told.cost("reading the configuration, each model", size, read, 1)


# ---- log rows ----------------------------------------------------------------------------------------------


async def rows(told: Told, folder: Path, size: int, store_file: Path) -> None:  # noqa: ARG001 - as the others
    """Bookings into a store with so many log rows, and what the console asks of it."""
    import console as console_bench  # noqa: PLC0415 - it imports much that nothing else here needs

    def placed(path: Path) -> None:
        path.unlink()
        path.symlink_to(store_file)

    anybody = [_CHANCE.randrange(USERS) for _ in range(BOOKED)]
    store = await booking(told, "booking", Path(tempfile.mkdtemp(dir=folder)), placed, anybody)
    last_ms = console_bench.END
    user = console_bench.user_name(0)
    month = rollups.parts("users", last_ms - 30 * DAY_MS, last_ms)
    await told.cost("a user's newest 50 log rows", 1, lambda: store.request_logs(user, 50))
    query = LogQuery(model="model-3", from_ms=last_ms - DAY_MS, failed=False)
    await told.cost("search of a day's log, a page", 1, lambda: store.search_logs(query, 50))
    await told.cost("every user's sums of 30 days", 1, lambda: store.tallies(month))
    await store.close()


KINDS = {"keys": keys, "streams": streams, "models": models, "rows": rows}


def fill_store(kind: str, size: int, path: Path) -> None:
    """The store of a kind: so many users, or so many log rows."""
    asyncio.run(rig.make_account(f"sqlite:///{path}"))
    if kind == "keys":
        multiply_users(path, size)
    elif kind == "rows":
        import console as console_bench  # noqa: PLC0415 - as above

        multiply_users(path, USERS)
        console_bench.fill(path, size, USERS)


async def run(kind: str, size: int, told: Told, folder: Path, store: Path) -> None:
    tune_garbage_collection()
    await KINDS[kind](told, folder, size, store)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("size", type=int)
    parser.add_argument("--fill", type=Path, help="make the store here, and nothing else")
    parser.add_argument("--store", type=Path, help="a store that was made so")
    options = parser.parse_args()
    if options.fill:
        fill_store(options.kind, options.size, options.fill)
        return
    told = Told()
    with tempfile.TemporaryDirectory(prefix="farebox-growth-") as name:
        folder = Path(name)
        store = options.store or folder / "filled.sqlite"
        if not options.store:
            fill_store(options.kind, options.size, store)
        asyncio.run(run(options.kind, options.size, told, folder, store))
    print(json.dumps(told.lines), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)
