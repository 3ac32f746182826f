"""One cell of the matrix: one subject under one load, with rates, CPU time, latencies and the money check.

A subject is what stands between generator and scripted upstream: nothing, nginx, Farebox, or nginx before
Farebox. All of a subject's processes are on the measured core; generator and upstream are on the other.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

import ratio
import rig
from results import Cell, Percentiles
from workloads import PLAIN_SMALL, Workload

DIRECT, NGINX, FAREBOX, BOTH = "direct", "nginx", "farebox", "nginx+farebox"
LARGE_BODIES = "client_max_body_size 64m; proxy_request_buffering off;"
"""Lets nginx pass a long request on as it comes; by its defaults it refuses it, or writes it to disk."""

LOAD_ENDS_S = 180.0
EXCHANGES_MIN = 50
"""Of fewer, the CPU time would be mostly that of processes with nothing to do."""


@dataclass(slots=True)
class Served:
    """What the upstream served to one Farebox: its totals grow for others too, while they have their turn."""

    received: int = 0
    usage: dict[str, int] = field(default_factory=dict)

    def add(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Count what came between two looks at the upstream's totals."""
        self.received += after["received"] - before["received"]
        for kind, count in after["usage"].items():
            self.usage[kind] = self.usage.get(kind, 0) + count - before["usage"].get(kind, 0)


@dataclass(slots=True)
class Subject:
    """Where to send, as whom, and whose CPU time counts."""

    name: str
    port: int
    key: str
    processes: list[rig.Process]
    farebox: rig.FareboxUnderTest | None = None
    served: Served = field(default_factory=Served)
    """What the upstream served to this Farebox so far."""

    def cpu_s(self) -> float:
        """CPU seconds of all processes so far."""
        return sum(process.cpu_s() for process in self.processes)

    def settle(self) -> None:
        """Wait until it has nothing more to do."""
        for process in self.processes:
            rig.settle(process)


def run_load(
    the_rig: rig.Rig, port: int, key: str, body: bytes, seconds: float, *options: str
) -> dict[str, Any]:
    """`load.py` on the generator's core: its figures. Ends the benchmark where it cannot run."""
    file = the_rig.folder / "body.json"
    file.write_bytes(body)
    command = [sys.executable, str(rig.HERE / "load.py"), "--port", str(port), "--key", key]
    command += ["--body", str(file), "--seconds", str(seconds), *options]
    try:
        with rig.on_core(the_rig.load_core):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LOAD_ENDS_S)
    except subprocess.TimeoutExpired:
        rig.stop_with(f"the load did not end within {LOAD_ENDS_S:.0f} s")
    if done.returncode:
        rig.stop_with(f"load.py: {done.stderr.strip()[-1000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def warm_up(the_rig: rig.Rig, subject: Subject, workload: Workload) -> None:
    """A moment of the load, so that connections, caches and leases are there."""
    seconds = 0.5 if workload is PLAIN_SMALL else 0.2
    before = the_rig.served()
    run_load(the_rig, subject.port, subject.key, workload.body, seconds, "--concurrency", "8")
    subject.settle()
    subject.served.add(before, the_rig.served())


def measure(
    the_rig: rig.Rig,
    subject: Subject,
    workload: Workload,
    *,
    seconds: float,
    concurrency: int,
    rate_per_s: float = 0.0,
    store: str = "",
) -> Cell:
    """The cell; open loop where a rate is given. A load with errors or books that differ mark it failed."""
    cell = Cell(
        subject.name, workload.name, concurrency, rate_per_s or None, store if subject.farebox else ""
    )
    spread_s = 0.0 if concurrency == 1 else workload.spread_s
    options = ["--concurrency", str(concurrency), "--rate", str(rate_per_s), "--spread", str(spread_s)]
    subject.settle()
    before, before_s = the_rig.served(), subject.cpu_s()
    seen = run_load(the_rig, subject.port, subject.key, workload.body, seconds, *options)
    loaded_s = subject.cpu_s() - before_s
    cell.rss_bytes = sum(process.rss_bytes() for process in subject.processes) or None
    subject.settle()
    fill(cell, seen, loaded_s, subject.cpu_s() - before_s)
    subject.served.add(before, the_rig.served())
    if rate_per_s:
        cell.concurrency = seen["open_max"]
    if seen["errors"]:
        cell.failed = f"{seen['errors']} errors, the first: {seen['error']}"[:1000]
    elif not cell.exchanges:
        cell.failed = "no exchange ended"
    if subject.farebox is not None:
        check(cell, subject.farebox, subject.served)
    return cell


def fill(cell: Cell, seen: dict[str, Any], loaded_s: float, cpu_s: float) -> None:
    """Figures of one load; `loaded_s` is CPU while it ran, `cpu_s` with all that came after."""
    cell.seconds, cell.exchanges, cell.errors = seen["seconds"], seen["exchanges"], seen["errors"]
    cell.chunks, cell.per_s, cell.fell_behind = seen["chunks"], seen["per_s"], seen["fell_behind"]
    for name in ("first_byte_ms", "whole_ms", "late_ms"):
        setattr(cell, name, Percentiles(**seen[name]) if seen[name] else None)
    if cell.subject == DIRECT or not cell.exchanges:
        return
    cell.busy = round(loaded_s / cell.seconds, 4)
    if cell.exchanges < EXCHANGES_MIN:
        return
    cell.cpu_us = round(1e6 * cpu_s / cell.exchanges, 2)
    cell.chunk_cpu_us = round(1e6 * cpu_s / cell.chunks, 3) if cell.chunks else None


def check(cell: Cell, farebox: rig.FareboxUnderTest, served: Served) -> None:
    """The money check of `ratio.py`; a difference marks the cell failed, whatever else it says."""
    try:
        ratio.check_books(farebox, {"received": 0, "usage": {}}, asdict(served))
    except SystemExit as error:
        cell.books = cell.failed = str(error)[:1000]
    else:
        cell.books = "agree"
