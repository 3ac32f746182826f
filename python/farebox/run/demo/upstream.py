"""The scripted upstream: a real HTTP/1.1 server with the OpenAI and Anthropic APIs that always says the same.

    python -m farebox.run.demo.upstream --port 9000 [--log FILE] [--script JSON] [--bodies DIR] [--key KEY]

It serves the routes of `answers.ROUTES`, streamed and not; a request's last user message may hold a script
(see `script.py`). It never limits a benchmark: an asyncio protocol, answers rendered once per distinct
request and remembered, one write per answer. It is no general server: a chunked request may have no trailers,
and pipelined requests wait for the answer before them.

It keeps its own books, so that what it served can be held against what was billed. One line per exchange, in
memory (the last `LINES_KEPT`) and appended to `--log`:
`{"id", "completed", "route", "model", "streamed", "status", "usage"}`. `id` is also the answer's
`x-request-id` (after `req_`) and part of its body's id, but for bodies that are compressed or cut into
pieces. `usage` is in normal form (`input`, `cache_read`, `cache_write_5m`, `cache_write_1h`, `output`);
`completed` says that every byte, the final usage included, went to the network.

`GET /_log` gives `received`, `open`, `finished`, `completed`, `statuses` and `connections` since the start,
`usage` (totals of completed exchanges) and `lines` (`?lines=0` leaves them out).
With `--key`, a request that carries any other credential gets a 401 and counts as status 401.
"""

import argparse
import asyncio
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import orjson
import uvloop

from farebox.run.demo.answers import ROUTES
from farebox.run.demo.plans import Plan, Planner, refusal
from farebox.run.demo.script import DEFAULT_SCRIPT, Script, script_from
from farebox.run.demo.shapes import ID_MARK

LINES_KEPT: Final = 20_000
REQUEST_BYTES_MAX: Final = 64 * 2**20
LOG_FLUSH_S: Final = 0.05

_HEAD_END: Final = b"\r\n\r\n"


class Books:
    """What this upstream has served: totals, the last lines, and the optional file."""

    def __init__(self, file: Path | None, run: int) -> None:
        self.run = run
        self.received = 0
        self.connections = 0
        self.finished = 0
        self.completed = 0
        self.statuses: Counter[int] = Counter()
        self.usage: Counter[str] = Counter()
        self._unwritten: list[bytes] = []
        self._lines: deque[bytes] = deque(maxlen=LINES_KEPT)
        self._file = file.open("ab", buffering=0) if file is not None else None

    def next_id(self) -> bytes:
        """16 hex digits: the run and the exchange's number."""
        self.received += 1
        return b"%06x%010x" % (self.run, self.received)

    def end(self, exchange: bytes, plan: Plan, *, completed: bool) -> None:
        """Write one exchange down."""
        self.finished += 1
        self.statuses[plan.status] += 1
        if completed:
            self.completed += 1
            usage = self.usage
            for kind, count in plan.counts.items():
                usage[kind] += count
        line = b'{"id":"%s","completed":%s,%s' % (exchange, b"true" if completed else b"false", plan.line)
        self._lines.append(line)
        if self._file is not None:
            self._unwritten.append(line)

    def flush(self) -> None:
        """Append what is new to the file."""
        if self._file is not None and self._unwritten:
            lines, self._unwritten = self._unwritten, []
            self._file.write(b"\n".join(lines) + b"\n")

    def report(self, *, lines: bool) -> bytes:
        """The answer to GET /_log."""
        self.flush()
        totals = {
            "received": self.received,
            "open": self.received - self.finished,
            "finished": self.finished,
            "completed": self.completed,
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "usage": dict(self.usage),
            "connections": self.connections,
        }
        kept = b",".join(self._lines) if lines else b""
        return orjson.dumps(totals)[:-1] + b',"lines":[' + kept + b"]}"


class Connection(asyncio.Protocol):
    """One client connection: reads a request, sends its plan, reads the next."""

    __slots__ = (
        "_books",
        "_buffer",
        "_exchange",
        "_key",
        "_missing",
        "_next",
        "_parts",
        "_paused",
        "_plan",
        "_planner",
        "_transport",
    )

    def __init__(self, books: Books, planner: Planner, key: bytes) -> None:
        self._books = books
        self._planner = planner
        self._key = key
        self._buffer = b""
        self._parts: list[bytes] = []
        self._missing = 0
        self._exchange = b""
        self._plan: Plan | None = None
        self._next = 0
        self._paused = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._books.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        self._books.connections -= 1
        if self._plan is not None:
            self._books.end(self._exchange, self._plan, completed=False)
            self._plan = None

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._plan is not None and self._next:
            self._step()

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._parts.append(data)
            self._missing = max(0, self._missing - len(data))
            if self._missing:
                return
            data, self._parts = b"".join(self._parts), []
        buffer = self._buffer + data if self._buffer else data
        if self._plan is not None:
            self._buffer = buffer
            return
        end = buffer.find(_HEAD_END)
        if end < 0:
            self._buffer = buffer
            return
        head = buffer[:end]
        if is_chunked(head):
            self._receive_chunked(head, buffer, end + 4)
            return
        length = _content_length(head)
        stop = end + 4 + length
        if len(buffer) < stop:
            # Joined once the body is whole: a long one comes in a hundred reads.
            self._parts, self._missing, self._buffer = [buffer], stop - len(buffer), b""
            if length > REQUEST_BYTES_MAX and self._transport is not None:
                self._transport.abort()
            return
        self._buffer = buffer[stop:]
        self._respond(head, buffer[end + 4 : stop])

    def _receive_chunked(self, head: bytes, buffer: bytes, begin: int) -> None:
        whole = chunked_body(buffer, begin)
        if whole is None:
            self._buffer = buffer
            if len(buffer) > REQUEST_BYTES_MAX and self._transport is not None:
                self._transport.abort()
            return
        body, stop = whole
        self._buffer = buffer[stop:]
        self._respond(head, body)

    def _respond(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path.startswith(b"/_"):
            self._internal(path)
            return
        if self._key and self._key not in head:
            plan = refusal(
                ROUTES.get(path.decode("latin-1"), ""), path.decode("latin-1"), 401, "not the upstream's key"
            )
        else:
            plan = self._planner.plan(path, body)
        exchange = self._books.next_id()
        if plan.whole is not None and not plan.after and self._transport is not None:
            self._transport.write(exchange.join(plan.whole))
            self._books.end(exchange, plan, completed=plan.completed)
            return
        self._exchange, self._plan, self._next = exchange, plan, 0
        if plan.first_delay_s:
            asyncio.get_running_loop().call_later(plan.first_delay_s, self._step_of, exchange)
        else:
            self._step()

    def _step_of(self, exchange: bytes) -> None:
        """Go on with `exchange`, unless its connection was lost meanwhile."""
        if self._plan is not None and self._exchange == exchange and not (self._paused and self._next):
            self._step()

    def _step(self) -> None:
        plan, transport = self._plan, self._transport
        if plan is None or transport is None:
            return
        if self._next < len(plan.writes):
            transport.write(plan.writes[self._next].replace(ID_MARK, self._exchange))
            self._next += 1
        if self._next < len(plan.writes):
            asyncio.get_running_loop().call_later(plan.delay_s, self._step_of, self._exchange)
            return
        if plan.after == "stall":
            return
        self._plan = None
        self._books.end(self._exchange, plan, completed=plan.completed)
        if plan.after == "close":
            transport.close()
        elif self._buffer:
            asyncio.get_running_loop().call_soon(self.data_received, b"")

    def _internal(self, path: bytes) -> None:
        known = path.startswith(b"/_log")
        body = self._books.report(lines=b"lines=0" not in path) if known else b"{}"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        if self._transport is not None:
            self._transport.write(head % len(body) + body)


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    end = lowered.find(b"\r\n", at + 17)
    digits = (lowered[at + 17 : end] if end >= 0 else lowered[at + 17 :]).strip()
    return int(digits) if digits.isdigit() else 0


def is_chunked(head: bytes) -> bool:
    """Whether a request's body comes in chunks, as some gateways send it on."""
    return b"\r\ntransfer-encoding: chunked" in head.lower()


def chunked_body(data: bytes, begin: int) -> tuple[bytes, int] | None:
    """The chunked body that begins there, and where it ends; None while some of it is missing."""
    parts = []
    while (line_end := data.find(b"\r\n", begin)) >= 0:
        size = int(data[begin:line_end].partition(b";")[0], 16)
        begin = line_end + 2
        if len(data) < begin + size + 2:
            return None
        parts.append(data[begin : begin + size])
        begin += size + 2
        if not size:
            return b"".join(parts), begin
    return None


async def serve(
    *,
    port: int,
    host: str = "127.0.0.1",
    log: Path | None = None,
    script: Script = DEFAULT_SCRIPT,
    bodies: Path | None = None,
    key: str = "",
    ready: Callable[[int], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` gets the port (0: a free one) once connections are taken."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    books = Books(log, run=int(loop.time() * 1000) & 0xFFFFFF)
    planner = Planner(script, bodies)
    server = await loop.create_server(
        lambda: Connection(books, planner, key.encode()), host, port, backlog=4096
    )
    if ready is not None:
        ready(server.sockets[0].getsockname()[1])
    while not stopped.is_set():
        books.flush()
        try:
            await asyncio.wait_for(stopped.wait(), LOG_FLUSH_S)
        except TimeoutError:
            continue
    server.close()
    books.flush()


def main(arguments: list[str] | None = None) -> int:
    """The command line; prints `listening on HOST:PORT` once it does."""
    parser = argparse.ArgumentParser(description="Scripted OpenAI and Anthropic upstream.")
    parser.add_argument("--port", type=int, required=True, help="0: any free port")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--log", type=Path, help="append one JSON line per exchange")
    parser.add_argument("--script", default="{}", help="JSON script of requests that carry none")
    parser.add_argument("--bodies", type=Path, help="directory of recorded bodies")
    parser.add_argument("--key", default="", help="the only credential that is accepted")
    options = parser.parse_args(arguments)
    try:
        script = script_from(orjson.loads(options.script))
    except ValueError as error:
        parser.error(f"--script: {error}")

    def ready(port: int) -> None:
        sys.stdout.write(f"listening on {options.host}:{port}\n")
        sys.stdout.flush()

    served = serve(
        port=options.port,
        host=options.host,
        log=options.log,
        script=script,
        bodies=options.bodies,
        key=options.key,
        ready=ready,
    )
    try:
        uvloop.run(served)
    except OSError as error:
        sys.stderr.write(f"upstream: cannot listen on {options.host}:{options.port}: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
