"""The bars: what Farebox promises to reach, and the judgement of what a run measured. Pure.

Each value is the median of its rounds. A bar is met or not met; one that could not be measured says so.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from results import MET, MISSED, STRETCH, UNMEASURED, Bar


@dataclass(frozen=True, slots=True)
class Promise:
    """One bound. `at_least`: more is better; otherwise less is."""

    what: str
    bound: float
    further: float | None = None
    """The stretch."""
    at_least: bool = False
    unit: str = ""
    digits: int = 2

    def says(self, value: float | None) -> str:
        """A value with its unit."""
        return "" if value is None else f"{value:,.{self.digits}f} {self.unit}".rstrip()

    def bounded(self, value: float | None) -> str:
        """A bound for people."""
        return "" if value is None else f"{'≥' if self.at_least else '≤'} {self.says(value)}"

    def holds(self, value: float, bound: float | None) -> bool:
        """Whether a value keeps a bound; no bound, no keeping."""
        if bound is None:
            return False
        return value >= bound if self.at_least else value <= bound


PROMISES = {
    "plain one core": Promise(
        "plain exchanges, all Farebox processes on one core, to nginx's on it", 0.4, 0.55, at_least=True
    ),
    "plain worker": Promise(
        "plain exchanges, worker alone on one core, to nginx's on it", 0.5, 0.65, at_least=True
    ),
    "chunk": Promise("CPU of a streamed chunk, to nginx's", 1.3, 1.0),
    "crossings": Promise("calls into the compiled meter a streamed chunk", 1),
    "writes": Promise("writing system calls a streamed chunk", 1),
    "plain p50": Promise("time to first byte added at 50 % load, plain, p50", 0.3, 0.15, unit="ms"),
    "plain p99": Promise("time to first byte added at 50 % load, plain, p99", 1.5, 0.75, unit="ms"),
    "plain p99.9": Promise("time to first byte added at 50 % load, plain, p99.9", 5, 2.5, unit="ms"),
    "streamed p50": Promise("time to first byte added at 50 % load, streamed, p50", 0.3, 0.15, unit="ms"),
    "streamed p99": Promise("time to first byte added at 50 % load, streamed, p99", 1.5, 0.75, unit="ms"),
    "streamed p99.9": Promise("time to first byte added at 50 % load, streamed, p99.9", 5, 2.5, unit="ms"),
    "idle memory": Promise("10,000 idle streams on one worker, its memory", 400, 200, unit="MB", digits=0),
    "idle cpu": Promise("10,000 idle streams, CPU added to an idle Farebox", 1, unit="% of a core"),
    "workers": Promise("from 1 to 2 workers, exchanges a CPU second", 1.8, at_least=True, unit="x"),
    "scan": Promise("scan of a 5 MB prompt", 2, at_least=True, unit="GB/s"),
    "loop": Promise("longest block of the event loop by a 5 MB prompt", 2, unit="ms"),
    "usage": Promise("usage read from a 2 MB response.completed line", 1, at_least=True, unit="GB/s"),
    "usage linear": Promise("the same, time a byte of 4 MB to that of 0.5 MB", 1.25, unit="x"),
    "writer": Promise(
        "writer into SQLite on one core, settled exchanges a second to the worker's own peak",
        1,
        3,
        at_least=True,
        unit="x",
    ),
    "journal plain": Promise("journal bytes of a plain exchange", 500, 300, digits=0),
    "journal streamed": Promise("journal bytes of a streamed exchange", 500, 300, digits=0),
    "recovery": Promise("recovery after kill -9, 1,000,000 settled records in the journal", 10, unit="s"),
    "start": Promise("start to first request served", 0.7, unit="s"),
}


def judge(name: str, rounds: Sequence[float], note: str = "") -> Bar:
    """The bar of a promise; without rounds it stays unmeasured, and `note` says why."""
    promise = PROMISES[name]
    bar = Bar(promise.what, promise.bounded(promise.bound), promise.bounded(promise.further), note=note)
    if not rounds:
        bar.verdict = UNMEASURED
        return bar
    bar.value = round(statistics.median(rounds), 6)
    bar.rounds = [round(value, 6) for value in rounds]
    bar.measured = promise.says(bar.value)
    if promise.holds(bar.value, promise.further):
        bar.verdict = STRETCH
    else:
        bar.verdict = MET if promise.holds(bar.value, promise.bound) else MISSED
    return bar


def table(bars: Sequence[Bar]) -> str:
    """All bars for people."""
    rows = [("what", "bar", "stretch", "measured", "")]
    rows += [(bar.what, bar.bar, bar.stretch, bar.measured or "-", bar.verdict) for bar in bars]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
