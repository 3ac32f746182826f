"""Upstream connections: HTTP/1.1 over our own protocol, with a keep-alive pool per endpoint.

Promises: a request is written at most once and never re-sent here; a connection is used again only when the
answer ended exactly at its boundary, the whole request had left and not a byte came while it was idle.
Deadlines are looked at by one sweep per pool (watch.py), so an exchange owns no timer.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, cast

from farebox._meter import Head, HeadError, parse_head
from farebox.base import limits
from farebox.base.errors import (
    UpstreamBrokenError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
)
from farebox.wire.endpoint import Endpoint, request_head, verifying_tls
from farebox.wire.watch import AT_NEXT_SWEEP, NEVER, Watch, Watched

__all__ = ["Connection", "Endpoint", "Pool", "Receiver", "request_head", "verifying_tls"]

_SWEEP_INTERVAL_MAX_S = 1.0
_SWEEPS_PER_DEADLINE = 4
_TLS_CLOSE_TIMEOUT_S = 1.0
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL_STATUS = 200
_JOINED_BODY_BYTES_MAX = 16 * 1024
"""Copying a body up to this size costs less than handing the transport two buffers."""
_SLICE_BYTES = 256 * 1024
"""Of a longer body so much is sent in one turn of the event loop: the kernel copies it meanwhile."""


class Receiver(Protocol):
    """Takes the answer of one request. Calls come in this order: a head, data, at most one close."""

    def on_head(self, head: Head, rest: bytes) -> None:
        """The final head (1xx are skipped) and the body bytes that came with it, possibly none."""

    def on_data(self, data: bytes) -> None:
        """More body bytes."""

    def on_closed(self, error: UpstreamError | None) -> None:
        """The connection ended: None when the upstream closed properly after the head."""


TakeWhole = Callable[[bytes], bool]
"""Given the first read of an answer: True when that was all of it, and the connection has been released."""


def _ignore(data: bytes) -> None:
    """Bytes that came after the end."""


class Connection(asyncio.Protocol):
    """One upstream connection; belongs to its pool, and to one exchange between `send` and `release` or
    `abort`.
    """

    __slots__ = (
        "_deadline_last_s",
        "_handed_over",
        "_head_bytes",
        "_heads_skipped",
        "_in_body",
        "_pool",
        "_reads_seen",
        "_started_s",
        "_stirred",
        "_take_whole",
        "_unsent",
        "_writing_paused",
        "closed",
        "data_received",
        "idle_since_s",
        "read_count",
        "receiver",
        "transport",
        "watched",
    )

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self.watched = Watched(pool.watch)
        """Stirs when a request begins or ends and with every read, those of a body handed over included."""
        self.transport: asyncio.Transport | None = None
        self.receiver: Receiver | None = None
        """Who takes the answer; may be replaced within on_head."""
        self.closed = False
        self.idle_since_s = 0.0
        self._in_body = False
        self._head_bytes = b""
        self._heads_skipped = 0
        self._started_s = 0.0
        self._deadline_last_s = 0.0
        self._stirred = False
        self._reads_seen = 0
        self.read_count = 0
        """Reads of bodies that were handed over; their receivers count them."""
        self._handed_over = False
        self._take_whole: TakeWhole | None = None
        self._unsent: memoryview | None = None
        """What the transport was not given yet of a long body."""
        self._writing_paused = False
        self.data_received: Callable[[bytes], None] = self._take  # type: ignore[assignment]  # a slot, to change

    # ---- for the exchange ------------------------------------------------------------------------------

    def send(self, head: bytes, body: bytes, receiver: Receiver, take_whole: TakeWhole | None = None) -> None:
        """Write one request and name who takes its answer; `take_whole` is asked first.

        Raises UpstreamConnectError when the connection is known to be closed: nothing was sent, take another.
        """
        transport = self.transport
        if self.closed or transport is None or transport.is_closing():
            msg = "the connection was closed before the request was sent"
            raise UpstreamConnectError(msg)
        self.receiver = receiver
        self._take_whole = take_whole
        self._started_s = self._deadline_last_s = self._pool.loop.time()
        self._stirred = False
        self.watched.stir()
        if len(body) <= _JOINED_BODY_BYTES_MAX:
            transport.write(head + body)
        elif len(body) <= _SLICE_BYTES:
            transport.writelines((head, body))
        else:
            transport.write(head)
            self._unsent = memoryview(body)
            self._send_slice()

    def _send_slice(self) -> None:
        """Send some more of a long body, and go on in the loop's next turn or when the socket has room."""
        unsent, transport = self._unsent, self.transport
        if unsent is None or transport is None or self._writing_paused:
            return
        self._unsent = unsent[_SLICE_BYTES:] if len(unsent) > _SLICE_BYTES else None
        transport.write(unsent[:_SLICE_BYTES])
        if self._unsent is not None and not self._writing_paused:
            self._pool.loop.call_soon(self._send_slice)

    def hand_over(self, receiver: Receiver) -> None:
        """The rest of the body goes straight from the transport to `receiver.on_data`, which counts its reads
        in `read_count`: the way of streams. Within on_head or later.
        """
        self.receiver = receiver
        self._handed_over = True
        self._deliver(receiver.on_data)

    def _deliver(self, take: Callable[[bytes], None]) -> None:
        """Change what the transport calls; loops look it up once, when the protocol is set."""
        self.data_received = take
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.set_protocol(self)

    def release(self, reusable: bool) -> None:
        """The answer is over. Kept when `reusable` and the request had left completely, else closed."""
        transport = self.transport
        self.receiver = None
        whole = self._unsent is None and transport is not None and not transport.get_write_buffer_size()
        if transport is None or not reusable or self.closed or not whole:
            self.abort()
            return
        if self._handed_over:
            self._handed_over = False
            self._deliver(self._take)
        self._in_body = False
        if not transport.is_reading():  # a slow client had it paused; the next one waits for its own answer
            transport.resume_reading()
        self._pool.put_back(self)

    def abort(self) -> None:
        """Close at once, telling nobody. Harmless when closed already."""
        self.receiver = None
        self._forget()
        if self.transport is not None:
            self.transport.abort()

    def pause_reading(self) -> None:
        """Take no more from the upstream; the idle deadline rests meanwhile."""
        if self.transport is not None and not self.closed and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more from the upstream."""
        if self.transport is not None and not self.closed and not self.transport.is_closing():
            self._stirred = True
            self.watched.stir()
            self.transport.resume_reading()

    # ---- transport callbacks ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._send_slice()

    def _take(self, data: bytes) -> None:
        self._stirred = True
        self.watched.stir()
        receiver = self.receiver
        if receiver is None:
            self.abort()
        elif self._in_body:
            receiver.on_data(data)
        else:
            take_whole, self._take_whole = self._take_whole, None
            if take_whole is None or not take_whole(data):
                self._take_head(receiver, data)

    def _take_head(self, receiver: Receiver, data: bytes) -> None:
        data = self._head_bytes + data if self._head_bytes else data
        self._head_bytes = b""
        while True:
            try:
                head = parse_head(data, False, limits.response_head_bytes_max, limits.response_headers_max)
            except HeadError as error:
                self._fail(UpstreamBrokenError(f"the response head is not acceptable: {error}", sent=True))
                return
            if head is None:
                self._head_bytes = data
                return
            if head.status >= _FIRST_FINAL_STATUS:
                break
            self._heads_skipped += 1
            if head.status == _SWITCHING_PROTOCOLS or self._heads_skipped > limits.informational_heads_max:
                self._fail(UpstreamBrokenError("the upstream switched protocols or never answers", sent=True))
                return
            data = data[head.length :]
        self._heads_skipped = 0
        self._in_body = True
        receiver.on_head(head, data[head.length :])

    def eof_received(self) -> None:
        """Close our side too: a half-closed upstream has nothing more to say."""

    def connection_lost(self, exc: Exception | None) -> None:
        receiver = self.receiver
        in_body = self._in_body
        self.receiver = None
        self._forget()
        self.transport = None
        if receiver is None:
            return
        if exc is None and in_body:
            receiver.on_closed(None)
        else:
            where = "inside the answer" if in_body else "before answering"
            receiver.on_closed(UpstreamBrokenError(f"the upstream closed the connection {where}", sent=True))

    # ---- for the pool ----------------------------------------------------------------------------------

    def check(self, now_s: float) -> float:
        """Close an overdue connection; its receiver hears UpstreamTimeoutError. When to look again."""
        endpoint = self._pool.endpoint
        if self.receiver is None:
            return self._check_idle(now_s, endpoint.keepalive_timeout_s)
        if self._stirred or self.read_count != self._reads_seen:
            self._stirred = False
            self._reads_seen = self.read_count
            self._deadline_last_s = now_s
        total_s = self._started_s + endpoint.total_timeout_s
        if now_s > total_s:
            self._fail(UpstreamTimeoutError("the answer took too long", phase="total"))
            return AT_NEXT_SWEEP
        if not self._in_body:
            first_byte_s = self._started_s + endpoint.first_byte_timeout_s
            if now_s > first_byte_s:
                self._fail(UpstreamTimeoutError("the upstream did not answer in time", phase="first_byte"))
            return min(first_byte_s, total_s)
        transport = self.transport
        if transport is not None and not transport.is_reading():
            return total_s
        idle_s = self._deadline_last_s + endpoint.idle_stream_timeout_s
        if now_s > idle_s:
            self._fail(UpstreamTimeoutError("the upstream fell silent inside the answer", phase="idle"))
        return min(idle_s, total_s)

    def _check_idle(self, now_s: float, keepalive_timeout_s: float) -> float:
        if not self.idle_since_s:
            return NEVER
        if now_s - self.idle_since_s > keepalive_timeout_s:
            self.abort()
        return self.idle_since_s + keepalive_timeout_s

    def _fail(self, error: UpstreamError) -> None:
        receiver = self.receiver
        self.abort()
        if receiver is not None:
            receiver.on_closed(error)

    def _forget(self) -> None:
        if not self.closed:
            self.closed = True
            self.data_received = _ignore
            self._unsent = None
            self.watched.end()
            self._pool.connection_closed(self)


class Pool:
    """The connections to one endpoint. Bounded; idle ones are reused newest first, so the rest can expire."""

    def __init__(self, endpoint: Endpoint, loop: asyncio.AbstractEventLoop) -> None:
        self.endpoint: Final = endpoint
        self.loop: Final = loop
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._connecting = 0
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._closed = False
        shortest = min(
            endpoint.first_byte_timeout_s,
            endpoint.idle_stream_timeout_s,
            endpoint.total_timeout_s,
            endpoint.keepalive_timeout_s,
        )
        self.watch: Final = Watch(
            Connection.check, min(_SWEEP_INTERVAL_MAX_S, shortest / _SWEEPS_PER_DEADLINE)
        )
        self._sweep_handle: asyncio.TimerHandle | None = None

    @property
    def open_count(self) -> int:
        """Connections open or being opened."""
        return len(self._open) + self._connecting

    @property
    def idle_count(self) -> int:
        """Connections open and unused."""
        return len(self._idle)

    def take(self) -> Connection | None:
        """The newest idle connection that looks healthy; None: `connect` instead. Nothing is awaited."""
        while self._idle:
            connection = self._idle.pop()
            transport = connection.transport
            if not connection.closed and transport is not None and not transport.is_closing():
                connection.idle_since_s = 0.0
                return connection
        return None

    async def connect(self) -> Connection:
        """A connection of the caller's own: a new one, or where all are in use the next that is free (FIFO).

        Raises UpstreamConnectError: refused, unresolved, TLS not verified, none free within the timeout.
        """
        try:
            async with asyncio.timeout(self.endpoint.connect_timeout_s):
                while self.open_count >= self.endpoint.connections_max:
                    connection = await self._wait_for_one()
                    if connection is not None and not connection.closed:
                        return connection
                return await self._open_new()
        except TimeoutError:
            msg = f"no connection to upstream {self.endpoint.name} in time"
            raise UpstreamConnectError(msg) from None

    async def _wait_for_one(self) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = self.loop.create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.cancelled():
                self._pass_on(waiter.result())
            raise

    def _pass_on(self, connection: Connection | None) -> None:
        """Give what a waiter received but no longer wants to the next one."""
        if connection is not None:
            self.put_back(connection)
        else:
            self._wake_one(None)

    async def _open_new(self) -> Connection:
        if self._closed:
            msg = "shutting down"
            raise UpstreamConnectError(msg)
        endpoint = self.endpoint
        self._connecting += 1
        try:
            _, connection = await self.loop.create_connection(
                lambda: Connection(self),
                endpoint.host,
                endpoint.port,
                ssl=endpoint.tls,
                ssl_shutdown_timeout=None if endpoint.tls is None else _TLS_CLOSE_TIMEOUT_S,
            )
        except (OSError, ssl.SSLError, UnicodeError) as error:
            self._wake_one(None)
            msg = f"no connection to upstream {endpoint.name}: {type(error).__name__}"
            raise UpstreamConnectError(msg) from error
        except asyncio.CancelledError:
            self._wake_one(None)
            raise
        finally:
            self._connecting -= 1
        self._open.add(connection)
        self.watch.add(connection.watched, connection)
        if self._sweep_handle is None:
            self._sweep_handle = self.loop.call_later(self.watch.interval_s, self._sweep)
        return connection

    def put_back(self, connection: Connection) -> None:
        """Take a healthy connection back: to the first that waits, else among the idle ones."""
        if self._waiters and self._wake_one(connection):
            return
        if self._closed or len(self._idle) >= self.endpoint.idle_connections_max:
            connection.abort()
            return
        connection.idle_since_s = self.loop.time()
        connection.watched.stir()
        self._idle.append(connection)

    def connection_closed(self, connection: Connection) -> None:
        """Forget a connection; one that waits may open another."""
        self._open.discard(connection)
        if connection.idle_since_s and connection in self._idle:
            self._idle.remove(connection)
        self._wake_one(None)

    def _wake_one(self, connection: Connection | None) -> bool:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    def _sweep(self) -> None:
        self._sweep_handle = None
        self.watch.sweep(self.loop.time())
        if self._open:
            self._sweep_handle = self.loop.call_later(self.watch.interval_s, self._sweep)

    def close(self) -> None:
        """Close idle connections now and those in use when they are released; open no more."""
        self._closed = True
        for connection in tuple(self._idle):
            connection.abort()

    def abort(self) -> None:
        """Close every connection; receivers hear that the upstream closed."""
        self.close()
        for connection in tuple(self._open):
            connection._fail(UpstreamBrokenError("shutting down", sent=True))
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
            self._sweep_handle = None
