"""Promise: a head is read in one way only, within its bounds and its time, or refused with one error."""

import asyncio
import random

import pytest

from wire.rig import Echo, connected, on_uvloop, post, refusal, serving, until


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
