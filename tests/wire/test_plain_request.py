"""H05 to H12, M10: it makes no difference to anybody by which parser a request was read.

The same bytes, in the same pieces, go to two connections; one of them may read plain requests in one compiled
call, the other leaves everything to aiohttp's parser. Both must hand on the same requests and write the same
answers, whatever the bytes are.
"""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox._meter import parse_request
from farebox.base import limits
from farebox.base.errors import Refusal, Refused
from farebox.wire.client import ClientConnection
from farebox.wire.incoming import Incoming
from farebox.wire.server import Server
from wire.rig import connected, post, serving, until

BODY_MAX = limits.request_body_plain_bytes_max
KEY = "Authorization: Bearer sk-1\r\n"


class Transport:
    """Keeps what was written."""

    def __init__(self) -> None:
        self.written = b""
        self.ended = False

    def write(self, data: bytes) -> None:
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, _: str, default: object = None) -> object:
        return default

    def set_write_buffer_limits(self, high: int) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...


def outcome(ask: Any) -> object:
    """What a call returns, or the refusal it raises."""
    try:
        return ask()
    except Refused as refused:
        return refused.refusal


class Side:
    """One connection whose requests are noted and answered with what was read."""

    def __init__(self, head_starts: dict[int, bytes], plain: bool) -> None:
        self.seen: list[object] = []
        self.plain_count = 0
        server = Server(self.handle)
        server.head_starts = head_starts
        self.server = server
        self.connection: ClientConnection = server()
        self.transport = Transport()
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.connection._plain = plain

    async def handle(self, incoming: Incoming) -> None:
        self.plain_count += not incoming.from_parser
        facts: list[object] = [
            incoming.method,
            incoming.path,
            incoming.query,
            incoming.raw_headers,
            [(name.lower(), value) for name, value in incoming.headers.items()],
            incoming.upstream_lines,
            incoming.chunked_ok,
            outcome(incoming.api_key),
            outcome(incoming.require_json),
        ]
        self.seen.append(facts)
        body = await incoming.body(200)
        facts.append(body)
        incoming.answer(200, b"", body)

    async def take(self, data: bytes) -> None:
        self.connection.data_received(data)
        for _ in range(8):
            await asyncio.sleep(0)


def both_read(pieces: list[bytes]) -> Side:
    """Feed both; they must agree after every piece."""

    async def run() -> Side:
        head_starts: dict[int, bytes] = {}
        one, other = Side(head_starts, plain=True), Side(head_starts, plain=False)
        for piece in pieces:
            await one.take(piece)
            await other.take(piece)
            assert one.seen == other.seen
            assert one.transport.written == other.transport.written
            assert one.transport.ended == other.transport.ended
            assert one.server.open_count == other.server.open_count
        for side in (one, other):
            side.connection.connection_lost(None)
            await asyncio.sleep(0)
            assert side.server.body_bytes_held == 0
        return one

    return asyncio.run(run())


LINES = st.sampled_from(
    ["POST /v1/messages HTTP/1.1", "POST /v1/chat/completions HTTP/1.1", "GET /v1/models?a=1 HTTP/1.1"] * 3
    + ["POST /v1/chat/completions?api_key=k HTTP/1.1", "PUT / HTTP/1.1", "POST / HTTP/1.0", "HEAD / HTTP/1.1",
       "POST //x HTTP/1.1", "POST http://h/v1/messages HTTP/1.1", "OPTIONS * HTTP/1.1", "POST /a#b HTTP/1.1",
       "POST /a b HTTP/1.1", "POST /\u00e4 HTTP/1.1", "PRI * HTTP/2.0",
       "POST /%zz?a=b?c HTTP/1.1", "post / HTTP/1.1"]
)  # fmt: skip
HEADERS = st.sampled_from(
    ["Content-Type: application/json", KEY[:-2], "accept: */*", "User-Agent: python"] * 4
    + ["X-Api-Key: sk-1", "x-api-key: sk-2", "api-key:  sk-1 ", "Authorization: Bearer a b",
       "Authorization: x",
       "Content-Type: APPLICATION/JSON; charset=utf-8", "Content-Type: text/plain", "anthropic-version: 1",
       "Anthropic-Beta: one", "openai-beta: b", "TraceParent: 00-a-b-01", "tracestate: a=1",
       "Cookie: a=b; c=d", "Connection: close",
       "Connection: keep-alive", "Connection: Upgrade, keep-alive", "Upgrade: websocket",
       "Proxy-Connection: close", "Keep-Alive: 5",
       "Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Transfer-Encoding : chunked",
       "Expect: 100-continue", "Expect: more", "Content-Encoding: gzip", "Content-Encoding: identity",
       "Content-Length: 3", "Content-Length: 03", "Content-Length: +3", "Content-Length: 3, 3",
       "Content-Length:",
       "Host: two", "X-Empty:", "X-Tab:\ta\tb", "X-Obs: a\r\n b", "X\u00e4: a", "X: \u00e4", "X: a\nY: b",
       "X: a\rY: b", "X: \0", "X(: a", ": a", "Sec-WebSocket-Key1: a", "Trailer: x", "TE: trailers",
       "Server: s",
       "Max-Forwards: 1", "ETag: x", "X: " + "a" * 8190]
)  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, usually a good one."""
    lines = [draw(LINES), draw(st.sampled_from(["Host: farebox:8004"] * 9 + ["Host: a b", "X: y", "host:h"]))]
    lines += draw(st.lists(HEADERS, max_size=5))
    body = draw(st.binary(max_size=250))
    length = draw(st.sampled_from([0] * 6 + [None, 1, -1]))
    if length is not None:
        lines.append(f"Content-Length: {max(0, len(body) + length)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@st.composite
def pieces(draw: st.DrawFn) -> list[bytes]:
    """A few requests on one connection, perhaps with a byte changed, cut anywhere or between them."""
    sent = draw(st.lists(requests(), min_size=1, max_size=3))
    if draw(st.booleans()):
        return sent
    data = b"".join(sent)
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 1)) :]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if end > start]


@pytest.mark.fuzz
@given(pieces())
def test_H05_both_parsers_read_and_answer_alike(sent: list[bytes]) -> None:
    both_read(sent)


@pytest.mark.fuzz
@given(requests())
def test_H05_what_is_plain_is_one_whole_request_for_the_general_parser(sent: bytes) -> None:
    plain = parse_request(sent, BODY_MAX)
    if plain is None:
        return
    side = both_read([sent])
    assert side.plain_count == len(side.seen) == 1


def test_usual_requests_are_plain() -> None:
    usual = post(
        b'{"model":"m"}', extra=KEY + "User-Agent: python\r\nAccept: */*\r\nConnection: keep-alive\r\n"
    )
    side = both_read([usual, usual, post(b"x" * 150)[:-100], b"x" * 40, b"x" * 60, usual])
    assert side.plain_count == len(side.seen) == 4


def test_what_follows_a_body_in_its_read_is_left_to_the_general_parser() -> None:
    usual = post(b"12345", extra=KEY)
    side = both_read([usual[:-2], usual[-2:] + usual + usual, usual])
    assert (side.plain_count, len(side.seen)) == (1, 4)


def test_H12_a_smuggled_request_is_never_plain() -> None:
    for framing in (
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4\r\nTransfer-Encoding: xchunked\r\n",
        "Content-Length: 4\r\nTransfer-Encoding:\tchunked\r\n",
        "Content-Length: 4\r\n Transfer-Encoding: chunked\r\n",
        "Content-Length : 4\r\n",
        "Content-Length: 4\r\nX: y\nTransfer-Encoding: chunked\r\n",
    ):
        data = f"POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: h\r\n\r\n"
        assert parse_request(data.encode(), BODY_MAX) is None
        both_read([data.encode()])


async def test_H02_a_large_body_is_left_to_flow_control() -> None:
    assert parse_request(post(b"x" * BODY_MAX), BODY_MAX) is not None
    assert parse_request(post(b"x" * (BODY_MAX + 1)), BODY_MAX) is None


async def test_S12_bodies_that_arrive_count_against_their_common_budget() -> None:
    refusals: list[Refusal] = []

    async def handle(incoming: Incoming) -> None:
        try:
            await incoming.body()
        except Refused as refused:
            refusals.append(refused.refusal)
            raise

    async with serving(handle, bodies_bytes_total_max=1000) as (server, port), connected(port) as client:
        client.send(post(b"x" * 2000)[:-1500])
        await until(lambda: server.open_count == 1)
        client.send(b"x" * 600)
        assert (await client.response()).status == 503
        assert refusals == [Refusal.OVERLOADED]
        await until(lambda: server.body_bytes_held == 0)


async def test_H02_the_declared_length_is_what_counts_however_much_has_come() -> None:
    refusals: list[object] = []

    async def handle(incoming: Incoming) -> None:
        await until(lambda: incoming.body_complete or server.body_bytes_held > 0)
        refusals.append(outcome(lambda: incoming.body_now(1000)))
        incoming.answer(413, b"", b"")

    async with serving(handle) as (server, port), connected(port) as client:
        client.send(post(b"x" * 1500)[:-900])
        await until(lambda: server.open_count == 1)
        client.send(b"x" * 600)
        assert (await client.response()).status == 413
        assert refusals == [Refusal.BODY_TOO_LARGE]


async def test_B07_a_client_that_leaves_within_its_body_is_forgotten() -> None:
    refusals: list[Refusal] = []

    async def handle(incoming: Incoming) -> None:
        try:
            await incoming.body()
        except Refused as refused:
            refusals.append(refused.refusal)
            raise

    async with serving(handle) as (server, port):
        async with connected(port) as client:
            client.send(post(b"x" * 2000)[:-500])
            await until(lambda: server.open_count == 1)
            client.send(b"x" * 100)
            await until(lambda: server.body_bytes_held == 1600)
        await until(lambda: bool(refusals) and server.body_bytes_held == 0)
        assert refusals == [Refusal.BODY_INVALID]
