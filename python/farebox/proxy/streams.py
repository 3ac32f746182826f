"""Running streams: their holds grow with them, and the journal learns how far they are.

A sweep every quarter of a second looks at the streams that got something since the last one, so that neither
a chunk nor a silent stream costs anything here. A stream whose wallet runs dry is cut (or served on, by the
service's policy, up to a cap).
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from farebox.base import frames, limits
from farebox.base.errors import FaultError
from farebox.journal.payloads import progress_payload
from farebox.proxy.user_money import Shortage
from farebox.wire.watch import AT_NEXT_SWEEP, NEVER, Watch, Watched

if TYPE_CHECKING:
    from farebox.proxy.relayed import RelayedAnswer
    from farebox.proxy.worker import Worker

_log = logging.getLogger("farebox.streams")
_SWEEP_INTERVAL_S = 0.25
_BYTES_PER_TOKEN = 3
_MARGIN_TOKENS = 128
_ASK_AGAIN_S = 1.0
_PASSING_REASONS = frozenset(("down", "crowded"))
_SWEEPS_PER_PROGRESS = max(1, round(limits.progress_interval_s / _SWEEP_INTERVAL_S))


class Streams:
    """The streams of one worker."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._running: dict[RelayedAnswer, Watched] = {}
        self._watch = Watch(self._look_at, _SWEEP_INTERVAL_S)
        self._asking: set[RelayedAnswer] = set()
        self._dry: set[RelayedAnswer] = set()
        self._sweeps = 0
        self._records_progress = False

    def __len__(self) -> int:
        return len(self._running)

    def add(self, stream: "RelayedAnswer") -> Watched:
        """A stream began; what is returned must stir with its reads."""
        watched = self._running[stream] = Watched(self._watch)
        self._watch.add(watched, stream)
        return watched

    def discard(self, stream: "RelayedAnswer") -> None:
        """A stream is over."""
        watched = self._running.pop(stream, None)
        if watched is not None:
            watched.end()
        self._dry.discard(stream)

    def longest(self, share: float) -> list["RelayedAnswer"]:
        """The oldest streams that are not being cut: that share of them, and at least one if there is any."""
        running = [stream for stream in self._running if not stream.exchange.cut_reason]
        running.sort(key=lambda stream: stream.exchange.started_ms)
        return running[: max(1, int(share * len(running)))]

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_S)
            self.sweep(self._worker.loop.time())

    def sweep(self, now_s: float) -> None:
        """Look at the streams that have got something since the last look, and at those that lack money."""
        self._sweeps += 1
        self._records_progress = self._sweeps % _SWEEPS_PER_PROGRESS == 0
        self._watch.sweep(now_s)

    def _look_at(self, stream: "RelayedAnswer", now_s: float) -> float:  # noqa: ARG002 - a watch's signature
        """Record how far it is and keep its hold ahead; when to look again."""
        exchange = stream.exchange
        if exchange.settled:
            return NEVER
        output_bytes = stream.output_bytes
        tokens = -(-output_bytes // _BYTES_PER_TOKEN)
        if self._records_progress and output_bytes > stream.progress_bytes:
            stream.progress_bytes = output_bytes
            try:
                self._worker.journal.append(frames.PROGRESS, progress_payload(exchange.id, tokens), None)
            except FaultError as error:
                _log.debug("progress of %s: %s", exchange.id, error)
        if output_bytes != stream.covered_bytes and self._grow(stream, tokens):
            stream.covered_bytes = output_bytes
        is_done = output_bytes == stream.covered_bytes and output_bytes <= stream.progress_bytes
        return NEVER if is_done else AT_NEXT_SWEEP

    def _grow(self, stream: "RelayedAnswer", tokens: int) -> bool:
        """Keep the hold a slice ahead, and say whether it is; with no more money to be had, go on until the
        hold is nearly used.
        """
        lacking_pico = stream.lacks_pico(tokens, limits.stream_slice_output_tokens)
        if lacking_pico <= 0:
            return True
        worker, exchange = self._worker, stream.exchange
        if stream not in self._asking:
            if worker.leases.extend(exchange.key.user, exchange.hold, lacking_pico, worker.wall_ms()):
                self._dry.discard(stream)
                return True
            self._asking.add(stream)
            worker.spawn(self._ask(stream, lacking_pico))
        if stream in self._dry and stream.lacks_pico(tokens, _MARGIN_TOKENS) > exchange.finish_cap_pico:
            stream.cut("insufficient_credits")
        return False

    async def _ask(self, stream: "RelayedAnswer", lacking_pico: int) -> None:
        """Get more money for a stream that runs on meanwhile; note it as dry when there is none.

        While the store cannot be asked a stream is not dry: what exceeds its hold is booked late.
        """
        worker, exchange = self._worker, stream.exchange
        try:
            more = await worker.leases.hold(exchange.key.user, exchange.hold.wallet, lacking_pico)
            if isinstance(more, Shortage):
                if more.reason not in _PASSING_REASONS and stream in self._running:
                    self._dry.add(stream)
                await asyncio.sleep(_ASK_AGAIN_S)
                return
            if exchange.settled:
                worker.leases.void(exchange.key.user, more)
            elif worker.leases.merge(exchange.key.user, exchange.hold, more, worker.wall_ms()):
                self._dry.discard(stream)
        finally:
            self._asking.discard(stream)
