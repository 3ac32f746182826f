"""One client request and the way its answer leaves: the object handed to the proxy for each exchange.

`Incoming` is valid from the complete request head until its answer is finished or its client is gone; every
write passes one guard here, so nothing is ever written to a closed connection or into the next answer. All
methods but `body` are synchronous and never wait. How a request is read is known to its two kinds:
`PlainRequest` (what nearly every client sends) and `ParsedRequest` (everything else).
"""

import struct
from collections.abc import Callable, Sequence
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, ClassVar, Final

from farebox.base import limits
from farebox.base.errors import InvariantBrokenError, Refusal, Refused
from farebox.wire.headers import client_key, encode_headers, require_json

if TYPE_CHECKING:
    import asyncio

    from multidict import CIMultiDictProxy

    from farebox.wire.client import ClientConnection

_WAITING, _STREAMING, _DONE = range(3)
_CLOSE = b"Connection: close\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Incoming:
    """A request whose head is complete, and its answer.

    `path` is the request target exactly as sent up to the first `?`, `query` the rest ("" when none).
    `on_gone`, `on_paused` and `on_writable` are called at most once per event; set them to None when done.
    `chunked_ok`: the client understands chunks (HTTP/1.1). `chunked`: the answer is a stream in chunks.
    `gone`: the client left before its answer was finished (a half-close counts as leaving).
    `watched` is its connection's: who writes by `send` makes it stir.
    """

    __slots__ = (
        "_body_bytes",
        "_connection",
        "_phase",
        "_transport",
        "bytes_written",
        "chunked",
        "chunked_ok",
        "gone",
        "keep_alive",
        "method",
        "on_gone",
        "on_paused",
        "on_writable",
        "path",
        "paused",
        "query",
        "send",
        "watched",
    )

    from_parser: ClassVar[bool]
    """Whether aiohttp's parser counts this request among those it gave out."""

    def __init__(
        self,
        connection: "ClientConnection",
        method: str,
        path: str,
        query: str,
        chunked_ok: bool,
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self.watched: Final = connection.watched
        self._transport: asyncio.Transport | None = connection.transport
        self._phase = _WAITING
        self._body_bytes = 0
        self.method = method
        self.path = path
        self.query = query
        self.chunked_ok = chunked_ok
        self.keep_alive = keep_alive
        self.chunked = False
        self.bytes_written = 0
        self.gone = False
        self.paused = connection._paused
        self.send: Callable[[bytes], None] | None = None
        """Writes to the client while its stream is open, else None; who uses it counts `bytes_written`."""
        self.on_gone: Callable[[], None] | None = None
        self.on_paused: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None

    @property
    def peer(self) -> object:
        """The transport's peer name: (host, port) or a socket path."""
        return self._connection.peer

    @property
    def answered(self) -> bool:
        """Whether an answer was begun, or can no longer be given."""
        return self._phase != _WAITING

    # ---- what the head says ----------------------------------------------------------------------------

    @property
    def headers(self) -> "CIMultiDictProxy[str]":
        """The headers by name."""
        raise NotImplementedError

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Name and value of each header as sent, in order."""
        raise NotImplementedError

    @property
    def upstream_lines(self) -> bytes:
        """The headers that go to the upstream, as lines that each end in CRLF."""
        raise NotImplementedError

    def api_key(self) -> str:
        """The API key. Raises Refused as `headers.client_key` does."""
        return client_key(self.headers, self.query)

    def require_json(self) -> None:
        """Raise Refused BODY_TYPE unless the body is declared as JSON in UTF-8."""
        require_json(self.headers)

    # ---- the body --------------------------------------------------------------------------------------

    async def body(self, bytes_max: int = limits.request_body_bytes_max) -> bytes:
        """The whole request body; call once.

        Raises Refused: BODY_ENCODED, BODY_TOO_LARGE (before reading where declared), BODY_TIMEOUT,
        BODY_INVALID, OVERLOADED (all bodies of the process together are too large), UNSUPPORTED (an unknown
        expectation).
        """
        data = self.body_now(bytes_max)
        if data is not None:
            return data
        connection = self._connection
        connection.body_since_s = connection.now_s()
        self.watched.stir()
        try:
            return await self._arriving_body(bytes_max)
        finally:
            connection.body_since_s = 0.0

    def body_now(self, bytes_max: int = limits.request_body_bytes_max) -> bytes | None:
        """The whole body if it is here already, else None: await `body` then. Raises as `body` does."""
        raise NotImplementedError

    async def _arriving_body(self, bytes_max: int) -> bytes:
        raise NotImplementedError

    @property
    def body_complete(self) -> bool:
        """Whether the whole body has arrived (read or not)."""
        raise NotImplementedError

    def fail_body(self, refused: Refused) -> None:
        """Make a pending or later `body` raise `refused`, unless the whole body has arrived."""
        raise NotImplementedError

    def _reserve(self, count: int) -> None:
        if self.gone:  # what it reserved has been released; nobody would release this
            raise Refused(Refusal.BODY_INVALID, "The client left.", close=True)
        server = self._connection.server
        if server.body_bytes_held + count > server.options.bodies_bytes_total_max:
            raise Refused(
                Refusal.OVERLOADED, "Too many large requests at once; try again.", retry_after_s=1, close=True
            )
        server.body_bytes_held += count
        self._body_bytes += count

    # ---- the answer ------------------------------------------------------------------------------------

    def answer(self, status: int, headers: Sequence[tuple[str, str]] | bytes, body: bytes) -> None:
        """Send a whole answer in one write and finish.

        `headers` are pairs, or lines that each end in CRLF; Date, Content-Length and Connection are added
        here. Nothing happens when the client is gone. An exchange is answered once.
        """
        transport = self._begin_answer(_DONE)
        if transport is None:
            return
        connection = self._connection
        server = connection.server
        if not server.keep_alive or not self.body_complete:
            self.keep_alive = False
        data = b"%b%b%bContent-Length: %d\r\n\r\n%b" % (
            server.head_starts.get(status) or server.head_start(status),
            headers if isinstance(headers, bytes) else encode_headers(headers),
            b"" if self.keep_alive else _CLOSE,
            len(body),
            b"" if self.method == "HEAD" else body,
        )
        self.bytes_written = len(data)
        transport.write(data)
        self._finish()

    def start_stream(
        self, status: int, headers: Sequence[tuple[str, str]] | bytes, content_length: int | None = None
    ) -> None:
        """Send the head of an answer whose body follows in `write` calls, ended by `end` or `abort`.

        Without `content_length` the body is chunked (the caller frames it, see `write`), or, where
        `chunked_ok` is False, goes out unframed and ends when the connection closes.
        """
        transport = self._begin_answer(_STREAMING)
        if transport is None:
            return
        server = self._connection.server
        if not server.keep_alive or not self.body_complete:
            self.keep_alive = False
        lines = headers if isinstance(headers, bytes) else encode_headers(headers)
        close = b"" if self.keep_alive else _CLOSE
        framing = b""
        if content_length is not None:
            framing = b"Content-Length: %d\r\n" % content_length
        elif self.chunked_ok:
            self.chunked = True
            framing = b"Transfer-Encoding: chunked\r\n"
        data = b"%b%b%b%b\r\n" % (server.head_start(status), lines, close, framing)
        self.bytes_written = len(data)
        transport.write(data)
        self.send = transport.write
        self.watched.stir()

    def write(self, data: bytes) -> None:
        """Send body bytes as they are: chunk-framed by the caller where the stream is chunked."""
        send = self.send
        if send is not None:
            self.bytes_written += len(data)
            self.watched.stir()
            send(data)

    def write_framed(self, data: bytes) -> None:
        """Send unframed body bytes, as one chunk where the stream is chunked."""
        self.write(self.framed(data))

    def framed(self, data: bytes) -> bytes:
        """Body bytes as one chunk where the stream is chunked."""
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked and data else data

    def end(self) -> None:
        """Finish a streamed answer properly."""
        transport = self._transport
        if transport is None:
            return
        if self.chunked:
            transport.write(_LAST_CHUNK)
        self._finish()

    def abort(self) -> None:
        """End the connection so that the client sees a truncated answer, never a complete one.

        Framed streams are flushed and closed short of their end. Unframed ones are reset: a plain close
        would look like their proper end. Without an answer begun the connection just closes.
        """
        transport = self._transport
        if transport is None:
            return
        if self._phase == _STREAMING and not self.chunked_ok:
            sock = transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(SOL_SOCKET, SO_LINGER, _RESET_ON_CLOSE)
            self._connection.drop()
            return
        self.keep_alive = False
        self._finish()

    # ---- between the connection and this object --------------------------------------------------------

    def _begin_answer(self, phase: int) -> "asyncio.Transport | None":
        if self._phase != _WAITING:
            if self.gone:
                return None
            msg = "an exchange was answered twice"
            raise InvariantBrokenError(msg)
        self._phase = phase
        return self._transport

    def _finish(self) -> None:
        self._phase = _DONE
        self._transport = self.send = None
        self.watched.stir()
        if self._body_bytes:
            self.release_body()
        self._connection.exchange_finished(self)

    def release_body(self) -> None:
        """Give the body's bytes back to the process-wide budget."""
        self._connection.server.body_bytes_held -= self._body_bytes
        self._body_bytes = 0

    def client_left(self) -> None:
        """The connection is lost: called by the connection, once."""
        self.gone = True
        self._phase = _DONE
        self._transport = self.send = None
        self.release_body()
        if self.on_gone is not None:
            self.on_gone()

    def writing(self, paused: bool) -> None:
        """The transport's buffer crossed its high (paused) or low mark: called by the connection."""
        self.paused = paused
        notify = self.on_paused if paused else self.on_writable
        if notify is not None:
            notify()


def too_large(bytes_max: int) -> Refused:
    """The refusal of a body that is, or will be, beyond the limit."""
    return Refused(
        Refusal.BODY_TOO_LARGE, f"The body is larger than the limit of {bytes_max} bytes.", close=True
    )
