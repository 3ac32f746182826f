"""What Farebox adds to the time to the first byte, at half the load one core carries: an open loop.

The same arrival rate goes directly to the upstream, through nginx and through Farebox, in turns; what is
added is the difference of like percentiles to the direct way of the same round.
"""

from collections.abc import Sequence

import cells
import rig
from cells import BOTH, DIRECT, FAREBOX, Subject
from matrix import line, staged
from results import Cell, Percentiles
from workloads import PLAIN_SMALL, Workload

STREAM = Workload(
    "stream 100 x 500/s", rig.STREAM_BODY.encode(), "streamed answer of 100 chunks, 2 ms apart", events=100
)
CONNECTIONS_MAX = 1024
HALF = 0.5
LOOKS, LOOK_S = 2, 1.0
FIGURES = {"p50": "p50", "p99": "p99", "p99.9": "p999"}

Added = dict[str, list[float]]
"""Milliseconds added by Farebox, one a round, by the name of a bar."""


def measure(
    the_rig: rig.Rig, plain_per_s: float, streams_per_s: float, rounds: int, seconds: float
) -> list[Cell]:
    """All cells; `added` reads them. The rates are half of what a closed loop gets from the one core."""
    found: list[Cell] = []
    with staged(the_rig, "latency") as stage:
        for workload in (PLAIN_SMALL, STREAM):
            for subject in stage.subjects:
                cells.warm_up(the_rig, subject, workload)
        farebox = next(subject for subject in stage.subjects if subject.name == FAREBOX)
        rates = [
            (PLAIN_SMALL, half_load(the_rig, farebox, PLAIN_SMALL, plain_per_s)),
            (STREAM, half_load(the_rig, farebox, STREAM, streams_per_s)),
        ]
        for _ in range(rounds):
            for workload, rate_per_s in rates:
                for subject in stage.subjects:
                    if subject.name == BOTH:
                        continue
                    cell = cells.measure(
                        the_rig,
                        subject,
                        workload,
                        seconds=seconds,
                        concurrency=CONNECTIONS_MAX,
                        rate_per_s=round(rate_per_s),
                        store="sqlite",
                    )
                    found.append(cell)
                    print(line(cell), flush=True)
    return found


def half_load(the_rig: rig.Rig, farebox: Subject, workload: Workload, most_per_s: float) -> float:
    """The arrival rate at which Farebox keeps its core half busy, at most `most_per_s`.

    An exchange costs more where fewer are handled at once, so half of the rate that a closed loop reaches may
    be too much; two looks at a lower rate find it.
    """
    rate_per_s = most_per_s / 2
    for _ in range(LOOKS):
        seen = cells.measure(
            the_rig,
            farebox,
            workload,
            seconds=LOOK_S,
            concurrency=CONNECTIONS_MAX,
            rate_per_s=round(rate_per_s),
        )
        if seen.failed or not seen.busy:
            rig.stop_with(f"no rate for half load: {seen.failed}")
        rate_per_s = min(rate_per_s * HALF / seen.busy, most_per_s)
    return rate_per_s


def added(found: Sequence[Cell], subject: str = FAREBOX) -> Added:
    """A subject's percentiles less those of the direct way, round by round; failed cells give none."""
    result: Added = {}
    for workload, prefix in ((PLAIN_SMALL, "plain"), (STREAM, "streamed")):
        direct, passed = (_first_bytes(found, name, workload.name) for name in (DIRECT, subject))
        for name, figure in FIGURES.items():
            result[f"{prefix} {name}"] = [
                getattr(there, figure) - getattr(here, figure)
                for here, there in zip(direct, passed, strict=False)
                if here is not None and there is not None
            ]
    return result


def _first_bytes(found: Sequence[Cell], subject: str, load: str) -> list[Percentiles | None]:
    return [
        None if cell.failed else cell.first_byte_ms
        for cell in found
        if (cell.subject, cell.load) == (subject, load) and cell.rate_asked_per_s
    ]
