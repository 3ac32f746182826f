"""The scripted upstream: a real HTTP/1.1 server with the OpenAI and Anthropic APIs that always says the same.

    python -m farebox.run.demo.upstream --port 9000 [--log FILE] [--script JSON] [--bodies DIR] [--key KEY]

It serves the routes of `answers.ROUTES`, streamed and not; a request's last user message may hold a script
(see `answers.Script`). It never limits a benchmark: an asyncio protocol, answers rendered once per distinct
request and remembered, one write per answer. It is no general server: requests need a Content-Length, and
pipelined requests wait for the answer before them.

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
import gzip
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import orjson
import uvloop

from farebox.run.demo.answers import (
    DEFAULT_SCRIPT,
    ID_MARK,
    ROUTES,
    Answer,
    Script,
    ScriptError,
    answer,
    error_body,
    script_from,
    script_of,
)

LINES_KEPT: Final = 20_000
PLANS_KEPT: Final = 4096
PLAN_BODY_BYTES_MAX: Final = 8192
REQUEST_BYTES_MAX: Final = 64 * 2**20
LOG_FLUSH_S: Final = 0.05

_HEAD_END: Final = b"\r\n\r\n"
_FIXED_ID: Final = b"0" * len(ID_MARK)
"""The id in bodies into which none can be filled any more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A request's answer, ready to send: `writes` go out one by one, `delay_s` apart, ids filled in.

    `whole` is set when one write does it all. `after` says what follows the last write: "", "close", "stall".
    """

    whole: tuple[bytes, ...] | None
    writes: tuple[bytes, ...]
    first_delay_s: float
    delay_s: float
    after: str
    status: int
    completed: bool
    line: bytes
    counts: dict[str, int]


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


class Planner:
    """Turns requests into plans; equal small requests share one plan."""

    def __init__(self, default: Script, bodies: Path | None) -> None:
        self._default = default
        self._bodies = bodies
        self._plans: dict[tuple[bytes, bytes], Plan] = {}

    def plan(self, path: bytes, body: bytes) -> Plan:
        """The plan for one request; a bad request has one too."""
        key = (path, body)
        known = self._plans.get(key)
        if known is not None:
            return known
        plan = self._fresh(path.decode("latin-1").partition("?")[0], body)
        if len(body) <= PLAN_BODY_BYTES_MAX and len(self._plans) < PLANS_KEPT:
            self._plans[key] = plan
        return plan

    def _fresh(self, path: str, body: bytes) -> Plan:
        wire_format = ROUTES.get(path)
        if wire_format is None:
            return refusal("", path, 404, f"no such route: {path}")
        try:
            request = orjson.loads(body)
            if not isinstance(request, dict):
                raise ScriptError("the request body is not a JSON object")
            script = script_of(request, self._default)
            said = self._recorded(script) if script.body else answer(wire_format, request, script)
        except (ValueError, OSError) as error:
            return refusal(wire_format, path, 400, str(error))
        return lay_out(said, script, path, str(request.get("model", "")))

    def _recorded(self, script: Script) -> Answer:
        if self._bodies is None:
            raise ScriptError("script field 'body' needs the server's --bodies")
        file = self._bodies / Path(script.body).name
        kinds = {".sse": "text/event-stream", ".eventstream": "application/vnd.amazon.eventstream"}
        kind = kinds.get(file.suffix, "application/json")
        return Answer(
            script.status, kind, (file.read_bytes(),), streamed=kind != "application/json", counts={}
        )


def refusal(wire_format: str, path: str, status: int, message: str) -> Plan:
    """The plan that answers with an error."""
    body = error_body(wire_format, status, message)
    said = Answer(status, "application/json", (body,), streamed=False, counts={})
    return lay_out(said, replace(DEFAULT_SCRIPT, status=status), path, "")


def lay_out(said: Answer, script: Script, path: str, model: str) -> Plan:
    """Cut an answer into the writes its script asks for."""
    cut = script.cut_after if script.cut_after >= 0 else script.stall_after
    events = said.events
    if said.streamed and cut >= 0:
        events = events[:cut]
    framing = script.framing or ("chunked" if said.streamed else "length")
    if script.gzip or script.piece_bytes:
        events = tuple(event.replace(ID_MARK, _FIXED_ID) for event in events)
    coded = [gzip.compress(b"".join(events), mtime=0)] if script.gzip else list(events)
    head = _head(said, script, framing, sum(map(len, coded if script.gzip else said.events)))
    if script.piece_bytes:
        joined = b"".join(coded)
        coded = [joined[at : at + script.piece_bytes] for at in range(0, len(joined), script.piece_bytes)]
    if not said.streamed and cut >= 0:
        coded = [b"".join(coded)[:cut]]
    broken = cut >= 0 or script.drop or script.hang
    writes = (
        [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in coded if piece] if framing == "chunked" else coded
    )
    if framing == "chunked" and not broken:
        writes = [*writes[:-1], (writes[-1] if writes else b"") + b"0\r\n\r\n"]
    paced = bool(script.piece_bytes) or (said.streamed and script.delay_ms > 0)
    writes = [head + (writes[0] if writes else b""), *writes[1:]] if paced else [head + b"".join(writes)]
    if script.drop or script.hang:
        writes = []
    return Plan(
        whole=tuple(writes[0].split(ID_MARK)) if len(writes) == 1 and not script.first_delay_ms else None,
        writes=tuple(writes),
        first_delay_s=script.first_delay_ms / 1000,
        delay_s=script.delay_ms / 1000,
        after=_after(script, framing),
        status=said.status,
        completed=not broken and script.error_after < 0 and script.terminal,
        line=_line(said, path, model),
        counts=dict(said.counts),
    )


def _head(said: Answer, script: Script, framing: str, length: int) -> bytes:
    lines = [b"HTTP/1.1 %d %s" % (said.status, b"OK" if said.status == 200 else b"Scripted")]
    lines += [b"content-type: " + said.content_type.encode(), b"x-request-id: req_" + ID_MARK]
    if framing == "chunked":
        lines.append(b"transfer-encoding: chunked")
    elif framing == "length":
        lines.append(b"content-length: %d" % length)
    if script.gzip:
        lines.append(b"content-encoding: gzip")
    if script.retry_after:
        lines.append(b"retry-after: %d" % script.retry_after)
    if framing == "close" or script.close:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + _HEAD_END


def _after(script: Script, framing: str) -> str:
    if script.hang or script.stall_after >= 0:
        return "stall"
    ends = framing == "close" or script.close or script.close_silently or script.drop or script.cut_after >= 0
    return "close" if ends else ""


def _line(said: Answer, path: str, model: str) -> bytes:
    members = {"route": path, "model": model, "streamed": said.streamed, "status": said.status}
    return orjson.dumps({**members, "usage": dict(said.counts)})[1:]


class Connection(asyncio.Protocol):
    """One client connection: reads a request, sends its plan, reads the next."""

    __slots__ = (
        "_books",
        "_buffer",
        "_exchange",
        "_key",
        "_next",
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
        buffer = self._buffer + data if self._buffer else data
        if self._plan is not None:
            self._buffer = buffer
            return
        end = buffer.find(_HEAD_END)
        if end < 0:
            self._buffer = buffer
            return
        head = buffer[:end]
        length = _content_length(head)
        stop = end + 4 + length
        if len(buffer) < stop:
            self._buffer = buffer
            if length > REQUEST_BYTES_MAX and self._transport is not None:
                self._transport.abort()
            return
        self._buffer = buffer[stop:]
        self._respond(head, buffer[end + 4 : stop])

    def _respond(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path.startswith(b"/_"):
            self._internal(path)
            return
        if length_missing(head):
            plan = refusal("", path.decode("latin-1"), 411, "a Content-Length is needed")
        elif self._key and self._key not in head:
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


def length_missing(head: bytes) -> bool:
    """Whether a POST came with a transfer coding instead of a length."""
    return head.startswith(b"POST") and b"content-length:" not in head.lower()


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
