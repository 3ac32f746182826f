"""The client side: exact bytes on the wire, bounds and deadlines that hold, and no request that reads two
ways.
"""

import asyncio
import random
import socket
from pathlib import Path
from typing import Any

import pytest

from farebox.base import limits
from farebox.base.errors import Refusal, Refused
from farebox.wire.incoming import Incoming
from farebox.wire.server import Server
from wire.rig import Client, Truncated, connected, on_uvloop, post, serving, until


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


# ---- streams ----------------------------------------------------------------------------------


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


# ---- bodies -----------------------------------------------------------------------------------


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


# ---- heads ------------------------------------------------------------------------------------


@on_uvloop
async def test_H01_slow_head_meets_its_total_deadline() -> None:
    async with serving(Echo(), header_timeout_s=0.3) as (_, port), connected(port) as client:

        async def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nHost: h\r\nX-Slow: " + b"x" * 1000:
                client.send(bytes((byte,)))
                await asyncio.sleep(0.02)

        dripping = asyncio.ensure_future(drip())
        try:
            assert (await client.response()).status == 408
        finally:
            dripping.cancel()


@on_uvloop
async def test_H01_silent_connection_is_closed() -> None:
    async with serving(Echo(), header_timeout_s=0.2) as (_, port), connected(port) as client:
        assert (await client.response()).status == 408
        assert await client.rest() == b""


@on_uvloop
async def test_H04_idle_keepalive_connection_is_closed() -> None:
    async with serving(Echo(), keepalive_timeout_s=0.2) as (_, port), connected(port) as client:
        client.send(post())
        await client.response()
        assert await client.rest() == b""


@on_uvloop
async def test_H04_connections_are_bounded_and_the_oldest_idle_one_goes() -> None:
    async with (
        serving(Echo(), connections_max=1) as (_, port),
        connected(port) as first,
        connected(port) as second,
    ):
        second.send(post(b"second"))
        assert (await second.response()).body == b"second"
        assert await first.rest() == b""


LARGE = "x" * 8200


@pytest.mark.parametrize("fragment_bytes", [0, 997])
@pytest.mark.parametrize(
    "head",
    [
        f"GET /{LARGE} HTTP/1.1\r\nHost: h\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: h\r\nX: {LARGE}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: h\r\n{LARGE}: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n" + "A: b\r\n" * 129 + "\r\n",
    ],
    ids=["line", "value", "name", "many"],
)
@on_uvloop
async def test_H05_large_heads(head: str, fragment_bytes: int) -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        data = head.encode()
        for start in range(0, len(data), fragment_bytes or len(data)):
            client.send(data[start : start + (fragment_bytes or len(data))])
            await asyncio.sleep(0.001)
        answer = await client.response()
        assert answer.status in {400, 431}
        assert answer.header("connection") == "close"


@pytest.mark.parametrize(
    "length",
    ["", "+5", "-1", "0x10", "1_0", "5, 5", "5, 6", "5\r\nContent-Length: 5", "5\r\nContent-Length: 6",
     "9" * 20, "9" * 5000, "\u0665", "5\x0b", "\xa05", "5 5"],
)  # fmt: skip
@on_uvloop
async def test_H08_content_length(length: str) -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        head = f"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
        assert await refusal(client, head.encode() + b"hello") in {400, 431}


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding:\xa0chunked",
        "Transfer-Encoding: chunked\r",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer\xadEncoding: chunked",
    ],
)
@on_uvloop
async def test_H09_transfer_encoding(framing: str) -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        head = f"POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"
        assert await refusal(client, head.encode("latin-1") + b"0\r\n\r\n") == 400


@on_uvloop
async def test_H09_transfer_encoding_on_http_1_0() -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        head = b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        assert await refusal(client, head) == 400


@pytest.mark.parametrize(
    "chunks",
    [b"0x2\r\nhi\r\n", b"+2\r\nhi\r\n", b"-2\r\nhi\r\n", b"0_2\r\nhi\r\n", b" 2\r\nhi\r\n", b"2 \r\nhi\r\n",
     b"\r\nhi\r\n", b"11111111111111111\r\nhi\r\n", b"2;a\nb\r\nhi\r\n", b"2\r\nhi0\r\n\r\n", b"2\nhi\n0\n\n",
     b"2\r\nhi\r0\r\n\r\n", b"g\r\nhi\r\n"],
)  # fmt: skip
@pytest.mark.parametrize("separate", [False, True])
@on_uvloop
async def test_H10_chunk_framing(chunks: bytes, separate: bool) -> None:
    async with serving(Echo()) as (server, port), connected(port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        if separate:
            await until(lambda: server.open_count == 1)
        client.send(chunks + b"0\r\n\r\n")
        answer = await client.response()
        assert (answer.status, answer.header("connection")) == (400, "close")
        assert await client.rest() == b""


@on_uvloop
async def test_H11_trailers_never_become_headers() -> None:
    echo = Echo()
    async with serving(echo) as (_, port), connected(port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n")
        client.send(b"Authorization: Bearer x\r\nX-Trailer: y\r\n\r\n" + post(b"next"))
        assert (await client.response()).body == b"hi"
        assert await client.rest() == b""
        assert [sorted(incoming.headers) for incoming in echo.seen] == [["Host", "Transfer-Encoding"]]


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\nHost: h\n\n",
        "GET / HTTP/1.1\rHost: h\r\r",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\x01b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\x7fb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX\0Y: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / / HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
)
@on_uvloop
async def test_H12_head_syntax(head: str) -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        assert await refusal(client, head.encode("latin-1")) == 400


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x/#@y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET http://other/v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
@on_uvloop
async def test_H13_host_and_target(head: str) -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        assert await refusal(client, head.encode()) == 400


@pytest.mark.parametrize("method", ["get", "PRI", "X" * 1024, "G ET", "GET\t", "B@D"])
@on_uvloop
async def test_H15_methods_that_do_not_exist(method: str) -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        assert await refusal(client, f"{method} / HTTP/1.1\r\nHost: h\r\n\r\n".encode()) == 400


@pytest.mark.parametrize(
    "version", ["", "HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/1.32", "HTTP/1", "http/1.1", "ICE/1.0"]
)
@on_uvloop
async def test_H16_versions(version: str) -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        assert await refusal(client, f"GET / {version}\r\nHost: h\r\n\r\n".encode()) == 400


@on_uvloop
async def test_H16_preface_of_http_2() -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        assert await refusal(client, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") == 400


@pytest.mark.parametrize("protocol", ["h2c", "foo"])
@on_uvloop
async def test_H16_upgrades_are_ignored_and_the_connection_ends(protocol: str) -> None:
    echo = Echo()
    async with serving(echo) as (_, port), connected(port) as client:
        upgrade = f"Connection: Upgrade\r\nUpgrade: {protocol}\r\n"
        client.send(post(b"hello", extra=upgrade) + post(b"never"))
        answer = await client.response()
        assert (answer.body, answer.header("connection")) == (b"hello", "close")
        assert await client.rest() == b""
        assert len(echo.seen) == 1


@on_uvloop
async def test_H26_websocket_is_refused() -> None:
    echo = Echo()
    async with serving(echo) as (_, port), connected(port) as client:
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
        data = b"GET /v1/responses HTTP/1.1\r\nHost: h\r\n" + upgrade + b"\r\n" + post(b"never")
        assert await refusal(client, data) == 400
        assert echo.seen == []


@pytest.mark.parametrize(
    "noise", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 100, bytes(range(256))]
)
@on_uvloop
async def test_H27_noise_is_closed(noise: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Echo()) as (_, port), connected(port) as client:
        assert await refusal(client, noise) == 400
        assert caplog.text == ""


# ---- pipelining -------------------------------------------------------------------------------


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


# ---- slow readers and life --------------------------------------------------------------------

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


@on_uvloop
async def test_H28_mutated_requests_neither_crash_nor_leak(caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(20261121)
    chunked = (
        b"POST /v1/messages HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    )
    seeds = [post(b'{"a":1}'), chunked, post(extra="Expect: 100-continue\r\n"), post(extra="Upgrade: x\r\n")]
    pieces = [
        b"\r\n",
        b"\0",
        b":",
        b" ",
        b"\xff",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"0",
    ]
    async with serving(Echo(), header_timeout_s=0.4, body_timeout_s=0.4, keepalive_timeout_s=0.4) as (
        server,
        port,
    ):

        async def one(data: bytes) -> None:
            async with connected(port) as client:
                client.send(data)
                await client.rest()

        for _ in range(20):
            batch = []
            for _ in range(30):
                data = bytearray(chance.choice(seeds) * chance.randint(1, 3))
                for _ in range(chance.randint(1, 4)):
                    at = chance.randrange(len(data))
                    data[at : at + chance.randint(0, 3)] = chance.choice(pieces)
                batch.append(one(bytes(data)))
            await asyncio.gather(*batch)
        assert (server.open_count, server.body_bytes_held, len(server._open_connections)) == (0, 0, 0)
        assert caplog.text == ""
