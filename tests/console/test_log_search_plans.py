"""On SQLite every search in the request log walks an index in its order and stops at its bound.

Looked at in the plans SQLite makes, and in the steps its machine takes; never in the time they took. The same
of MongoDB is in `test_bounded_reads`.
"""

import itertools
import sqlite3
from pathlib import Path

import pytest

from console.traffic import DAY, NOW, fill
from farebox.base import limits
from farebox.store.sqlite import SQLiteStore
from farebox.store.sqlite.statistics import search_logs
from farebox.store.statistics import LogQuery

SEARCHED, PAGE, TIMES = 100, 10, 40
FILTERS = {
    "user": ("", "alice"),
    "model": ("", "sonnet"),
    "wallet": ("", "ohmygpt"),
    "outcome": ("", "ok"),
    "failed": (None, True, False),
    "from_ms": (0, NOW - 10 * DAY),
    "to_ms": (None, NOW + DAY),
    "before": (None, (NOW, 1 << 40)),
}
QUERIES = [
    LogQuery(**dict(zip(FILTERS, values, strict=True))) for values in itertools.product(*FILTERS.values())
]  # type: ignore[arg-type]
COPY = """INSERT INTO request_log_records (exchange, user, created_ms, charge_pico, charged_pico, record)
    SELECT exchange || ?, user, created_ms, charge_pico, charged_pico, record FROM request_log_records
    WHERE length(exchange) = 32"""


@pytest.fixture
async def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sqlite3.Connection:
    """A request log, to be looked at without a store around it."""
    store = SQLiteStore(tmp_path / "store.db")
    await store.open()
    await fill(store, 3)
    await store.close()
    monkeypatch.setattr(limits, "log_rows_searched_max", SEARCHED)
    return sqlite3.connect(tmp_path / "store.db", isolation_level=None)


def statements(log: sqlite3.Connection, query: LogQuery) -> list[str]:
    """What a search asks of SQLite."""
    asked: list[str] = []
    log.set_trace_callback(asked.append)
    search_logs(log, query, PAGE)
    log.set_trace_callback(None)
    return asked


def steps(log: sqlite3.Connection, query: LogQuery) -> int:
    """How many steps SQLite's machine takes for a search."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    log.set_progress_handler(step, 1)
    search_logs(log, query, PAGE)
    log.set_progress_handler(None, 0)
    return count


def test_every_filter_walks_an_index_in_its_order(log: sqlite3.Connection) -> None:
    for query in QUERIES:
        asked = statements(log, query)
        assert len(asked) == 2
        index = f"request_log_records_by_{'user' if query.user else 'time'}"
        for statement in asked:
            plan = [row[3] for row in log.execute(f"EXPLAIN QUERY PLAN {statement}")]
            reads = [line for line in plan if "request_log_records" in line]
            assert len(reads) == 1, plan
            assert reads[0].startswith("SEARCH"), (query, plan)
            assert f"INDEX {index} (" in reads[0], (query, plan)
            assert not any("TEMP B-TREE" in line for line in plan), (query, plan)


def test_a_search_takes_no_more_steps_in_a_larger_log(log: sqlite3.Connection) -> None:
    for number in range(TIMES):
        log.execute(COPY, (f"-{number}",))
    few = {query: steps(log, query) for query in QUERIES}
    for number in range(TIMES, 3 * TIMES):
        log.execute(COPY, (f"-{number}",))
    assert log.execute("SELECT count(*) FROM request_log_records").fetchone()[0] > 20 * SEARCHED
    for query in QUERIES:
        assert steps(log, query) <= few[query] + 20 * SEARCHED, query
