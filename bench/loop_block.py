"""How long one 5 MB prompt keeps a worker's event loop from everybody else.

A whole worker in this process (key check, hold, journal, upstream connection) behind a real socket; a
callback in each turn of its loop notes how long the turn took. The longest turn of each prompt is taken, and
the median of those: other programs lengthen the turns of some prompts, not of most. The last line is one JSON
object.

    python bench/loop_block.py --upstream-port P [--seconds 3] [--load-core N]
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

import rig
from farebox.proxy.worker import Worker
from socketless import SETTLED, make_worker
from workloads import long_prompt


class Watch:
    """Measures the turns of the loop it runs in."""

    def __init__(self, worker: Worker) -> None:
        self.longest_ms: list[float] = []
        """The longest turn of each exchange."""
        self._worker = worker
        self._loop = worker.loop
        self._settled = worker.counters[SETTLED]
        self._longest_s = 0.0
        self._last_s = time.perf_counter()
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        now_s = time.perf_counter()
        self._longest_s = max(self._longest_s, now_s - self._last_s)
        settled = self._worker.counters[SETTLED]
        if settled != self._settled:
            self.longest_ms.append(1e3 * self._longest_s)
            self._settled, self._longest_s = settled, 0.0
        self._last_s = now_s
        self._loop.call_soon(self._turn)


async def run(folder: Path, upstream_port: int, seconds: float, load_core: int) -> list[float]:
    """The longest turn of each prompt, in milliseconds; the first prompt, which warms up, left out."""
    worker, server, _, key = await make_worker(folder, upstream_port)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    await server.start(listener)
    body = folder / "body.json"
    body.write_bytes(long_prompt())
    command = [str(rig.HERE / "load.py"), "--port", str(port), "--key", key, "--body", str(body)]
    load = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--seconds", str(seconds), stdout=asyncio.subprocess.PIPE
    )
    os.sched_setaffinity(load.pid, {load_core})
    watch = Watch(worker)
    said, _ = await load.communicate()
    seen = json.loads(said.splitlines()[-1])
    if seen["errors"] or len(watch.longest_ms) < 3:
        rig.stop_with(f"{seen['exchanges']} prompts, {seen['errors']} errors: {seen['error']}")
    return watch.longest_ms[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description="Longest block of the event loop by a long prompt.")
    parser.add_argument("--upstream-port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--load-core", type=int, default=0)
    options = parser.parse_args()
    os.environ["BENCH_UPSTREAM_KEY"] = "sk-bench"
    with tempfile.TemporaryDirectory() as folder:
        found = uvloop.run(run(Path(folder), options.upstream_port, options.seconds, options.load_core))
        print(
            json.dumps({"prompts": len(found), "median_ms": statistics.median(found), "max_ms": max(found)}),
            flush=True,
        )
        os._exit(0)  # the worker is not closed: nothing of it is kept


if __name__ == "__main__":
    main()
