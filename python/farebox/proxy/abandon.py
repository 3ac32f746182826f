"""Exchanges whose client has gone: the upstream is read on for a bounded time, to learn the exact usage.

At most `drains_after_client_gone_max` at once and `drain_after_client_gone_s` each (C04, C10); past that the
upstream is cut and the exchange settled by what is known.
"""

import asyncio
from typing import TYPE_CHECKING

from farebox.base import limits

if TYPE_CHECKING:
    from farebox.proxy.exchange import Exchange


class Drains:
    """The exchanges being drained."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        count_max: int = limits.drains_after_client_gone_max,
        drain_s: float = limits.drain_after_client_gone_s,
    ) -> None:
        self._loop = loop
        self._count_max = count_max
        self._drain_s = drain_s
        self._running: dict[Exchange, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, exchange: "Exchange") -> bool:
        """Give the exchange its time; False when there are too many already."""
        if len(self._running) >= self._count_max:
            return False
        self._running[exchange] = self._loop.call_later(self._drain_s, self._time_out, exchange)
        return True

    def ended(self, exchange: "Exchange") -> None:
        """The exchange settled, drained or not."""
        timer = self._running.pop(exchange, None)
        if timer is not None:
            timer.cancel()

    def _time_out(self, exchange: "Exchange") -> None:
        self._running.pop(exchange, None)
        exchange.stop_draining()
