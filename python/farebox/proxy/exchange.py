"""One metered exchange from its hold to its settlement: the order of events that keeps the money right.

Hold, then `open` and `sent` in the journal, then the first upstream byte (sending.py); the answer passes
through the tap; the settlement is in the journal before the client sees the end of the answer (settle.py).
Once begun everything is driven by the wire's callbacks; nothing waits. Whatever happens, `settle` runs
exactly once for an exchange that was sent (M5), and the hold ends exactly once (M3).

A plain answer is held back whole and answered here; one that is passed on as it comes is a `RelayedAnswer`.
"""

import logging
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING

from farebox.base import limits
from farebox.base.counters import ADDED, ADDED_CELLS, FIRST_BYTE, FIRST_BYTE_CELLS, INDEX
from farebox.base.errors import Refusal, UpstreamError
from farebox.meter import BROKEN, OVERSIZE, Pipe, format_pico
from farebox.proxy.plain import plain_answer, plain_verdict
from farebox.proxy.refusals import SHUTTING_DOWN, broken_answer, failed_answer
from farebox.proxy.relayed import RelayedAnswer
from farebox.proxy.sending import end_unsent, send_recorded
from farebox.proxy.settle import count_settled, record_again, record_settlement
from farebox.proxy.verdict import Ending, Judged, unjudged, verdict_of
from farebox.wire.relay import collect
from farebox.wire.upstream import Connection, request_head

if TYPE_CHECKING:
    from farebox.base.records import KeyRecord
    from farebox.ledger.user_lease import Hold
    from farebox.meter import Head, PlainCharge
    from farebox.proxy.admission import Ask
    from farebox.proxy.attempts import Attempts
    from farebox.proxy.offer import Offer
    from farebox.proxy.user_money import Unbooked
    from farebox.proxy.worker import Worker
    from farebox.wire.endpoint import Endpoint
    from farebox.wire.incoming import Incoming
    from farebox.wire.routes import Route

_log = logging.getLogger("farebox.exchange")

_FIRST_SUCCESS_STATUS = 200
_FIRST_REDIRECT_STATUS = 300
_UNENCODED = frozenset(("", "identity"))
_FIRST_BYTE_MS = INDEX[FIRST_BYTE.sum_name]
_ADDED_US = INDEX[ADDED.sum_name]
_UPSTREAM_ERRORS = INDEX["upstream_errors_total"]
_CLIENT_GONE = INDEX["client_gone_total"]


class Exchange:
    """An admitted request on its way. Owned by its `Worker` from its record until its settlement's.

    `settled`: the hold has ended. `status` is the upstream's, 0 when it never answered; `upstream_request` is
    its own id of this request, for the log. `attempts` is set where the upstream has several places,
    `relayed` for answers that are passed on as they come.
    `charge` is set where a plain answer came whole, and was metered without a `tap`.
    `cut_reason`: why the wallet's owner gets less than the whole answer, else empty. `judged` is what is
    charged, `verdict` the same once it is in the journal, `payload` and `log_line` how it is told.
    `added_ns` is a stopwatch of the time Farebox itself adds, carried by one exchange in 16 (reading a clock
    can be dear on virtual machines); while it runs, the clock at its start is taken off.
    """

    __slots__ = (
        "_after",
        "_body",
        "added_ns",
        "ask",
        "attempts",
        "charge",
        "client",
        "connection",
        "cut_reason",
        "ended_by_upstream",
        "ended_ms",
        "fault",
        "finish_cap_pico",
        "first_byte_ms",
        "gone_handled",
        "head",
        "head_lines",
        "hold",
        "id",
        "judged",
        "key",
        "log_line",
        "offer",
        "outcome",
        "payload",
        "rate_lines",
        "record",
        "relayed",
        "request",
        "route",
        "sent",
        "settled",
        "started_ms",
        "status",
        "stream",
        "strip_usage",
        "tap",
        "upstream_request",
        "verdict",
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
        body: bytes,
    ) -> None:
        self.added_ns = -monotonic_ns() if exchange_id[-1] == "0" else 0
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
        self.connection: Connection | None = None
        self.attempts: Attempts | None = None
        self.head: Head | None = None
        self.head_lines = b""
        self.status = 0
        self.first_byte_ms = 0
        self.upstream_request = ""
        self.tap: Pipe | None = None
        self.charge: PlainCharge | None = None
        self.relayed: RelayedAnswer | None = None
        self.sent = False
        self.settled = False
        self.gone_handled = False
        self.cut_reason = ""
        self.ended_by_upstream = False
        self.fault: UpstreamError | None = None
        self.judged: Judged | None = None
        self.verdict: Judged | None = None
        self.record: Unbooked | None = None
        self.outcome = ""
        self.ended_ms = 0
        self.payload = b""
        self.log_line = ""
        self._after: Callable[[], None] | None = None
        self.request = (b"", body)
        self._body = b""

    # -- sending (sending.py) --------------------------------------------------------------------------------
    def address(self, endpoint: "Endpoint", body: bytes) -> None:
        """Make the request out for the place that gets it."""
        head = request_head(endpoint, self.route.path, len(body), self.client.upstream_lines)
        self.request = (head, body)

    def opened(self, error: Exception | None) -> None:
        """The journal holds `open` and `sent`, or could not take them."""
        send_recorded(self, error)

    def send_again(self, connection: Connection) -> None:
        """Send to another place, the one before having done nothing. Raises UpstreamConnectError."""
        connection.send(*self.request, self.attempts or self)
        self.request = (b"", b"")
        self.connection = connection
        self.status = 0

    # -- the answer (receiver until a relay or collector takes over) -----------------------------------------
    def take_whole(self, data: bytes) -> bool:
        """The usual plain answer, at once: what `on_head` and the rest do with it step by step."""
        connection = self.connection
        if connection is None:
            return False
        found = plain_answer(self.offer.terms, self.ask, self.route.name, data, self._own_lines())
        if found is None:
            return False
        self.status, lines, body, self.charge, self.upstream_request, reusable = found
        connection.release(reusable)
        self._note_first_byte()
        client, status = self.client, self.status
        self.settle(lambda: client.answer(status, lines, body))
        return True

    def _own_lines(self) -> bytes:
        """The header lines that are ours, behind the upstream's."""
        return b"x-request-id: %b\r\n%b" % (self.id.encode("ascii"), self.rate_lines)

    def _note_first_byte(self) -> None:
        now_ms = self.first_byte_ms = self.worker.wall_ms()
        counters = self.worker.counters
        first_byte_ms = now_ms - self.started_ms
        counters[_FIRST_BYTE_MS] += first_byte_ms
        counters[FIRST_BYTE_CELLS[first_byte_ms.bit_length()]] += 1

    def on_head(self, head: "Head", rest: bytes) -> None:
        """The upstream answers."""
        connection = self.connection
        if connection is None:
            return
        self.head = head
        status = self.status = head.status
        self._note_first_byte()
        lines, event_stream, content_encoding, self.upstream_request = head.facts(
            limits.upstream_request_id_bytes_max
        )
        self.head_lines = lines + self._own_lines()
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
            self.fault = UpstreamError(
                "the upstream answered in an encoding that cannot be metered", sent=True
            )
            self.tap = Pipe(self.route.name, head.framing)
            connection.abort()
            self._complete(b"", BROKEN)
            return
        if streamed:
            self.relayed = RelayedAnswer(self, connection, self.tap)
            framed = chunked_out or not self.client.chunked_ok
            self.relayed.begin_stream(
                head, rest, framed=framed, encoded=content_encoding.lower() not in _UNENCODED
            )
        else:
            collect(connection, self.tap, head, rest, self._complete, self._overflow)

    def on_data(self, data: bytes) -> None:
        """Never called: on_head names another receiver."""

    def on_closed(self, error: UpstreamError | None) -> None:
        """The upstream failed before it answered."""
        self.fault = error or UpstreamError("the upstream closed the connection", sent=True)
        self._complete(b"", BROKEN)

    def _complete(self, body: bytes, state: int) -> None:
        """The whole answer is here, or it broke off."""
        self._body = body
        if state & BROKEN:
            self.ended_by_upstream = True
            self.worker.counters[_UPSTREAM_ERRORS] += 1
            oversize = bool(state & OVERSIZE)
            self.settle(lambda: self._answer_broken(oversize=oversize))
        elif not _FIRST_SUCCESS_STATUS <= self.status < _FIRST_REDIRECT_STATUS:
            self.worker.counters[_UPSTREAM_ERRORS] += 1
            self.settle(self._answer_upstream_error)
        else:
            self.settle(self._answer)

    def _answer(self) -> None:
        verdict = self.verdict
        cost = format_pico(verdict.amount_pico if verdict is not None else 0).encode("ascii")
        self.client.answer(self.status, b"%bx-farebox-cost: %b\r\n" % (self.head_lines, cost), self._body)

    def _answer_broken(self, *, oversize: bool) -> None:
        self.client.answer(*broken_answer(self.fault, self.route.family, self.id, oversize=oversize))

    def _answer_upstream_error(self) -> None:
        failed = failed_answer(self.head, self.status, self.route.family, self.id)
        self.client.answer(*(failed or (self.status, self.head_lines, self._body)))

    def _overflow(self, collected: bytes) -> None:
        """A plain answer outgrew what is held back: pass it on as it comes, its last bytes after settlement.

        An error of that size is not passed on: what it says may be about the operator's account.
        """
        head, connection, tap = self.head, self.connection, self.tap
        if head is None or connection is None or tap is None:
            return
        if not _FIRST_SUCCESS_STATUS <= head.status < _FIRST_REDIRECT_STATUS:
            connection.abort()
            self._complete(b"", BROKEN)
            return
        self.relayed = RelayedAnswer(self, connection, tap)
        self.relayed.begin_large(head, collected)

    # -- the client leaves -----------------------------------------------------------------------------------
    def client_gone(self) -> None:
        """Go on reading the upstream for a while, to learn the exact usage."""
        if self.settled:
            self._drop_rest()
        if self.settled or self.gone_handled:
            return
        self.gone_handled = True
        self.worker.counters[_CLIENT_GONE] += 1
        if not self.worker.drains.start(self):
            self.stop_draining()

    def stop_draining(self) -> None:
        """Enough waited for a client that has gone (or the worker must end): cut the upstream and settle."""
        if self.settled:
            return
        if not self.sent:
            end_unsent(self, "stopped", Refusal.DRAINING, SHUTTING_DOWN)
            return
        relayed = self.relayed
        if relayed is not None:
            relayed.relay.drop_upstream()
        elif self.connection is not None:
            self.connection.abort()
        self.settle(_nothing, cut_by_us=True)
        if relayed is not None:
            relayed.over()

    def _drop_rest(self) -> None:
        """Nobody wants what the upstream says after the settlement: its connection is not waited for."""
        if self.relayed is not None:
            self.relayed.relay.drop_upstream()
            self.relayed.over()

    # -- settlement ------------------------------------------------------------------------------------------
    def settle(self, after: Callable[[], None], *, cut_by_us: bool = False) -> None:
        """End the hold and record the settlement, once; `after` runs when the record is written.

        If it cannot be written the client is cut off: recovery will end the exchange.
        """
        if self.settled:
            if self.verdict is not None:
                after()
            return
        self.settled = True
        if self.added_ns:
            self.added_ns -= monotonic_ns()
        self._after = after
        worker = self.worker
        worker.forget(self)
        try:
            self.outcome = self._outcome(cut_by_us)
            plain = self.charge
            if plain is None and self.tap is not None:
                plain = plain_verdict(self.offer.terms, self.ask, self.tap)
            record_settlement(worker, self, self._judge(cut_by_us) if plain is None else plain)
        except Exception as error:  # noqa: BLE001 - M5: recovery settles what cannot be recorded here
            worker.leases.unwritten(self.key.user)
            self._settlement_failed(error)

    def recorded(self, error: Exception | None) -> None:
        """The settlement is in the journal, and the client may see the end; or it is not."""
        if error is not None:
            self.worker.spawn(record_again(self.worker, self))
            self._settlement_failed(error)
            return
        count_settled(self.worker, self)
        if self.added_ns:
            self._count_added()
        self.verdict = self.judged
        if self.relayed is None:
            self.client.on_gone = None
        after, self._after = self._after, None
        if after is not None:
            after()

    def _count_added(self) -> None:
        counters = self.worker.counters
        added_us = (self.added_ns + monotonic_ns()) // 1000
        counters[_ADDED_US] += added_us
        counters[ADDED_CELLS[added_us.bit_length()]] += 1

    def _settlement_failed(self, error: Exception) -> None:
        """The settlement is not in the journal: the client must not take its answer for complete."""
        _log.error("%s: the settlement was not written, recovery will end it: %s", self.id, error)
        self.client.abort()
        self._drop_rest()

    def _judge(self, cut_by_us: bool) -> Judged:
        """The verdict of an exchange that is not plain."""
        tap = self.tap or Pipe(self.route.name, 0)
        reading = tap.reading()
        try:
            return verdict_of(
                reading,
                Ending(self.status, cut_by_us, self.ended_by_upstream),
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
        if self.cut_reason and cut_by_us:
            return "cut"
        if self.gone_handled:
            return "client_gone_cut" if cut_by_us else "client_gone"
        if self.ended_by_upstream:
            return "upstream_broke"
        return "ok" if 0 < self.status < _FIRST_REDIRECT_STATUS else "upstream_error"


def _nothing() -> None:
    """Nobody is there to be answered."""
