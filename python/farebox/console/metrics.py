"""/metrics: sums the workers' shared counters and the writer's status at the moment of the scrape.

Nothing on the hot path knows the metrics library: workers add to arrays in shared memory (base/counters.py).
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from farebox.base.counters import NAMES, read_counters

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_GAUGES = frozenset(("exchanges_open", "upstream_connections_open", "memory_step"))


class FareboxCollector(Collector):
    """Reads the counters' files and the writer's status file."""

    def __init__(self, counters: Callable[[], Iterable[Path]], writer_status: Path) -> None:
        self._counters = counters
        self._writer_status = writer_status

    def collect(self) -> Iterator[Metric]:
        """One family per counter, summed over the workers, and the writer's gauges."""
        totals = dict.fromkeys(NAMES, 0)
        for path in self._counters():
            try:
                for name, value in read_counters(path).items():
                    totals[name] += value
            except OSError:
                continue
        for name, value in totals.items():
            if name in _GAUGES:
                yield GaugeMetricFamily(f"farebox_{name}", name.replace("_", " "), value=value)
            else:
                base = name.removesuffix("_total")
                yield CounterMetricFamily(f"farebox_{base}", base.replace("_", " "), value=value)
        yield from self._writer_metrics()

    def _writer_metrics(self) -> Iterator[Metric]:
        try:
            status = json.loads(self._writer_status.read_bytes())
        except (OSError, ValueError):
            return
        yield CounterMetricFamily("farebox_writer_booked", "exchanges booked", value=status["booked"])
        yield GaugeMetricFamily(
            "farebox_writer_parked", "settlements that wait for an operator", value=status["parked"]
        )
        yield GaugeMetricFamily(
            "farebox_writer_store_down",
            "1 while the store does not answer",
            value=int(bool(status["store_error"])),
        )
        yield GaugeMetricFamily(
            "farebox_journals_damaged", "journals that cannot be read", value=len(status["damaged"])
        )
        yield GaugeMetricFamily(
            "farebox_conservation_delta_pico",
            "money in question by the last full look at all accounts, in pico-USD; 0 is right",
            value=status["conservation"]["delta_pico"],
        )
