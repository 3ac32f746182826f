"""What the wire's tests stand on: a real server, raw clients, an upstream that plays byte scripts, a bare
proxy.
"""

import asyncio
import contextlib
import functools
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvloop

from farebox._meter import BROKEN, END, Head, Pipe
from farebox.base.errors import UpstreamError
from farebox.base.redaction import Secret
from farebox.wire.endpoint import Endpoint, request_head
from farebox.wire.incoming import Incoming
from farebox.wire.relay import Collector, Relay
from farebox.wire.server import Server, ServerOptions
from farebox.wire.upstream import Connection, Pool

TEST_TIMEOUT_S = 8.0
SECRET = "sk-upstream-secret-0123456789"

CLOSE = "close"
RESET = "reset"
HANG = "hang"
Step = bytes | float | str
"""Bytes are sent, a number is waited in seconds, CLOSE, RESET and HANG do what they say."""


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on uvloop, the loop of production, within a bound."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(TEST_TIMEOUT_S):
                await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(bounded())

    return run


def loopback_socket(**buffers: int) -> socket.socket:
    sock = socket.socket()
    for option, size in buffers.items():
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), size)
    sock.bind(("127.0.0.1", 0))
    return sock


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come; the test's own timeout ends it otherwise."""
    while not condition():
        await asyncio.sleep(0.005)


# ---- client -----------------------------------------------------------------------------------


@dataclass
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    raw_head: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = orjson.loads(self.body)["error"]
        return error


class Truncated(Exception):  # noqa: N818 - what the client saw
    """The connection ended before the answer did."""


@dataclass
class Client:
    """A client that writes exact bytes and reads answers strictly."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> Response:
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Truncated from error
        lines = raw.decode("latin-1").split("\r\n")[:-2]
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        return Response(int(lines[0].split(" ")[1]), headers, b"", raw)

    async def response(self) -> Response:
        response = await self.head()
        if response.status == 100:
            return response
        try:
            if response.header("transfer-encoding") == "chunked":
                response.body = await self.chunked_body()
            elif (length := response.header("content-length")) is not None:
                response.body = await self.reader.readexactly(int(length))
            else:
                response.body = await self.reader.read(-1)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Truncated from error
        return response

    async def chunked_body(self) -> bytes:
        body = b""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            assert data.endswith(b"\r\n")
            if size == 0:
                return body
            body += data[:-2]

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        try:
            return await self.reader.read(-1)
        except ConnectionError:
            return b""

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def post(body: bytes = b"{}", path: str = "/v1/chat/completions", extra: str = "") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: farebox\r\nContent-Type: application/json\r\n"
        f"{extra}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body


@contextlib.asynccontextmanager
async def connected(port: int, **buffers: int) -> AsyncIterator[Client]:
    sock = socket.socket()
    for option, size in buffers.items():
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), size)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    limit = min(buffers.values(), default=2**24)
    reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def serving(
    handle: Callable[[Incoming], Awaitable[None]],
    *,
    listen_buffers: dict[str, int] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Server, int]]:
    server = Server(handle, ServerOptions(**options))
    sock = loopback_socket(**(listen_buffers or {}))
    port = sock.getsockname()[1]
    await server.start(sock)
    try:
        yield server, port
    finally:
        await server.close()


class Echo:
    """Answers every request with its body; remembers what came in."""

    def __init__(self, body_bytes_max: int = 2**20) -> None:
        self.seen: list[Incoming] = []
        self.bodies: list[bytes] = []
        self.body_bytes_max = body_bytes_max

    async def __call__(self, incoming: Incoming) -> None:
        self.seen.append(incoming)
        body = await incoming.body(self.body_bytes_max)
        self.bodies.append(body)
        incoming.answer(200, b"Content-Type: text/plain\r\n", body)


async def refusal(client: Client, data: bytes) -> int:
    """Send bytes that must end the connection with one error answer; its status."""
    client.send(data)
    answer = await client.response()
    assert answer.header("content-type") == "application/json"
    assert answer.header("connection") == "close"
    assert answer.header("server") is None
    assert answer.error()["message"]
    assert await client.rest() == b""
    return answer.status


# ---- upstream ---------------------------------------------------------------------------------


@dataclass
class ScriptedUpstream:
    """Answers the n-th request with the n-th script; counts everything it receives."""

    scripts: list[list[Step]]
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    closed: int = 0
    read_bodies: bool = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed += 1
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        self.requests.append(head)
        if self.read_bodies:
            self.requests[-1] += await reader.readexactly(length)
        script = self.scripts[len(self.requests) - 1] if len(self.requests) <= len(self.scripts) else [CLOSE]
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, float):
                await asyncio.sleep(step)
            elif step == HANG:
                await reader.read(-1)
                return False
            elif step == RESET:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            else:
                writer.close()
                return False
        return True


@contextlib.asynccontextmanager
async def upstream_playing(
    *scripts: list[Step], tls: Any = None, read_bodies: bool = True
) -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(list(scripts), read_bodies=read_bodies)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(upstream.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def endpoint(port: int, **options: Any) -> Endpoint:
    defaults: dict[str, Any] = {
        "name": "scripted",
        "scheme": "http",
        "host": "127.0.0.1",
        "port": port,
        "credential": Secret(SECRET),
    }
    return Endpoint(**(defaults | options))


# ---- a proxy with nothing but the wire --------------------------------------------------------


class BareProxy:
    """Forwards exchanges with Collector or Relay; keeps what a real proxy would settle on."""

    def __init__(
        self, pool: Pool, *, stream: bool = False, wire_format: str = "", held_max: int = 2**20
    ) -> None:
        self.pool = pool
        self.stream = stream
        self.wire_format = wire_format
        self.held_max = held_max
        self.exchanges: list[BareExchange] = []

    async def handle(self, incoming: Incoming) -> None:
        body = await incoming.body()
        exchange = BareExchange(self, incoming)
        self.exchanges.append(exchange)
        try:
            connection = self.pool.take() or await self.pool.connect()
            exchange.upstream = connection
            head = request_head(self.pool.endpoint, incoming.path, len(body), incoming.upstream_lines)
            connection.send(head, body, exchange)
        except UpstreamError as error:
            exchange.on_closed(error)


class BareExchange:
    def __init__(self, proxy: BareProxy, client: Incoming) -> None:
        self.proxy = proxy
        self.client = client
        self.upstream: Connection
        self.relay: Relay
        self.error: UpstreamError | None = None
        self.states: list[int] = []
        self.gone = False

    def on_head(self, head: Head, rest: bytes) -> None:
        self.head = head
        chunked = self.proxy.stream and self.client.chunked_ok
        self.pipe = Pipe(self.proxy.wire_format, head.framing, chunked_out=chunked)
        receiver: Relay | Collector
        if self.proxy.stream:
            self.client.start_stream(head.status, head.facts(128)[0])
            receiver = self.relay = Relay(
                self.client, self.upstream, self.pipe, self.hold_point, self.on_gone
            )
        else:
            receiver = Collector(self.upstream, self.pipe, self.complete, self.overflow, self.proxy.held_max)
        receiver.begin(head, rest)

    def on_gone(self) -> None:
        self.gone = True

    def hold_point(self, held: bytes, state: int) -> None:
        self.states.append(state)
        if state & BROKEN:
            self.error = self.relay.error
            self.relay.send_held(held)
            self.relay.cut()
            return
        self.relay.send_held(held)
        if state & END:
            self.relay.finish()

    def complete(self, body: bytes, state: int) -> None:
        self.states.append(state)
        if state & BROKEN:
            self.client.answer(502, [("Content-Type", "text/plain")], b"broken")
        else:
            self.client.answer(self.head.status, self.head.facts(128)[0], body)

    def overflow(self, collected: bytes) -> None:
        self.client.start_stream(self.head.status, self.head.facts(128)[0])
        self.relay = Relay(self.client, self.upstream, self.pipe, self.hold_point, self.on_gone, framed=False)
        self.upstream.hand_over(self.relay)
        self.relay.send(collected)

    def on_data(self, data: bytes) -> None:
        raise NotImplementedError

    def on_closed(self, error: UpstreamError | None) -> None:
        self.error = error
        self.client.answer(502, [("Content-Type", "text/plain")], type(error).__name__.encode())


@contextlib.asynccontextmanager
async def proxying(
    upstream: ScriptedUpstream,
    *,
    stream: bool = False,
    wire_format: str = "",
    held_max: int = 2**20,
    server_options: dict[str, Any] | None = None,
    listen_buffers: dict[str, int] | None = None,
    **endpoint_options: Any,
) -> AsyncIterator[tuple[BareProxy, int]]:
    pool = Pool(endpoint(upstream.port, **endpoint_options), asyncio.get_running_loop())
    proxy = BareProxy(pool, stream=stream, wire_format=wire_format, held_max=held_max)
    try:
        async with serving(proxy.handle, listen_buffers=listen_buffers, **(server_options or {})) as (
            _,
            port,
        ):
            yield proxy, port
    finally:
        pool.abort()
        await asyncio.sleep(0)
