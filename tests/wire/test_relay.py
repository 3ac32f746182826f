"""Bytes pass unchanged, held bytes wait for their permission, and neither side can make the other one
buffer.
"""

import asyncio
import socket

import pytest

from farebox._meter import BROKEN, END, TERMINAL
from farebox.wire.errors import cut_event
from farebox.wire.upstream import Pool
from wire.rig import (
    CLOSE,
    HANG,
    BareExchange,
    BareProxy,
    Truncated,
    connected,
    endpoint,
    on_uvloop,
    post,
    proxying,
    serving,
    until,
    upstream_playing,
)

EVENT_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SMALL = {"SO_SNDBUF": 8192, "SO_RCVBUF": 8192}


def chunked(*parts: bytes) -> list[bytes | float | str]:
    return [EVENT_HEAD, *(b"%x\r\n%b\r\n" % (len(part), part) for part in parts), b"0\r\n\r\n"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("head", [EVENT_HEAD, None], ids=["chunked", "length"])
@on_uvloop
async def test_M9_body_bytes_are_unchanged(head: bytes | None, stream: bool) -> None:
    parts = [bytes(range(256)) * number for number in range(1, 20)]
    body = b"".join(parts)
    plain = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), *parts]
    script = chunked(*parts) if head else list(plain)
    async with upstream_playing(script) as upstream, proxying(upstream, stream=stream) as (proxy, port):
        for http in (b"1.1", b"1.0"):
            upstream.requests.clear()
            async with connected(port) as client:
                client.send(post(b"{}").replace(b"HTTP/1.1", b"HTTP/" + http))
                assert (await client.response()).body == body
        assert proxy.pool.idle_count == 1


@on_uvloop
async def test_empty_body_ends_at_once() -> None:
    script = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    async with upstream_playing(script, script) as upstream, proxying(upstream, stream=True) as (proxy, port):
        async with connected(port) as client:
            client.send(post())
            assert (await client.response()).body == b""
        assert proxy.pool.idle_count == 1


@on_uvloop
async def test_answer_larger_than_the_held_bound_becomes_a_stream() -> None:
    parts = [b"x" * 1000] * 100
    async with (
        upstream_playing(chunked(*parts)) as upstream,
        proxying(upstream, held_max=10_000) as (proxy, port),
        connected(port) as client,
    ):
        client.send(post())
        answer = await client.response()
        assert answer.header("transfer-encoding") == "chunked"
        assert answer.body == b"".join(parts)
        assert proxy.exchanges[0].states == [END | 4]


@on_uvloop
async def test_held_bytes_wait_and_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}\n\n'
    text = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
    events = [text, usage, b"data: [DONE]\n\n"]
    script: list[bytes | float | str] = []
    for step in chunked(*events):
        script += [step, 0.02]
    held: list[tuple[BareExchange, bytes, int]] = []
    monkeypatch.setattr(
        BareExchange, "hold_point", lambda self, data, state: held.append((self, data, state))
    )
    async with upstream_playing(script) as upstream:
        pool = Pool(endpoint(upstream.port), asyncio.get_running_loop())
        proxy = BareProxy(pool, stream=True, wire_format="chat")
        async with serving(proxy.handle) as (_, port), connected(port) as client:
            client.send(post())
            await client.head()
            await until(lambda: bool(held))
            exchange, data, state = held[0]
            assert state & TERMINAL
            await asyncio.sleep(0.1)
            assert len(held) == 1
            exchange.relay.send_held(data)
            if not state & END:
                await until(lambda: len(held) == 2)
                exchange.relay.send_held(held[1][1])
            exchange.relay.finish()
            assert await client.chunked_body() == b"".join(events)
            reading = exchange.pipe.reading()
            assert (reading.counts, reading.complete) == ({"input": 3, "output": 1}, True)
        pool.abort()
        await asyncio.sleep(0)


@on_uvloop
async def test_H03_C07_slow_reader_pauses_the_upstream() -> None:
    part = b"x" * 2**16
    async with (
        upstream_playing(chunked(*[part] * 40)) as upstream,
        proxying(
            upstream,
            stream=True,
            listen_buffers=SMALL,
            server_options={"write_buffer_bytes_max": 2**16},
        ) as (proxy, port),
        connected(port, **SMALL) as client,
    ):
        client.send(post())
        assert (await client.head()).status == 200
        exchange: BareExchange = proxy.exchanges[0]
        await until(lambda: exchange.client.paused)
        sent = -1
        while sent != exchange.client.bytes_written:
            sent = exchange.client.bytes_written
            await asyncio.sleep(0.1)
        assert sent < 2**21
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)  # it was slow for long enough
        taken = b""
        while not taken.endswith(b"\r\n0\r\n\r\n"):
            taken += await client.reader.read(2**16)
        assert taken.count(b"x") == 40 * 2**16
        assert exchange.relay.chunk_count > 0


@on_uvloop
async def test_C07_a_client_that_was_slow_at_the_end_leaves_no_paused_connection_to_the_next() -> None:
    text = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 60_000)
    body = text + b"data: [DONE]\n\n"
    whole: list[bytes | float | str] = [b"".join(part for part in chunked(body) if isinstance(part, bytes))]
    async with (
        upstream_playing(whole, whole) as upstream,
        proxying(
            upstream,
            stream=True,
            wire_format="chat",
            listen_buffers=SMALL,
            server_options={"write_buffer_bytes_max": 1},
        ) as (proxy, port),
        connected(port, **SMALL) as slow,
        connected(port) as quick,
    ):
        slow.send(post())
        await until(lambda: bool(proxy.exchanges) and bool(proxy.exchanges[0].states))
        assert proxy.exchanges[0].client.paused
        quick.send(post())
        assert (await quick.response()).body == body
        assert upstream.connections == 1
        assert (await slow.response()).body == body


@on_uvloop
async def test_C07_a_client_that_is_slow_after_the_end_pauses_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[BareExchange] = []
    monkeypatch.setattr(BareExchange, "hold_point", lambda self, data, state: held.append(self))
    second = [0.1, *chunked(b"second")]
    async with (
        upstream_playing(chunked(b"first"), second) as upstream,
        proxying(
            upstream,
            stream=True,
            listen_buffers=SMALL,
            server_options={"write_buffer_bytes_max": 1},
        ) as (proxy, port),
        connected(port, **SMALL) as slow,
        connected(port) as quick,
    ):
        slow.send(post())
        await until(lambda: bool(held) and proxy.pool.idle_count == 1)
        quick.send(post())
        await until(lambda: len(upstream.requests) == 2)
        held[0].relay.send_held(b"x" * 2**20)
        assert held[0].client.paused
        await until(lambda: len(held) == 2)
        assert upstream.connections == 1


@on_uvloop
async def test_C05_C07_client_that_leaves_a_full_pipe_lets_the_upstream_drain() -> None:
    part = b"x" * 2**16
    async with (
        upstream_playing(chunked(*[part] * 200)) as upstream,
        proxying(
            upstream,
            stream=True,
            listen_buffers=SMALL,
            server_options={"write_buffer_bytes_max": 2**16},
        ) as (proxy, port),
    ):
        async with connected(port, **SMALL) as client:
            client.send(post())
            await client.head()
            await until(lambda: proxy.exchanges[0].client.paused)
            client.reset()
        exchange = proxy.exchanges[0]
        await until(lambda: bool(exchange.states))
        assert exchange.gone
        assert exchange.states[0] & END
        assert proxy.pool.idle_count == 1


@on_uvloop
async def test_C10_dropping_the_upstream_ends_a_drain() -> None:
    async with (
        upstream_playing([EVENT_HEAD, b"2\r\nhi\r\n", HANG]) as upstream,
        proxying(upstream, stream=True) as (proxy, port),
    ):
        async with connected(port) as client:
            client.send(post())
            await client.head()
        exchange = proxy.exchanges[0]
        await until(lambda: exchange.gone)
        exchange.relay.drop_upstream()
        await until(lambda: upstream.closed == 1)
        assert (proxy.pool.open_count, exchange.states) == (0, [])


@on_uvloop
async def test_cut_event_goes_between_two_events() -> None:
    steps: list[bytes | float | str] = [EVENT_HEAD, b"8\r\ndata: {}\r\n", 0.2, b"2\r\n\n\n\r\n", HANG]
    async with (
        upstream_playing(steps) as upstream,
        proxying(upstream, stream=True) as (proxy, port),
        connected(port) as client,
    ):
        client.send(post())
        await client.head()
        await until(lambda: bool(proxy.exchanges) and proxy.exchanges[0].relay.chunk_count >= 1)
        relay = proxy.exchanges[0].relay
        event = cut_event("chat", "insufficient_credits")

        def cut() -> None:
            relay.drop_upstream()
            relay.send(event)
            relay.finish()

        assert not relay.between_events()
        relay.when_between_events(cut)
        assert await client.chunked_body() == b"data: {}\n\n" + event
        assert proxy.pool.open_count == 0


@on_uvloop
async def test_U05_plain_answer_cut_short_is_no_answer() -> None:
    async with (
        upstream_playing([EVENT_HEAD, b"2\r\nhi\r\n", CLOSE]) as upstream,
        proxying(upstream) as (proxy, port),
        connected(port) as client,
    ):
        client.send(post())
        assert (await client.response()).status == 502
        assert proxy.exchanges[0].states[0] & BROKEN


@on_uvloop
async def test_broken_stream_is_truncated_for_its_client() -> None:
    async with (
        upstream_playing([EVENT_HEAD, b"2\r\nhi\r\nzz\r\n"]) as upstream,
        proxying(upstream, stream=True) as (proxy, port),
        connected(port) as client,
    ):
        client.send(post())
        with pytest.raises(Truncated):
            await client.response()
        assert proxy.pool.open_count == 0
