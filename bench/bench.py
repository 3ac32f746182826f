"""`make bench`: Farebox beside nginx over the whole matrix, and every bar, in one run on this machine.

    python bench/bench.py [--quick] [--million] [--only PART]... [--out FILE]

Takes about ten minutes; `--quick` one or two, with fewer loads and shorter ones. A part that fails is
reported, and the others are still measured and written. The result is a JSON file (`results.py`) and a page
with charts beside it (`report.py`). Status 1 when a cell or a part failed. Method: docs/BENCH.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bars
import idle_streams
import journal_bytes
import latency
import machine
import matrix
import ratio
import report
import restart
import rig
import workers
from cells import NGINX
from meter_speed import scan_gigabytes_per_s, usage_gigabytes_per_s
from results import Bar, Result, Table
from workloads import PROSE

METHOD = """\
Generator, scripted upstream and any database server run on one core, what is measured on the other.
Everything is on in Farebox: key check, hold, journal, settlement, batched store, logs, metrics; one worker, \
its writer, supervisor and console share the one core.
nginx is proxy_pass with a keep-alive upstream, one worker, no access log, no gathering of answers.
CPU is user plus system time of the whole process tree, booking included.
After every cell verify must be clean, every charge recompute, and number and total of the charges equal \
those of the upstream's own log, to the pico; else the cell is void.
Latencies of open loops count from the moment an exchange was due."""
RECORDS = 1_000_000
RECOVERED, RECOVERED_QUICKLY = 200_000, 20_000
"""Of them, what is really recovered unless `--million` asks for all: that alone takes minutes."""
COUNTED_CHUNKS = 100
TURNS = {
    "nginx plain": "nginx, plain exchanges",
    "farebox plain": "Farebox, plain exchanges, all processes on one core",
    "worker plain": "Farebox, plain exchanges, writer on the other core",
    "nginx streamed": "nginx, chunks of streams",
    "farebox streamed": "Farebox, chunks of streams, all processes on one core",
}
"""What `ratio.Bench` calls its turns, in words."""


@dataclass(slots=True)
class Run:
    """One run: how much is done, and what came of it."""

    rig: rig.Rig
    result: Result
    quick: bool
    recovered: int
    """Records in the journal that a start recovers."""
    bars: dict[str, Bar] = field(default_factory=dict)
    plain_per_s: float = 7000.0
    """Half of what one core of Farebox carries; a guess until `ratios` has measured it."""
    streams_per_s: float = 200.0
    worker_per_s: float | None = None

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 3

    def judge(self, name: str, rounds: list[float], note: str = "") -> None:
        """Note a bar's values."""
        self.bars[name] = bars.judge(name, rounds, note)


def ratios(run: Run) -> None:
    """Throughput and CPU beside nginx: the rounds of `bench-ratio`, its wrk and 64 connections."""
    bench = ratio.Bench(run.rig, 1.0 if run.quick else 2.5)
    for number in range(1, run.rounds + 1):
        bench.nginx(number)
        bench.farebox(number)
    rounds = bench.rounds

    def against(name: str, base: str, figure: str) -> list[float]:
        pairs = zip(rounds[name], rounds[base], strict=True)
        return [getattr(there, figure) / getattr(here, figure) for there, here in pairs]

    run.judge("plain one core", against("farebox plain", "nginx plain", "full_core_per_s"))
    run.judge("plain worker", against("worker plain", "nginx plain", "full_core_per_s"))
    run.judge("chunk", against("farebox streamed", "nginx streamed", "cpu_us"))
    run.plain_per_s = bench.median("farebox plain", "full_core_per_s") / 2
    run.streams_per_s = 1e6 / bench.median("farebox streamed", "cpu_us") / 100 / 2
    run.worker_per_s = bench.median("worker plain", "full_core_per_s")
    run.result.tables.append(ratio_table(bench))


def ratio_table(bench: ratio.Bench) -> Table:
    """The medians of `bench-ratio`."""
    head = ["medians", "each second", "full core", "CPU µs each", "core busy", "p50 ms", "p99 ms"]
    rows = []
    for name, words in TURNS.items():
        per_s, full, cpu_us, busy, p50, p99 = (
            bench.median(name, figure)
            for figure in ("per_s", "full_core_per_s", "cpu_us", "busy", "p50_us", "p99_us")
        )
        times = [f"{p50 / 1000:.2f}", f"{p99 / 1000:.2f}"] if p50 else ["", ""]
        rows.append([words, f"{per_s:,.0f}", f"{full:,.0f}", f"{cpu_us:.1f}", f"{busy:.0%}", *times])
    note = "`full core`: the rate divided by how busy the core was, where it was less than 95 % busy."
    return Table("Throughput, in turns", head, rows, note)


def cell_matrix(run: Run) -> None:
    """Every subject under every load."""
    matrix.run(run.rig, run.result, quick=run.quick)


def added_latency(run: Run) -> None:
    """Time to the first byte at half load."""
    found = latency.measure(
        run.rig, run.plain_per_s, run.streams_per_s, run.rounds, 1.5 if run.quick else 2.5
    )
    run.result.cells += found
    behind = sum(cell.fell_behind for cell in found)
    beside = latency.added(found, NGINX)
    for name, rounds in latency.added(found).items():
        note = f"nginx adds {statistics.median(beside[name]):.2f} ms" if beside[name] else ""
        if behind:
            note += f"; the generator fell behind in {behind} of {len(found)} cells"
        run.judge(name, rounds, note)


def silent_streams(run: Run) -> None:
    """Ten thousand of them."""
    idle = idle_streams.measure(run.rig, 1000 if run.quick else idle_streams.STREAMS)
    run.result.cells.append(idle.cell)
    note = ""
    if idle.streams < idle_streams.STREAMS:
        note = f"{idle.streams:,} were open, which took {idle.worker_bytes / 1e6:,.0f} MB; scaled to 10,000"
    run.judge("idle memory", [idle.megabytes_at_full_count], note)
    run.judge("idle cpu", [100 * max(0.0, idle.cpu_share - idle.cpu_share_before)])
    if idle.cell.failed:
        rig.stop_with(idle.cell.failed)


def two_workers(run: Run) -> None:
    """One worker, then two."""
    found, gains = workers.measure(run.rig, 2 * run.rounds, 1.0 if run.quick else 2.0)
    run.result.cells += found
    run.judge("workers", gains)


def compiled_meter(run: Run) -> None:
    """Scan, usage, what a long prompt does to the event loop, and what a chunk calls."""
    prose = scan_gigabytes_per_s(3, PROSE)
    run.judge(
        "scan",
        scan_gigabytes_per_s(3),
        f"source code; prose: {statistics.median(prose):.1f} GB/s",
    )
    run.judge("usage", usage_gigabytes_per_s(2_000_000, 3))
    small, large = (
        usage_gigabytes_per_s(500_000, 3),
        usage_gigabytes_per_s(4_000_000, 3),
    )
    run.judge("usage linear", [few / many for few, many in zip(small, large, strict=True)])
    counted = script("stream_writes.py", "--chunks", str(COUNTED_CHUNKS))
    for name in ("crossings", "writes"):
        alone, together = (
            [one[name] / COUNTED_CHUNKS for one in counted[how]] for how in ("lock_step", "burst")
        )
        run.judge(name, alone, f"chunks that come one by one; all at once: {statistics.median(together):.2f}")
    rounds, seen, worst_ms = [], {}, 0.0
    for _ in range(run.rounds):
        options = ["--upstream-port", str(run.rig.upstream_port), "--load-core", str(run.rig.load_core)]
        seen = script("loop_block.py", *options, "--seconds", "1" if run.quick else "2")
        rounds.append(seen["median_ms"])
        worst_ms = max(worst_ms, seen["max_ms"])
    note = f"median over prompts of each one's longest; the longest of all: {worst_ms:.1f} ms"
    run.judge("loop", rounds, f"{note}; CPU of the loop in it: {seen['median_cpu_ms']:.1f} ms")


def writer(run: Run) -> None:
    """The writer alone, and journal bytes."""
    rounds = []
    said = {}
    for _ in range(run.rounds):
        said = script(
            "writer_micro.py", "--count", "20000" if run.quick else "60000", core=run.rig.server_core
        )
        rounds.append(said["per_s"])
    note = f"{said['per_s']:,.0f} a second, {said['cpu_us']:.1f} µs CPU each"
    if run.worker_per_s:
        run.judge("writer", [per_s / run.worker_per_s for per_s in rounds], note)
    else:
        run.judge("writer", [], "the worker's peak rate was not measured")
    for name, values in journal_bytes.measure(run.rig, run.rounds).items():
        run.judge(name, values)


def starts(run: Run) -> None:
    """A start, and one after kill -9."""
    rounds = restart.first_request_s(run.rig, 2 if run.quick else 5)
    run.judge("start", rounds)
    found = restart.recovery(run.rig, run.recovered)
    base_s = statistics.median(rounds)
    grown_s = base_s + max(0.0, found.served_s - base_s) * RECORDS / found.records
    note = (
        f"{found.records:,} records, {found.journal_bytes / 1e6:,.0f} MB of journal: {found.served_s:.1f} s"
    )
    scaled = f"; scaled to {RECORDS:,}" if found.records != RECORDS else ""
    run.judge("recovery", [grown_s], f"{note}{scaled}; all booked afterwards")


PARTS: dict[str, Callable[[Run], None]] = {
    "ratios": ratios,
    "latency": added_latency,
    "matrix": cell_matrix,
    "idle": silent_streams,
    "workers": two_workers,
    "meter": compiled_meter,
    "writer": writer,
    "starts": starts,
}


def script(name: str, *arguments: str, core: int | None = None) -> dict[str, Any]:
    """The last line of one of these scripts; ends the part where it fails."""
    command = [sys.executable, str(rig.HERE / name), *arguments]
    if core is not None:
        command = [rig.program("taskset"), "-c", str(core), *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        rig.stop_with(f"{name}: {(done.stderr or done.stdout).strip()[-1000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def perform(run: Run, parts: list[str]) -> int:
    """Do the parts; how many failed."""
    failed = 0
    for name in parts:
        print(f"== {name}: {(PARTS[name].__doc__ or '').splitlines()[0]}", flush=True)
        began_s = time.monotonic()
        try:
            PARTS[name](run)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it was, the rest is still measured
            failed += 1
            run.result.notes.append(f"{name} failed: {error}")
            print(f"  FAILED: {error}", flush=True)
            if not isinstance(error, SystemExit):
                traceback.print_exc()
        run.rig.stop_all()
        print(f"  {name} took {time.monotonic() - began_s:.0f} s", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description="Farebox and nginx: the matrix and the bars.")
    parser.add_argument("--quick", action="store_true", help="one or two minutes instead of ten")
    parser.add_argument("--million", action="store_true", help="recover a journal of a million, not a fifth")
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="one part; may be repeated")
    parser.add_argument("--out", type=Path, help="the JSON file; default: a new one in bench/results/")
    options = parser.parse_args()
    for program in ("nginx", "wrk"):
        rig.program(program)
    idle_streams.raise_descriptors()
    result = Result("bench", quick=options.quick, machine=machine.facts(), versions=machine.versions())
    began_s = time.monotonic()
    with rig.Rig(*rig.two_cores()) as the_rig:
        result.method = [
            f"Core {the_rig.load_core}: generator; core {the_rig.server_core}: measured.",
            *METHOD,
        ]
        recovered = RECORDS if options.million else RECOVERED_QUICKLY if options.quick else RECOVERED
        run = Run(the_rig, result, options.quick, recovered)
        failed = perform(run, options.only or list(PARTS))
    result.bars = [run.bars.get(name) or bars.judge(name, [], "left out or failed") for name in bars.PROMISES]
    result.took_s = round(time.monotonic() - began_s, 1)
    path = result.write(options.out or result.default_path())
    page = report.write_page(result, path.with_suffix(".html"))
    void = sum(bool(cell.failed) for cell in result.cells)
    print(f"\n{bars.table(result.bars)}\n")
    print(f"{len(result.cells)} cells, {void} failed; {failed} parts failed; took {result.took_s:.0f} s")
    print(f"{path}\n{page}")
    return int(bool(failed or void))


if __name__ == "__main__":
    sys.exit(main())
