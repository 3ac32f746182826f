"""Running streams: their holds grow with them, and the journal learns how far they are.

One sweep a quarter of a second looks at every stream, so that a chunk costs nothing here. A stream whose wallet runs
dry is cut (or served on, by the service's policy, up to a cap).
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from farebox.base import frames, limits
from farebox.base.errors import FaultError
from farebox.journal.payloads import progress_payload
from farebox.proxy.user_money import Shortage

if TYPE_CHECKING:
    from farebox.proxy.exchange import Exchange
    from farebox.proxy.worker import Worker

_log = logging.getLogger("farebox.streams")
_SWEEP_INTERVAL_S = 0.25
_BYTES_PER_TOKEN = 3
_SWEEPS_PER_PROGRESS = max(1, round(limits.progress_interval_s / _SWEEP_INTERVAL_S))


class Streams:
    """The streams of one worker."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._running: set[Exchange] = set()
        self._asking: set[Exchange] = set()
        self._sweeps = 0

    def __len__(self) -> int:
        return len(self._running)

    def add(self, exchange: "Exchange") -> None:
        """A stream began."""
        self._running.add(exchange)

    def discard(self, exchange: "Exchange") -> None:
        """A stream is over."""
        self._running.discard(exchange)

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_S)
            self._sweeps += 1
            for exchange in tuple(self._running):
                self._look_at(exchange, record=self._sweeps % _SWEEPS_PER_PROGRESS == 0)

    def _look_at(self, exchange: "Exchange", *, record: bool) -> None:
        tap = exchange.tap
        if tap is None or exchange.settled:
            return
        output_bytes = tap.output_bytes
        if record and output_bytes > exchange.progress_bytes:
            exchange.progress_bytes = output_bytes
            try:
                tokens = -(-output_bytes // _BYTES_PER_TOKEN)
                self._worker.journal.append(frames.PROGRESS, progress_payload(exchange.id, tokens), None)
            except FaultError as error:
                _log.debug("progress of %s: %s", exchange.id, error)
        lacking_pico = exchange.grow(-(-output_bytes // _BYTES_PER_TOKEN))
        if lacking_pico <= 0 or exchange in self._asking:
            return
        worker = self._worker
        if not worker.leases.extend(exchange.key.user, exchange.hold, lacking_pico, worker.wall_ms()):
            self._asking.add(exchange)
            worker.spawn(self._ask(exchange, lacking_pico))

    async def _ask(self, exchange: "Exchange", lacking_pico: int) -> None:
        """Get more money for a stream that runs on meanwhile; cut it if there is none."""
        worker = self._worker
        try:
            more = await worker.leases.hold(exchange.key.user, exchange.hold.wallet, lacking_pico)
            if not isinstance(more, Shortage):
                worker.leases.void(exchange.key.user, more)
                if not exchange.settled:
                    worker.leases.extend(exchange.key.user, exchange.hold, lacking_pico, worker.wall_ms())
            elif more.reason == "short" and not exchange.settled and not worker.serves_on(lacking_pico):
                exchange.cut("insufficient_credits")
        finally:
            self._asking.discard(exchange)
