"""A request as nearly every client sends it: read in one call of the compiled module, its body gathered here.

Bodies that come in several reads are kept as they come; their declared length is small
(`limits.request_body_plain_bytes_max`), and they count against the budget of all bodies at once.
"""

import asyncio
from typing import TYPE_CHECKING

from multidict import CIMultiDict, CIMultiDictProxy

from farebox.base import limits
from farebox.base.errors import Refused
from farebox.wire.incoming import Incoming, too_large

if TYPE_CHECKING:
    from farebox.wire.client import ClientConnection


PlainHead = tuple[str, str, str, str | None, bool, bool, bytes, bytes, bytes, int]
"""What `_meter.parse_request` gives."""


class PlainRequest(Incoming):
    """One request of `_meter.parse_request`. The connection gives it the rest of its body with `take`."""

    __slots__ = (
        "_arrived",
        "_body",
        "_failure",
        "_head",
        "_is_json",
        "_key",
        "_lines",
        "_parts",
        "_size",
        "missing_bytes",
    )

    from_parser = False

    def __init__(self, connection: "ClientConnection", plain: PlainHead) -> None:
        (
            method,
            path,
            query,
            self._key,
            self._is_json,
            keep_alive,
            self._lines,
            self._head,
            self._body,
            self.missing_bytes,
        ) = plain
        super().__init__(connection, method, path, query, True, keep_alive)
        self._size = len(self._body) + self.missing_bytes
        self._parts: list[bytes] | None = None
        self._failure: Refused | None = None
        self._arrived: asyncio.Future[None] | None = None

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        pairs = [(name.decode("ascii"), value.decode("ascii")) for name, value in self.raw_headers]
        return CIMultiDictProxy(CIMultiDict(pairs))

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        lines = [line.partition(b":") for line in self._head.split(b"\r\n")[1:-2]]
        return tuple([(name, value.strip(b" ")) for name, _, value in lines])

    @property
    def upstream_lines(self) -> bytes:
        return self._lines

    def api_key(self) -> str:
        return self._key or super().api_key()

    def require_json(self) -> None:
        if not self._is_json:
            super().require_json()

    # ---- the body --------------------------------------------------------------------------------------

    def body_now(self, bytes_max: int = limits.request_body_bytes_max) -> bytes | None:
        if self._failure is not None:
            raise self._failure
        if self._size > bytes_max:
            raise too_large(bytes_max)
        if self.missing_bytes:
            return None
        if self._parts is None:
            self._reserve(self._size)
        body, self._body = self._body, b""
        return body

    async def _arriving_body(self, bytes_max: int) -> bytes:  # noqa: ARG002 - the declared length was checked
        if self.missing_bytes and self._failure is None:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        if self._failure is not None:
            raise self._failure
        body, self._body = self._body, b""
        return body

    def take(self, data: bytes) -> bytes:
        """More of the body; what follows its end is returned."""
        missing = self.missing_bytes
        part = data if len(data) <= missing else data[:missing]
        self.missing_bytes = missing - len(part)
        if self._failure is None:
            self._keep(part)
        if not self.missing_bytes and self._failure is None:
            self._body = b"".join(self._parts or ())
            self._parts = []
            self._tell()
        return data[missing:]

    def _keep(self, part: bytes) -> None:
        """Count what arrived against the budget of all bodies, the first part with the second."""
        try:
            if self._parts is None:
                self._parts = [self._body]
                self._reserve(len(self._body))
            self._reserve(len(part))
            self._parts.append(part)
        except Refused as refused:
            self._fail(refused)

    @property
    def body_complete(self) -> bool:
        return not self.missing_bytes

    def fail_body(self, refused: Refused) -> None:
        if self.missing_bytes:
            self._fail(refused)

    def _fail(self, refused: Refused) -> None:
        self._failure = refused
        self._body = b""
        self._parts = None
        self._tell()

    def _tell(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
