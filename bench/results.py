"""The result of a benchmark run: what every one writes, and what the report and README's table are made of.

One JSON object a run, in `bench/results/` unless told otherwise:

    format      1
    kind        "bench", "compare", "soak", "growth", "profile" or "micro"
    quick       true: a short look, whose figures are not to be published
    started     UTC, ISO 8601
    took_s      wall time of the whole run
    machine     {name: text or number}: processor, cores, memory, kernel (`machine.py`)
    versions    {program: version}: python, farebox, git commit, nginx, wrk, peers
    method      sentences: how it was measured, on which cores, what was switched on
    cells       [Cell]: one subject under one load
    bars        [Bar]: what is promised beside what was measured
    tables      [Table]: anything else with rows, such as the experiments with money
    series      [Series]: samples over time
    timings     [Timing]: what single parts cost
    notes       sentences: what was left out or went wrong

Units stand at the end of names. Latencies are milliseconds, each a `Percentiles` of all exchanges of the
cell; a figure that was not measured is null. A cell or bar that failed says why and keeps its place.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

FORMAT = 1
FOLDER = Path(__file__).resolve().parent / "results"
REFERENCE = FOLDER / "reference.json"
"""The one committed result: the README's table is made of it."""

MET, STRETCH, MISSED, UNMEASURED = "met", "met, stretch too", "not met", "not measured"


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Latencies in milliseconds; no histogram, no interpolation: each is the latency of one exchange."""

    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    count: int

    @classmethod
    def of(cls, values_ms: Iterable[float]) -> Self | None:
        """Those of all values; None of none. The p-th is the smallest that p of all do not exceed."""
        ordered = sorted(values_ms)
        if not ordered:
            return None
        found = [round(ordered[rank(share, len(ordered))], 4) for share in (500, 900, 990, 999)]
        return cls(*found, max=round(ordered[-1], 4), count=len(ordered))


def rank(per_mille: int, count: int) -> int:
    """The index, in order, of the value that `per_mille` of `count` do not exceed."""
    return max(0, -(-per_mille * count // 1000) - 1)


@dataclass(slots=True)
class Cell:
    """One subject under one load, once."""

    subject: str
    """What stood between generator and upstream: direct, nginx, farebox, nginx+farebox, or a peer's name."""
    load: str
    """What was asked, as `workloads.py` names it."""
    concurrency: int
    """Exchanges at once (closed loop); open loop: the most that were open."""
    rate_asked_per_s: float | None = None
    """Arrivals a second of an open loop; null: closed loop."""
    store: str = ""
    """sqlite or mongodb; empty where there is none."""
    seconds: float = 0.0
    exchanges: int = 0
    errors: int = 0
    chunks: int = 0
    """Server-sent events of all streams."""
    per_s: float | None = None
    busy: float | None = None
    """Share of the measured core that the subject used while loaded."""
    cpu_us: float | None = None
    """CPU time an exchange, all processes of the subject, booking included."""
    chunk_cpu_us: float | None = None
    """CPU time a server-sent event, all of the exchange included."""
    rss_bytes: int | None = None
    first_byte_ms: Percentiles | None = None
    """From the intended start (open loop) or the request's first byte (closed loop) to the answer's first."""
    whole_ms: Percentiles | None = None
    """The same to the answer's last byte."""
    late_ms: Percentiles | None = None
    """Open loop: how long after its intended start the generator sent; more than a little: it fell behind."""
    fell_behind: bool = False
    books: str = ""
    """What the money check found; `agree`: verify clean, charges equal the upstream's log to the pico."""
    failed: str = ""
    """Why there are no figures."""


@dataclass(slots=True)
class Bar:
    """One promise: the bound, the further aim, and what this run measured."""

    what: str
    bar: str
    stretch: str = ""
    measured: str = ""
    """For people; with unit."""
    value: float | None = None
    """What is compared with the bar."""
    rounds: list[float] = field(default_factory=list)
    """The values the median was taken of."""
    verdict: str = UNMEASURED
    note: str = ""


@dataclass(slots=True)
class Table:
    """Rows of text under a title."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass(slots=True)
class Series:
    """Samples over time: `at_s` since the load began, one list of values for each line of one chart. With
    another `step` the chart is not over time: `at_s` are so many of it.
    """

    title: str
    unit: str
    at_s: list[float]
    lines: dict[str, list[float]]
    step: str = "s"


@dataclass(slots=True)
class Timing:
    """One part by itself."""

    part: str
    by: str
    """What measured it: criterion (CPU time of its thread) or pytest-benchmark (of its process)."""
    median_ns: float
    """Of one of what the part is about."""
    deviation_ns: float
    """Standard deviation of the repetitions."""
    bytes: int | None = None
    """What one reads, where that is what it is about."""


@dataclass(slots=True)
class Result:
    """Everything one run tells."""

    kind: str
    quick: bool = False
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    took_s: float = 0.0
    machine: dict[str, str | int | float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    method: list[str] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    format: int = FORMAT

    def write(self, path: Path) -> Path:
        """Write it, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        beside.replace(path)
        return path

    def default_path(self) -> Path:
        """A name of its own in the folder of results."""
        moment = self.started.replace(":", "").replace("-", "").partition("+")[0]
        return FOLDER / f"{self.kind}-{moment}.json"


def read(path: Path) -> Result:
    """A result from its file. Raises ValueError where it is not one."""
    members = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(members, dict) or members.get("format") != FORMAT:
        raise ValueError(f"{path} is no benchmark result of format {FORMAT}")
    members["cells"] = [_cell(cell) for cell in members["cells"]]
    for name, kind in (("bars", Bar), ("tables", Table), ("series", Series), ("timings", Timing)):
        members[name] = [kind(**member) for member in members.get(name, [])]
    return Result(**members)


def _cell(members: dict[str, Any]) -> Cell:
    for name in ("first_byte_ms", "whole_ms", "late_ms"):
        if members[name] is not None:
            members[name] = Percentiles(**members[name])
    return Cell(**members)


def find(cells: Sequence[Cell], subject: str, load: str, concurrency: int, store: str = "") -> Cell | None:
    """The cell of a subject under a load, where there is one with figures; `store` counts where given."""
    for cell in cells:
        same = (cell.subject, cell.load, cell.concurrency) == (subject, load, concurrency)
        if same and not cell.failed and (not store or cell.store == store):
            return cell
    return None
