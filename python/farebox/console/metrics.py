"""/metrics: sums the workers' shared counters and the writer's status at the moment of the scrape.

Nothing on the hot path knows the metrics library: workers add to arrays in shared memory (base/counters.py).
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from farebox.base.counters import NAMES, read_counters

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_GAUGES = frozenset(("exchanges_open", "upstream_connections_open"))


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


async def start_console(
    host: str, port: int, counters: Callable[[], Iterable[Path]], writer_status: Path
) -> Callable[[], Awaitable[None]]:
    """Serve /metrics and /healthz; returns what closes it. Raises OSError when the port is taken."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FareboxCollector(counters, writer_status))

    async def metrics(request: web.Request) -> web.Response:
        del request
        return web.Response(body=generate_latest(registry), headers={"Content-Type": _CONTENT_TYPE})

    async def healthz(request: web.Request) -> web.Response:
        del request
        return web.json_response({"status": "ok"})

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    application.router.add_get("/healthz", healthz)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner.cleanup
