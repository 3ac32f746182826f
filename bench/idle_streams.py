"""Ten thousand streams that have begun and say nothing: the memory of the worker, and the CPU they cost.

Each stream's answer comes in two pieces with a long silence between, so every one of them ends, is charged,
and the books can be compared. Where the system allows fewer descriptors (a worker needs two a stream), fewer
streams are opened, and the figure is scaled up and says so.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import cells
import rig
from cells import FAREBOX, Served
from results import Cell
from workloads import chat

STREAMS = 10_000
OPENED_PER_S = 1500
SILENCE_MIN_S = 20.0
"""Of a stream; beside it, as long as opening all of them takes at half the rate."""
WINDOW_S = 12.0
"""Of all looks together; CPU time is told in hundredths of a second, which must be little of each look."""
PLACES = 6
"""One place of an endpoint takes at most 2,048 exchanges at once."""
SPARE_DESCRIPTORS = 300
OPENED_WITHIN_S = 20.0
_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Idle:
    """What the silent streams cost."""

    streams: int
    worker_bytes: int
    """Resident memory of the worker with all of them open."""
    base_bytes: int
    """The same before the first."""
    cpu_share: float
    """Of a core, all processes, while nothing was said."""
    cpu_share_before: float
    cell: Cell

    @property
    def megabytes_at_full_count(self) -> float:
        """Memory at `STREAMS`, by the cost of those that could be opened."""
        each = (self.worker_bytes - self.base_bytes) / self.streams
        return (self.base_bytes + each * STREAMS) / _MEGABYTE


def raise_descriptors() -> int:
    """Allow as many descriptors as the system lets us; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def measure(the_rig: rig.Rig, wanted: int = STREAMS) -> Idle:
    """Open them, look, let them end, check the books."""
    streams = min(wanted, (raise_descriptors() - SPARE_DESCRIPTORS) // 2)
    names = [f"BENCH_UPSTREAM_KEY_{number}" for number in range(PLACES)]
    os.environ.update(dict.fromkeys(names, "sk-bench"))
    farebox = the_rig.start_farebox("idle", endpoints=[_endpoint(the_rig.upstream_port, names)])
    worker = next(pid for pid in farebox.process.tree() if rig.role_of(pid) == "worker")
    rig.settle(farebox.process)
    cpu_before = _share(farebox.process)
    base_bytes = rig.rss_of(worker)
    before = the_rig.served()
    load = _start_load(the_rig, farebox, streams)
    try:
        _wait_open(the_rig, before["open"] + streams, load)
        cpu_share, worker_bytes = _share(farebox.process), rig.rss_of(worker)
        said, failed = load.communicate(timeout=cells.LOAD_ENDS_S)
    finally:
        load.kill()
        load.wait()
    if load.returncode:
        rig.stop_with(f"load.py: {failed.strip()[-1000:]}")
    seen = json.loads(said.splitlines()[-1])
    rig.settle(farebox.process)
    served = Served()
    served.add(before, the_rig.served())
    cell = Cell(FAREBOX, "idle streams", streams, store="sqlite", rss_bytes=farebox.process.rss_bytes())
    cells.fill(cell, seen, 0.0, 0.0)
    cell.busy = cell.cpu_us = cell.chunk_cpu_us = None
    cell.failed = f"{seen['errors']} errors, the first: {seen['error']}" if seen["errors"] else ""
    cells.check(cell, farebox, served)
    the_rig.stop(farebox.process)
    return Idle(streams, worker_bytes, base_bytes, cpu_share, cpu_before, cell)


def _endpoint(port: int, names: list[str]) -> dict[str, object]:
    first, *others = names
    endpoint = {"name": "bench-openai", "base_url": f"http://127.0.0.1:{port}", "api_key_env": first}
    return {**endpoint, "alternatives": [{"api_key_env": name} for name in others]}


def _start_load(the_rig: rig.Rig, farebox: rig.FareboxUnderTest, streams: int) -> subprocess.Popen[str]:
    silence_s = SILENCE_MIN_S + 2 * streams / OPENED_PER_S
    script = {"chunks": 2, "completion": 10, "piece_bytes": 1200, "delay_ms": 1000 * silence_s}
    file = the_rig.folder / "idle.json"
    file.write_bytes(chat(script, streamed=True))
    command = [sys.executable, str(rig.HERE / "load.py"), "--port", str(farebox.port), "--key", farebox.key]
    command += ["--body", str(file), "--rate", str(OPENED_PER_S), "--seconds", str(streams / OPENED_PER_S)]
    command += ["--concurrency", str(streams)]
    with rig.on_core(the_rig.load_core):
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_open(the_rig: rig.Rig, count: int, load: subprocess.Popen[str]) -> None:
    ends_s = time.monotonic() + OPENED_WITHIN_S
    while (is_open := the_rig.served()["open"]) < count:
        if load.poll() is not None or time.monotonic() > ends_s:
            rig.stop_with(f"only {is_open} of {count} streams were open at once")
        time.sleep(0.2)


def _share(process: rig.Process) -> float:
    """The share of a core a process tree takes; the median of three looks."""
    shares = []
    for _ in range(3):
        before_s, began_s = process.cpu_s(), time.monotonic()
        time.sleep(WINDOW_S / 3)
        shares.append((process.cpu_s() - before_s) / (time.monotonic() - began_s))
    return statistics.median(shares)
