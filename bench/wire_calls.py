"""What the wire alone costs the interpreter, without sockets: Python and native calls, and microseconds.

    python bench/wire_calls.py [--profile]

One client connection and one upstream connection with transports that only count. The calls of an exchange
and of a streamed chunk do not depend on the machine or its other work, so they show what a change does where
rates are too noisy; the times are the best of many repetitions.
"""

import argparse
import asyncio
import cProfile
import pstats
import time
from collections.abc import Callable
from typing import Any

from farebox._meter import Head, Pipe
from farebox.base.redaction import Secret
from farebox.wire.endpoint import Endpoint, request_head
from farebox.wire.incoming import Incoming
from farebox.wire.relay import Relay, collect
from farebox.wire.routes import match
from farebox.wire.server import Server
from farebox.wire.upstream import Connection, Pool

REPETITIONS = 20
CHUNKS = 100
REQUEST_BODY = b'{"model":"m","messages":[{"role":"user","content":"Say hello to me, please."}]}'
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer sk-%b\r\nContent-Length: %d\r\n\r\n%b"
    % (b"0" * 64, len(REQUEST_BODY), REQUEST_BODY)
)
ANSWER_BODY = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Hello there."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}'
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-Id: r\r\nContent-Length: %d\r\n\r\n%b"
    % (len(ANSWER_BODY), ANSWER_BODY)
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
STREAM_END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Transport:
    """Takes everything, does nothing."""

    def write(self, data: bytes) -> None: ...
    def writelines(self, parts: tuple[bytes, ...]) -> None: ...
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...
    def set_write_buffer_limits(self, high: int) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_closing(self) -> bool:
        return False

    def is_reading(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> None: ...


class Exchange:
    """An exchange with nothing but the wire."""

    __slots__ = ("client", "lines", "relay", "status", "stream", "upstream")

    def __init__(self, client: Incoming, upstream: Connection, stream: bool) -> None:
        self.client = client
        self.upstream = upstream
        self.stream = stream

    def on_head(self, head: Head, rest: bytes) -> None:
        self.status = head.status
        self.lines, _, encoding, _ = head.facts(128)
        pipe = Pipe("chat", head.framing, chunked_out=self.stream, content_encoding=encoding)
        if self.stream:
            self.client.start_stream(self.status, self.lines)
            self.relay = Relay(self.client, self.upstream, pipe, self.hold_point)
            self.relay.begin(head, rest)
        else:
            collect(self.upstream, pipe, head, rest, self.complete, self.overflow)

    def hold_point(self, held: bytes, _: int) -> None:
        self.relay.send_held(held)
        self.relay.finish()

    def complete(self, body: bytes, _: int) -> None:
        self.client.answer(self.status, self.lines, body)

    def overflow(self, _: bytes) -> None:
        raise NotImplementedError

    def on_data(self, _: bytes) -> None:
        raise NotImplementedError

    def on_closed(self, error: Exception | None) -> None:
        raise NotImplementedError from error


def rig(stream: bool) -> Callable[[], None]:
    """One exchange from the client's bytes to the answer's, to be called again and again."""
    endpoint = Endpoint(name="b", scheme="http", host="127.0.0.1", port=1, credential=Secret("sk"))
    pool = Pool(endpoint, asyncio.get_running_loop())
    upstream = Connection(pool)
    upstream.connection_made(Transport())  # type: ignore[arg-type]
    pool.put_back(upstream)

    def handle(client: Incoming) -> None:
        match(client.method, client.path)
        client.api_key()
        client.require_json()
        body = client.body_now()
        connection = pool.take()
        if body is None or connection is None:
            raise NotImplementedError
        head = request_head(endpoint, client.path, len(body), client.upstream_lines)
        connection.send(head, body, Exchange(client, connection, stream))

    client = Server(handle)()
    client.connection_made(Transport())  # type: ignore[arg-type]

    def exchange() -> None:
        client.data_received(REQUEST)
        if not stream:
            upstream.data_received(ANSWER)
            return
        upstream.data_received(STREAM_HEAD)
        for _ in range(CHUNKS):
            upstream.data_received(CHUNK)
        upstream.data_received(STREAM_END)

    return exchange


def measure(exchange: Callable[[], None], times: int) -> tuple[float, float, pstats.Stats]:
    """Calls and best microseconds of one exchange, and its profile."""
    exchange()
    best_ns = float("inf")
    for _ in range(REPETITIONS):
        started_ns = time.process_time_ns()
        for _ in range(times):
            exchange()
        best_ns = min(best_ns, (time.process_time_ns() - started_ns) / times)
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(times):
        exchange()
    profile.disable()
    stats: Any = pstats.Stats(profile)
    return stats.total_calls / times, best_ns / 1000, stats


async def run(with_profile: bool) -> None:
    plain_calls, plain_us, plain = measure(rig(stream=False), 1000)
    stream_calls, stream_us, streamed = measure(rig(stream=True), 20)
    print(f"plain exchange  {plain_calls:6.1f} calls {plain_us:7.2f} µs")
    print(f"streamed chunk  {stream_calls / CHUNKS:6.1f} calls {stream_us / CHUNKS:7.2f} µs")
    if with_profile:
        for stats in (plain, streamed):
            stats.sort_stats("tottime").print_stats(25)


def main() -> None:
    parser = argparse.ArgumentParser(description="Interpreter cost of the bare wire.")
    parser.add_argument("--profile", action="store_true", help="list the hottest functions")
    asyncio.run(run(parser.parse_args().profile))


if __name__ == "__main__":
    main()
