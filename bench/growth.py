"""`make bench-growth`: what an exchange costs as users, open streams, models and log rows grow.

    python bench/growth.py [--quick] [--only KIND]... [--sizes KIND=N,N,...]... [--keep FOLDER] [--out FILE]
    python bench/growth.py --reference FILE...

Each step is a process of its own (`growth_parts.py`): once plainly, for CPU time and memory, and once under
callgrind, for instructions, which noise does not touch (left out where valgrind is missing). A cost that ends
above `FLAT` times its first is said to grow; docs/BENCH.md explains those. `--keep` leaves the stores that
were filled in a folder and uses them again: ten million log rows are 8 GB and minutes of work. The result is
a JSON file (`results.py`) and a page with charts beside it. `--reference` measures nothing: it puts such
results into the committed one, which keeps the kinds they do not have, and its tables into docs/BENCH.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import callgrind
import charts
import machine
import report
import results
from markdown import between_markers, table_lines
from results import Result, Series, Table

REFERENCE = results.FOLDER / "growth.json"
DOCUMENT = machine.REPOSITORY / "docs" / "BENCH.md"
BEGIN, END = "<!-- bench-growth: begin -->", "<!-- bench-growth: end -->"
PARTS = Path(__file__).resolve().parent / "growth_parts.py"
SIZES = {
    "keys": (10, 1_000, 100_000, 1_000_000),
    "streams": (1, 10, 100, 1_000, 10_000),
    "models": (10, 100, 1_000, 5_000),
    "rows": (1_000, 10_000, 100_000, 1_000_000, 10_000_000),
}
QUICK = {"keys": (10, 1_000), "streams": (1, 100), "models": (10, 500), "rows": (1_000, 10_000)}
TITLES = {"keys": "users, one key each", "streams": "open streams", "models": "models", "rows": "log rows"}
FILLED = frozenset(("keys", "rows"))
"""Kinds whose store is filled first."""
UNITS = {"cpu_us": "CPU µs", "instructions": "instructions", "bytes": "bytes"}
FLAT = 1.25
_STEP_S_MAX = 3600
METHOD = """\
A whole worker in one process with a real journal, leases, price book and SQLite store; connections have \
transports that do nothing, so kernel and network are left out.
CPU is user plus system time of the process, all threads; the least of seven repetitions where the work can \
be repeated (a first request and a booking cannot).
Instructions are those of the process in user space, all threads, under callgrind.
Keys: 64 of all users are busy; first requests are of others, each a look-up of the key and a lease. \
Bookings are 1,600 in one batch, of ten of all users or each of a user taken by chance.
Memory is resident memory before and after, so small sizes show little but allocation in steps."""


@dataclass(slots=True)
class Growth:
    """One kind's measurements: (line, unit) -> a figure for each size."""

    kind: str
    sizes: tuple[int, ...]
    figures: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, line: str, unit: str, figure: float) -> None:
        self.figures.setdefault((line, unit), []).append(figure)


def step(kind: str, size: int, folder: Path, *, instructions: bool) -> dict[str, dict[str, float]]:
    """Line -> unit -> figure, each. Raises RuntimeError where the step fails."""
    command = [str(PARTS), kind, str(size)]
    if kind in FILLED:
        command += ["--store", str(_filled(command, folder / f"{kind}-{size}.sqlite"))]
    told = json.loads(_said_by(command).splitlines()[-1])
    if instructions:
        parts, said = callgrind.run(command, {}, _STEP_S_MAX)
        each = {line: figures["each"] for line, figures in json.loads(said.splitlines()[-1]).items()}
        for line, part in parts.items():
            told[line]["instructions"] = sum(part.instructions.values()) / each[line]
    return {
        line: {unit: figures[unit] for unit in UNITS if unit in figures} for line, figures in told.items()
    }


def _filled(command: list[str], store: Path) -> Path:
    """The store of a step, made unless it is there already; what was cut off half-way is made anew."""
    if not store.exists():
        unfinished = store.with_suffix(".unfinished")
        for old in store.parent.glob(f"{unfinished.name}*"):
            old.unlink()
        _said_by([*command, "--fill", str(unfinished)])
        unfinished.rename(store)
    return store


def _said_by(command: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, timeout=_STEP_S_MAX
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def measure(kind: str, sizes: tuple[int, ...], keep: Path | None, *, instructions: bool) -> Growth:
    """All sizes of one kind."""
    growth = Growth(kind, sizes)
    for size in sizes:
        began_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="farebox-growth-") as folder:
            found = step(kind, size, keep or Path(folder), instructions=instructions)
        for line, figures in found.items():
            for unit, figure in figures.items():
                growth.add(line, unit, figure)
        print(f"{size:>12,} {TITLES[kind]}: {time.monotonic() - began_s:.0f} s", flush=True)
    return growth


def charts_of(growth: Growth) -> list[Series]:
    """A chart for each unit, with all lines that are measured in it."""
    found = []
    for unit, name in UNITS.items():
        lines = {line: values for (line, of), values in growth.figures.items() if of == unit}
        if lines:
            title = f"{TITLES[growth.kind]}: {name} each"
            sizes = [float(size) for size in growth.sizes]
            found.append(Series(title, name, sizes, lines, step=TITLES[growth.kind].partition(",")[0]))
    return found


def table_of(growth: Growth, note: str = "") -> Table:
    """Every figure, and whether it grows."""
    rows = []
    for (line, unit), values in growth.figures.items():
        factor = values[-1] / values[0] if values[0] > 0 else 0.0
        verdict = "" if unit == "bytes" else "flat" if factor <= FLAT else f"grows: {factor:.1f} x"
        rows.append([line, UNITS[unit], *(charts.number_text(value) for value in values), verdict])
    head = ["", "each", *(f"{size:,}" for size in growth.sizes), ""]
    return Table(f"Growth: {TITLES[growth.kind]}", head, rows, note)


def sizes_of(words: list[str]) -> dict[str, tuple[int, ...]]:
    """What `--sizes` says."""
    found = {}
    for word in words:
        kind, _, numbers = word.partition("=")
        if kind not in SIZES or not numbers:
            raise SystemExit(f"growth: --sizes wants KIND=N,N,... with one of {', '.join(SIZES)}, not {word}")
        found[kind] = tuple(int(number) for number in numbers.split(","))
    return found


def taken(result: Result) -> str:
    """When, on what and beside what else a kind was measured: kinds of one result may be of several runs."""
    busy = f"load {result.machine['load_before']} before it on {result.machine['cores']} cores"
    return f"{result.started[:10]}, commit {result.versions['commit']}, {busy}."


def merged(old: Result, new: Result) -> Result:
    """The new result with the kinds that only the old one has, in the order of `SIZES`."""
    for kind in SIZES:
        table, drawn = f"Growth: {TITLES[kind]}", f"{TITLES[kind]}: "
        if not any(one.title == table for one in new.tables):
            new.tables += [one for one in old.tables if one.title == table]
            new.series += [one for one in old.series if one.title.startswith(drawn)]
    order = [f"Growth: {TITLES[kind]}" for kind in SIZES]
    new.tables.sort(key=lambda one: order.index(one.title))
    return new


def markdown(result: Result) -> str:
    """The tables for docs/BENCH.md."""
    lines: list[str] = []
    for table in result.tables:
        title = table.title.removeprefix("Growth: ")
        lines += [f"**{title[0].upper()}{title[1:]}**", "", *table_lines(table.head, table.rows)]
        lines += ["", table.note, ""]
    return "\n".join(lines[:-1])


def publish(files: list[Path]) -> int:
    """Make these results the committed one."""
    result = results.read(REFERENCE) if REFERENCE.exists() else None
    for file in files:
        new = results.read(file)
        if new.kind != "growth" or new.quick:
            sys.exit(f"growth: {file} is no whole result of growth")
        result = merged(result, new) if result is not None else new
    if result is None:
        sys.exit("growth: --reference wants result files")
    result.write(REFERENCE)
    page = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(between_markers(page, BEGIN, END, markdown(result)), encoding="utf-8")
    print(f"{REFERENCE}, tables of {DOCUMENT}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two small sizes of each")
    parser.add_argument("--only", action="append", choices=SIZES, help="one kind; may be repeated")
    parser.add_argument("--sizes", action="append", default=[], help="KIND=N,N,...")
    parser.add_argument("--keep", type=Path, help="folder of stores to leave there and use again")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--reference", type=Path, nargs="+", metavar="FILE", help="results to commit")
    options = parser.parse_args()
    if options.reference:
        return publish(options.reference)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    sizes = {**(QUICK if options.quick else SIZES), **sizes_of(options.sizes)}
    result = Result("growth", quick=options.quick, machine=machine.facts(), versions=machine.versions())
    result.method = METHOD.splitlines()
    instructions = callgrind.missing() is None
    if not instructions:
        result.notes.append(f"no instructions: {callgrind.missing()}")
    began_s = time.monotonic()
    failed = False
    for kind in options.only or sizes:
        try:
            growth = measure(kind, sizes[kind], options.keep, instructions=instructions)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            failed = True
            result.notes.append(f"{kind} failed: {error}")
            print(f"growth: {error}", file=sys.stderr)
            continue
        result.series += charts_of(growth)
        result.tables.append(table_of(growth, taken(result)))
        print(report.as_text(result.tables[-1]))
    result.took_s = round(time.monotonic() - began_s, 1)
    path = result.write(options.out or result.default_path())
    print(f"\n{path}\n{report.write_page(result, path.with_suffix('.html'))}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
