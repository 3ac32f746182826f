"""An exchange whose upstream has several places: where it is sent, and where it goes when a place refuses it.

A request goes on to another place only when the first surely did nothing with it: no connection was had, or
the answer says that the place is busy or its credential refused (`health.may_go_elsewhere`); and not a byte
of an answer has gone to the client. While another place is asked the refusal is kept; where no other place
can be had the client is told of it. The exchange stays one exchange with one settlement, whoever serves it.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from farebox.base.counters import INDEX
from farebox.base.errors import UpstreamConnectError, UpstreamError
from farebox.proxy.health import Place, choose, may_go_elsewhere
from farebox.wire.headers import header_value
from farebox.wire.upstream import Connection, Pool

if TYPE_CHECKING:
    from farebox.meter import Head
    from farebox.proxy.exchange import Exchange

_log = logging.getLogger("farebox.exchange")

_ELSEWHERE = INDEX["sent_elsewhere_total"]


class Attempts:
    """Chooses places for one exchange, and receives its answers until one is taken."""

    __slots__ = ("_body", "_closed", "_exchange", "_held", "_place", "_places", "_tried")

    def __init__(self, exchange: "Exchange", places: Sequence[Place[Pool]], body: bytes) -> None:
        self._exchange = exchange
        self._places = places
        self._body = body
        self._tried: list[Place[Pool]] = []
        self._place: Place[Pool] | None = None
        self._held: list[bytes] | None = None
        """Body bytes of a refusal that came while another place is asked; None while there is none."""
        self._closed: tuple[UpstreamError | None] | None = None

    async def connect(self, *, fresh: bool = False) -> Connection:
        """A connection to the next place that has one; the exchange's request is made out for it.

        Raises UpstreamConnectError when there is no place left.
        """
        refused: UpstreamConnectError | None = None
        now_s = asyncio.get_running_loop().time
        while (place := choose(self._places, now_s(), self._tried)) is not None:
            self._tried.append(place)
            try:
                connection = (None if fresh else place.target.take()) or await place.target.connect()
            except UpstreamConnectError as error:
                place.unreachable(now_s())
                _log.warning("%s: %s", self._exchange.id, error)
                refused = error
                continue
            self._place = place
            self._exchange.address(place.target.endpoint, self._body)
            return connection
        raise refused or UpstreamConnectError("no other place of the upstream is left")

    async def connect_again(self) -> Connection:
        """A new connection to the place chosen last: the one before had closed unused."""
        if self._place is None:
            raise UpstreamConnectError("no place was chosen yet")
        return await self._place.target.connect()

    # -- receiver of the answer, until it is taken -----------------------------------------------------------
    def on_head(self, head: "Head", rest: bytes) -> None:
        """Take the answer; or, where the place refused, ask another one first."""
        exchange, place = self._exchange, self._place
        connection = exchange.connection
        if connection is None or place is None:
            return
        place.answered(head.status, _retry_after_s(head), asyncio.get_running_loop().time())
        if not may_go_elsewhere(head.status) or exchange.client.gone or exchange.worker.closed:
            self._take(connection, head, rest)
            return
        exchange.status = head.status
        self._held = [rest]
        connection.pause_reading()
        exchange.worker.spawn(self._ask_elsewhere(connection, head))

    def on_data(self, data: bytes) -> None:
        """More of a refusal's body."""
        if self._held is not None:
            self._held.append(data)

    def on_closed(self, error: UpstreamError | None) -> None:
        """The place failed before it answered, or its refusal ended."""
        if self._held is not None:
            self._closed = (error,)
            return
        if self._place is not None:
            self._place.unreachable(asyncio.get_running_loop().time())
        self._exchange.on_closed(error)

    async def _ask_elsewhere(self, refusing: Connection, head: "Head") -> None:
        """Send to the next place; where there is none, give the client what the first one said."""
        exchange = self._exchange
        try:
            connection = await self.connect(fresh=True)
        except UpstreamConnectError:
            self._take_refusal(refusing, head)
            return
        if exchange.settled or exchange.client.gone:
            connection.release(True)
            self._take_refusal(refusing, head)
            return
        try:
            exchange.send_again(connection)
        except UpstreamConnectError:
            self._take_refusal(refusing, head)
            return
        self._held, self._closed = None, None
        refusing.abort()
        exchange.worker.counters[_ELSEWHERE] += 1
        name = self._place.target.endpoint.name if self._place is not None else ""
        _log.info("%s: a place answered %d, sent to %s", exchange.id, head.status, name)

    def _take_refusal(self, connection: Connection, head: "Head") -> None:
        exchange, held, closed = self._exchange, self._held or [], self._closed
        self._held = None
        if exchange.settled:
            connection.abort()
            return
        self._take(connection, head, b"".join(held))
        if closed is not None and connection.receiver is not None:
            connection.receiver.on_closed(*closed)
        else:
            connection.resume_reading()

    def _take(self, connection: Connection, head: "Head", rest: bytes) -> None:
        connection.receiver = self._exchange
        self._exchange.on_head(head, rest)


def _retry_after_s(head: "Head") -> int | None:
    """Seconds of a Retry-After header; None where it has none, or a date."""
    text = header_value(head, b"retry-after").strip()
    return int(text) if text.isdigit() and len(text) < 10 else None
