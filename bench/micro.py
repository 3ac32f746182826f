"""`make micro`: what each part costs by itself, the compiled crate by criterion, the Python rooms by
pytest-benchmark.

    python bench/micro.py [--quick] [--seconds 1] [--only crate|rooms] [--out FILE]

The parts are in `rust_meter/bench` and `micro_parts.py`. Both halves become one result (`results.py`), its
page beside it. Times of single parts show which of them a change made slower; what an exchange costs as a
whole is told by `make bench`, and counts that a busy machine does not move by `make guard`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import machine
import report
from results import Result, Table, Timing

CRATE = machine.REPOSITORY / "rust_meter" / "bench"
PARTS = Path(__file__).resolve().parent / "micro_parts.py"
SECONDS = 1.0
QUICK_S = 0.05
_NS_PER_S = 1e9
METHOD = """\
Each part is repeated for the given time after a warm-up; its figure is the median of the repetitions, the \
spread their standard deviation.
Times are CPU time: of the thread in the crate's parts (criterion), without Python; of the process, all \
threads, in those of the rooms (pytest-benchmark), as the interpreter calls them.
A part of many at once, such as a turn of 64 exchanges or a batch of the writer, is told for one of them."""


def crate_timings(seconds: float, *, quick: bool) -> list[Timing]:
    """The compiled crate's parts, in the order of their file. Raises RuntimeError where they fail."""
    with tempfile.TemporaryDirectory(prefix="farebox-criterion-") as folder:
        asked = ["--quick"] if quick else ["--warm-up-time", "0.5", "--measurement-time", f"{seconds:g}"]
        build = ["cargo", "bench", "--locked", "--bench", "meter", "--target-dir", str(_target())]
        _run([*build, "--", "--noplot", *asked], {"CRITERION_HOME": folder}, CRATE)
        found = [_criterion_timing(path.parent) for path in Path(folder).rglob("new/estimates.json")]
    order = (CRATE / "benches" / "meter.rs").read_text(encoding="utf-8")
    return sorted(found, key=lambda timing: order.find(f'"{timing.part.partition("/")[0]}"'))


def _target() -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR", machine.REPOSITORY / "target"))


def _criterion_timing(folder: Path) -> Timing:
    """One benchmark of criterion, from the files it keeps; its times are nanoseconds."""
    named = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
    estimates = json.loads((folder / "estimates.json").read_text(encoding="utf-8"))
    return Timing(
        part=named["full_id"],
        by="criterion",
        median_ns=estimates["median"]["point_estimate"],
        deviation_ns=estimates["std_dev"]["point_estimate"],
        bytes=(named["throughput"] or {}).get("Bytes"),
    )


def room_timings(seconds: float) -> list[Timing]:
    """The Python rooms' parts. Raises RuntimeError where one fails."""
    with tempfile.TemporaryDirectory(prefix="farebox-micro-") as folder:
        file = Path(folder) / "told.json"
        asked = ["--benchmark-max-time", f"{seconds:g}", "--benchmark-min-time", "0.001"]
        asked += ["--benchmark-min-rounds", "3", "--benchmark-timer", "time.process_time"]
        _run([sys.executable, str(PARTS), str(file), *asked], {}, machine.REPOSITORY)
        told = json.loads(file.read_text(encoding="utf-8"))
    return [_room_timing(part) for part in told["benchmarks"]]


def _room_timing(part: dict[str, Any]) -> Timing:
    """One benchmark of pytest-benchmark; its times are seconds."""
    extra, stats = part["extra_info"], part["stats"]
    each = extra.get("each", 1)
    return Timing(
        part=part["name"].removeprefix("test_").replace("_", " ").replace(" ", ": ", 1),
        by="pytest-benchmark",
        median_ns=_NS_PER_S * stats["median"] / each,
        deviation_ns=_NS_PER_S * stats["stddev"] / each,
        bytes=extra.get("bytes"),
    )


def _run(command: list[str], settings: dict[str, str], folder: Path) -> None:
    """A program to its end. A test run's own settings are not for the one begun here."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=folder, env=environment | settings, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{(done.stdout + done.stderr)[-3000:]}")


def table_of(title: str, timings: list[Timing]) -> Table:
    """For page and terminal."""
    rows = []
    for timing in timings:
        speed = f"{timing.bytes / timing.median_ns:.2f} GB/s" if timing.bytes else ""
        rows.append([timing.part, f"{timing.median_ns:,.0f}", f"{timing.deviation_ns:,.0f}", speed])
    return Table(title, ["part", "median ns", "deviation ns", ""], rows)


def versions() -> dict[str, str]:
    """Of both measuring programs and of the compiler, beside the usual ones."""
    lock = (CRATE / "Cargo.lock").read_text(encoding="utf-8")
    criterion = re.search(r'name = "criterion"\nversion = "([^"]+)"', lock)
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=False).stdout
    return {
        **machine.versions(),
        "rustc": rustc.partition(" ")[2].partition(" ")[0],
        "criterion": criterion.group(1) if criterion else "",
        "pytest-benchmark": version("pytest-benchmark"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a short look at each part")
    parser.add_argument("--seconds", type=float, help=f"for each part (default {SECONDS:g})")
    parser.add_argument("--only", choices=("crate", "rooms"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seconds = options.seconds or (QUICK_S if options.quick else SECONDS)
    result = Result("micro", quick=options.quick, machine=machine.facts(), versions=versions())
    result.method = METHOD.splitlines()
    began_s = time.monotonic()
    for half, title, measured in (
        ("crate", "Compiled crate", lambda: crate_timings(seconds, quick=options.quick)),
        ("rooms", "Python rooms", lambda: room_timings(seconds)),
    ):
        if options.only not in {None, half}:
            continue
        try:
            timings = measured()
        except RuntimeError as error:
            result.notes.append(f"{half} failed: {error}")
            print(f"micro: {error}", file=sys.stderr)
            continue
        result.timings += timings
        result.tables.append(table_of(title, timings))
        print(report.as_text(result.tables[-1]), flush=True)
    result.took_s = round(time.monotonic() - began_s, 1)
    path = result.write(options.out or result.default_path())
    print(f"\n{path}\n{report.write_page(result, path.with_suffix('.html'))}")
    return int(bool(result.notes))


if __name__ == "__main__":
    sys.exit(main())
