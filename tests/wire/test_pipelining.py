"""Promise: the requests of a connection are answered one at a time, in their order."""

import asyncio

import pytest

from farebox.wire.incoming import Incoming
from wire.rig import Echo, connected, on_uvloop, post, refusal, serving, until


@pytest.mark.parametrize("count", [2, 31, 32, 33, 64, 500])
@on_uvloop
async def test_H17_pipelined_requests_are_answered_in_order(count: int) -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        client.send(b"".join(post(b"%d" % number) for number in range(count)))
        for number in range(count):
            assert (await client.response()).body == b"%d" % number


@on_uvloop
async def test_H17_next_request_waits_for_the_stream_before_it() -> None:
    running = asyncio.Event()
    release = asyncio.Event()
    order: list[str] = []

    async def handle(incoming: Incoming) -> None:
        order.append(incoming.path)
        if incoming.path == "/first":
            incoming.start_stream(200, b"")
            running.set()
            await release.wait()
            incoming.write_framed(b"one")
            incoming.end()
        else:
            incoming.answer(200, b"", b"two")

    async with serving(handle) as (server, port), connected(port) as client:
        client.send(b"GET /first HTTP/1.1\r\nHost: h\r\n\r\nGET /second HTTP/1.1\r\nHost: h\r\n\r\n")
        await running.wait()
        await asyncio.sleep(0.02)
        assert (order, server.open_count) == (["/first"], 1)
        release.set()
        assert (await client.response()).body == b"one"
        assert (await client.response()).body == b"two"


@on_uvloop
async def test_H17_pipelined_requests_held_are_bounded() -> None:
    release = asyncio.Event()

    async def handle(incoming: Incoming) -> None:
        await release.wait()
        incoming.answer(200, b"", b"")

    async with serving(handle) as (server, port), connected(port) as client:
        count = 20_000
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * count)
        await until(lambda: server.open_count == 1)
        await asyncio.sleep(0.1)
        connection = next(iter(server._open_connections))
        assert connection._max_msg_queue_size == 32
        assert len(connection._messages) <= 32
        release.set()
        for _ in range(count):
            assert (await client.response()).status == 200


@on_uvloop
async def test_H17_bad_request_behind_a_good_one() -> None:
    echo = Echo()
    async with serving(echo) as (_, port), connected(port) as client:
        client.send(post(b"good"))
        await until(lambda: echo.bodies == [b"good"])
        client.send(b"BAD\r\n\r\n" + post(b"never"))
        assert (await client.response()).body == b"good"
        assert (await client.response()).status == 400
        assert await client.rest() == b""
        assert echo.bodies == [b"good"]


@on_uvloop
async def test_H17_bad_request_in_one_packet_with_a_good_one_refuses_both() -> None:
    echo = Echo()
    async with serving(echo) as (_, port), connected(port) as client:
        assert await refusal(client, post(b"good") + b"BAD\r\n\r\n" + post(b"never")) == 400
        assert echo.bodies == []


@on_uvloop
async def test_H17_requests_before_a_bad_one_are_answered_first() -> None:
    release = asyncio.Event()
    served: list[str] = []

    async def handle(incoming: Incoming) -> None:
        await release.wait()
        served.append(incoming.path)
        incoming.answer(200, b"", b"")

    async with serving(handle) as (server, port), connected(port) as client:
        client.send(post(path="/1") + post(path="/2") + post(path="/3"))
        await until(lambda: server.open_count == 1)
        client.send(b"BAD\r\n\r\n" + post(path="/never"))
        await asyncio.sleep(0.02)
        release.set()
        for _ in range(3):
            assert (await client.response()).status == 200
        assert (await client.response()).status == 400
        assert await client.rest() == b""
        assert served == ["/1", "/2", "/3"]
