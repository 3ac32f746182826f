"""Requests that are passed on and cost nothing (count_tokens): no hold, no journal, the same wire rules.

They go to the places of the upstream as metered requests do, by weight and around those that rest. Since they
are free wherever they are answered, one that a place refuses or breaks off is sent to the next. What a place
says to them is no news of its health: providers count them apart from messages.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from farebox.base import limits
from farebox.base.errors import Refusal, Refused, UpstreamConnectError, UpstreamError
from farebox.meter import BROKEN, Pipe
from farebox.proxy.health import Place, choose, may_go_elsewhere
from farebox.proxy.refusals import BROKEN_OFF, UNREACHABLE
from farebox.wire.errors import upstream_fault
from farebox.wire.headers import header_value
from farebox.wire.relay import Collector
from farebox.wire.upstream import Connection, Pool, request_head

if TYPE_CHECKING:
    from farebox.meter import Head
    from farebox.wire.incoming import Incoming
    from farebox.wire.routes import Route

_FIRST_ERROR_STATUS = 300


class Forward:
    """One unmetered request on its way."""

    def __init__(self, client: "Incoming", route: "Route", exchange_id: str) -> None:
        self._client = client
        self._route = route
        self._id = exchange_id

    async def run(self, places: Sequence[Place[Pool]], body: bytes) -> None:
        """Send it and answer the client. Raises Refused where no place gave an answer."""
        now_s = asyncio.get_running_loop().time
        tried: list[Place[Pool]] = []
        reply: _Reply | None = None
        while (place := choose(places, now_s(), tried)) is not None and not self._client.gone:
            tried.append(place)
            try:
                latest = await self._asked(place.target, body)
            except UpstreamConnectError:
                place.unreachable(now_s())
                continue
            if latest.head is not None or reply is None:
                reply = latest
            if latest.head is not None and not may_go_elsewhere(latest.head.status):
                break
        if self._client.gone:
            return
        if reply is None:
            raise Refused(Refusal.UPSTREAM_FAILED, UNREACHABLE)
        self._answer(reply)

    async def _asked(self, pool: Pool, body: bytes) -> "_Reply":
        """What one place answered. Raises UpstreamConnectError when nothing could be sent."""
        head = request_head(pool.endpoint, self._route.path, len(body), self._client.upstream_lines)
        connection = pool.take() or await pool.connect()
        reply = _Reply(connection)
        connection.send(head, body, reply)
        self._client.on_gone = reply.give_up
        try:
            await reply.over.wait()
        finally:
            self._client.on_gone = None
        return reply

    def _answer(self, reply: "_Reply") -> None:
        head, client = reply.head, self._client
        if head is None or reply.failure is not None:
            raise Refused(Refusal.UPSTREAM_FAILED, reply.failure or BROKEN_OFF)
        if head.status >= _FIRST_ERROR_STATUS:
            retry_after = header_value(head, b"retry-after")
            fault = upstream_fault(head.status, self._route.family, self._id, retry_after)
            if fault is not None:
                client.answer(*fault)
                return
        lines = head.facts(limits.upstream_request_id_bytes_max)[0]
        lines = b"%bx-request-id: %b\r\n" % (lines, self._id.encode("ascii"))
        client.answer(head.status, lines, reply.body)


class _Reply:
    """Receives one place's answer; when `over` is set there is either `failure` or a head and its body."""

    __slots__ = ("_connection", "body", "failure", "head", "over")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.over = asyncio.Event()
        self.head: Head | None = None
        self.body = b""
        self.failure: str | None = None

    def on_head(self, head: "Head", rest: bytes) -> None:
        """The upstream answers."""
        self.head = head
        Collector(self._connection, Pipe("", head.framing), self._complete, self._too_large).begin(head, rest)

    def on_data(self, data: bytes) -> None:
        """Never called: on_head names another receiver."""

    def on_closed(self, error: UpstreamError | None) -> None:
        """The upstream failed before it answered."""
        del error
        self._fail(BROKEN_OFF)

    def give_up(self) -> None:
        """The client left: nobody wants the answer. A complete one has left its connection to others."""
        if self.over.is_set():
            return
        self._connection.abort()
        self._fail("The client left.")

    def _complete(self, body: bytes, state: int) -> None:
        if state & BROKEN:
            self._fail(BROKEN_OFF)
            return
        self.body = body
        self.over.set()

    def _too_large(self, collected: bytes) -> None:
        del collected
        self._connection.abort()
        self._fail("The upstream provider's answer is too large.")

    def _fail(self, reason: str) -> None:
        self.head, self.failure = None, reason
        self.over.set()
