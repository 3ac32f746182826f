"""One client request and the way its answer leaves: the object handed to the proxy for each exchange.

`Incoming` is valid from the complete request head until its answer is finished or its client is gone; every
write passes one guard here, so nothing is ever written to a closed connection or into the next answer. All
methods but `body` are synchronous and never wait.
"""

import struct
from collections.abc import Callable, Sequence
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from farebox.base import limits
from farebox.base.errors import InvariantBrokenError, Refusal, Refused
from farebox.wire.headers import encode_headers

if TYPE_CHECKING:
    import asyncio

    from aiohttp.http import RawRequestMessage
    from multidict import CIMultiDictProxy

    from farebox.wire.client import ClientConnection

_WAITING, _STREAMING, _DONE = range(3)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE = b"Connection: close\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_FRAMING_BYTES_CHECKED_FROM = 8192
_FRAMING_SHARE_MAX = 4


class Incoming:
    """A request whose head is complete, and its answer.

    `path` is the request target exactly as sent up to the first `?`, `query` the rest ("" when none).
    `peer` is the transport's peer name. `on_gone`, `on_paused` and `on_writable` are called at most once
    per event; set them to None when done. `chunked`: the answer is a stream in chunks. `gone`: the client
    left before its answer was finished (a half-close counts as leaving).
    """

    __slots__ = (
        "_body_bytes",
        "_connection",
        "_message",
        "_payload",
        "_phase",
        "_transport",
        "bytes_written",
        "chunked",
        "chunked_ok",
        "gone",
        "headers",
        "keep_alive",
        "method",
        "on_gone",
        "on_paused",
        "on_writable",
        "path",
        "paused",
        "query",
    )

    def __init__(
        self,
        connection: "ClientConnection",
        message: "RawRequestMessage",
        payload: StreamReader,
        chunked_ok: bool,
    ) -> None:
        self._connection = connection
        self._transport: asyncio.Transport | None = connection.transport
        self._message = message
        self._payload = payload
        self._phase = _WAITING
        self.chunked = False
        self._body_bytes = 0
        self.method: str = message.method
        self.headers: CIMultiDictProxy[str] = message.headers
        target: str = message.path
        if "?" in target:
            self.path, _, self.query = target.partition("?")
        else:
            self.path = target
            self.query = ""
        self.chunked_ok = chunked_ok
        # A chunked request ends its connection: its last trailer would open the next head in the parser.
        self.keep_alive = chunked_ok and not (message.should_close or message.upgrade or message.chunked)
        self.bytes_written = 0
        self.gone = False
        self.paused = connection.writing_paused
        self.on_gone: Callable[[], None] | None = None
        self.on_paused: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Name and value of each header as sent, in order."""
        return self._message.raw_headers

    @property
    def peer(self) -> object:
        """The transport's peer name: (host, port) or a socket path."""
        return self._connection.peer

    @property
    def answered(self) -> bool:
        """Whether an answer was begun, or can no longer be given."""
        return self._phase != _WAITING

    # ---- the request body ------------------------------------------------------------------------------

    async def body(self, bytes_max: int = limits.request_body_bytes_max) -> bytes:
        """The whole request body; call once.

        Raises Refused: BODY_ENCODED, BODY_TOO_LARGE (before reading where declared), BODY_TIMEOUT,
        BODY_INVALID, OVERLOADED (all bodies of the process together are too large), UNSUPPORTED (an unknown
        expectation).
        """
        data = self.body_now(bytes_max)
        return await self._arriving_body(bytes_max) if data is None else data

    def body_now(self, bytes_max: int = limits.request_body_bytes_max) -> bytes | None:
        """The whole body if it is here already, else None: await `body` then. Raises as `body` does."""
        payload = self._payload
        if payload is EMPTY_PAYLOAD:
            return b""
        headers = self.headers
        if hdrs.CONTENT_ENCODING in headers and headers[hdrs.CONTENT_ENCODING].lower() != "identity":
            raise Refused(Refusal.BODY_ENCODED, "Send the body without Content-Encoding.")
        if not payload.is_eof():
            declared = headers.get(hdrs.CONTENT_LENGTH)
            if declared is not None and int(declared) > bytes_max:
                raise _too_large(bytes_max)
            return None
        data = payload.read_nowait(-1)
        if len(data) > bytes_max:
            raise _too_large(bytes_max)
        self._reserve(len(data))
        return data

    async def _arriving_body(self, bytes_max: int) -> bytes:
        payload = self._payload
        self._answer_expectation()
        connection = self._connection
        connection.body_since_s = connection.now_s()
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                part = await payload.readany()
                if not part:
                    break
                size += len(part)
                if size > bytes_max:
                    raise _too_large(bytes_max)
                self._reserve(len(part))
                parts.append(part)
        except Refused:
            raise
        except Exception as error:
            raise Refused(
                Refusal.BODY_INVALID, "The request body's transfer framing is broken.", close=True
            ) from error
        finally:
            connection.body_since_s = 0.0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _answer_expectation(self) -> None:
        expectations = self.headers.getall(hdrs.EXPECT, ())
        if not expectations:
            return
        if len(expectations) > 1 or expectations[0].lower() != "100-continue":
            raise Refused(Refusal.UNSUPPORTED, "Expect may only be 100-continue.", close=True)
        if self._transport is not None and self.chunked_ok and self._payload.total_bytes == 0:
            self._transport.write(_CONTINUE)

    def _reserve(self, count: int) -> None:
        server = self._connection.server
        if server.body_bytes_held + count > server.options.bodies_bytes_total_max:
            raise Refused(
                Refusal.OVERLOADED, "Too many large requests at once; try again.", retry_after_s=1, close=True
            )
        server.body_bytes_held += count
        self._body_bytes += count

    def framing_wasteful(self, fed_bytes: int) -> bool:
        """Whether a chunked body consists mostly of chunk framing (`fed_bytes` were received for it)."""
        return (
            fed_bytes > _FRAMING_BYTES_CHECKED_FROM
            and self._payload.total_bytes * _FRAMING_SHARE_MAX < fed_bytes
        )

    def fail_body(self, refused: Refused) -> None:
        """Make a pending or later `body` raise `refused`."""
        if self._payload is not EMPTY_PAYLOAD and not self._payload.is_eof():
            self._payload.set_exception(refused)

    @property
    def body_complete(self) -> bool:
        """Whether the whole body has arrived (read or not)."""
        return self._payload.is_eof()

    # ---- the answer ------------------------------------------------------------------------------------

    def answer(self, status: int, headers: Sequence[tuple[str, str]] | bytes, body: bytes) -> None:
        """Send a whole answer in one write and finish.

        `headers` are pairs, or lines that each end in CRLF; Date, Content-Length and Connection are added
        here. Nothing happens when the client is gone. An exchange is answered once.
        """
        transport = self._begin_answer(_DONE)
        if transport is None:
            return
        head = self._connection.server.head_start(status)
        lines = headers if isinstance(headers, bytes) else encode_headers(headers)
        close = b"" if self._may_keep_alive() else _CLOSE
        sent_body = b"" if self.method == "HEAD" else body
        data = b"%b%b%bContent-Length: %d\r\n\r\n%b" % (head, lines, close, len(body), sent_body)
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
        head = self._connection.server.head_start(status)
        lines = headers if isinstance(headers, bytes) else encode_headers(headers)
        close = b"" if self._may_keep_alive() else _CLOSE
        framing = b""
        if content_length is not None:
            framing = b"Content-Length: %d\r\n" % content_length
        elif self.chunked_ok:
            self.chunked = True
            framing = b"Transfer-Encoding: chunked\r\n"
        data = b"%b%b%b%b\r\n" % (head, lines, close, framing)
        self.bytes_written = len(data)
        transport.write(data)

    def write(self, data: bytes) -> None:
        """Send body bytes as they are: chunk-framed by the caller where the stream is chunked."""
        transport = self._transport
        if transport is not None:
            self.bytes_written += len(data)
            transport.write(data)

    def write_framed(self, data: bytes) -> None:
        """Send unframed body bytes, as one chunk where the stream is chunked."""
        if self.chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self.write(data)

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

    def _may_keep_alive(self) -> bool:
        if self.keep_alive and not self._payload.is_eof():
            self.keep_alive = False
        if self._connection.server.draining:
            self.keep_alive = False
        return self.keep_alive

    def _finish(self) -> None:
        self._phase = _DONE
        self._transport = None
        self.release_body()
        self._connection.exchange_finished(self.keep_alive)

    def release_body(self) -> None:
        """Give the body's bytes back to the process-wide budget."""
        self._connection.server.body_bytes_held -= self._body_bytes
        self._body_bytes = 0

    def client_left(self) -> None:
        """The connection is lost: called by the connection, once."""
        self.gone = True
        self._phase = _DONE
        self._transport = None
        self.release_body()
        if self.on_gone is not None:
            self.on_gone()

    def writing(self, paused: bool) -> None:
        """The transport's buffer crossed its high (paused) or low mark: called by the connection."""
        self.paused = paused
        notify = self.on_paused if paused else self.on_writable
        if notify is not None:
            notify()


def _too_large(bytes_max: int) -> Refused:
    return Refused(
        Refusal.BODY_TOO_LARGE, f"The body is larger than the limit of {bytes_max} bytes.", close=True
    )
