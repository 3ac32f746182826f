"""`make bench-soak`: half the load one core carries, for an hour: nothing grows, and the books stay right.

    python bench/soak.py [--seconds 3600] [--rate PER_S] [--looks 60] [--out FILE]

Plain and streamed exchanges arrive in an open loop while memory and descriptors of every Farebox process are
sampled, and at every sixth look `farebox verify` runs. Three in four arrivals are plain. Status 1 when a
process's memory grew by more than the bounds below since the load had settled (a run of less than five
minutes is too short to say), it kept descriptors after the load, verify found a difference at any time, an
exchange failed, or the charges at the end are not those of the upstream's log.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bars
import cells
import idle_streams
import machine
import report
import rig
from cells import FAREBOX, Served, Subject
from farebox.base import limits
from results import MET, MISSED, UNMEASURED, Bar, Cell, Result, Series
from workloads import PLAIN_SMALL, Workload, streamed

STREAM = Workload(
    "stream 20 x 50/s", streamed(20, 20.0), "streamed answer of 20 chunks, 20 ms apart", events=20
)
LOADS = {PLAIN_SMALL: 0.75, STREAM: 0.25}
"""Share of the arrivals."""
LOOKS_A_VERIFY = 6
CALIBRATION_S = 3.0
CALIBRATED_AT_ONCE = {PLAIN_SMALL: 64, STREAM: 512}
"""Enough to keep the core busy: an exchange costs several times as much where few are handled at once."""
SETTLED_SHARE = 0.2
"""Growth counts from here on: before, caches fill and the store's own cache grows to its bound."""
MEMORY_GROWTH_MAX = 0.10
"""Of a process, from the first quarter of the samples that count to the last."""
MEMORY_GROWTH_FREE_BYTES = 8 * 2**20
MEMORY_JUDGED_FROM_S = 300.0
DESCRIPTORS_KEPT_MAX = limits.upstream_idle_connections_max + 16
"""After the load, beside those before it: idle connections to the upstream are kept for a while."""
CONNECTIONS_MAX = 2048
"""Of each of the two loads, so that a hiccup does not open more and more. A stream takes 0.4 s at least, so
these carry 5,000 a second: more than half load has ever been.
"""


@dataclass(slots=True)
class Samples:
    """What was seen over time, by process."""

    at_s: list[float] = field(default_factory=list)
    memory_bytes: dict[str, list[float]] = field(default_factory=dict)
    descriptors: dict[str, list[float]] = field(default_factory=dict)
    verified: int = 0
    differences: list[str] = field(default_factory=list)

    def look(self, farebox: rig.FareboxUnderTest, at_s: float) -> None:
        """Sample every process."""
        self.at_s.append(round(at_s, 1))
        for pid in farebox.process.tree():
            role = rig.role_of(pid)
            self.memory_bytes.setdefault(role, []).append(rig.rss_of(pid))
            self.descriptors.setdefault(role, []).append(descriptors_of(pid))

    def verify(self, farebox: rig.FareboxUnderTest) -> None:
        """`farebox verify` while traffic runs."""
        found = farebox.command("verify")
        self.verified += 1
        if not found["clean"]:
            self.differences.append(json.dumps(found)[:500])


def descriptors_of(pid: int) -> int:
    """Open descriptors of a process; 0 when it is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - counted, not used as paths
    except OSError:
        return 0


def growth(values: Sequence[float]) -> tuple[float, float]:
    """The medians of the first and of the last quarter of what counts."""
    counted = values[int(len(values) * SETTLED_SHARE) :]
    quarter = max(1, len(counted) // 4)
    return statistics.median(counted[:quarter]), statistics.median(counted[-quarter:])


def judged(samples: Samples) -> list[Bar]:
    """The bars of a soak; the first and the last sample are without load."""
    found = []
    is_long = samples.at_s[-1] >= MEMORY_JUDGED_FROM_S
    for role, values in samples.memory_bytes.items():
        first, last = growth(values[1:-1])
        bound = first * (1 + MEMORY_GROWTH_MAX) + MEMORY_GROWTH_FREE_BYTES
        found.append(
            Bar(
                f"memory of the {role}",
                f"≤ {bound / 1e6:,.0f} MB",
                measured=f"{first / 1e6:,.1f} MB, later {last / 1e6:,.1f} MB",
                value=last,
                verdict=(MET if last <= bound else MISSED) if is_long else UNMEASURED,
                note="" if is_long else "too short to say",
            )
        )
    for role, values in samples.descriptors.items():
        bound = values[0] + DESCRIPTORS_KEPT_MAX
        found.append(
            Bar(
                f"descriptors of the {role} after the load",
                f"≤ {bound:.0f}",
                measured=f"{values[-1]:.0f}; {values[0]:.0f} before it, at most {max(values):.0f}",
                value=values[-1],
                verdict=MET if values[-1] <= bound else MISSED,
            )
        )
    verdict = MISSED if samples.differences else MET
    clean = f"{samples.verified} times, {len(samples.differences)} with differences"
    return [*found, Bar("verify under load", "clean each time", measured=clean, verdict=verdict)]


class Soak:
    """One soak of one Farebox."""

    def __init__(self, the_rig: rig.Rig, seconds: float, rate_per_s: float, looks: int) -> None:
        """`rate_per_s` 0: half of what a closed loop gets from the one core."""
        self.rig = the_rig
        self.seconds = seconds
        self.rate_per_s = rate_per_s
        self.looks = looks
        self.samples = Samples()
        self.cells: list[Cell] = []

    def run(self) -> None:
        """All of it; ends the benchmark where the books differ at the end."""
        before = self.rig.served()
        farebox = self.rig.start_farebox("soak")
        self.rate_per_s = self.rate_per_s or self._half_load_per_s(farebox)
        print(f"{self.rate_per_s:,.0f} arrivals a second for {self.seconds:,.0f} s", flush=True)
        self.samples.look(farebox, 0.0)
        loads = {workload: self._start(farebox, workload, share) for workload, share in LOADS.items()}
        try:
            self._watch(farebox)
            for workload, load in loads.items():
                self._finish(workload, load)
        finally:
            for load in loads.values():
                load.kill()
                load.wait()
        rig.settle(farebox.process)
        self.samples.look(farebox, self.seconds)
        served = Served()
        served.add(before, self.rig.served())
        for cell in self.cells:
            cells.check(cell, farebox, served)
        self.rig.stop(farebox.process)

    def _half_load_per_s(self, farebox: rig.FareboxUnderTest) -> float:
        """Half of the arrivals that the one core can carry, by what either kind of exchange costs it."""
        subject = Subject(FAREBOX, farebox.port, farebox.key, [farebox.process])
        cost_us = 0.0
        for workload, share in LOADS.items():
            at_once = CALIBRATED_AT_ONCE[workload]
            cell = cells.measure(self.rig, subject, workload, seconds=CALIBRATION_S, concurrency=at_once)
            if cell.failed or cell.cpu_us is None:
                rig.stop_with(f"no rate for half load: {cell.failed}")
            cost_us += share * cell.cpu_us
        return 1e6 / cost_us / 2

    def _start(
        self, farebox: rig.FareboxUnderTest, workload: Workload, share: float
    ) -> subprocess.Popen[str]:
        file = self.rig.folder / f"soak-{workload.events}.json"
        file.write_bytes(workload.body)
        command = [sys.executable, str(rig.HERE / "load.py"), "--port", str(farebox.port)]
        command += ["--key", farebox.key, "--body", str(file), "--seconds", str(self.seconds)]
        command += ["--rate", str(self.rate_per_s * share), "--concurrency", str(CONNECTIONS_MAX)]
        with rig.on_core(self.rig.load_core):
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def _watch(self, farebox: rig.FareboxUnderTest) -> None:
        began_s = time.monotonic()
        for number in range(1, self.looks + 1):
            due_s = began_s + self.seconds * number / (self.looks + 1)
            time.sleep(max(0.0, due_s - time.monotonic()))
            self.samples.look(farebox, time.monotonic() - began_s)
            if number % LOOKS_A_VERIFY == 0 or number == self.looks:
                self.samples.verify(farebox)
            memory = ", ".join(
                f"{role} {values[-1] / 1e6:.0f} MB" for role, values in self.samples.memory_bytes.items()
            )
            print(f"  {self.samples.at_s[-1]:>8,.0f} s  {memory}", flush=True)

    def _finish(self, workload: Workload, load: subprocess.Popen[str]) -> None:
        said, failed = load.communicate(timeout=self.seconds + cells.LOAD_ENDS_S)
        if load.returncode:
            rig.stop_with(f"load.py: {failed.strip()[-1000:]}")
        seen: dict[str, Any] = json.loads(said.splitlines()[-1])
        cell = Cell(FAREBOX, workload.name, seen["open_max"], self.rate_per_s * LOADS[workload], "sqlite")
        cells.fill(cell, seen, 0.0, 0.0)
        cell.busy = cell.cpu_us = cell.chunk_cpu_us = None
        if seen["errors"]:
            cell.failed = f"{seen['errors']} errors, the first: {seen['error']}"
        self.cells.append(cell)


def series(samples: Samples) -> list[Series]:
    """For the page's charts."""
    memory = {
        role: [round(value / 1e6, 2) for value in values] for role, values in samples.memory_bytes.items()
    }
    return [
        Series("Memory", "MB", samples.at_s, memory),
        Series("Open descriptors", "", samples.at_s, samples.descriptors),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Half load for long: nothing grows, the books agree.")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--rate", type=float, default=0.0, help="arrivals a second; default: half load")
    parser.add_argument("--looks", type=int, default=60, help="samples; every sixth runs verify")
    parser.add_argument("--out", type=Path, help="the JSON file; default: a new one in bench/results/")
    options = parser.parse_args()
    idle_streams.raise_descriptors()
    result = Result("soak", machine=machine.facts(), versions=machine.versions())
    result.quick = options.seconds < 600
    began_s = time.monotonic()
    with rig.Rig(*rig.two_cores()) as the_rig:
        soak = Soak(the_rig, options.seconds, options.rate, options.looks)
        soak.run()
    result.method = [f"{soak.rate_per_s:,.0f} arrivals a second, all processes of Farebox on one core."]
    result.cells, result.bars, result.series = soak.cells, judged(soak.samples), series(soak.samples)
    result.notes = soak.samples.differences
    result.took_s = round(time.monotonic() - began_s, 1)
    path = result.write(options.out or result.default_path())
    print(bars.table(result.bars))
    failed = [cell.failed for cell in result.cells if cell.failed]
    print("\n".join([*failed, str(path), str(report.write_page(result, path.with_suffix(".html")))]))
    is_good = not failed and all(bar.verdict != MISSED for bar in result.bars)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
