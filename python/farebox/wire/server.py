"""The listening side: accepts client connections, sweeps their deadlines, drains and closes them.

One timer per server looks a few times per shortest deadline at the connections that stirred or may be overdue
(watch.py); no exchange owns a timer. The proxy supplies `handle`, which is called once per request with an
`Incoming` and is never cancelled by a client that leaves.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from socket import AddressFamily
from typing import TYPE_CHECKING

from aiohttp import web

from farebox.base import limits
from farebox.wire.client import ClientConnection
from farebox.wire.incoming import Incoming
from farebox.wire.watch import AT_NEXT_SWEEP, NEVER, Watch

if TYPE_CHECKING:
    from socket import socket

_SWEEP_INTERVAL_MAX_S = 1.0
_SWEEPS_PER_DEADLINE = 4
_DRAIN_POLL_S = 0.02
_REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Bounds of the client side; the defaults are those of base/limits.py."""

    request_line_bytes_max: int = limits.request_line_bytes_max
    header_bytes_max: int = limits.header_bytes_max
    headers_max: int = limits.headers_max
    bodies_bytes_total_max: int = limits.request_bodies_bytes_total_max
    write_buffer_bytes_max: int = limits.relay_buffer_bytes_max
    header_timeout_s: float = limits.header_timeout_s
    body_timeout_s: float = limits.body_timeout_s
    keepalive_timeout_s: float = limits.keepalive_timeout_s
    client_write_timeout_s: float = limits.client_write_timeout_s
    linger_timeout_s: float = limits.linger_timeout_s
    connections_max: int = limits.exchanges_open_max

    def sweep_interval_s(self) -> float:
        """How often deadlines are looked at: an overrun is at most a quarter of the shortest one."""
        shortest = min(
            self.header_timeout_s,
            self.body_timeout_s,
            self.keepalive_timeout_s,
            self.client_write_timeout_s,
            self.linger_timeout_s,
        )
        return min(_SWEEP_INTERVAL_MAX_S, shortest / _SWEEPS_PER_DEADLINE)


class Server(web.Server):
    """Serves `handle` on any number of listening sockets. Create it inside the running loop.

    `handle` answers the exchange before or after it returns. A plain function is called within the read of
    the request and costs no task; what it returns, if anything, is awaited in one (so is a coroutine
    function). A `Refused` it raises is answered in the route's format, any other exception as a 500; where
    the answer has begun the connection is cut instead. `open_count`: exchanges whose answer is not finished
    and whose client is still there.
    """

    def __init__(
        self, handle: Callable[[Incoming], Awaitable[None] | None], options: ServerOptions | None = None
    ) -> None:
        super().__init__(handle)  # type: ignore[arg-type]  # our connection calls it with an Incoming
        self.handle = handle
        self.options = options or ServerOptions()
        self.open_count = 0
        self.body_bytes_held = 0
        self.leaving = False
        """Its process retires or drains: no connection is kept any more."""
        self.keep_alive = True
        """Whether connections stay open between requests."""
        self._listeners: list[asyncio.AbstractServer] = []
        self._detached: set[asyncio.Task[None]] = set()
        self.head_starts: dict[int, bytes] = {}
        """Beginnings of answers by status, this second's; `head_start` makes those that are missing."""
        self._open_connections: dict[ClientConnection, None] = {}
        self.watch = Watch(self._check, self.options.sweep_interval_s())
        self._sweep_handle: asyncio.TimerHandle | None = None

    def __call__(self) -> ClientConnection:
        return ClientConnection(self, self._loop)

    # ---- life ------------------------------------------------------------------------------------------

    async def start(self, sock: "socket") -> None:
        """Accept connections on a bound TCP or unix socket; may be called for several sockets."""
        if sock.family is AddressFamily.AF_UNIX:
            listener = await self._loop.create_unix_server(self, sock=sock, backlog=limits.accept_backlog)
        else:
            listener = await self._loop.create_server(self, sock=sock, backlog=limits.accept_backlog)
        self._listeners.append(listener)
        if self._sweep_handle is None:
            self._sweep()

    def stop_listening(self) -> None:
        """Accept no more connections; those open go on."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def keep_connections(self, keep: bool) -> None:
        """Keep connections between requests; or close those that are idle, and the others once answered."""
        self.keep_alive = keep and not self.leaving
        if not keep:
            for connection in tuple(self._open_connections):
                connection.close_after_request()

    async def retire(self, deadline_s: float) -> bool:
        """Stop listening and answer what still comes on open connections, each closed with its answer; True
        when all had gone within `deadline_s`.

        An idle connection is left to its client, which closes it or asks once more (or sees its keep-alive
        time out): to close it here might cross a request on its way, which no proxy may send again.
        """
        self._leave()
        end_s = self._loop.time() + deadline_s
        while self._open_connections or self._detached:
            if self._loop.time() >= end_s:
                return False
            await asyncio.sleep(_DRAIN_POLL_S)
        return True

    async def drain(self, deadline_s: float) -> bool:
        """Stop listening, close idle connections, let running exchanges end and their clients take what was
        answered; True when all did within `deadline_s`.

        Who has connected and not asked yet is served once more, if he asks soon: his connection was taken, so
        he would see a request refused that he sent to a server in good order.
        """
        self._leave()
        for connection in tuple(self._open_connections):
            connection.close_after_request()
        began_s = self._loop.time()
        while self.open_count or self._detached or self._undelivered() or self._close_unasked(began_s):
            if self._loop.time() >= began_s + deadline_s:
                return False
            await asyncio.sleep(_DRAIN_POLL_S)
        return True

    def _leave(self) -> None:
        self.leaving, self.keep_alive = True, False
        self.stop_listening()

    def _undelivered(self) -> bool:
        """Whether bytes still wait for a client that reads slowly."""
        return any(connection.waiting_bytes() for connection in self._open_connections)

    def _close_unasked(self, began_s: float) -> bool:
        """Whether requests may still come on open connections; those that took too long are closed."""
        asking = [connection for connection in self._open_connections if connection.asking()]
        if self._loop.time() < began_s + limits.drain_unasked_s:
            return bool(asking)
        for connection in asking:
            connection.close_idle()
        return False

    async def close(self) -> None:
        """Drop every connection; exchanges see their client leave."""
        self._leave()
        for connection in tuple(self._open_connections):
            connection.drop()
        while self._open_connections:  # noqa: ASYNC110 - they go within a turn or two
            await asyncio.sleep(0)
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
            self._sweep_handle = None

    # ---- called by connections -------------------------------------------------------------------------

    def connection_made(self, handler: ClientConnection, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Register a connection. Where there are too many the oldest idle one has to go, else the new one."""
        if len(self._open_connections) >= self.options.connections_max:
            oldest = next((each for each in self._open_connections if each.current is None), None)
            if oldest is None:
                transport.abort()
            else:
                oldest.drop()
        self._open_connections[handler] = None
        self.watch.add(handler.watched, handler)

    def connection_lost(self, handler: ClientConnection, exc: BaseException | None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Forget a connection."""
        self._open_connections.pop(handler, None)
        handler.watched.end()

    def exchange_lost(self, task: asyncio.Task[None] | None) -> None:
        """A client left in mid-exchange; its handler keeps running and is kept alive here."""
        self.open_count -= 1
        if task is not None and not task.done():
            self._detached.add(task)
            task.add_done_callback(self._detached.discard)

    def head_start(self, status: int) -> bytes:
        """Status line and Date header, made once per second and status."""
        start = self.head_starts.get(status)
        if start is None:
            reason = _REASONS.get(status, "Unknown")
            start = f"HTTP/1.1 {status} {reason}\r\nDate: {formatdate(usegmt=True)}\r\n".encode("ascii")
            self.head_starts[status] = start
        return start

    # ---- deadlines -------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        self._sweep_handle = self._loop.call_later(self.watch.interval_s, self._sweep)
        self.head_starts.clear()
        self.watch.sweep(self._loop.time())

    def _check(self, connection: ClientConnection, now_s: float) -> float:
        """Act on what is overdue; when to look again."""
        if self._stalled(connection, now_s):
            connection.drop()
            return NEVER
        due_s, act = self._deadline(connection)
        if now_s > due_s:
            act()
        return AT_NEXT_SWEEP if connection.stalled_since_s else due_s

    def _deadline(self, connection: ClientConnection) -> tuple[float, Callable[[], None]]:
        """When its present state must have ended, and what happens otherwise; none while it is answered."""
        options = self.options
        if connection.linger_since_s:
            return connection.linger_since_s + options.linger_timeout_s, connection.drop
        if connection.body_since_s:
            return connection.body_since_s + options.body_timeout_s, connection.time_out_body
        if connection.current is not None:
            return NEVER, connection.drop
        if connection.head_since_s:
            return connection.head_since_s + options.header_timeout_s, connection.time_out_head
        return connection.idle_since_s + options.keepalive_timeout_s, connection.close_idle

    def _stalled(self, connection: ClientConnection, now_s: float) -> bool:
        """Whether the client has taken none of the bytes waiting for it for too long."""
        waiting_bytes = connection.waiting_bytes()
        if not waiting_bytes:
            connection.stalled_since_s = 0.0
            return False
        if connection.linger_since_s:  # it lingers from when everything was taken
            connection.linger_since_s = now_s
        current = connection.current
        written = connection.written_before + (current.bytes_written if current is not None else 0)
        if not connection.stalled_since_s or written - waiting_bytes != connection.stalled_taken_bytes:
            connection.stalled_since_s = now_s
            connection.stalled_taken_bytes = written - waiting_bytes
            return False
        return now_s - connection.stalled_since_s > self.options.client_write_timeout_s
