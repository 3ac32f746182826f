"""How long the console's API takes over a request log of ten million rows in SQLite.

Usage: console.py [ROWS] [USERS] [--keep FILE] [--repeat N]. Makes a month of traffic (users of very different
size, bursts, eight models), serves it with the console itself, asks every kind of statistic at many moments
and prints p50, p95 and the longest of each, and the CPU time (p95) of client, console and store together.
`--keep` leaves the store in FILE and uses it again.
"""

import argparse
import asyncio
import dataclasses
import random
import socket
import sqlite3
import statistics as figures
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta, timezone
from pathlib import Path

from aiohttp import ClientSession

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from credits.desk import console_of
from farebox.base.records import settlement_payload
from farebox.console import server
from farebox.credits.accounts import create_key
from farebox.credits.admins import create_admin
from farebox.store.rollups import Sums, Usage
from farebox.store.sqlite import SQLiteStore, statistics

DAY = 86_400_000
END = 1_772_000_000_000
DAYS = 30
MODELS = [f"model-{number}" for number in range(8)]
BOUND_MS = 50
BATCH = 20_000
PERIODS = ("1h", "2h", "3h", "4h", "8h", "24h", "3d", "7d", "30d", "all")
RAW = (
    '{"input_tokens":1200,"output_tokens":800,"cache_read_input_tokens":9000,"cache_creation_input_tokens":0}'
)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="?", type=int, default=10_000_000)
    parser.add_argument("users", nargs="?", type=int, default=1000)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--repeat", type=int, default=60)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = asked.keep or Path(folder) / "store.db"
        if not path.exists():
            asyncio.run(create(path, asked.users))
            began_s = time.monotonic()
            fill(path, asked.rows, asked.users)
            print(f"{asked.rows} rows of {asked.users} users made in {time.monotonic() - began_s:.0f} s")
        last_ms = describe(path)
        asyncio.run(ask_all(path, Path(folder), last_ms, asked.repeat))
    return 0


async def create(path: Path, users: int) -> None:
    store = SQLiteStore(path)
    await store.open()
    for number in range(users):
        await store.create_user(user_name(number), "user", "bench", END)
    await store.close()


def describe(path: Path) -> int:
    """What is there; when its last exchange ended."""
    with sqlite3.connect(path) as connection:
        cells = connection.execute("SELECT count(*) FROM rollups").fetchone()[0]
        known, last_ms = connection.execute(
            "SELECT max(sequence), max(created_ms) FROM request_log_records"
        ).fetchone()
    connection.close()
    print(f"{known} log rows, {cells} cells of rollups, {path.stat().st_size / 2**30:.2f} GiB")
    return int(last_ms)


def user_name(number: int) -> str:
    return f"user-{number:05}"


def fill(path: Path, rows: int, users: int) -> None:
    """Rows in the order of time, and the cells they add to, as the writer adds them."""
    chance = random.Random(6)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -262144")
    made = traffic(chance, rows, users)
    done = 0
    while done < rows:
        records: list[tuple[object, ...]] = []
        usages: list[Usage] = []
        for record, usage in made:
            records.append(record)
            usages.append(usage)
            if len(records) == BATCH:
                break
        connection.execute("BEGIN")
        connection.executemany(
            """INSERT INTO request_log_records (exchange, user, created_ms, charge_pico, charged_pico, record)
               VALUES (?, ?, ?, ?, ?, ?)""",
            records,
        )
        statistics.add(connection, "a" * 16, usages)
        connection.execute("COMMIT")
        done += len(records)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def traffic(chance: random.Random, rows: int, users: int) -> Iterator[tuple[tuple[object, ...], Usage]]:
    """Exchanges in bursts: whoever is busy sends several in a row with one model."""
    weights = [1 / (rank + 5) for rank in range(users)]
    names = [user_name(number) for number in range(users)]
    favourites = [chance.sample(MODELS, 2) for _ in names]
    begins, step = END - DAYS * DAY, DAYS * DAY / rows
    busy = [0] * 40
    for number in range(rows):
        if number % 2000 == 0:
            busy = chance.choices(range(users), weights, k=40)
        user = busy[number % 40]
        model = favourites[user][(number // 2000) % 2]
        wallet = "ohmygpt" if user % 3 else "openhands"
        at = begins + int(number * step)
        sums = Sums(
            1, number % 50 == 0, 0, 0, 0, 0, 1200, number % 900, 0, 9000, 11_000, 27_405_000_000, 4000, 300, 1
        )
        exchange = f"{at:012x}{number:020x}"
        wire = settlement_payload(
            exchange,
            names[user],
            wallet,
            "d" * 64,
            model,
            "messages",
            1,
            "1.05",
            "exact",
            (),
            {"input": 1200, "output": number % 900, "cache_read": 9000},
            {},
            10_200,
            "",
            27_405_000_000,
            (),
            "",
            "ok",
            502 if number % 50 == 0 else 200,
            "main",
            model,
            "req_0123456789abcdef",
            True,
            at - 4000,
            at - 3700,
            at,
            RAW,
            False,
        ).decode()
        row = (exchange, names[user], at, 27_405_000_000, 27_405_000_000, wire)
        yield row, Usage(names[user], model, wallet, at, sums)


async def ask_all(path: Path, folder: Path, last_ms: int, repeat: int) -> None:
    """Each call at many moments of the last day."""
    store = SQLiteStore(path)
    await store.open()
    chance = random.Random(7)
    server.wall_ms = lambda: last_ms - chance.randrange(DAY)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    console = dataclasses.replace(console_of(store, folder), zone=timezone(timedelta(hours=7)))
    close = await server.start_console(console, "127.0.0.1", port)
    now_ms = int(time.time() * 1000)
    name = f"bench-{now_ms}"
    admin = (await create_admin(store, name, "read-only", None, "bench", now_ms)).token
    user = (await create_key(store, user_name(0), "bench", "bench", now_ms)).key
    over = 0
    print(f"{'call, ms':58} {'p50':>8} {'p95':>8} {'max':>8} {'CPU p95':>8}")
    async with ClientSession(f"http://127.0.0.1:{port}") as client:
        for call, token in calls(admin, user):
            took: list[float] = []
            worked: list[float] = []
            for _ in range(repeat):
                began_s, cpu_s = time.perf_counter(), time.process_time()
                async with client.get(call, headers={"Authorization": f"Bearer {token}"}) as answer:
                    await answer.read()
                    assert answer.status == 200, call
                took.append((time.perf_counter() - began_s) * 1000)
                worked.append((time.process_time() - cpu_s) * 1000)
            p95 = figures.quantiles(took, n=20)[-1]
            over += p95 >= BOUND_MS
            mark = "" if p95 < BOUND_MS else f"  over {BOUND_MS}"
            line = f"{call:58} {figures.median(took):8.1f} {p95:8.1f} {max(took):8.1f}"
            print(f"{line} {figures.quantiles(worked, n=20)[-1]:8.1f}{mark}", flush=True)
    await close()
    await store.close()
    print(f"{over} calls with a p95 of {BOUND_MS} ms or more")


def calls(admin: str, user: str) -> Iterator[tuple[str, str]]:
    for name in PERIODS:
        for path in ("/admin/user-stats", "/admin/model-stats", "/api/admin/spenders", "/api/admin/series"):
            yield f"{path}?period={name}", admin
    yield "/admin/metrics?period=30d", admin
    for name in ("1h", "24h", "30d", "all"):
        for path in ("/api/usage", "/api/usage/models", "/api/usage/series"):
            yield f"{path}?period={name}", user
    yield "/api/logs", user
    yield "/api/admin/logs", admin
    yield f"/api/admin/logs?user={user_name(900)}&period=24h", admin
    yield "/api/admin/logs?model=model-3&failed=true", admin
    yield "/api/admin/logs?model=nobody-has-it", admin
    yield "/api/admin/users", admin
    yield "/api/admin/audit", admin


if __name__ == "__main__":
    raise SystemExit(main())
