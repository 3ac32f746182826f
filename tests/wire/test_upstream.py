"""The upstream side survives whatever a server does, never sends a request twice and never mixes answers
up.
"""

import asyncio
import random
import ssl
import subprocess
from pathlib import Path

import pytest

from farebox._meter import Head
from farebox.base.errors import (
    UpstreamBrokenError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
)
from farebox.wire.endpoint import verifying_tls
from farebox.wire.upstream import Connection, Pool
from wire.rig import (
    CLOSE,
    HANG,
    RESET,
    SECRET,
    Response,
    Truncated,
    connected,
    endpoint,
    on_uvloop,
    post,
    proxying,
    until,
    upstream_playing,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def exchange(port: int, body: bytes = b"{}") -> Response:
    async with connected(port) as client:
        client.send(post(body))
        return await client.response()


@on_uvloop
async def test_keepalive_one_connection_serves_many_exchanges() -> None:
    async with upstream_playing(*[[OK]] * 5) as upstream, proxying(upstream) as (_, port):
        for _ in range(5):
            assert (await exchange(port)).body == b"{}"
        assert upstream.connections == 1
        assert len(upstream.requests) == 5


@on_uvloop
async def test_request_as_sent_upstream() -> None:
    async with (
        upstream_playing([OK]) as upstream,
        proxying(upstream, path_prefix="/api", user_agent="ua/1") as (_, port),
        connected(port) as client,
    ):
        extra = (
            "Authorization: Bearer client\r\nX-Api-Key: client\r\nCookie: a=b\r\n"
            "Anthropic-Beta: x\r\nOpenAI-Organization: o\r\n"
        )
        client.send(post(b'{"a":1}', extra=extra))
        await client.response()
        assert upstream.requests == [
            b"POST /api/v1/chat/completions HTTP/1.1\r\n"
            b"Host: 127.0.0.1:%d\r\n"
            b"User-Agent: ua/1\r\n"
            b"Accept-Encoding: identity\r\n"
            b"Content-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\n"
            b"Anthropic-Beta: x\r\n"
            b"Content-Length: 7\r\n\r\n"
            b'{"a":1}' % (upstream.port, SECRET.encode())
        ]


@on_uvloop
async def test_U01_refused_connection_sends_nothing() -> None:
    async with upstream_playing() as upstream:
        port_without_server = upstream.port
    pool = Pool(endpoint(port_without_server), asyncio.get_running_loop())
    with pytest.raises(UpstreamConnectError) as caught:
        await pool.connect()
    assert caught.value.sent is False
    assert pool.open_count == 0


@on_uvloop
async def test_U01_unresolvable_host() -> None:
    pool = Pool(endpoint(80, host="no-such-host.invalid", connect_timeout_s=10.0), asyncio.get_running_loop())
    with pytest.raises(UpstreamConnectError):
        await pool.connect()


@on_uvloop
async def test_U02_no_answer_meets_the_first_byte_deadline() -> None:
    async with (
        upstream_playing([HANG]) as upstream,
        proxying(upstream, first_byte_timeout_s=0.2) as (proxy, port),
    ):
        assert (await exchange(port)).status == 502
        error = proxy.exchanges[0].error
        assert isinstance(error, UpstreamTimeoutError)
        assert (error.phase, error.sent) == ("first_byte", True)
        assert proxy.pool.open_count == 0


@on_uvloop
async def test_U03_silence_after_the_head_meets_the_idle_deadline() -> None:
    script = [CHUNKED, b"5\r\nhello\r\n", HANG]
    async with (
        upstream_playing(script) as upstream,
        proxying(upstream, stream=True, idle_stream_timeout_s=0.2) as (proxy, port),
    ):
        with pytest.raises(Truncated):
            await exchange(port)
        error = proxy.exchanges[0].error
        assert isinstance(error, UpstreamTimeoutError)
        assert error.phase == "idle"


@on_uvloop
async def test_U04_drip_meets_the_total_deadline() -> None:
    drip: list[bytes | float | str] = [CHUNKED, *([b"1\r\nx\r\n", 0.05] * 200)]
    async with (
        upstream_playing(drip) as upstream,
        proxying(upstream, stream=True, total_timeout_s=0.5) as (proxy, port),
    ):
        with pytest.raises(Truncated):
            await exchange(port)
        error = proxy.exchanges[0].error
        assert isinstance(error, UpstreamTimeoutError)
        assert error.phase == "total"


@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize("tail", [b"", b"5\r\nhel", b"ff"])
@on_uvloop
async def test_U05_U07_cut_inside_chunks_is_seen_as_a_cut(tail: bytes, end: str) -> None:
    script = [CHUNKED + b"5\r\nhello\r\n" + tail, 0.05, end]
    async with upstream_playing(script) as upstream, proxying(upstream, stream=True) as (proxy, port):
        async with connected(port) as client:
            client.send(post())
            head = await client.head()
            assert head.status == 200
            rest = await client.rest()
            assert b"hello" in rest
            assert not rest.endswith(b"0\r\n\r\n")
        assert proxy.pool.open_count == 0


@on_uvloop
async def test_U06_body_until_close_ends_properly() -> None:
    script = [b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall", 0.05, b" of it", CLOSE]
    async with upstream_playing(script) as upstream, proxying(upstream, stream=True) as (proxy, port):
        assert (await exchange(port)).body == b"all of it"
        assert proxy.pool.open_count == 0


@on_uvloop
async def test_U07_reset_inside_a_body_until_close_is_a_cut() -> None:
    script = [b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall", 0.05, RESET]
    async with upstream_playing(script) as upstream, proxying(upstream, stream=True) as (_, port):
        with pytest.raises(Truncated):
            await exchange(port)


@on_uvloop
async def test_U08_body_shorter_than_declared() -> None:
    script = [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", CLOSE]
    async with upstream_playing(script) as upstream, proxying(upstream) as (proxy, port):
        answer = await exchange(port)
        assert (answer.status, answer.body) == (502, b"broken")
        assert proxy.pool.open_count == 0


@on_uvloop
async def test_U08_U27_bytes_after_the_end_never_reach_anyone() -> None:
    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"
    async with upstream_playing([OK + extra], [OK]) as upstream, proxying(upstream) as (proxy, port):
        assert (await exchange(port)).body == b"{}"
        assert proxy.pool.idle_count == 0
        assert (await exchange(port)).body == b"{}"
        assert upstream.connections == 2


@on_uvloop
async def test_U27_U28_late_bytes_on_an_idle_connection_discard_it() -> None:
    async with upstream_playing([OK, 0.1, OK], [OK]) as upstream, proxying(upstream) as (proxy, port):
        await exchange(port)
        assert proxy.pool.idle_count == 1
        await until(lambda: proxy.pool.idle_count == 0)
        assert (await exchange(port)).body == b"{}"
        assert upstream.connections == 2


@pytest.mark.parametrize("size", [b"0x5", b"+5", b"-5", b"5_0", b" 5", b"10000000000000000", b"", b"g"])
@on_uvloop
async def test_U09_bad_chunk_size(size: bytes) -> None:
    script = [CHUNKED + size + b"\r\nhello\r\n0\r\n\r\n"]
    async with upstream_playing(script) as upstream, proxying(upstream, stream=True) as (proxy, port):
        with pytest.raises(Truncated):
            await exchange(port)
        assert proxy.pool.open_count == 0


@on_uvloop
async def test_U21_redirects_are_not_followed() -> None:
    script = [
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    ]
    async with upstream_playing(script) as upstream, proxying(upstream) as (_, port):
        answer = await exchange(port)
        assert answer.status == 307
        assert answer.header("location") is None
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2**20 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\n folded: x\r\nContent-Length: 0\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
    ],
    ids=["many", "large", "nul", "cr", "both", "differing", "folded", "protocol"],
)
@on_uvloop
async def test_U22_unacceptable_response_heads(head: bytes) -> None:
    async with upstream_playing([head]) as upstream, proxying(upstream) as (proxy, port):
        assert (await exchange(port)).status == 502
        assert isinstance(proxy.exchanges[0].error, UpstreamBrokenError)
        assert proxy.pool.open_count == 0


@on_uvloop
async def test_U23_A30_response_headers_are_an_allow_list() -> None:
    lines = (
        b"HTTP/1.1 200 OK",
        b"Content-Type: application/json",
        b"Set-Cookie: a=b",
        b"Server: s",
        b"X-Request-Id: r",
        b"OpenAI-Organization: o",
        b"Anthropic-Ratelimit-Requests-Remaining: 5",
        b"Retry-After: 7",
        b"Connection: close",
        b"Content-Length: 2",
    )
    script = [b"\r\n".join(lines) + b"\r\n\r\n{}"]
    async with upstream_playing(script) as upstream, proxying(upstream) as (proxy, port):
        answer = await exchange(port)
        names = [name.lower() for name, _ in answer.headers]
        assert sorted(names) == ["content-length", "content-type", "date", "retry-after"]
        assert proxy.pool.open_count == 0 or proxy.pool.idle_count == 1


@on_uvloop
async def test_U24_keepalive_race_is_never_sent_again() -> None:
    async with upstream_playing([OK], [CLOSE]) as upstream, proxying(upstream) as (proxy, port):
        await exchange(port)
        assert (await exchange(port)).status == 502
        error = proxy.exchanges[1].error
        assert isinstance(error, UpstreamBrokenError)
        assert error.sent
        assert len(upstream.requests) == 2
        assert upstream.connections == 1


@on_uvloop
async def test_U24_a_connection_known_closed_is_not_taken() -> None:
    async with upstream_playing([OK, 0.05, CLOSE], [OK]) as upstream, proxying(upstream) as (proxy, port):
        await exchange(port)
        await until(lambda: proxy.pool.idle_count == 0)
        assert (await exchange(port)).status == 200
        assert len(upstream.requests) == 2


@on_uvloop
async def test_U24_send_on_a_closed_connection_says_nothing_was_sent() -> None:
    async with upstream_playing([OK, 0.05, CLOSE]) as upstream, proxying(upstream) as (proxy, port):
        await exchange(port)
        connection = proxy.pool.take()
        assert connection is not None
        await until(lambda: connection.closed)
        with pytest.raises(UpstreamConnectError) as caught:
            connection.send(b"POST / HTTP/1.1\r\n\r\n", b"", proxy.exchanges[0])
        assert caught.value.sent is False


@on_uvloop
async def test_U24_idle_connections_close_before_the_upstream_would() -> None:
    async with (
        upstream_playing([OK, HANG]) as upstream,
        proxying(upstream, keepalive_timeout_s=0.2) as (proxy, port),
    ):
        await exchange(port)
        assert proxy.pool.idle_count == 1
        await until(lambda: upstream.closed == 1)
        assert proxy.pool.open_count == 0


@on_uvloop
async def test_U25_early_answer_while_uploading_ends_the_connection() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    async with (
        upstream_playing([refusal, HANG], read_bodies=False) as upstream,
        proxying(upstream) as (proxy, port),
    ):
        assert (await exchange(port, b"x" * (24 * 2**20))).status == 413
        assert proxy.pool.open_count == 0


class Taking:
    """A transport that takes what it is given, and has no more room after so many writes."""

    def __init__(self, connection: Connection, room: int) -> None:
        self.connection = connection
        self.room = room
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))
        self.room -= 1
        if self.room == 0:
            self.connection.pause_writing()

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.write(b"".join(parts))

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self.connection.connection_lost(None)


def taking(pool: Pool, room: int) -> tuple[Connection, Taking]:
    """A connection and its transport."""
    connection = Connection(pool)
    transport = Taking(connection, room)
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, transport


class Unanswered:
    """Takes no answer."""

    def on_head(self, head: Head, rest: bytes) -> None: ...
    def on_data(self, data: bytes) -> None: ...
    def on_closed(self, error: UpstreamError | None) -> None: ...


@on_uvloop
async def test_H_a_long_body_goes_out_a_slice_a_turn_and_waits_while_the_socket_is_full() -> None:
    connection, transport = taking(Pool(endpoint(80), asyncio.get_running_loop()), room=4)
    body = random.Random(1).randbytes(2**21 + 5)
    connection.send(b"head", body, Unanswered())
    assert max(map(len, transport.written)) <= 2**18
    for _ in range(20):
        before = len(transport.written)
        await asyncio.sleep(0)
        assert len(transport.written) - before <= 1
    assert len(transport.written) == 4
    connection.resume_writing()
    for _ in range(20):
        await asyncio.sleep(0)
    assert b"".join(transport.written) == b"head" + body


@on_uvloop
async def test_U25_a_connection_that_has_not_sent_its_whole_body_is_not_used_again() -> None:
    pool = Pool(endpoint(80), asyncio.get_running_loop())
    connection, transport = taking(pool, room=2)
    connection.send(b"head", bytes(2**21), Unanswered())
    connection.release(True)
    assert connection.closed
    assert pool.idle_count == 0
    connection.resume_writing()
    await asyncio.sleep(0)
    assert len(transport.written) == 2


@pytest.mark.parametrize("mebibytes", [0.5, 1.5, 9])
@on_uvloop
async def test_M9_a_long_body_arrives_unchanged_and_its_connection_is_kept(mebibytes: float) -> None:
    body = random.Random(2).randbytes(int(mebibytes * 2**20) + 3)
    async with upstream_playing([OK], [OK]) as upstream, proxying(upstream) as (proxy, port):
        for number in range(2):
            assert (await exchange(port, body)).status == 200
            assert upstream.requests[number].endswith(b"\r\n\r\n" + body)
        assert upstream.connections == 1
        assert proxy.pool.idle_count == 1


@on_uvloop
async def test_U26_informational_heads_are_skipped() -> None:
    script = [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
        0.02,
        OK[:20],
        0.02,
        OK[20:],
    ]
    async with upstream_playing(script) as upstream, proxying(upstream) as (proxy, port):
        assert (await exchange(port)).body == b"{}"
        assert proxy.pool.idle_count == 1


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 40]
)
@on_uvloop
async def test_U26_switching_and_endless_continues_are_refused(head: bytes) -> None:
    async with upstream_playing([head, HANG]) as upstream, proxying(upstream) as (proxy, port):
        assert (await exchange(port)).status == 502
        assert proxy.pool.open_count == 0


@on_uvloop
async def test_pool_is_bounded_and_waits_in_order() -> None:
    async with (
        upstream_playing(*[[0.05, OK]] * 6) as upstream,
        proxying(upstream, connections_max=2) as (_, port),
    ):
        answers = await asyncio.gather(*(exchange(port) for _ in range(6)))
        assert [answer.status for answer in answers] == [200] * 6
        assert upstream.connections == 2


@on_uvloop
async def test_pool_full_for_too_long_is_a_connect_error() -> None:
    async with (
        upstream_playing([HANG]) as upstream,
        proxying(upstream, connections_max=1, connect_timeout_s=0.2) as (proxy, port),
        connected(port) as first,
    ):
        first.send(post())
        await until(lambda: len(upstream.requests) == 1)
        assert (await exchange(port)).status == 502
        assert isinstance(proxy.exchanges[1].error, UpstreamConnectError)
        assert proxy.pool.open_count == 1


def self_signed(folder: Path) -> tuple[str, str]:
    key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", key, "-out", certificate]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files],
        check=True,
        capture_output=True,
    )
    return certificate, key


def test_tls_is_verified(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)

    @on_uvloop
    async def story() -> None:
        async with upstream_playing([OK], tls=server_side) as upstream:
            loop = asyncio.get_running_loop()
            for host, tls in (("localhost", verifying_tls()), ("127.0.0.1", verifying_tls(certificate))):
                pool = Pool(endpoint(upstream.port, scheme="https", host=host, tls=tls), loop)
                with pytest.raises(UpstreamConnectError):
                    await pool.connect()
            assert upstream.requests == []
            trusted = verifying_tls(certificate)
            async with proxying(upstream, scheme="https", host="localhost", tls=trusted) as (_, port):
                assert (await exchange(port)).body == b"{}"

    story()


@on_uvloop
async def test_aborting_the_pool_tells_every_receiver() -> None:
    async with (
        upstream_playing([HANG]) as upstream,
        proxying(upstream) as (proxy, port),
        connected(port) as client,
    ):
        client.send(post())
        await until(lambda: len(upstream.requests) == 1)
        proxy.pool.abort()
        assert (await client.response()).status == 502


def test_M11_endpoint_never_shows_its_credential() -> None:
    shown = endpoint(443)
    shown.head_start("/v1/messages")
    assert SECRET not in repr(shown)
    assert SECRET not in str(shown)
