"""Promise: slow readers get what they take, and connections end when nobody needs them, never before."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from farebox.base import limits
from farebox.wire.incoming import Incoming
from farebox.wire.server import Server
from wire.rig import Client, Echo, connected, on_uvloop, post, serving, until

SMALL = {"SO_SNDBUF": 8192, "SO_RCVBUF": 8192}


@on_uvloop
async def test_H03_C07_reader_that_takes_nothing_is_gone() -> None:
    gone = asyncio.Event()
    events: list[str] = []

    async def handle(incoming: Incoming) -> None:
        incoming.on_gone = gone.set
        incoming.on_paused = lambda: events.append("paused")
        incoming.start_stream(200, b"")
        incoming.write_framed(b"x" * 2**22)

    options: dict[str, Any] = {"client_write_timeout_s": 0.3, "write_buffer_bytes_max": 65536}
    async with (
        serving(handle, listen_buffers=SMALL, **options) as (server, port),
        connected(port, **SMALL) as client,
    ):
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await gone.wait()
        assert events == ["paused"]
        assert server.open_count == 0


@on_uvloop
async def test_H03_slow_reader_that_takes_something_is_served() -> None:
    async def handle(incoming: Incoming) -> None:
        incoming.answer(200, b"", b"x" * 2**20)

    options: dict[str, Any] = {"client_write_timeout_s": 0.5, "write_buffer_bytes_max": 65536}
    async with (
        serving(handle, listen_buffers=SMALL, **options) as (_, port),
        connected(port, **SMALL) as client,
    ):
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.head()).status == 200
        taken = 0
        while taken < 2**20:
            taken += len(await client.reader.read(2**15))
            await asyncio.sleep(0.02)
        assert taken == 2**20


SLOW: dict[str, Any] = {"linger_timeout_s": 0.2, "client_write_timeout_s": 5.0}


@on_uvloop
async def test_H03_an_answer_that_ends_its_connection_reaches_a_slow_reader_whole() -> None:
    async def handle(incoming: Incoming) -> None:
        incoming.answer(200, b"", b"x" * 2**20)

    async with (
        serving(handle, listen_buffers=SMALL, **SLOW) as (server, port),
        connected(port, **SMALL) as client,
    ):
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        await client.head()
        (connection,) = server._open_connections
        taken = 0
        while taken < 2**20:  # for longer than a connection lingers
            data = await client.reader.read(2**15)
            assert data, taken
            taken += len(data)
            await asyncio.sleep(0.02)
        assert taken == 2**20
        assert connection.waiting_bytes() == 0
        assert await client.rest() == b""
        client.writer.write_eof()
        await until(lambda: not server._open_connections)


@on_uvloop
async def test_drain_waits_for_clients_that_still_take_their_answers() -> None:
    answered = asyncio.Event()

    async def handle(incoming: Incoming) -> None:
        incoming.answer(200, b"", b"x" * 2**20)
        answered.set()

    async with (
        serving(handle, listen_buffers=SMALL, **SLOW) as (server, port),
        connected(port, **SMALL) as client,
    ):
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await answered.wait()

        async def stop() -> bool:
            drained = await server.drain(60.0)
            await server.close()
            return drained

        stopping = asyncio.ensure_future(stop())
        assert len((await client.response()).body) == 2**20
        assert await stopping is True


@on_uvloop
async def test_M10_a_server_that_leaves_keeps_no_connection_when_memory_is_free_again() -> None:
    async def handle(incoming: Incoming) -> None:
        incoming.answer(200, b"", b"last")

    async with serving(handle) as (server, port), connected(port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.response()).header("connection") is None
        retiring = asyncio.ensure_future(server.retire(60.0))
        await until(lambda: server.leaving)
        server.keep_connections(True)
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.response()).header("connection") == "close"
        client.writer.close()
        assert await retiring is True


@on_uvloop
async def test_drain_lets_running_exchanges_end_and_closes_idle_connections() -> None:
    release = asyncio.Event()

    async def handle(incoming: Incoming) -> None:
        if incoming.path == "/slow":
            await release.wait()
        incoming.answer(200, b"", b"last")

    async with serving(handle) as (server, port), connected(port) as busy, connected(port) as idle:
        idle.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await idle.response()).body == b"last"
        busy.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        await until(lambda: server.open_count == 1 and len(server._open_connections) == 2)
        assert await server.drain(0.05) is False
        assert await idle.rest() == b""
        draining = asyncio.ensure_future(server.drain(10.0))
        release.set()
        answer = await busy.response()
        assert (answer.body, answer.header("connection")) == (b"last", "close")
        assert await draining is True
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset
            async with connected(port):
                pass


@on_uvloop
async def test_retire_answers_what_comes_on_idle_connections_and_closes_none_itself() -> None:
    async def handle(incoming: Incoming) -> None:
        incoming.answer(200, b"", b"last")

    async with serving(handle) as (server, port), connected(port) as asks, connected(port) as leaves:
        for client in (asks, leaves):
            client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.response()).body == b"last"
        retiring = asyncio.ensure_future(server.retire(60.0))
        asks.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = await asks.response()
        assert (answer.body, answer.header("connection")) == (b"last", "close")
        assert await asks.rest() == b""
        await until(lambda: len(server._open_connections) == 1)
        assert not retiring.done()
        leaves.writer.close()
        assert await retiring is True


@on_uvloop
async def test_drain_still_serves_who_has_connected_but_waits_only_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def handle(incoming: Incoming) -> None:
        incoming.answer(200, b"", b"last")

    async with serving(handle) as (server, port), connected(port) as asks, connected(port) as never:
        await until(lambda: len(server._open_connections) == 2)
        draining = asyncio.ensure_future(server.drain(60.0))
        await until(lambda: server.leaving)
        asks.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = await asks.response()
        assert (answer.body, answer.header("connection")) == (b"last", "close")
        assert not draining.done()
        monkeypatch.setattr(limits, "drain_unasked_s", 0.0)
        assert await draining is True
        assert await never.rest() == b""


@on_uvloop
async def test_H04_connections_in_use_are_not_dropped_for_new_ones() -> None:
    release = asyncio.Event()

    async def handle(incoming: Incoming) -> None:
        await release.wait()
        incoming.answer(200, b"", b"served")

    async with serving(handle, connections_max=1) as (server, port), connected(port) as first:
        first.send(post())
        await until(lambda: server.open_count == 1)
        async with connected(port) as second:
            assert await second.rest() == b""
        release.set()
        assert (await first.response()).body == b"served"


@on_uvloop
async def test_unix_sockets_are_served(tmp_path: Path) -> None:
    server = Server(Echo())
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "farebox.sock"))
    await server.start(sock)
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "farebox.sock"))
    client = Client(reader, writer)
    client.send(post(b"hello"))
    assert (await client.response()).body == b"hello"
    writer.transport.abort()
    await server.close()
