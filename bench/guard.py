"""`make guard`: what the parts of an exchange cost, counted, beside the committed baseline.

    python bench/guard.py [--write-baseline] [--json FILE]

Counts, not times, so they are the same on a busy machine: instructions inside the compiled meter and inside
the compiled path of an exchange (`compile_hot_path.py`), calls into the meter, allocations, lines of
Farebox's own Python, writes. Instructions of the interpreter are left out: they differ from one build of
CPython to the next. What a part is stands in `guard_parts.py`; it runs twice: with the exchange path from its
sources, so that lines can be counted, then compiled. Where nothing is compiled, the second run is left out.

A figure may exceed its baseline by the tolerance of its kind (`KINDS`) and no more; to need less never fails,
but the table says that the baseline is stale. `make guard-baseline` writes it anew. Exit status 1: something
costs more than the baseline allows.
"""

import argparse
import json
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import callgrind
import machine

HERE = Path(__file__).resolve().parent
BASELINE = HERE / "guard_baseline.json"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of figure: how much more than the baseline is let pass."""

    what: str
    tolerance: float
    """Share of the baseline: what another patch version of rustc or CPython may cost."""
    slack: float = 0.0
    """Beside it: some things happen by time, not by exchange; less than one more each time."""


KINDS = {
    "meter_instructions": Kind("instructions in the meter", 0.10),
    "path_instructions": Kind("instructions in the path", 0.10),
    "meter_entries": Kind("calls into the meter", 0.0, 0.5),
    "meter_allocations": Kind("allocations by the meter", 0.05, 0.5),
    "allocations": Kind("allocations in all", 0.15, 0.5),
    "python_lines": Kind("lines of Farebox's Python", 0.05, 0.5),
    "socket_writes": Kind("writes to the client", 0.0, 0.5),
    "file_writes": Kind("writes to the journal", 0.0, 0.5),
}
INSTRUCTIONS = frozenset(("meter_instructions", "path_instructions"))
Figures = dict[str, dict[str, float]]
"""Part -> kind -> figure, each time the part is done."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The committed figures: those of instructions by instruction set, all others together."""

    instructions: dict[str, Figures]
    """By instruction set."""
    counts: Figures

    @classmethod
    def read(cls, path: Path = BASELINE) -> Self:
        """An absent file is an empty baseline."""
        if not path.exists():
            return cls({}, {})
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def renewed(self, figures: Figures, instructions: str) -> "Baseline":
        """These figures; other instruction sets stay as they are."""
        counted, others = (
            {
                part: {kind: figure for kind, figure in kinds.items() if (kind in INSTRUCTIONS) is wanted}
                for part, kinds in figures.items()
            }
            for wanted in (True, False)
        )
        return Baseline({**self.instructions, instructions: counted}, others)

    def write(self, path: Path = BASELINE) -> None:
        members = {"instructions": self.instructions, "counts": self.counts}
        path.write_text(json.dumps(members, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside its baseline."""

    part: str
    kind: str
    figure: float
    baseline: float | None

    @property
    def exceeds(self) -> bool:
        """More than is let pass, or nothing to compare with."""
        kind = KINDS[self.kind]
        return self.baseline is None or self.figure > self.baseline * (1 + kind.tolerance) + kind.slack

    @property
    def is_stale(self) -> bool:
        """So much less than the baseline that a step back would go unseen."""
        kind = KINDS[self.kind]
        return self.baseline is not None and self.figure < self.baseline * (1 - kind.tolerance) - kind.slack

    def verdict(self) -> str:
        """For the table; empty when there is nothing to say."""
        if self.baseline is None:
            return "NO BASELINE"
        return "EXCEEDS" if self.exceeds else "better, baseline is stale" if self.is_stale else ""

    def __str__(self) -> str:
        baseline = "" if self.baseline is None else f"{self.baseline:,.2f}"
        change = f"{self.figure / self.baseline - 1:+.1%}" if self.baseline else ""
        return (
            f"{self.part:32} {KINDS[self.kind].what:26} {self.figure:>12,.2f} {baseline:>12} {change:>8}"
            f"  {self.verdict()}"
        ).rstrip()


def instruction_set() -> str:
    """What instruction counts depend on: the architecture, and the vector width that byte search chooses."""
    architecture = platform.machine()
    if architecture != "x86_64":
        return architecture
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("flags")[2].partition("\n")[0].split()
    return f"{architecture} with avx2" if "avx2" in flags else architecture


def count(
    environment: dict[str, str], *arguments: str
) -> tuple[dict[str, callgrind.Part], dict[str, dict[str, float]]]:
    """The parts as callgrind saw them, and what their program told. Raises as `measure`."""
    parts, said = callgrind.run([HERE / "guard_parts.py", *arguments], environment)
    return parts, json.loads(said.splitlines()[-1])


def measure() -> Figures:
    """Count everything. Raises callgrind.MissingProgramError, RuntimeError."""
    # The interpreter's allocations are seen where it takes them from libc, lines of Python where they are
    # interpreted: what is compiled ahead of time does the same by fewer instructions.
    parts, told = count({"PYTHONMALLOC": "malloc", "FAREBOX_INTERPRETED": "1"})
    figures = {name: _figures(parts[name], told[name]) for name in told}
    if machine.path_is_compiled():
        parts, told = count({}, "--path")
        for name, one in told.items():
            spent = parts[name].instructions_of(callgrind.EXCHANGE_PATH)
            figures[name]["path_instructions"] = round(spent / one["times"], 2)
    return figures


def _figures(part: callgrind.Part, told: dict[str, float]) -> dict[str, float]:
    times = told["times"]
    figures = {
        "meter_instructions": part.instructions[callgrind.METER] / times,
        "meter_entries": part.entries(callgrind.METER) / times,
        "meter_allocations": part.calls_of(callgrind.ALLOCATING, callgrind.METER) / times,
        "allocations": part.calls_of(callgrind.ALLOCATING) / times,
        "python_lines": told["python_lines"],
        "socket_writes": told.get("socket_writes", 0.0),
        "file_writes": part.calls_of(callgrind.WRITING) / times,
    }
    return {kind: round(figure, 2) for kind, figure in figures.items() if round(figure, 1)}


def rows(figures: Figures, baseline: Baseline, instructions: str) -> list[Row]:
    """Every figure beside its baseline; instructions only where the baseline has this instruction set."""
    found = []
    for part, kinds in figures.items():
        for kind, figure in kinds.items():
            if kind not in INSTRUCTIONS:
                counted = baseline.counts.get(part)
                found.append(Row(part, kind, figure, None if counted is None else counted.get(kind, 0.0)))
            elif instructions in baseline.instructions:
                compared = baseline.instructions[instructions].get(part, {})
                found.append(Row(part, kind, figure, compared.get(kind)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write-baseline", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    try:
        figures = measure()
    except callgrind.MissingProgramError as error:
        print(f"guard: {error}", file=sys.stderr)
        return 1
    baseline, here = Baseline.read(), instruction_set()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    found = rows(figures, baseline, here)
    print(f"{'part':32} {'each time':26} {'now':>12} {'baseline':>12} {'change':>8}")
    for row in found:
        print(row)
    if here not in baseline.instructions:
        print(f"instructions: the baseline has none for {here}")
    if options.write_baseline:
        baseline.renewed(figures, here).write()
        print(f"written: {BASELINE.name}")
        return 0
    if any(row.is_stale for row in found):
        print("The baseline is stale where it says so: `make guard-baseline` writes it anew.")
    exceeding = sum(row.exceeds for row in found)
    if exceeding:
        print(f"{exceeding} figures exceed the baseline. If that is meant: `make guard-baseline`.")
    return int(exceeding > 0)


if __name__ == "__main__":
    sys.exit(main())
