"""A request read by aiohttp's parser: chunked or large bodies, expectations, old versions, anything unusual.

Its body comes through aiohttp's flow control: what the proxy does not take stays in the client's socket.
"""

import asyncio
from typing import TYPE_CHECKING, Protocol

from aiohttp import hdrs
from aiohttp.http import HttpVersion11
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from farebox._meter import request_lines
from farebox.base import limits
from farebox.base.errors import Refusal, Refused
from farebox.wire.incoming import Incoming, too_large

if TYPE_CHECKING:
    from aiohttp.http import HttpVersion
    from multidict import CIMultiDictProxy

    from farebox.wire.client import ClientConnection

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_FRAMING_BYTES_CHECKED_FROM = 8192
_FRAMING_SHARE_MAX = 4


class Message(Protocol):
    """A request's head as aiohttp's parser gives it, of which there is one in C and one in Python."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def version(self) -> "HttpVersion": ...
    @property
    def headers(self) -> "CIMultiDictProxy[str]": ...
    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]: ...
    @property
    def should_close(self) -> bool: ...
    @property
    def upgrade(self) -> bool: ...
    @property
    def chunked(self) -> bool: ...


class ParsedRequest(Incoming):
    """One request of aiohttp's parser."""

    __slots__ = ("_message", "_payload")

    from_parser = True

    def __init__(self, connection: "ClientConnection", message: Message, payload: StreamReader) -> None:
        path, _, query = message.path.partition("?")
        chunked_ok = message.version is HttpVersion11
        # A chunked request ends its connection: its last trailer would open the next head in the parser.
        keep_alive = chunked_ok and not (message.should_close or message.upgrade or message.chunked)
        super().__init__(connection, message.method, path, query, chunked_ok, keep_alive)
        self._message = message
        self._payload = payload

    @property
    def headers(self) -> "CIMultiDictProxy[str]":
        return self._message.headers

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        return self._message.raw_headers

    @property
    def upstream_lines(self) -> bytes:
        return request_lines(self._message.raw_headers, self.path)

    def body_now(self, bytes_max: int = limits.request_body_bytes_max) -> bytes | None:
        payload = self._payload
        if payload is EMPTY_PAYLOAD:
            return b""
        headers = self.headers
        if hdrs.CONTENT_ENCODING in headers and headers[hdrs.CONTENT_ENCODING].lower() != "identity":
            raise Refused(Refusal.BODY_ENCODED, "Send the body without Content-Encoding.")
        if not payload.is_eof():
            declared = headers.get(hdrs.CONTENT_LENGTH)
            if declared is not None and int(declared) > bytes_max:
                raise too_large(bytes_max)
            return None
        data = payload.read_nowait(-1)
        if len(data) > bytes_max:
            raise too_large(bytes_max)
        self._reserve(len(data))
        return data

    async def _arriving_body(self, bytes_max: int) -> bytes:
        self._answer_expectation()
        parts: list[bytes] = []
        size = 0
        try:
            while part := await self._payload.readany():
                size += len(part)
                if size > bytes_max:
                    raise too_large(bytes_max)
                self._reserve(len(part))
                parts.append(part)
        except Refused:
            raise
        except Exception as error:
            raise Refused(
                Refusal.BODY_INVALID, "The request body's transfer framing is broken.", close=True
            ) from error
        if len(parts) == 1:
            return parts[0]
        if size < limits.scan_in_thread_bytes_min:
            return b"".join(parts)
        return await asyncio.to_thread(b"".join, parts)  # which lets others run while it copies so much

    def _answer_expectation(self) -> None:
        expectations = self.headers.getall(hdrs.EXPECT, ())
        if not expectations:
            return
        if len(expectations) > 1 or expectations[0].lower() != "100-continue":
            raise Refused(Refusal.UNSUPPORTED, "Expect may only be 100-continue.", close=True)
        if self._transport is not None and self.chunked_ok and self._payload.total_bytes == 0:
            self._transport.write(_CONTINUE)

    @property
    def body_complete(self) -> bool:
        return self._payload.is_eof()

    def fail_body(self, refused: Refused) -> None:
        if self._payload is not EMPTY_PAYLOAD and not self._payload.is_eof():
            self._payload.set_exception(refused)

    def framing_wasteful(self, fed_bytes: int) -> bool:
        """Whether a chunked body consists mostly of chunk framing (`fed_bytes` were received for it)."""
        return (
            fed_bytes > _FRAMING_BYTES_CHECKED_FROM
            and self._payload.total_bytes * _FRAMING_SHARE_MAX < fed_bytes
        )
