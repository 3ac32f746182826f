"""Requests that are passed on and cost nothing (count_tokens): no hold, no journal, the same wire rules."""

from typing import TYPE_CHECKING

from farebox.base import limits
from farebox.base.errors import Refusal, Refused, UpstreamError
from farebox.meter import BROKEN, Pipe
from farebox.wire.errors import render, upstream_fault
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

    __slots__ = ("_client", "_connection", "_head", "_id", "_route")

    def __init__(self, client: "Incoming", route: "Route", exchange_id: str) -> None:
        self._client = client
        self._route = route
        self._id = exchange_id
        self._connection: Connection | None = None
        self._head: Head | None = None

    async def begin(self, pool: Pool, body: bytes) -> None:
        """Send it. Raises UpstreamConnectError when nothing could be sent."""
        head = request_head(pool.endpoint, self._route.path, len(body), self._client.upstream_lines)
        connection = pool.take() or await pool.connect()
        self._connection = connection
        connection.send(head, body, self)
        self._client.on_gone = connection.abort

    def on_head(self, head: "Head", rest: bytes) -> None:
        """The upstream answers."""
        connection = self._connection
        if connection is None:
            return
        self._head = head
        collector = Collector(connection, Pipe("", head.framing), self._complete, self._too_large)
        connection.receiver = collector
        if rest or head.framing == 0:
            collector.on_data(rest)

    def on_data(self, data: bytes) -> None:
        """Never called: on_head names another receiver."""

    def on_closed(self, error: UpstreamError | None) -> None:
        """The upstream failed before it answered."""
        del error
        self._refuse("The upstream provider broke off its answer.")

    def _complete(self, body: bytes, state: int) -> None:
        head = self._head
        self._client.on_gone = None
        if head is None or state & BROKEN:
            self._refuse("The upstream provider broke off its answer.")
            return
        if head.status >= _FIRST_ERROR_STATUS:
            fault = upstream_fault(
                head.status, self._route.family, self._id, header_value(head, b"retry-after")
            )
            if fault is not None:
                self._client.answer(*fault)
                return
        lines = head.facts(limits.upstream_request_id_bytes_max)[0]
        lines = b"%bx-request-id: %b\r\n" % (lines, self._id.encode("ascii"))
        self._client.answer(head.status, lines, body)

    def _too_large(self, collected: bytes) -> None:
        del collected
        if self._connection is not None:
            self._connection.abort()
        self._refuse("The upstream provider's answer is too large.")

    def _refuse(self, message: str) -> None:
        self._client.on_gone = None
        self._client.answer(*render(Refused(Refusal.UPSTREAM_FAILED, message), self._route.family, self._id))
