"""One metered exchange from its hold to its settlement: the order of events that keeps the money right.

Hold, then `open` and `sent` in the journal, then the first upstream byte; the answer passes through the tap;
the settlement is in the journal before the client sees the end of the answer. After `begin` everything is
driven by the wire's callbacks; nothing waits. Whatever happens, `_settle` runs exactly once for an exchange
that was sent (M5), and the hold ends exactly once (M3).
"""

import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from farebox.base import limits
from farebox.base.counters import INDEX
from farebox.base.errors import (
    FaultError,
    Refusal,
    Refused,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
)
from farebox.base.records import Void, opened_payload
from farebox.meter import BROKEN, END, OVERSIZE, Pipe, format_pico
from farebox.proxy.admission import hold_needed_pico
from farebox.proxy.plain import plain_verdict
from farebox.proxy.verdict import Ending, Verdict, unjudged, verdict_of
from farebox.wire.errors import cut_event, error_event, render, upstream_fault
from farebox.wire.headers import header_value
from farebox.wire.relay import Relay, collect
from farebox.wire.upstream import Connection, Pool, request_head

if TYPE_CHECKING:
    from farebox.base.records import KeyRecord
    from farebox.ledger.user_lease import Hold
    from farebox.meter import Head
    from farebox.proxy.admission import Ask
    from farebox.proxy.service import Offer
    from farebox.proxy.worker import Worker
    from farebox.wire.incoming import Incoming
    from farebox.wire.routes import Route

_log = logging.getLogger("farebox.exchange")

_FIRST_SUCCESS_STATUS = 200
_FIRST_REDIRECT_STATUS = 300
_OPEN_TOTAL = INDEX["exchanges_open"]
_STREAMED = INDEX["exchanges_streamed_total"]
_FIRST_BYTE_MS = INDEX["first_byte_ms_total"]
_UPSTREAM_ERRORS = INDEX["upstream_errors_total"]
_CLIENT_GONE = INDEX["client_gone_total"]
_VOIDED = INDEX["voided_total"]
_CHUNKS = INDEX["chunks_total"]
_BYTES_DOWN = INDEX["bytes_down_total"]
_BYTES_UP = INDEX["bytes_up_total"]


class Exchange:
    """An admitted request on its way. Owned by its `Worker` from `begin` until its settlement is recorded."""

    __slots__ = (
        "_connection",
        "_cut_reason",
        "_ended_by_upstream",
        "_fault",
        "_head",
        "_head_lines",
        "_settled",
        "_verdict",
        "ask",
        "client",
        "finish_cap_pico",
        "first_byte_ms",
        "gone_handled",
        "hold",
        "id",
        "key",
        "offer",
        "progress_bytes",
        "rate_lines",
        "relay",
        "route",
        "sent",
        "started_ms",
        "status",
        "stream",
        "strip_usage",
        "tap",
        "upstream_request",
        "worker",
    )

    def __init__(
        self,
        worker: "Worker",
        client: "Incoming",
        route: "Route",
        exchange_id: str,
        started_ms: int,
        key: "KeyRecord",
        offer: "Offer",
        ask: "Ask",
        hold: "Hold",
        stream: bool,
        strip_usage: bool,
        rate_lines: bytes,
        finish_cap_pico: int,
    ) -> None:
        self.worker = worker
        self.client = client
        self.route = route
        self.id = exchange_id
        self.started_ms = started_ms
        self.key = key
        self.offer = offer
        self.ask = ask
        self.hold = hold
        self.stream = stream
        self.strip_usage = strip_usage
        self.rate_lines = rate_lines
        self.finish_cap_pico = finish_cap_pico
        self.first_byte_ms = 0
        self.progress_bytes = 0
        self.sent = False
        self.gone_handled = False
        self.tap: Pipe | None = None
        self.relay: Relay | None = None
        self._connection: Connection | None = None
        self._head: Head | None = None
        self._head_lines = b""
        self._settled = False
        self._verdict: Verdict | None = None
        self.upstream_request = ""
        """The upstream's own id of this request, for the log."""
        self.status = 0
        """The upstream's status; 0 when it never answered."""
        self._fault: UpstreamError | None = None
        self._ended_by_upstream = False
        self._cut_reason = ""

    @property
    def settled(self) -> bool:
        """Whether the hold has ended."""
        return self._settled

    # -- sending ---------------------------------------------------------------------------------------------
    def begin(self, body: bytes) -> Coroutine[Any, Any, None] | None:
        """Record `open` and `sent`, then send; what is returned must be awaited: no idle connection was
        there.

        Raises Refused (here or when awaited) after giving the hold back.
        """
        try:
            pool = self.offer.pool
            head = request_head(pool.endpoint, self.route.path, len(body), self.client.upstream_lines)
            connection = pool.take()
            if connection is None:
                return self._begin_on_new(pool, head, body)
            self._record_open(connection, head, body)
        except BaseException:
            self._void("failed")
            raise
        return None

    async def _begin_on_new(self, pool: Pool, head: bytes, body: bytes) -> None:
        try:
            connection = await pool.connect()
        except UpstreamConnectError as error:
            self._void("no connection")
            self.worker.counters[_UPSTREAM_ERRORS] += 1
            _log.warning("%s: %s", self.id, error)
            raise Refused(Refusal.UPSTREAM_FAILED, "The upstream provider cannot be reached.") from None
        except BaseException:
            self._void("failed")
            raise
        if self.client.gone or self.worker.closed:
            connection.release(True)
            self._void("client gone" if self.client.gone else "stopped")
            return
        try:
            self._record_open(connection, head, body)
        except BaseException:
            self._void("failed")
            raise

    def _record_open(self, connection: Connection, head: bytes, body: bytes) -> None:
        worker, key, offer, hold = self.worker, self.key, self.offer, self.hold
        opened = opened_payload(
            self.id,
            key.user,
            hold.wallet,
            key.digest[:16],
            offer.model_id,
            self.route.name,
            offer.price_version,
            offer.model.upstream,
            self.stream,
            self.started_ms,
            self.ask.input_estimate_tokens,
            hold.amount_pico,
        )
        try:
            worker.books.record(offer.price_version)
            worker.journal.append_open(self.id, opened, partial(self._send, connection, head, body))
        except FaultError as error:
            connection.release(True)
            self._void("journal failed")
            _log.error("journal: %s", error)
            raise Refused(
                Refusal.JOURNAL_UNAVAILABLE, "Farebox cannot record new requests right now.", retry_after_s=5
            ) from None
        self._connection = connection
        worker.exchanges[self.id] = self
        worker.counters[_OPEN_TOTAL] += 1

    def _send(self, connection: Connection, head: bytes, body: bytes, error: Exception | None) -> None:
        """The journal holds `open` and `sent`: now, and only now, may a byte leave."""
        if self._settled:
            connection.release(True)
            return
        if error is not None:
            connection.release(True)
            self._end_unsent(
                "journal failed", Refusal.JOURNAL_UNAVAILABLE, "Farebox cannot record requests now."
            )
            return
        if self.client.gone:
            connection.release(True)
            self._end_unsent("client gone", Refusal.INTERNAL, "")
            return
        try:
            connection.send(head, body, self)
        except UpstreamConnectError:
            self.worker.spawn(self._send_on_another(head, body))
            return
        self._was_sent(len(body))

    async def _send_on_another(self, head: bytes, body: bytes) -> None:
        """The pooled connection had closed before anything was sent: a new one is safe."""
        pool = self.offer.pool
        try:
            connection = await pool.connect()
            if self._settled or self.client.gone:
                connection.release(True)
                self._end_unsent("client gone", Refusal.INTERNAL, "")
                return
            connection.send(head, body, self)
        except UpstreamConnectError as error:
            _log.warning("%s: %s", self.id, error)
            self._end_unsent(
                "no connection", Refusal.UPSTREAM_FAILED, "The upstream provider cannot be reached."
            )
            return
        self._connection = connection
        self._was_sent(len(body))

    def _was_sent(self, size: int) -> None:
        self.sent = True
        self.worker.counters[_BYTES_UP] += size
        if self.client.gone:
            self._client_gone()
        else:
            self.client.on_gone = self._client_gone

    def _void(self, reason: str) -> None:
        """End a hold of which nothing is in the journal, unless it has ended."""
        if self._settled:
            return
        self._settled = True
        self.worker.leases.void(self.key.user, self.hold)
        self.worker.counters[_VOIDED] += 1
        _log.info("%s voided: %s", self.id, reason)

    def _end_unsent(self, reason: str, refusal: Refusal, message: str) -> None:
        """End an exchange that is open in the journal but reached no upstream, unless it has ended."""
        if self._settled:
            return
        self._settled = True
        self.worker.forget(self)
        self.worker.counters[_OPEN_TOTAL] -= 1
        self.worker.counters[_VOIDED] += 1
        self.worker.leases.void(self.key.user, self.hold, recorded=True)
        self.worker.record_void(Void(self.id, self.key.user, reason))
        if not self.client.gone:
            retry_after_s = 5 if refusal.value.status == 503 else None
            refused = Refused(refusal, message, retry_after_s=retry_after_s)
            self.client.answer(*render(refused, self.route.family, self.id))

    # -- the answer (receiver until a relay or collector takes over) -----------------------------------------
    def on_head(self, head: "Head", rest: bytes) -> None:
        """The upstream answers."""
        connection = self._connection
        if connection is None:
            return
        self._head = head
        status = self.status = head.status
        now_ms = self.worker.wall_ms()
        self.first_byte_ms = now_ms
        self.worker.counters[_FIRST_BYTE_MS] += now_ms - self.started_ms
        lines, event_stream, content_encoding, self.upstream_request = head.facts(
            limits.upstream_request_id_bytes_max
        )
        self._head_lines = b"%bx-request-id: %b\r\n%b" % (
            lines,
            self.id.encode("ascii"),
            self.rate_lines,
        )
        streamed = event_stream and _FIRST_SUCCESS_STATUS <= status < _FIRST_REDIRECT_STATUS
        chunked_out = streamed and self.client.chunked_ok
        try:
            self.tap = Pipe(
                self.route.name,
                head.framing,
                chunked_out=chunked_out,
                strip_usage=self.strip_usage and streamed,
                content_encoding=content_encoding,
            )
        except ValueError:
            self._fault = UpstreamError(
                "the upstream answered in an encoding that cannot be metered", sent=True
            )
            self.tap = Pipe(self.route.name, head.framing)
            connection.abort()
            self._complete(b"", BROKEN)
            return
        if streamed:
            self._start_relay(connection, head, chunked_out)
            if self.relay is not None:
                self.relay.begin(head, rest)
        else:
            collect(connection, self.tap, head, rest, self._complete, self._overflow)

    def on_data(self, data: bytes) -> None:
        """Never called: on_head names another receiver."""

    def on_closed(self, error: UpstreamError | None) -> None:
        """The upstream failed before it answered."""
        self._fault = error or UpstreamError("the upstream closed the connection", sent=True)
        self._complete(b"", BROKEN)

    # -- plain answers ---------------------------------------------------------------------------------------
    def _complete(self, body: bytes, state: int) -> None:
        """The whole answer is here, or it broke off."""
        if state & BROKEN:
            self._ended_by_upstream = True
            self.worker.counters[_UPSTREAM_ERRORS] += 1
            self._settle(lambda _: self._answer_fault(oversize=bool(state & OVERSIZE)))
        elif not _FIRST_SUCCESS_STATUS <= self.status < _FIRST_REDIRECT_STATUS:
            self.worker.counters[_UPSTREAM_ERRORS] += 1
            self._settle(lambda _: self._answer_upstream_error(self.status, body))
        else:
            self._settle(partial(self._answer, body))

    def _answer(self, body: bytes, verdict: Verdict) -> None:
        lines = b"%bx-farebox-cost: %b\r\n" % (
            self._head_lines,
            format_pico(verdict.amount_pico).encode("ascii"),
        )
        self.client.answer(self.status, lines, body)

    def _answer_fault(self, *, oversize: bool) -> None:
        if isinstance(self._fault, UpstreamTimeoutError):
            refused = Refused(Refusal.UPSTREAM_TIMEOUT, "The upstream provider did not answer in time.")
        elif oversize:
            refused = Refused(
                Refusal.UPSTREAM_FAILED, "The upstream provider's answer is too large to be metered."
            )
        else:
            refused = Refused(Refusal.UPSTREAM_FAILED, "The upstream provider broke off its answer.")
        self.client.answer(*render(refused, self.route.family, self.id))

    def _answer_upstream_error(self, status: int, body: bytes) -> None:
        head = self._head
        retry_after = header_value(head, b"retry-after") if head is not None else b""
        answer = upstream_fault(status, self.route.family, self.id, retry_after)
        if answer is None:
            self.client.answer(status, self._head_lines, body)
        else:
            self.client.answer(*answer)

    def _overflow(self, collected: bytes) -> None:
        """A plain answer outgrew what is held back: pass it on as it comes, its last bytes after settlement.

        An error of that size is not passed on: what it says may be about the operator's account.
        """
        head, connection, tap = self._head, self._connection, self.tap
        if head is None or connection is None or tap is None:
            return
        if not _FIRST_SUCCESS_STATUS <= head.status < _FIRST_REDIRECT_STATUS:
            connection.abort()
            self._complete(b"", BROKEN)
            return
        if not self.client.gone:
            length = head.framing if head.framing >= 0 else None
            self.client.start_stream(head.status, self._head_lines, length)
        self.relay = Relay(
            self.client, connection, tap, self._hold_point, self._client_gone, framed=head.framing >= 0
        )
        connection.hand_over(self.relay)
        self.relay.send(collected)

    # -- streams ---------------------------------------------------------------------------------------------
    def _start_relay(self, connection: Connection, head: "Head", chunked_out: bool) -> None:
        self.worker.counters[_STREAMED] += 1
        if not self.client.gone:
            self.client.start_stream(head.status, self._head_lines)
        if self.tap is None:
            return
        self.relay = Relay(
            self.client,
            connection,
            self.tap,
            self._hold_point,
            self._client_gone,
            framed=chunked_out or not self.client.chunked_ok,
        )
        self.worker.streams.add(self)

    def _hold_point(self, held: bytes, state: int) -> None:
        """The tap holds bytes back until the settlement is recorded."""
        relay = self.relay
        if relay is None:
            return
        if state & BROKEN:
            self._fault = relay.error
            self._ended_by_upstream = True
            if not self._settled:
                self.worker.counters[_UPSTREAM_ERRORS] += 1
        self._settle(lambda _: self._release_held(relay, held, state))

    def _release_held(self, relay: Relay, held: bytes, state: int) -> None:
        relay.send_held(held)
        if state & BROKEN:
            refused = Refused(Refusal.UPSTREAM_FAILED, "The upstream provider broke off its answer.")
            if not self._settled_at_terminal() and relay.between_events():
                relay.send(error_event(self.route.name, refused))
            relay.cut()
        elif state & END:
            relay.finish()
        else:
            return
        self._stream_over(relay)

    def _settled_at_terminal(self) -> bool:
        verdict = self._verdict
        return verdict is not None and verdict.evidence == "exact"

    def _stream_over(self, relay: Relay) -> None:
        if self.relay is not relay:
            return
        counters = self.worker.counters
        counters[_CHUNKS] += relay.chunk_count
        counters[_BYTES_DOWN] += self.client.bytes_written
        self.worker.streams.discard(self)
        self.relay = None

    def lacks_pico(self, output_tokens: int, ahead_tokens: int) -> int:
        """What the hold lacks to cover `output_tokens` and `ahead_tokens` more of each choice."""
        needed_pico = hold_needed_pico(
            self.ask, self.offer.price, output_tokens + ahead_tokens * self.ask.choices
        )
        return max(0, needed_pico - self.hold.amount_pico)

    def cut(self, reason: str) -> None:
        """The wallet ran dry: after the next whole event stop the upstream, settle what was sent, end
        validly.
        """
        relay = self.relay
        if not self._settled and relay is not None and not self._cut_reason:
            self._cut_reason = reason
            relay.when_between_events(lambda: self._cut_now(relay))

    def _cut_now(self, relay: Relay) -> None:
        if self._settled:
            return
        relay.drop_upstream()
        self._settle(lambda verdict: self._send_cut(relay, verdict), cut_by_us=True)

    def _send_cut(self, relay: Relay, verdict: Verdict) -> None:
        event = cut_event(
            self.route.name,
            self._cut_reason,
            model=self.offer.model_id,
            created_s=self.started_ms // 1000,
            output_tokens=verdict.counts.get("output", 0),
        )
        relay.send(event)
        relay.finish()
        self._stream_over(relay)

    # -- the client leaves -----------------------------------------------------------------------------------
    def _client_gone(self) -> None:
        """Go on reading the upstream for a while, to learn the exact usage."""
        if self._settled:
            self._drop_rest()
        if self._settled or self.gone_handled:
            return
        self.gone_handled = True
        self.worker.counters[_CLIENT_GONE] += 1
        if not self.worker.drains.start(self):
            self.stop_draining()

    def stop_draining(self) -> None:
        """Enough waited for a client that has gone (or the worker must end): cut the upstream and settle."""
        if self._settled:
            return
        if not self.sent:
            self._end_unsent("stopped", Refusal.DRAINING, "This server is shutting down.")
            return
        if self.relay is not None:
            self.relay.drop_upstream()
        elif self._connection is not None:
            self._connection.abort()
        self._settle(lambda _: None, cut_by_us=True)
        if self.relay is not None:
            self._stream_over(self.relay)

    def _drop_rest(self) -> None:
        """Nobody wants what the upstream says after the settlement: its connection is not waited for."""
        relay = self.relay
        if relay is not None:
            relay.drop_upstream()
            self._stream_over(relay)

    # -- settlement ------------------------------------------------------------------------------------------
    def _settle(self, then: Callable[[Verdict], None], *, cut_by_us: bool = False) -> None:
        """End the hold and record the settlement, once; `then` runs when the record is written.

        If it cannot be written the client is cut off: recovery will end the exchange.
        """
        if self._settled:
            if self._verdict is not None:
                then(self._verdict)
            return
        self._settled = True
        worker = self.worker
        worker.forget(self)
        worker.counters[_OPEN_TOTAL] -= 1
        try:
            verdict = plain_verdict(self.offer.terms, self.ask, self.tap) if self.tap is not None else None
            if verdict is None:
                verdict = self._judged(cut_by_us)
            worker.record_settlement(self, verdict, self._outcome(cut_by_us), then)
        except Exception as error:  # noqa: BLE001 - M5: recovery settles what cannot be recorded here
            worker.leases.unwritten(self.key.user)
            self.settlement_failed(error)

    def settlement_written(self, verdict: Verdict, then: Callable[[Verdict], None]) -> None:
        """The settlement is in the journal: the client may see the end."""
        self._verdict = verdict
        if self.relay is None:
            self.client.on_gone = None
        then(verdict)

    def settlement_failed(self, error: Exception) -> None:
        """The settlement is not in the journal: the client must not take its answer for complete."""
        _log.error("%s: the settlement was not written, recovery will end it: %s", self.id, error)
        self.client.abort()
        self._drop_rest()

    def _judged(self, cut_by_us: bool) -> Verdict:
        """The verdict of an exchange that is not plain."""
        tap = self.tap or Pipe(self.route.name, 0)
        reading = tap.reading()
        try:
            return verdict_of(
                reading,
                Ending(self.status, cut_by_us, self._ended_by_upstream),
                self.ask,
                self.offer.model,
                self.offer.price,
                self.worker.price_of(self.offer.price_version),
                self.hold.amount_pico,
            )
        except Exception:  # noqa: BLE001 - M5: whatever is wrong, the exchange gets its settlement
            _log.exception("%s: no verdict", self.id)
            return unjudged(reading)

    def _outcome(self, cut_by_us: bool) -> str:
        if self._cut_reason and cut_by_us:
            return "cut"
        if self.gone_handled:
            return "client_gone_cut" if cut_by_us else "client_gone"
        if self._ended_by_upstream:
            return "upstream_broke"
        return "ok" if 0 < self.status < _FIRST_REDIRECT_STATUS else "upstream_error"
