"""What Farebox adds to the time to the first byte, at half the load one core carries: an open loop.

The same arrival rate goes directly to the upstream, through nginx and through Farebox, in turns; what is
added is the difference of like percentiles to the direct way of the same round.
"""

from collections.abc import Sequence

import cells
import rig
from cells import BOTH, DIRECT, FAREBOX
from matrix import line, staged
from results import Cell, Percentiles
from workloads import PLAIN_SMALL, Workload

STREAM = Workload(
    "stream 100 x 500/s", rig.STREAM_BODY.encode(), "streamed answer of 100 chunks, 2 ms apart", events=100
)
CONNECTIONS_MAX = 1024
FIGURES = {"p50": "p50", "p99": "p99", "p99.9": "p999"}

Added = dict[str, list[float]]
"""Milliseconds added by Farebox, one a round, by the name of a bar."""


def measure(
    the_rig: rig.Rig, plain_per_s: float, streams_per_s: float, rounds: int, seconds: float
) -> tuple[list[Cell], Added]:
    """All cells, and what Farebox added; the rates are half of what one core carries."""
    found: list[Cell] = []
    with staged(the_rig, "latency") as stage:
        for workload in (PLAIN_SMALL, STREAM):
            for subject in stage.subjects:
                cells.warm_up(the_rig, subject, workload)
        for _ in range(rounds):
            for workload, rate_per_s in ((PLAIN_SMALL, plain_per_s), (STREAM, streams_per_s)):
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
    return found, added(found)


def added(found: Sequence[Cell]) -> Added:
    """Farebox's percentiles less those of the direct way, round by round; failed cells give none."""
    result: Added = {}
    for workload, prefix in ((PLAIN_SMALL, "plain"), (STREAM, "streamed")):
        direct, farebox = (_first_bytes(found, subject, workload.name) for subject in (DIRECT, FAREBOX))
        for name, figure in FIGURES.items():
            result[f"{prefix} {name}"] = [
                getattr(there, figure) - getattr(here, figure)
                for here, there in zip(direct, farebox, strict=False)
                if here is not None and there is not None
            ]
    return result


def _first_bytes(found: Sequence[Cell], subject: str, load: str) -> list[Percentiles | None]:
    return [
        None if cell.failed else cell.first_byte_ms
        for cell in found
        if (cell.subject, cell.load) == (subject, load) and cell.rate_asked_per_s
    ]
