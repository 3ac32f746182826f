"""Promise: a body is taken as declared, within its bounds and its time, or refused with one error."""

import asyncio

import pytest

from farebox.base.errors import Refusal, Refused
from farebox.wire.incoming import Incoming
from wire.rig import Echo, connected, on_uvloop, post, refusal, serving, until


@on_uvloop
async def test_H06_declared_body_over_the_limit_is_refused_unread() -> None:
    async with serving(Echo(100)) as (_, port), connected(port) as client:
        data = post(b"x" * 101, extra="Expect: 100-continue\r\n")
        assert await refusal(client, data[:-101]) == 413


@on_uvloop
async def test_H06_chunked_body_over_the_limit() -> None:
    async with serving(Echo(100)) as (server, port), connected(port) as client:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert await refusal(client, head + b"64\r\n" + b"x" * 100 + b"\r\n1\r\nx") == 413
        assert server.body_bytes_held == 0


@on_uvloop
async def test_H06_body_at_the_limit_is_served() -> None:
    async with serving(Echo(100)) as (_, port), connected(port) as client:
        client.send(post(b"x" * 100))
        assert (await client.response()).status == 200


@on_uvloop
async def test_M10_all_bodies_together_are_bounded() -> None:
    release = asyncio.Event()

    async def handle(incoming: Incoming) -> None:
        body = await incoming.body()
        await release.wait()
        incoming.answer(200, b"", body[:1])

    async with (
        serving(handle, bodies_bytes_total_max=1500) as (server, port),
        connected(port) as first,
        connected(port) as second,
    ):
        first.send(post(b"x" * 1000))
        await until(lambda: server.body_bytes_held == 1000)
        assert await refusal(second, post(b"x" * 1000)) == 503
        release.set()
        assert (await first.response()).status == 200
        assert server.body_bytes_held == 0


@on_uvloop
async def test_M10_a_body_asked_for_after_its_client_left_holds_nothing() -> None:
    left = asyncio.Event()
    failures: list[Refusal] = []

    async def handle(incoming: Incoming) -> None:
        incoming.on_gone = left.set
        await left.wait()
        try:
            await incoming.body()
        except Refused as refused:
            failures.append(refused.refusal)

    async with serving(handle) as (server, port):
        async with connected(port) as client:
            client.send(post(b"x" * 1000))
            await until(lambda: server.open_count == 1)
        await until(lambda: bool(failures))
        assert (failures, server.open_count, server.body_bytes_held) == ([Refusal.BODY_INVALID], 0, 0)


@on_uvloop
async def test_large_body_passes_with_backpressure() -> None:
    body = bytes(range(256)) * 2**15
    async with serving(Echo(2**24)) as (server, port), connected(port) as client:
        client.send(post(body))
        assert (await client.response()).body == body
        assert server.body_bytes_held == 0


@on_uvloop
async def test_H02_slow_body_meets_its_total_deadline() -> None:
    async with serving(Echo(), body_timeout_s=0.3) as (server, port), connected(port) as client:
        data = post(b"x" * 1000)
        client.send(data[:-1000])

        async def drip() -> None:
            while True:
                client.send(b"x")
                await asyncio.sleep(0.05)

        dripping = asyncio.ensure_future(drip())
        try:
            assert (await client.response()).status == 408
        finally:
            dripping.cancel()
        await until(lambda: server.open_count == 0)


@on_uvloop
async def test_H07_one_byte_chunks_are_refused() -> None:
    async with serving(Echo(2**24)) as (_, port), connected(port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        await asyncio.sleep(0.02)
        client.send(b"1\r\nx\r\n" * 100_000)
        assert (await client.response()).status == 400


@pytest.mark.parametrize("encoding", ["gzip", "br", "unknown", "gzip, gzip"])
@on_uvloop
async def test_H24_encoded_bodies_are_refused(encoding: str) -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        client.send(post(b"\x1f\x8b", extra=f"Content-Encoding: {encoding}\r\n"))
        assert (await client.response()).status == 415


@on_uvloop
async def test_H20_expectation_is_answered_when_the_body_is_wanted() -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        data = post(b"hello", extra="Expect: 100-continue\r\n")
        client.send(data[:-5])
        assert (await client.response()).raw_head == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        assert (await client.response()).body == b"hello"


@pytest.mark.parametrize("extra", ["Expect: 200-ok\r\n", "Expect: 100-continue\r\nExpect: 100-continue\r\n"])
@on_uvloop
async def test_H20_other_expectations_are_refused(extra: str) -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        assert await refusal(client, post(b"hello", extra=extra)[:-5]) == 400


@pytest.mark.parametrize("sent", [0, 50])
@on_uvloop
async def test_H19_answer_without_reading_the_body_closes(sent: int) -> None:
    async def handle(incoming: Incoming) -> None:
        raise Refused(Refusal.KEY_MISSING, "Who are you?")

    async with serving(handle) as (_, port), connected(port) as client:
        smuggled = b"POST /smuggled HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
        data = post(b"x" * 100)[: -100 + sent or None] if sent else post(b"x" * 100)[:-100]
        client.send(data)
        answer = await client.response()
        assert (answer.status, answer.header("connection")) == (401, "close")
        client.send(b"x" * (100 - sent) + smuggled)
        assert await client.rest() == b""


@on_uvloop
async def test_H18_bytes_beyond_the_body_are_the_next_request() -> None:
    echo = Echo()
    async with serving(echo) as (_, port), connected(port) as client:
        client.send(post(b"one") + post(b"two", path="/v1/messages"))
        assert (await client.response()).body == b"one"
        assert (await client.response()).body == b"two"
        assert [incoming.path for incoming in echo.seen] == ["/v1/chat/completions", "/v1/messages"]
