"""How long one 5 MB prompt keeps a worker's event loop from everybody else.

A whole worker in this process (key check, hold, journal, upstream connection) behind a real socket. A timer
wakes its loop five thousand times a second; what lies between two wake-ups, less the timer's own interval,
is how long the loop was away. The longest absence of each prompt is taken, and the median of those: other
programs delay some prompts, not most. The last line is one JSON object.

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
from load import interval_timer
from socketless import SETTLED, make_worker
from workloads import long_prompt

BEAT_S = 0.0002


class Watch:
    """Measures how long the loop it runs in is away."""

    def __init__(self, worker: Worker) -> None:
        self.longest_ms: list[float] = []
        """The longest absence of each exchange."""
        self.longest_cpu_ms: list[float] = []
        """The most CPU time the loop's thread took between two wake-ups of each exchange."""
        self._worker = worker
        self._settled = worker.counters[SETTLED]
        self._longest_s = self._longest_cpu_s = 0.0
        self._last_s, self._last_cpu_s = time.perf_counter(), time.thread_time()
        self._timer = interval_timer(BEAT_S)
        worker.loop.add_reader(self._timer, self._beat)

    def _beat(self) -> None:
        os.read(self._timer, 8)
        now_s, cpu_s = time.perf_counter(), time.thread_time()
        self._longest_s = max(self._longest_s, now_s - self._last_s - BEAT_S)
        self._longest_cpu_s = max(self._longest_cpu_s, cpu_s - self._last_cpu_s)
        settled = self._worker.counters[SETTLED]
        if settled != self._settled:
            self.longest_ms.append(1e3 * self._longest_s)
            self.longest_cpu_ms.append(1e3 * self._longest_cpu_s)
            self._settled, self._longest_s, self._longest_cpu_s = settled, 0.0, 0.0
        self._last_s, self._last_cpu_s = now_s, cpu_s


async def run(folder: Path, upstream_port: int, seconds: float, load_core: int) -> dict[str, float]:
    """Figures of all prompts but the first, which warms up."""
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
    absent_ms, cpu_ms = watch.longest_ms[1:], watch.longest_cpu_ms[1:]
    return {
        "prompts": len(absent_ms),
        "median_ms": statistics.median(absent_ms),
        "max_ms": max(absent_ms),
        "median_cpu_ms": statistics.median(cpu_ms),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Longest block of the event loop by a long prompt.")
    parser.add_argument("--upstream-port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--load-core", type=int, default=0)
    options = parser.parse_args()
    os.environ["BENCH_UPSTREAM_KEY"] = "sk-bench"
    with tempfile.TemporaryDirectory() as folder:
        found = uvloop.run(run(Path(folder), options.upstream_port, options.seconds, options.load_core))
        print(json.dumps(found), flush=True)
        os._exit(0)  # the worker is not closed: nothing of it is kept


if __name__ == "__main__":
    main()
