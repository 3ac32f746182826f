"""CPU of the writer per settled exchange: a journal of many exchanges applied to a fresh SQLite store.

Run: python bench/writer_micro.py [--count 200000] [--users 20] [--live] [--shares] [--profile]. One process,
no HTTP. CPU is the operating system's account of the process and all its threads while it applies, syncs
included; `cpu_us_quiet` is that of the tenth of the batches that others on the machine disturbed least.
`--live` applies in batches as small as a worker's in service; otherwise the writer finds everything there.
`--shares` splits SQL by statement; what is left is reading, decoding and preparing in Python.
"""

import argparse
import asyncio
import cProfile
import functools
import pstats
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "python"))

from farebox.run.process import tune_garbage_collection  # noqa: E402
from farebox.store.sqlite import SQLiteStore  # noqa: E402
from farebox.store.sqlite import connection as sqlite_connection  # noqa: E402
from farebox.writer.journals import JournalSource  # noqa: E402
from farebox.writer.service import Writer  # noqa: E402
from journal_load import Load, begin_journal, bytes_in, dump_line, lease_all, make_users  # noqa: E402

_LIVE_PER_S = 8000
_STEP_S = 0.2

Spent = defaultdict[str, float]
"""Share of the work -> CPU seconds."""


class TimedConnection(sqlite3.Connection):
    """A connection that adds up the CPU time of its statements by what they do."""

    spent: Spent

    def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
        began = time.thread_time()
        cursor = super().execute(statement, *arguments)
        self.spent[share_of(statement)] += time.thread_time() - began
        return cursor

    def executemany(self, statement: str, rows: Iterable[Any]) -> sqlite3.Cursor:
        began = time.thread_time()
        cursor = super().executemany(statement, rows)
        self.spent[share_of(statement)] += time.thread_time() - began
        return cursor


SHARES = (
    ("INSERT INTO CREDIT_TRANSACTIONS", "ledger rows"),
    ("REQUEST_LOG", "request logs"),
    ("ROLLUPS", "rollups"),
    ("COMMIT", "commit"),
    ("UPDATE JOURNALS", "positions"),
    ("UPDATE", "balances"),
    ("SELECT", "look-ups"),
)


def share_of(statement: str) -> str:
    """What a statement is for."""
    words = " ".join(statement.split()).upper()
    return next((share for mark, share in SHARES if mark in words), "begin and savepoints")


def time_reading(spent: Spent) -> None:
    """Add up the CPU time of reading journals."""
    read = JournalSource._read_batch

    def timed(self: JournalSource) -> Any:
        began = time.thread_time()
        try:
            return read(self)
        finally:
            spent["journal read and sync"] += time.thread_time() - began

    JournalSource._read_batch = timed  # type: ignore[method-assign]


def time_statements(spent: Spent) -> None:
    """Make every connection of the store a timed one."""
    TimedConnection.spent = spent
    connect = functools.partial(sqlite3.connect, factory=TimedConnection)
    sqlite_connection.sqlite3 = _Patched(connect)  # type: ignore[attr-defined]


class _Patched:
    """The sqlite3 module with another `connect`."""

    def __init__(self, connect: Any) -> None:
        self.connect = connect

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)


async def measure(folder: Path, arguments: argparse.Namespace, spent: Spent) -> dict[str, Any]:
    """Apply `count` exchanges; what it cost."""
    store = SQLiteStore(folder / "store.db")
    await store.open()
    journal = await begin_journal(store, folder / "journals")
    usd_each = 1 + arguments.count // arguments.users // 1000
    lots = await make_users(store, arguments.users, usd_each)
    await lease_all(store, journal.id, lots, usd_each)
    load = Load(journal, lots)
    writer = Writer(store, folder / "journals")
    if not arguments.live:
        await load.make(arguments.count)
        await load.synced()
    journal_bytes = bytes_in(journal.directory, "*.segment") / arguments.count
    tune_garbage_collection()
    spent.clear()
    profile = cProfile.Profile() if arguments.profile else None
    costs_us: list[float] = []
    cpu_s = wall_s = 0.0
    while (booked := booked_by(writer)) < arguments.count:
        if arguments.live and load.made == booked:
            await load.make(min(int(_LIVE_PER_S * _STEP_S), arguments.count - load.made))
        began_cpu_s, began_s = time.process_time(), time.monotonic()
        if profile:
            profile.enable()
        await writer._round()
        if profile:
            profile.disable()
        took_s = time.process_time() - began_cpu_s
        cpu_s += took_s
        wall_s += time.monotonic() - began_s
        if booked_by(writer) > booked:
            costs_us.append(1e6 * took_s / (booked_by(writer) - booked))
    await writer.drain()
    writer.close()
    if profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    rows = check(store, arguments.count)
    journal.close()
    await store.close()
    store_bytes = bytes_in(folder, "store.db*")
    return {
        "count": arguments.count,
        "users": arguments.users,
        "live": arguments.live,
        "rows": rows,
        "cpu_us": round(1e6 * cpu_s / arguments.count, 2),
        "cpu_us_quiet": round(statistics.quantiles(costs_us, n=10)[0], 2),
        "batch": round(arguments.count / len(costs_us)),
        "per_s": round(arguments.count / wall_s),
        "journal_bytes": round(journal_bytes),
        "store_bytes": round(store_bytes / arguments.count),
    }


def booked_by(writer: Writer) -> int:
    """Exchanges booked so far."""
    return int(str(writer.status()["booked"]))


def check(store: SQLiteStore, count: int) -> int:
    """That every exchange has its row, its log and its place in the sums; ledger rows."""
    with sqlite3.connect(store.path) as connection:
        (rows,) = connection.execute(
            "SELECT count(*) FROM credit_transactions WHERE type = 'spent'"
        ).fetchone()
        (logs,) = connection.execute("SELECT count(*) FROM request_logs").fetchone()
        (rolled,) = connection.execute(
            "SELECT sum(requests) FROM rollups WHERE series = 'total/quarter'"
        ).fetchone()
        (spent,) = connection.execute("SELECT sum(amount_pico) FROM credit_transactions").fetchone()
        (left,) = connection.execute("SELECT sum(balance_pico) FROM pools").fetchone()
    connection.close()
    if (rows, logs, rolled, spent) != (count, count, count, left):
        raise SystemExit(
            f"{count} exchanges: {rows} rows, {logs} logs, {rolled} rolled up, {spent} != {left}"
        )
    return int(rows)


def table(result: dict[str, Any], spent: Spent) -> None:
    """Shares by size."""
    count = result["count"]
    shares = {name: 1e6 * seconds / count for name, seconds in spent.items()}
    shares["python: decode, group, prepare, switch"] = result["cpu_us"] - sum(shares.values())
    for name, cost_us in sorted(shares.items(), key=lambda share: -share[1]):
        print(f"{cost_us:8.2f} us  {cost_us / result['cpu_us']:6.1%}  {name}")
    print(f"{result['cpu_us']:8.2f} us  CPU an exchange; {result['per_s']} exchanges a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--shares", action="store_true", help="split by statement; costs a little itself")
    arguments = parser.parse_args()
    spent: Spent = defaultdict(float)
    if arguments.shares:
        time_statements(spent)
        time_reading(spent)
    with tempfile.TemporaryDirectory(prefix="farebox-writer-") as folder:
        result = asyncio.run(measure(Path(folder), arguments, spent))
    if arguments.shares:
        table(result, spent)
    print(dump_line(result))


if __name__ == "__main__":
    main()
