"""What a run must not exceed, and what of it was exceeded: pure, no locust.

A row is one line of locust's table. Own rows (first token, gap, money refused) are measurements beside the
requests: they count in no ratio of requests.
"""

from collections.abc import Iterable
from dataclasses import dataclass

FIRST_TOKEN = "TTFT"
CHUNK_GAP = "GAP"
MONEY_REFUSED = "402"
OWN_KINDS = (FIRST_TOKEN, CHUNK_GAP, MONEY_REFUSED)


@dataclass(frozen=True, slots=True)
class Row:
    """One line: `kind` is POST or one of OWN_KINDS; times in milliseconds, as coarse as locust keeps them."""

    kind: str
    name: str
    count: int
    failures: int
    p50_ms: float
    p95_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """None: not looked at. Percentiles hold for each row by itself, so that no scenario hides another's."""

    failure_ratio_max: float = 0.0
    requests_min: int = 1
    first_token_p95_ms_max: float | None = None
    chunk_gap_p95_ms_max: float | None = None
    response_p95_ms_max: float | None = None


def crossed(rows: Iterable[Row], limits: Thresholds) -> list[str]:
    """What was exceeded, one line each; empty when the run passes."""
    rows = list(rows)
    requests = [row for row in rows if row.kind not in OWN_KINDS]
    count, failures = sum(row.count for row in requests), sum(row.failures for row in requests)
    found = []
    if count < limits.requests_min:
        found.append(f"{count} requests, at least {limits.requests_min} are needed")
    if count and failures / count > limits.failure_ratio_max:
        found.append(
            f"{failures} of {count} requests failed, allowed is a ratio of {limits.failure_ratio_max:g}"
        )
    for title, measured, limit_ms in (
        ("time to first token", _of(rows, FIRST_TOKEN), limits.first_token_p95_ms_max),
        ("gap between chunks", _of(rows, CHUNK_GAP), limits.chunk_gap_p95_ms_max),
        ("response time", requests, limits.response_p95_ms_max),
    ):
        if limit_ms is None:
            continue
        if not measured:
            found.append(f"{title}: nothing was measured, {limit_ms:g} ms cannot be shown")
        found += [
            f"{title} of {row.name}: p95 {row.p95_ms:g} ms, allowed are {limit_ms:g} ms"
            for row in measured
            if row.p95_ms > limit_ms
        ]
    return found


def _of(rows: list[Row], kind: str) -> list[Row]:
    return [row for row in rows if row.kind == kind]
