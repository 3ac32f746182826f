"""An answer that is passed on as it comes: a stream, or a plain body too large to be held back.

Its end is held back by the tap until the settlement is recorded. A stream's hold grows with it (streams.py);
one whose wallet runs dry is cut after a whole event and ended validly; one for which memory is short is
cut so with an error.
"""

from typing import TYPE_CHECKING

from farebox.base.counters import INDEX
from farebox.base.errors import Refusal, Refused
from farebox.meter import BROKEN, END, Pipe
from farebox.proxy.admission import hold_needed_pico
from farebox.proxy.refusals import BROKEN_OFF
from farebox.wire.errors import cut_event, error_event
from farebox.wire.relay import Relay
from farebox.wire.upstream import Connection

if TYPE_CHECKING:
    from farebox.meter import Head
    from farebox.proxy.exchange import Exchange

_STREAMED = INDEX["exchanges_streamed_total"]
_UPSTREAM_ERRORS = INDEX["upstream_errors_total"]
_CHUNKS = INDEX["chunks_total"]
_BYTES_DOWN = INDEX["bytes_down_total"]

OVERLOADED = "overloaded"
"""Why a stream is cut when memory runs short: its client is told of an error, not of a limit."""


class RelayedAnswer:
    """The answer of one exchange on its way through; owned by the exchange."""

    __slots__ = (
        "_connection",
        "_is_over",
        "_speaks_events",
        "_tap",
        "covered_bytes",
        "exchange",
        "progress_bytes",
        "relay",
    )

    relay: Relay

    def __init__(self, exchange: "Exchange", connection: Connection, tap: Pipe) -> None:
        self.exchange = exchange
        self.progress_bytes = 0
        """Output recorded in the journal so far."""
        self.covered_bytes = -1
        """Output at the last look that found the hold large enough; it is until more comes."""
        self._connection = connection
        self._tap = tap
        self._is_over = False
        self._speaks_events = False
        """An event of our own may stand among the answer's: a plain or encoded body has no place for one."""

    @property
    def output_bytes(self) -> int:
        """Generated text seen so far."""
        return self._tap.output_bytes

    # -- beginning -------------------------------------------------------------------------------------------
    def begin_stream(self, head: "Head", rest: bytes, *, framed: bool, encoded: bool) -> None:
        """Start a stream of events; `rest` came with its head."""
        self._speaks_events = not encoded
        exchange = self.exchange
        exchange.worker.counters[_STREAMED] += 1
        if not exchange.client.gone:
            exchange.client.start_stream(head.status, exchange.head_lines)
        self.relay = self._new_relay(framed=framed)
        self.relay.watched = exchange.worker.streams.add(self)
        self.relay.begin(head, rest)

    def begin_large(self, head: "Head", collected: bytes) -> None:
        """Pass on a plain body of which `collected` has been held back."""
        client = self.exchange.client
        if not client.gone:
            length = head.framing if head.framing >= 0 else None
            client.start_stream(head.status, self.exchange.head_lines, length)
        self.relay = self._new_relay(framed=head.framing >= 0)
        self._connection.hand_over(self.relay)
        self.relay.send(collected)

    def _new_relay(self, *, framed: bool) -> Relay:
        exchange = self.exchange
        return Relay(
            exchange.client,
            self._connection,
            self._tap,
            self._hold_point,
            exchange.client_gone,
            framed=framed,
        )

    # -- the end ---------------------------------------------------------------------------------------------
    def _hold_point(self, held: bytes, state: int) -> None:
        """The tap holds bytes back until the settlement is recorded."""
        exchange = self.exchange
        if state & BROKEN:
            exchange.fault = self.relay.error
            exchange.ended_by_upstream = True
            if not exchange.settled:
                exchange.worker.counters[_UPSTREAM_ERRORS] += 1
        exchange.settle(lambda: self._release_held(held, state))

    def _release_held(self, held: bytes, state: int) -> None:
        relay = self.relay
        relay.send_held(held)
        if state & BROKEN:
            verdict = self.exchange.verdict
            refused = Refused(Refusal.UPSTREAM_FAILED, BROKEN_OFF)
            unfinished = verdict is None or verdict.evidence != "exact"
            if unfinished and self._speaks_events and relay.between_events():
                relay.send(error_event(self.exchange.route.name, refused))
            relay.cut()
        elif state & END:
            relay.finish()
        else:
            return
        self.over()

    def over(self) -> None:
        """The client's stream has ended, or nobody reads it any more."""
        if self._is_over:
            return
        self._is_over = True
        worker = self.exchange.worker
        worker.counters[_CHUNKS] += self.relay.chunk_count
        worker.counters[_BYTES_DOWN] += self.exchange.client.bytes_written
        worker.streams.discard(self)
        self.relay.leave()
        self.exchange.relayed = None

    # -- a wallet that runs dry, memory that runs short ------------------------------------------------------
    def lacks_pico(self, output_tokens: int, ahead_tokens: int) -> int:
        """What the hold lacks to cover `output_tokens` and `ahead_tokens` more of each choice."""
        exchange = self.exchange
        ask = exchange.ask
        needed_pico = hold_needed_pico(ask, exchange.offer.price, output_tokens + ahead_tokens * ask.choices)
        return max(0, needed_pico - exchange.hold.amount_pico)

    def cut(self, reason: str) -> None:
        """After the next whole event stop the upstream, settle what was sent, end validly.

        An encoded stream is broken off where it is: what we would say is not in its encoding.
        """
        exchange = self.exchange
        if not exchange.settled and not self._is_over and not exchange.cut_reason:
            exchange.cut_reason = reason
            if self._speaks_events:
                self.relay.when_between_events(self._cut_now)
            else:
                self._cut_now()

    def _cut_now(self) -> None:
        if self.exchange.settled:
            return
        self.relay.drop_upstream()
        self.exchange.settle(self._send_cut, cut_by_us=True)

    def _send_cut(self) -> None:
        if self._speaks_events:
            overloaded = self.exchange.cut_reason == OVERLOADED
            self.relay.send(self._overloaded_event() if overloaded else self._dry_event())
            self.relay.finish()
        else:
            self.relay.cut()
        self.over()

    def _dry_event(self) -> bytes:
        exchange, verdict = self.exchange, self.exchange.verdict
        return cut_event(
            exchange.route.name,
            exchange.cut_reason,
            model=exchange.offer.model_id,
            created_s=exchange.started_ms // 1000,
            output_tokens=verdict.counts.get("output", 0) if verdict is not None else 0,
        )

    def _overloaded_event(self) -> bytes:
        message = "Memory is short on this server: the answer ends here, and is charged up to here."
        return error_event(self.exchange.route.name, Refused(Refusal.OVERLOADED, message))
