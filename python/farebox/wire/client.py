"""The client's side of the wire: one HTTP/1.x connection, its parsers, its queue of requests, its deadlines.

What nearly every client sends, a whole plain head in one read while nothing else is under way, is read in one
compiled call. From the first bytes that are anything else on, the connection belongs to aiohttp's request
handler with its parser (llhttp) and flow control; its task loop, request objects and error pages are
replaced, so that an exchange costs no task and one write. Promises: requests of a connection are answered in
their order, one at a time; a request that could be read in two ways is refused and ends the connection; a
client that leaves never cancels the work done for it.

A half-close counts as leaving: a client that stops sending in mid-exchange is told apart from one that has
gone by nothing on the wire.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.tcp_helpers import tcp_keepalive
from aiohttp.web_protocol import RequestHandler

from farebox._meter import parse_request
from farebox.base import limits
from farebox.base.errors import Refusal, Refused
from farebox.wire.errors import protocol_fault, render
from farebox.wire.incoming import Incoming
from farebox.wire.parsed_request import ParsedRequest
from farebox.wire.plain_request import PlainRequest
from farebox.wire.routes import family_of
from farebox.wire.watch import Watched

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage
    from aiohttp.streams import StreamReader

    from farebox.wire.server import Server

_log = logging.getLogger("farebox.wire")
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
_UNREADABLE = "The request is not valid HTTP/1.1, or its head is too large."
_hosts_seen: set[str] = set()


class ClientConnection(RequestHandler):
    """One client connection. Owned by its `Server`, which sweeps the deadlines kept here as plain times."""

    __slots__ = (
        "_body_fed_bytes",
        "_fault_status",
        "_full",
        "_lingering",
        "_plain",
        "body_since_s",
        "current",
        "head_since_s",
        "idle_since_s",
        "linger_since_s",
        "peer",
        "server",
        "stalled_since_s",
        "stalled_taken_bytes",
        "task",
        "watched",
        "written_before",
    )

    def __init__(self, server: "Server", loop: asyncio.AbstractEventLoop) -> None:
        options = server.options
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=0,
            read_bufsize=limits.request_body_unread_bytes_max // 2,  # aiohttp stops reading at twice this
            max_line_size=options.request_line_bytes_max,
            max_field_size=options.header_bytes_max,
            max_headers=options.headers_max,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]  # None turns it off, as its own `if` says
        )
        self._messages: deque[tuple[RawRequestMessage, StreamReader]] = deque()  # type: ignore[assignment]
        self.server = server
        self.watched = Watched(server.watch)
        """Stirs when a deadline begins to run and when something is written."""
        self.current: Incoming | None = None
        self._plain = True
        """Nothing was given to aiohttp's parser yet, and requests are still wanted."""
        self.task: asyncio.Task[None] | None = None
        self.peer: object = None
        self._fault_status = 0
        self._full = False
        self._lingering = False
        self._body_fed_bytes = 0
        self.body_since_s = 0.0
        self.head_since_s = 0.0
        self.idle_since_s = 0.0
        self.linger_since_s = 0.0
        self.stalled_since_s = 0.0
        self.stalled_taken_bytes = 0
        self.written_before = 0

    def now_s(self) -> float:
        """The loop's time."""
        return self._loop.time()

    # ---- transport callbacks ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        BaseProtocol.connection_made(self, transport)
        if self.transport is None:
            return
        tcp_keepalive(self.transport)
        self.peer = self.transport.get_extra_info("peername")
        self.transport.set_write_buffer_limits(high=self.server.options.write_buffer_bytes_max)
        self.head_since_s = self.now_s()
        self.server.connection_made(self, self.transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._force_close = True
        self._plain = False
        self.transport = None
        self._parser = None
        self._messages.clear()
        current = self.current
        self.current = None
        if current is not None:
            current.fail_body(Refused(Refusal.BODY_INVALID, "The client left.", close=True))
            self.server.exchange_lost(self.task)
            current.client_left()
        self.task = None
        self.server.connection_lost(self, exc)

    def pause_writing(self) -> None:
        self._paused = True
        if self.current is not None:
            self.current.writing(paused=True)

    def resume_writing(self) -> None:
        self._paused = False
        if self.current is not None:
            self.current.writing(paused=False)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Spare the transport calls aiohttp's body reader makes after every read."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        if self._plain:
            current = self.current
            if current is None:
                plain = parse_request(data, limits.request_body_plain_bytes_max)
                if plain is not None:
                    self.head_since_s = 0.0
                    self._handle(PlainRequest(self, plain))
                    return
            elif isinstance(current, PlainRequest) and current.missing_bytes:
                data = current.take(data)
                if not data:
                    return
            self._plain = False
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        if self._lingering or self._fault_status or parser is None:
            return
        try:
            messages, upgraded, _ = parser.feed_data(data)
        except HttpProcessingError as error:
            self._unreadable(error)
            return
        if upgraded:
            self._close = True
        if messages:
            self.head_since_s = 0.0
            if self.current is None and len(messages) == 1 and not self._messages:
                self._begin(*messages[0])
            else:
                self._queue(messages)
        elif self.current is None:
            if not self.head_since_s and data:
                self.head_since_s = self.now_s()
                self.watched.stir()
        elif self.body_since_s and isinstance(self.current, ParsedRequest):
            self._body_fed_bytes += len(data)
            if self.current.framing_wasteful(self._body_fed_bytes):
                self.current.fail_body(
                    Refused(Refusal.BODY_INVALID, "The body's chunks are too small.", close=True)
                )

    # ---- requests --------------------------------------------------------------------------------------

    def _queue(self, messages: "list[tuple[RawRequestMessage, StreamReader]]") -> None:
        self._messages.extend(messages)
        if self.current is None:
            self._begin(*self._messages.popleft())
        if len(self._messages) + 1 >= self._max_msg_queue_size:
            self._full = True
            self._pause_reading_for_buffer()

    def _begin(self, message: "RawRequestMessage", payload: "StreamReader") -> None:
        request = ParsedRequest(self, message, payload)
        self._body_fed_bytes = 0
        fault = _ambiguity(message, message.version)
        if fault is None:
            self._handle(request)
        else:
            self.current = request
            self.server.open_count += 1
            self._refuse_unreadable(request, fault)

    def _handle(self, incoming: Incoming) -> None:
        server = self.server
        self.current = incoming
        server.open_count += 1
        try:
            pending = server.handle(incoming)
        except Exception as error:  # noqa: BLE001 - the edge: whatever failed, the client gets an answer
            self._refuse(incoming, error)
            return
        if pending is not None:
            self.task = self._loop.create_task(self._run(incoming, pending))

    async def _run(self, incoming: Incoming, pending: Awaitable[None]) -> None:
        try:
            await pending
        except Exception as error:  # noqa: BLE001 - the edge: whatever failed, the client gets an answer
            self._refuse(incoming, error)

    def _refuse(self, incoming: Incoming, error: Exception) -> None:
        if isinstance(error, Refused):
            refused = error
        else:
            _log.error("an exchange failed", exc_info=error)
            refused = Refused(Refusal.INTERNAL, "Internal error.", close=True)
        if refused.close:
            incoming.keep_alive = False
        if incoming.answered:
            incoming.abort()
            return
        incoming.answer(*render(refused, family_of(incoming.path), ""))

    def exchange_finished(self, incoming: Incoming) -> None:
        """The current answer is complete (or cut): go on with the next request, or close."""
        self.server.open_count -= 1
        self.written_before += incoming.bytes_written
        self.current = None
        self.task = None
        if self._force_close or self._parser is None:
            return
        if not incoming.keep_alive or self._close:
            self._close_gently()
            return
        self.idle_since_s = self._loop.time()
        if not self._plain:
            self._next(incoming)

    def _next(self, finished: Incoming) -> None:
        """Go on with what aiohttp's parser has read, or could not read, meanwhile."""
        if finished.from_parser and self._parser is not None:
            self._parser.message_consumed()
        if self._messages:
            self._begin(*self._messages.popleft())
        elif self._fault_status:
            self._write_fault(self._fault_status, _UNREADABLE)
            return
        if self._full and len(self._messages) <= self._msg_queue_resume_size:
            self._refill()

    def _refill(self) -> None:
        """Parse requests the parser held back while the queue was full; read on when it is not full again."""
        self._full = False
        self._parse(b"")
        if not self._full and not self._lingering:
            self._resume_reading_for_buffer()

    # ---- closing ---------------------------------------------------------------------------------------

    def _unreadable(self, error: HttpProcessingError) -> None:
        """Answer bytes that are no acceptable HTTP, after the answers still owed, and close."""
        current = self.current
        if current is not None and not current.body_complete:
            self._close = True
            current.keep_alive = False
            current.fail_body(
                Refused(Refusal.BODY_INVALID, "The body's transfer framing is broken.", close=True)
            )
            return
        self._fault_status = 431 if isinstance(error, LineTooLong) else 400
        if current is None:
            self._write_fault(self._fault_status, _UNREADABLE)

    def _refuse_unreadable(self, incoming: Incoming, fault: str) -> None:
        incoming.keep_alive = False
        incoming.answer(*protocol_fault(400, fault, family_of(incoming.path)))

    def _write_fault(self, status: int, message: str) -> None:
        if self.transport is None:
            return
        status, lines, body = protocol_fault(status, message)
        head = self.server.head_start(status)
        close = b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.transport.write(head + lines + close + body)
        self._close_gently()

    def _close_gently(self) -> None:
        """Close after what was written is delivered, unread input notwithstanding.

        Closing a socket with unread input resets it, and the answer may be lost with it: so our side is
        shut first, and what still arrives is dropped until the client closes or the sweep does, once the
        client has taken everything or stopped taking anything.
        """
        self._close = True
        self._plain = False
        if self.transport is None or self._lingering:
            return
        self._lingering = True
        self.linger_since_s = self.now_s()
        self.watched.stir()
        self._messages.clear()
        if self._reading_paused or self._buffer_paused:
            self._reading_paused = self._buffer_paused = False
            self._resume_transport_reading()
        if not self.transport.is_closing():
            self.transport.write_eof()

    def waiting_bytes(self) -> int:
        """How much was written that the client has not taken yet, as far as this process knows."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def drop(self) -> None:
        """Close at once; what is buffered is lost."""
        self._force_close = True
        if self.transport is not None:
            self.transport.abort()

    def asking(self) -> bool:
        """Whether it has not sent its first request yet, or is in the middle of a request's head."""
        return self.current is None and self.head_since_s > 0 and not self._lingering

    def close_after_request(self) -> None:
        """Close now when nothing is asked nor answered, else after the answer."""
        if self.asking():
            self._close = True
        else:
            self.close_idle()

    def close_idle(self) -> None:
        """Close now when nothing is being answered, else after the current answer."""
        self._close = True
        if self.current is None:
            self._close_gently()

    def time_out_body(self) -> None:
        """The body took too long: the reader is told, and the connection ends."""
        self.body_since_s = 0.0
        if self.current is not None:
            self.current.fail_body(
                Refused(Refusal.BODY_TIMEOUT, "The body did not arrive in time.", close=True)
            )

    def time_out_head(self) -> None:
        """The head took too long."""
        self._write_fault(408, "The request head did not arrive in time.")


def _ambiguity(message: "RawRequestMessage", version: object) -> str | None:
    """Why a head that the parser let pass could be read differently by someone else; None when it could
    not.
    """
    if version is not HttpVersion11 and version is not HttpVersion10:
        return "Only HTTP/1.0 and HTTP/1.1 are spoken here."
    if message.path[:1] != "/":
        return "The request target must be a path."
    headers = message.headers
    host = headers.get(hdrs.HOST)
    if host is not None and host not in _hosts_seen:
        if _HOST.fullmatch(host) is None:
            return "The Host header is not a host."
        if len(_hosts_seen) < limits.hosts_remembered_max:
            _hosts_seen.add(host)
    if message.chunked or hdrs.TRANSFER_ENCODING in headers:
        if version is HttpVersion10 or hdrs.CONTENT_LENGTH in headers:
            return "Transfer-Encoding stands alone, and only in HTTP/1.1."
        if [value.lower() for value in headers.getall(hdrs.TRANSFER_ENCODING)] != ["chunked"]:
            return "Transfer-Encoding may only be chunked."
    elif hdrs.CONTENT_LENGTH in headers:
        length = headers[hdrs.CONTENT_LENGTH]
        if not (length.isascii() and length.isdecimal() and len(length) <= 19):
            return "Content-Length must be a decimal number."
    if message.upgrade and headers.get(hdrs.UPGRADE, "").lower() == "websocket":
        return "WebSocket is not served here."
    return None
