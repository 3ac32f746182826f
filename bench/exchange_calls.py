"""What one plain exchange costs the worker, without sockets: everything but the kernel and the event loop.

    python bench/exchange_calls.py [--exchanges 6400] [--profile]

Times and calls of the worker of `socketless.py`; `make guard` counts its instructions.
"""

import argparse
import asyncio
import cProfile
import os
import pstats
import tempfile
import time
from pathlib import Path

from farebox.run.process import tune_garbage_collection
from socketless import SETTLED, Connections, make_worker

CONNECTIONS = 64


async def run(exchanges: int, with_profile: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        worker, server, pool, key = await make_worker(Path(folder))
        connections = Connections(server, pool, key, CONNECTIONS)
        for _ in range(20):
            await connections.plain_turn()
            await asyncio.sleep(0.01)
        tune_garbage_collection()
        profile = cProfile.Profile()
        if with_profile:
            profile.enable()
        worker.settlement_log.flush()
        settled_before = worker.counters[SETTLED]
        started_s = time.process_time()
        for _ in range(exchanges // CONNECTIONS):
            await connections.plain_turn()
        took_s = time.process_time() - started_s
        profile.disable()
        worker.settlement_log.flush()
        count = worker.counters[SETTLED] - settled_before
        print(f"{count} exchanges, {took_s / count * 1e6:.1f} µs each")
        if with_profile:
            stats = pstats.Stats(profile)
            print(f"{stats.total_calls / count:.1f} calls each")  # type: ignore[attr-defined]
            stats.sort_stats("tottime").print_stats(45)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of an exchange in the worker, without sockets.")
    parser.add_argument("--exchanges", type=int, default=6400)
    parser.add_argument("--profile", action="store_true", help="list the hottest functions")
    options = parser.parse_args()
    asyncio.run(run(options.exchanges, options.profile))
    os._exit(0)


if __name__ == "__main__":
    main()
