"""What the Python rooms cost, part by part, as pytest-benchmark measures it: the half of `make micro` that is
not the compiled crate's own (`rust_meter/bench`).

    python bench/micro_parts.py FILE [--benchmark-max-time SECONDS] [-k PART]

One test a part; `each` in its extra information says how many of what its name says one call does, `bytes`
how many bytes it reads. FILE becomes pytest-benchmark's own JSON. Each part checks what it did, so that none
measures a refusal. The process ends without closing its workers: they cannot be closed (`socketless.py`).
"""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farebox.meter import (
    CHUNKED,
    Pipe,
    charge_of,
    hold_bound_pico,
    input_bound,
    model_price,
    output_bound,
    read_body,
    scan,
)
from farebox.run.process import tune_garbage_collection
from farebox.store.sqlite import SQLiteStore
from farebox.writer.service import Writer
from guard_parts import hold_and_settle
from journal_load import Load, begin_journal, lease_all, make_users
from socketless import Connections, make_worker
from wire_calls import ANSWER_BODY, CHUNK, REQUEST_BODY
from workloads import long_prompt
from writer_micro import booked_by

CONNECTIONS = 64
BATCH = 2000
"""Exchanges that the writer books in one measured call."""
USERS = 20
USD_EACH = 100
PRICES = {
    "lines": {"input": "3", "output": "15", "cache_read": "0.3", "cache_write_5m": "3.75"},
    "multiplier": "1.05",
}
COUNTS = {"input": 1200, "output": 800, "cache_write_5m": 2000, "cache_read": 10_000}
Measure = Any
"""pytest-benchmark's fixture; it has no types."""


@pytest.fixture
def run() -> Callable[..., Any]:
    """Runs a coroutine on one loop for the whole part."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop.run_until_complete


# ---- the meter through its room ----------------------------------------------------------------------------


def test_meter_scan_of_a_small_request(benchmark: Measure) -> None:
    benchmark.extra_info["bytes"] = len(REQUEST_BODY)
    assert benchmark(scan, REQUEST_BODY, "chat").message_count == 1


def test_meter_scan_of_a_large_prompt(benchmark: Measure) -> None:
    body = long_prompt()
    benchmark.extra_info["bytes"] = len(body)
    assert benchmark(scan, body, "chat").message_count == 2


def test_meter_bound_of_a_hold(benchmark: Measure) -> None:
    price, facts = model_price(PRICES), scan(REQUEST_BODY, "chat")

    def bound() -> int:
        return hold_bound_pico(price, input_bound(facts, "chat"), output_bound(facts, "chat", 4096))

    assert benchmark(bound) > 0


def test_meter_usage_of_a_whole_answer(benchmark: Measure) -> None:
    assert benchmark(read_body, ANSWER_BODY, "chat").counts == {"input": 12, "output": 9}


def test_meter_tap_of_a_streamed_chunk(benchmark: Measure) -> None:
    pipe = Pipe("chat", CHUNKED, chunked_out=True)
    benchmark(pipe.feed, CHUNK)
    assert pipe.reading().output_bytes > 0


def test_meter_charge_of_four_kinds(benchmark: Measure) -> None:
    assert benchmark(charge_of, model_price(PRICES), COUNTS, 13_200).amount_pico == 27_405_000_000


# ---- the ledger --------------------------------------------------------------------------------------------


def test_ledger_hold_and_settle(benchmark: Measure) -> None:
    benchmark(hold_and_settle())


# ---- the journal -------------------------------------------------------------------------------------------


def test_journal_open_sent_settle_appended_and_written(
    benchmark: Measure, run: Callable[..., Any], tmp_path: Path
) -> None:
    """In turns of 64 exchanges; the sync goes on behind, as in service."""
    store = SQLiteStore(tmp_path / "store.db")
    run(store.open())
    journal = run(begin_journal(store, tmp_path / "journals"))
    load = Load(journal, [("user-1", "lot-1")], CONNECTIONS)
    benchmark.extra_info["each"] = CONNECTIONS
    benchmark(lambda: run(load.make(CONNECTIONS)))
    run(load.synced())
    assert journal.last_pos >= 3 * load.made > 0


# ---- the writer --------------------------------------------------------------------------------------------


def test_writer_booking_into_sqlite(benchmark: Measure, run: Callable[..., Any], tmp_path: Path) -> None:
    """Read from the journal, decoded, booked and committed, in batches of 2,000."""
    store = SQLiteStore(tmp_path / "store.db")
    run(store.open())
    journal = run(begin_journal(store, tmp_path / "journals"))
    lots = run(make_users(store, USERS, USD_EACH))
    run(lease_all(store, journal.id, lots, USD_EACH))
    load = Load(journal, lots)
    writer = Writer(store, tmp_path / "journals")

    async def more() -> None:
        await load.make(BATCH)
        await load.synced()

    async def book() -> None:
        while booked_by(writer) < load.made:
            await writer._round()

    benchmark.extra_info["each"] = BATCH
    benchmark.pedantic(lambda: run(book()), setup=lambda: run(more()), rounds=5, warmup_rounds=1)
    assert booked_by(writer) == load.made


# ---- whole exchanges ---------------------------------------------------------------------------------------


def test_worker_plain_exchange_without_sockets(
    benchmark: Measure, run: Callable[..., Any], tmp_path: Path
) -> None:
    """On 64 connections in turn: everything on, but kernel and event loop."""
    worker, server, pool, key = run(make_worker(tmp_path))
    connections = Connections(server, pool, key, CONNECTIONS)
    run(connections.plain_turn())
    tune_garbage_collection()
    benchmark.extra_info["each"] = CONNECTIONS
    benchmark(lambda: run(connections.plain_turn()))
    assert worker.journal.broken is None


def test_worker_streamed_chunk_without_sockets(
    benchmark: Measure, run: Callable[..., Any], tmp_path: Path
) -> None:
    _, server, pool, key = run(make_worker(tmp_path))
    connections = Connections(server, pool, key, CONNECTIONS)
    run(connections.begin_streams())
    tune_garbage_collection()
    benchmark.extra_info["each"] = 10 * CONNECTIONS
    before = connections.client_transport.writes
    benchmark(connections.chunks, 10)
    assert connections.client_transport.writes > before
    run(connections.end_streams())


def main() -> int:
    file, *options = sys.argv[1:]
    # Of the repository's settings none: they are for tests, which must not warn, wait or leave anything open.
    plain = ["-c", os.devnull, "--rootdir", str(Path(__file__).parent), "-p", "no:cacheprovider", "-q"]
    return int(pytest.main([__file__, *plain, "--benchmark-json", file, *options]))


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
