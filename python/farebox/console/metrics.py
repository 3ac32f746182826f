"""/metrics: sums the workers' shared counters and the writer's status at the moment of the scrape.

Nothing on the hot path knows the metrics library: workers add to arrays in shared memory (base/counters.py).
Names and labels are a promise, listed in docs/DASHBOARD.md; label values come from Farebox's own vocabulary
and the configuration, never from clients.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from farebox.base.clock import wall_ms
from farebox.base.counters import (
    ADDED,
    FIRST_BYTE,
    FLUSH,
    HOLD_WAIT,
    JOURNAL_SYNC,
    NAMES,
    REFUSED,
    Histogram,
    charged_pico,
    read_counters,
)
from farebox.console.figures import Figures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Counted:
    """A counter's family; `members`: label value (empty without a label) -> the workers' counter."""

    name: str
    says: str
    label: str
    members: Mapping[str, str]

    def metric(self, totals: Mapping[str, int]) -> Metric:
        family = CounterMetricFamily(self.name, self.says, labels=[self.label] if self.label else [])
        for value, counter in self.members.items():
            family.add_metric([value] if self.label else [], totals[counter])
        return family


def _one(name: str, says: str, counter: str = "") -> _Counted:
    return _Counted(f"farebox_{name}", says, "", {"": counter or f"{name}_total"})


_COUNTED: Final = (
    _one("exchanges", "exchanges settled"),
    _one("exchanges_streamed", "exchanges answered as a stream"),
    _Counted(
        "farebox_refused",
        "requests refused, by reason",
        "reason",
        {refusal.name.lower(): name for refusal, name in REFUSED.items()},
    ),
    _Counted(
        "farebox_settled",
        "settlements by how sure their usage is",
        "evidence",
        {evidence: f"settled_{evidence}_total" for evidence in ("exact", "partial", "estimated")},
    ),
    _one("quarantined", "settlements that were put aside for an operator"),
    _one("voided", "holds that ended without a charge"),
    _one("charged_pico", "charges, in pico-USD"),
    _Counted(
        "farebox_tokens",
        "tokens charged",
        "kind",
        {kind: f"tokens_{kind}_total" for kind in ("input", "cache_read", "cache_write", "output")},
    ),
    _one("upstream_errors", "exchanges that failed at the upstream"),
    _one("sent_elsewhere", "requests sent to another place of their upstream"),
    _one("client_gone", "clients that left before the end of their answer"),
    _one("cut_for_memory", "streams cut because memory ran short"),
    _one("chunks", "chunks relayed"),
    _Counted(
        "farebox_relayed_bytes",
        "body bytes: up to the upstream, down to clients of streams",
        "direction",
        {"up": "bytes_up_total", "down": "bytes_down_total"},
    ),
    _one("journal_bytes", "bytes written to journals"),
    _one("journal_writes", "writes to journals"),
    _one("journal_syncs", "syncs of journals"),
    _one("progress_dropped", "progress records left out for lack of room"),
    _one("lease_grants", "money leased from the store"),
    _one("lease_returns", "leased money given back"),
    _one("lease_fences", "leases read anew after an unknown outcome"),
    _one("lease_waits", "requests that waited for money leased elsewhere"),
)
_TIMED: Final = (
    (FIRST_BYTE, "farebox_first_byte_seconds", "from a request's arrival to its answer's first byte"),
    (ADDED, "farebox_added_latency_seconds", "what Farebox adds: hold to sent, answer to settled; 1 in 16"),
    (HOLD_WAIT, "farebox_hold_wait_seconds", "waits for money that was not leased yet"),
    (JOURNAL_SYNC, "farebox_journal_sync_seconds", "syncs of a journal to disk"),
)


class FareboxCollector(Collector):
    """Reads the counters' files and the writer's status file, and what was last read from the store."""

    def __init__(
        self,
        counters: Callable[[], Iterable[Path]],
        writer_status: Path,
        figures: Figures | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._counters = counters
        self._writer_status = writer_status
        self._figures = figures
        self._now_ms = now_ms

    def collect(self) -> Iterator[Metric]:
        """Workers, then writer, then store."""
        yield from self._worker_metrics()
        yield from self._writer_metrics()
        if self._figures is not None and self._figures.known is not None:
            known = self._figures.known
            yield _gauge("payments_waiting_review", "payments that wait for a decision", known.reviews)
            yield _gauge("settlements_parked", "settlements that wait for an operator", known.parked)
            journals = GaugeMetricFamily("farebox_journals", "journals the store knows", labels=["state"])
            for state, count in known.journals.items():
                journals.add_metric([state], count)
            yield journals

    def _worker_metrics(self) -> Iterator[Metric]:
        totals = dict.fromkeys(NAMES, 0)
        oldest_ms: list[int] = []
        workers = memory_step = 0
        for path in self._counters():
            try:
                values = read_counters(path)
            except OSError:
                continue
            workers += path.stem != "worker-retired"
            oldest_ms += [values["oldest_open_ms"]] if values["oldest_open_ms"] else []
            memory_step = max(memory_step, values["memory_step"])
            for name, value in values.items():
                totals[name] += value
        totals["charged_pico_total"] = charged_pico(totals)
        yield from (counted.metric(totals) for counted in _COUNTED)
        yield CounterMetricFamily(
            "farebox_latency_seconds",
            "from request to settlement, added up",
            value=totals["latency_ms_total"] / 1000,
        )
        for histogram, name, says in _TIMED:
            cells = [totals[cell] for cell in histogram.cell_names()]
            yield _histogram(name, says, histogram, cells, totals[histogram.sum_name])
        yield _gauge("workers", "worker processes", workers)
        yield _gauge("memory_step", "how far load is shed for lack of memory; 0: not at all", memory_step)
        yield _gauge("exchanges_open", "exchanges under way", totals["exchanges_open"])
        yield _gauge("holds_pico", "money held for exchanges under way, in pico-USD", totals["holds_pico"])
        yield _gauge(
            "upstream_connections_open", "connections to upstreams", totals["upstream_connections_open"]
        )
        age_s = max(0, self._now_ms() - min(oldest_ms)) / 1000 if oldest_ms else 0
        yield _gauge("unsettled_age_seconds", "age of the oldest exchange that is not settled", age_s)

    def _writer_metrics(self) -> Iterator[Metric]:
        try:
            status = json.loads(self._writer_status.read_bytes())
            written_s = self._writer_status.stat().st_mtime
        except (OSError, ValueError):
            return
        journals: Sequence[Mapping[str, Any]] = list(status["journals"].values())
        conservation = status["conservation"]
        yield _counter("writer_booked", "exchanges booked", status["booked"])
        yield _counter("writer_parked", "settlements parked at their booking", status["parked"])
        yield _counter("store_errors", "failed attempts to book", status["store_errors"])
        yield _counter("lots_expired", "lots swept after their expiry", status["lots_expired"])
        yield _histogram(
            "farebox_flush_seconds",
            "booking a batch in the store",
            FLUSH,
            status["flush"]["cells"],
            status["flush"]["units"],
        )
        yield _gauge("store_down", "1 while the store does not answer", int(bool(status["store_error"])))
        yield _gauge("journals_damaged", "journals that cannot be read", len(status["damaged"]))
        yield _gauge(
            "journal_lag_seconds",
            "age of the oldest settlement that is not booked",
            max((one["lag_s"] for one in journals), default=0),
        )
        yield _gauge("journal_unbooked", "settlements not booked", sum(one["unbooked"] for one in journals))
        yield _gauge("dead_letters", "records no store takes", sum(one["dead_letters"] for one in journals))
        yield _gauge(
            "conservation_delta_pico",
            "money in question by the last full look at all accounts, in pico-USD; 0 is right",
            conservation["delta_pico"],
        )
        yield _counter("conservation_rounds", "full looks at all accounts", conservation["rounds"])
        yield _gauge(
            "written_off_pico",
            "charges no pool could cover, all users, by the last full look, in pico-USD",
            conservation["written_off_pico"],
        )
        yield _gauge(
            "leased_pico", "money leased, by the last full look, in pico-USD", conservation["leased_pico"]
        )
        yield _gauge(
            "writer_status_age_seconds",
            "since the writer last told how it stands",
            max(0.0, self._now_ms() / 1000 - written_s),
        )


def _gauge(name: str, says: str, value: float) -> Metric:
    return GaugeMetricFamily(f"farebox_{name}", says, value=value)


def _counter(name: str, says: str, value: float) -> Metric:
    return CounterMetricFamily(f"farebox_{name}", says, value=value)


def _histogram(name: str, says: str, histogram: Histogram, cells: Sequence[int], units: int) -> Metric:
    family = HistogramMetricFamily(name, says)
    buckets: list[tuple[str, float]] = []
    seen = 0
    bounds = [*map(str, histogram.upper_bounds_s()), "+Inf"]
    for bound, cell in zip(bounds, cells, strict=True):
        seen += cell
        buckets.append((bound, seen))
    family.add_metric([], buckets, units / histogram.units_per_s)
    return family
