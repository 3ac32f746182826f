"""How a worker stands, told once a second to whoever reads its counters, and what it serves just now.

What only rises is counted where it happens; what is a state (holds, the oldest open exchange, connections) is
looked up here, so that the hot path keeps no account of it.
"""

import asyncio
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

from farebox.base import limits
from farebox.base.counters import INDEX

if TYPE_CHECKING:
    from farebox.proxy.exchange import Exchange
    from farebox.proxy.worker import Worker

_INTERVAL_S: Final = 1.0


async def keep_gauges(worker: "Worker") -> None:
    """Write gauges and the journal's own counters until cancelled."""
    while True:
        write_gauges(worker)
        await asyncio.sleep(_INTERVAL_S)


def write_gauges(worker: "Worker") -> None:
    """Take the state over into the counters. Exchanges are in the order in which they were opened."""
    values, exchanges = worker.counters, worker.exchanges
    values[INDEX["oldest_open_ms"]] = next((one.started_ms for one in exchanges.values()), 0)
    values[INDEX["holds_pico"]] = worker.held_pico()
    values[INDEX["upstream_connections_open"]] = worker.upstream_connections()
    for name, count in worker.journal.statistics().items():
        values[INDEX[name]] = count


def live(worker: "Worker") -> list[Mapping[str, object]]:
    """The exchanges that run, oldest first, up to a bound; nothing of their content."""
    return [_shown(one) for one in islice(worker.exchanges.values(), limits.live_exchanges_max)]


def _shown(exchange: "Exchange") -> Mapping[str, object]:
    relayed = exchange.relayed
    return {
        "exchange": exchange.id,
        "user": exchange.key.user,
        "model": exchange.offer.model_id,
        "upstream": exchange.offer.upstream,
        "wallet": exchange.hold.wallet,
        "route": exchange.route.name,
        "stream": exchange.stream,
        "started_ms": exchange.started_ms,
        "first_byte_ms": exchange.first_byte_ms or None,
        "held_pico": exchange.hold.amount_pico,
        "output_bytes": relayed.output_bytes if relayed is not None else 0,
        "client_gone": exchange.gone_handled,
    }
