"""Promise: an answer is exactly these bytes, whole or streamed, and a client that leaves harms nobody."""

import asyncio

import pytest

from farebox.base.errors import Refusal, Refused
from farebox.wire.incoming import Incoming
from wire.rig import Echo, Truncated, connected, on_uvloop, post, serving, until


@on_uvloop
async def test_answer_is_exactly_these_bytes() -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        client.send(post(b"hello"))
        answer = await client.response()
        date = answer.header("date")
        assert date is not None
        assert date.endswith(" GMT")
        assert answer.raw_head.decode() == (
            f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"
        )
        assert answer.body == b"hello"


@on_uvloop
async def test_request_target_is_kept_as_sent() -> None:
    echo = Echo()
    async with serving(echo) as (_, port), connected(port) as client:
        client.send(b"GET /v1/../a%2Fb;c//?x=%20&y HTTP/1.1\r\nHost: h\r\nX-One: 1\r\n\r\n")
        await client.response()
        incoming = echo.seen[0]
        assert (incoming.method, incoming.path, incoming.query) == ("GET", "/v1/../a%2Fb;c//", "x=%20&y")
        assert incoming.raw_headers == ((b"Host", b"h"), (b"X-One", b"1"))


@on_uvloop
async def test_body_in_pieces_and_keepalive_beyond_the_pipeline_bound() -> None:
    echo = Echo()
    async with serving(echo) as (_, port), connected(port) as client:
        for number in range(80):
            data = post(b"body %d" % number)
            client.send(data[:-3])
            await asyncio.sleep(0.001)
            client.send(data[-3:])
            assert (await client.response()).body == b"body %d" % number


@on_uvloop
async def test_chunked_request_body() -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head + b"5\r\nhello\r\n")
        await asyncio.sleep(0.01)
        client.send(b"6\r\n world\r\n0\r\n\r\n")
        answer = await client.response()
        assert (answer.body, answer.header("connection")) == (b"hello world", "close")


@on_uvloop
async def test_http_1_0_is_answered_and_closed() -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        client.send(b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi")
        answer = await client.response()
        assert (answer.body, answer.header("connection")) == (b"hi", "close")
        assert await client.rest() == b""


@on_uvloop
async def test_head_answer_has_no_body() -> None:
    async def handle(incoming: Incoming) -> None:
        incoming.answer(405, b"", b"nothing")

    async with serving(handle) as (_, port), connected(port) as client:
        client.send(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.head()).header("content-length") == "7"
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.response()).body == b"nothing"


@on_uvloop
async def test_stream_is_chunked_and_ends() -> None:
    async def handle(incoming: Incoming) -> None:
        incoming.start_stream(200, [("Content-Type", "text/event-stream")])
        incoming.write(b"5\r\nhello\r\n")
        await asyncio.sleep(0.01)
        incoming.write_framed(b" world")
        incoming.end()

    async with serving(handle) as (server, port), connected(port) as client:
        for _ in range(2):
            client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = await client.response()
            assert answer.body == b"hello world"
            assert answer.header("transfer-encoding") == "chunked"
        assert server.open_count == 0


@on_uvloop
async def test_stream_to_http_1_0_is_unframed_and_a_cut_resets_it() -> None:
    finish = True

    async def handle(incoming: Incoming) -> None:
        assert not incoming.chunked_ok
        incoming.start_stream(200, b"")
        incoming.write_framed(b"hello")
        await asyncio.sleep(0.05)
        if finish:
            incoming.end()
        else:
            incoming.abort()

    async with serving(handle) as (_, port):
        async with connected(port) as client:
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            assert (await client.response()).body == b"hello"
        finish = False
        async with connected(port) as client:
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            with pytest.raises(Truncated):
                await client.response()


@on_uvloop
async def test_abort_inside_a_stream_is_seen_as_a_truncation() -> None:
    async def handle(incoming: Incoming) -> None:
        incoming.start_stream(200, b"")
        incoming.write_framed(b"hello")
        incoming.abort()
        incoming.write(b"never")
        incoming.end()

    async with serving(handle) as (server, port), connected(port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await client.head()
        assert await client.rest() == b"5\r\nhello\r\n"
        assert server.open_count == 0


@on_uvloop
async def test_answer_after_the_client_left_is_harmless() -> None:
    left = asyncio.Event()
    done = asyncio.Event()

    async def handle(incoming: Incoming) -> None:
        incoming.on_gone = left.set
        await left.wait()
        assert incoming.gone
        incoming.answer(200, b"", b"x")
        incoming.start_stream(200, b"")
        incoming.write(b"x")
        incoming.end()
        incoming.abort()
        done.set()

    async with serving(handle) as (server, port):
        async with connected(port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            await until(lambda: server.open_count == 1)
            client.reset()
            await done.wait()
        assert server.open_count == 0


@on_uvloop
async def test_C12_handler_is_not_cancelled_when_its_client_leaves() -> None:
    finished = asyncio.Event()

    async def handle(incoming: Incoming) -> None:
        left = asyncio.Event()
        incoming.on_gone = left.set
        await left.wait()
        await asyncio.sleep(0.05)
        finished.set()

    async with serving(handle) as (server, port):
        async with connected(port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            await until(lambda: server.open_count == 1)
        await finished.wait()


@on_uvloop
async def test_C06_half_close_counts_as_leaving() -> None:
    gone = asyncio.Event()

    async def handle(incoming: Incoming) -> None:
        incoming.on_gone = gone.set

    async with serving(handle) as (server, port), connected(port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await until(lambda: server.open_count == 1)
        client.writer.write_eof()
        await gone.wait()


@on_uvloop
async def test_C01_C02_leaving_early_leaves_nothing_behind() -> None:
    failures: list[Refusal] = []

    async def handle(incoming: Incoming) -> None:
        try:
            await incoming.body()
        except Refused as refused:
            failures.append(refused.refusal)
            raise

    async with serving(handle) as (server, port):
        async with connected(port) as client:
            client.send(b"POST / HTT")
        async with connected(port) as client:
            client.send(post(b"x" * 100)[:-50])
            await until(lambda: server.open_count == 1)
        await until(lambda: bool(failures))
        assert (failures, server.open_count, server.body_bytes_held) == ([Refusal.BODY_INVALID], 0, 0)


@on_uvloop
async def test_handler_that_fails_answers_500_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(incoming: Incoming) -> None:
        msg = "secret detail"
        raise RuntimeError(msg)

    async with serving(handle) as (_, port), connected(port) as client:
        client.send(post(path="/v1/messages"))
        answer = await client.response()
        assert answer.status == 500
        assert answer.body == b'{"type":"error","error":{"type":"api_error","message":"Internal error."}}'
        assert "secret detail" in caplog.text


@on_uvloop
async def test_plain_function_as_handler_answers_within_the_read() -> None:
    def handle(incoming: Incoming) -> None:
        body = incoming.body_now()
        if body == b"refuse":
            raise Refused(Refusal.RATE_LIMITED, "Later.", retry_after_s=3)
        incoming.answer(200, b"", body or b"incomplete")

    async with serving(handle) as (_, port), connected(port) as client:
        client.send(post(b"now"))
        assert (await client.response()).body == b"now"
        client.send(post(b"refuse"))
        answer = await client.response()
        assert (answer.status, answer.header("retry-after")) == (429, "3")
        client.send(post(b"later")[:-1])
        assert (await client.response()).body == b"incomplete"
