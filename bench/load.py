"""Load with the latency of every exchange: open loop (a fixed arrival rate) or closed (so many at once).

An open loop sends when an exchange is due, whatever has been answered, and counts each latency from the
moment it was due: who answers late is charged for everybody who had to wait, which a closed loop hides. The
generator's own lateness is told apart (`late_ms`), so that one that fell behind does not blame the subject.
Every exchange that was begun is finished, so that no request is cut and the upstream's log stays comparable.
The last line is one JSON object.

    python bench/load.py --port P --key K --body FILE --seconds 3 (--rate 5000 | --concurrency 200)
"""

import argparse
import asyncio
import ctypes
import gc
import json
import os
import sys
import time
from array import array
from collections import deque
from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from results import Percentiles

ERRORS_MAX = 100
"""After so many the load ends: what follows would measure refusals."""
FINISH_S = 90.0
"""How long exchanges that have begun may take after the load's end."""
IDLE_MAX_S = 30.0
"""A connection idle for longer is not used again: servers close those, perhaps at that very moment."""
WARM_CONNECTIONS = 64
"""Open before an open loop begins, so that no handshake is measured."""
LATE_P99_MS_MAX = 1.0
"""A generator that was later than this for one exchange in a hundred fell behind."""

_TAIL = 64
_HEAD_BYTES_MAX = 16_384
_TIMED_OUT = b"HTTP/1.1 408 "
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask, of whom, and how often."""

    port: int
    request: bytes
    seconds: float
    rate_per_s: float = 0.0
    """Open loop: arrivals a second; 0: closed loop."""
    concurrency: int = 1
    """Closed loop: exchanges at once. Open loop: the most connections."""
    spread_s: float = 0.0
    """Closed loop: the time over which the first exchanges begin."""


class Load:
    """One run of a plan: what is still to do, and what was seen."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.loop = asyncio.get_running_loop()
        self.first_ms, self.whole_ms, self.late_ms = array("d"), array("d"), array("d")
        self.errors = self.chunks = self.received_bytes = self.asked = 0
        self.open_max = 0
        self.error_text = ""
        self.idle: list[Connection] = []
        self.waiting: deque[float] = deque()
        """Moments at which exchanges were due that found no connection."""
        self.connections = 0
        self.opening: set[asyncio.Future[None]] = set()
        self.running = 0
        self.is_over = False
        self.done = self.loop.create_future()
        self.began_s = self.ended_s = 0.0

    # -- both loops ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """All of it, to the end of the last exchange."""
        self.began_s = time.perf_counter()
        if self.plan.rate_per_s:
            await self._run_open()
        else:
            await self._run_closed()
        self.is_over = True
        self._look_for_end()
        try:
            await asyncio.wait_for(self.done, FINISH_S)
        except TimeoutError:
            left = f"{self.running} asked, {len(self.waiting)} waiting on {self.connections} connections"
            self.errors += self.running + len(self.waiting)
            self.error_text = self.error_text or f"not ended {FINISH_S:g} s after the last was due: {left}"
        for connection in [*self.idle]:
            connection.close()

    def ended(self, connection: "Connection", *, failed: str) -> None:
        """An exchange is over; its connection may take another one."""
        self.running -= 1
        self.ended_s = time.perf_counter()
        if failed:
            self.errors += 1
            self.error_text = self.error_text or failed
            if self.errors >= ERRORS_MAX:
                self.is_over = True
                self.waiting.clear()
        if connection.is_open:
            self.next_on(connection)
        self._look_for_end()

    def next_on(self, connection: "Connection") -> None:
        """Give a connection that has nothing to do what is due."""
        if self.waiting:
            connection.ask(self.waiting.popleft())
        elif self.plan.rate_per_s:
            connection.idle_since_s = time.perf_counter()
            self.idle.append(connection)
        elif not self.is_over and time.perf_counter() < self.began_s + self.plan.seconds:
            connection.ask(time.perf_counter())
        else:
            connection.close()

    def connect(self) -> Awaitable[None]:
        """One more connection, counted at once; it takes what waits."""
        self.connections += 1
        return self._connect()

    async def _connect(self) -> None:
        try:
            _, connection = await self.loop.create_connection(
                lambda: Connection(self), "127.0.0.1", self.plan.port
            )
        except OSError as error:
            self.connections -= 1
            self.errors += 1
            self.error_text = self.error_text or f"no connection: {error}"
            if self.waiting:
                self.waiting.popleft()
            self._look_for_end()
            return
        self.next_on(connection)

    def _look_for_end(self) -> None:
        if self.is_over and not self.running and not self.waiting and not self.done.done():
            self.done.set_result(None)

    # -- closed ----------------------------------------------------------------------------------------------

    async def _run_closed(self) -> None:
        pause_s = self.plan.spread_s / self.plan.concurrency
        for _ in range(self.plan.concurrency):
            await self.connect()
            if pause_s:
                await asyncio.sleep(pause_s)
        rest_s = self.began_s + self.plan.seconds - time.perf_counter()
        await asyncio.sleep(max(0.0, rest_s))

    # -- open ------------------------------------------------------------------------------------------------

    async def _run_open(self) -> None:
        for _ in range(min(WARM_CONNECTIONS, self.plan.concurrency)):
            await self.connect()
        await asyncio.sleep(0.05)
        interval_s = 1 / self.plan.rate_per_s
        total = int(self.plan.seconds * self.plan.rate_per_s)
        finished = self.loop.create_future()
        self.began_s = time.perf_counter() + interval_s

        def wake() -> None:
            os.read(timer, 8)
            now_s = time.perf_counter()
            due = min(total, int((now_s - self.began_s) * self.plan.rate_per_s) + 1)
            for number in range(self.asked, due):
                self._arrive(self.began_s + number * interval_s)
            if (due >= total or self.is_over) and not finished.done():
                finished.set_result(None)

        timer = interval_timer(interval_s)
        self.loop.add_reader(timer, wake)
        try:
            await finished
        finally:
            self.loop.remove_reader(timer)
            os.close(timer)

    def _arrive(self, due_s: float) -> None:
        self.asked += 1
        self.late_ms.append(1e3 * (time.perf_counter() - due_s))
        while self.idle:
            connection = self.idle.pop()
            if due_s - connection.idle_since_s < IDLE_MAX_S:
                connection.ask(due_s)
                return
            connection.close()
        self.waiting.append(due_s)
        if self.connections < self.plan.concurrency:
            opening = asyncio.ensure_future(self.connect())
            self.opening.add(opening)
            opening.add_done_callback(self.opening.discard)

    # -- figures ---------------------------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        """What was seen, as a `Cell` names it."""
        seconds = max(self.ended_s - self.began_s, 1e-9)
        late = Percentiles.of(self.late_ms)
        return {
            "seconds": round(seconds, 3),
            "exchanges": len(self.whole_ms),
            "errors": self.errors,
            "error": self.error_text,
            "chunks": self.chunks,
            "received_bytes": self.received_bytes,
            "per_s": round(len(self.whole_ms) / seconds, 2),
            "open_max": self.open_max,
            "first_byte_ms": _plain(Percentiles.of(self.first_ms)),
            "whole_ms": _plain(Percentiles.of(self.whole_ms)),
            "late_ms": _plain(late),
            "fell_behind": late is not None and late.p99 > LATE_P99_MS_MAX,
        }


class Connection(asyncio.Protocol):
    """A keep-alive connection with at most one exchange."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.is_open = False
        self.is_asking = False
        self.idle_since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.is_open = True

    def ask(self, due_s: float) -> None:
        """Send the request of an exchange that was due at `due_s`."""
        load = self.load
        load.running += 1
        load.open_max = max(load.open_max, load.running)
        self.due_s = due_s
        self.first_s = 0.0
        self.missing: int | None = None
        self.tail = b""
        self.is_asking = True
        self.transport.write(load.plan.request)

    def data_received(self, data: bytes) -> None:
        now_s = time.perf_counter()
        load = self.load
        load.received_bytes += len(data)
        if not self.is_asking:
            if data.startswith(_TIMED_OUT):  # it was opened for an exchange that another connection took
                self.close()
            else:
                self._fail("bytes that nobody asked for")
            return
        if not self.first_s:
            self.first_s = now_s
        if self.missing is None:
            self.tail += data
            data = self._begin()
            if self.missing is None:
                return
        if self.is_streamed:
            load.chunks += (self.tail[-5:] + data).count(b"data: ")
            self.tail = (self.tail + data)[-_TAIL:]
            if self.tail.endswith(_LAST_CHUNK):
                self._end(now_s, "" if b"data: [DONE]" in self.tail else f"no [DONE]: {self.tail!r}")
            return
        self.missing -= len(data)
        if not self.missing:
            self._end(now_s, "")

    def _begin(self) -> bytes:
        """Read the head, if it is there, and find how the body ends; the body so far."""
        end = self.tail.find(b"\r\n\r\n")
        if self.tail[9:12] != b"200" or (end < 0 and len(self.tail) > _HEAD_BYTES_MAX):
            self._fail(f"answered {self.tail[:500].decode(errors='replace')!r}")
        if end < 0 or not self.is_open:
            return b""
        body, self.tail, head = self.tail[end + 4 :], b"", self.tail[: end + 2]
        at = head.find(b"ength: ")
        self.is_streamed = at < 0
        self.missing = 0 if self.is_streamed else int(head[at + 7 : head.find(b"\r\n", at)])
        return body

    def _end(self, now_s: float, failed: str) -> None:
        self.is_asking = False
        load = self.load
        if not failed:
            load.first_ms.append(1e3 * (self.first_s - self.due_s))
            load.whole_ms.append(1e3 * (now_s - self.due_s))
        load.ended(self, failed=failed)

    def _fail(self, why: str) -> None:
        """Give this connection up: what else comes on it cannot be told apart."""
        self.close()
        if self.is_asking:
            self.is_asking = False
            self.load.ended(self, failed=why)
        else:
            self.load.errors += 1
            self.load.error_text = self.load.error_text or why

    def close(self) -> None:
        """Close it; it takes nothing more."""
        if self.is_open:
            self.is_open = False
            self.load.connections -= 1
            if self in self.load.idle:
                self.load.idle.remove(self)
            self.transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.close()
        if self.is_asking:
            self.is_asking = False
            self.load.ended(self, failed="the connection was closed during an exchange")


def interval_timer(interval_s: float) -> int:
    """A descriptor that becomes readable once an interval, to the microsecond (timerfd_create(2)); loops' own
    timers count whole milliseconds.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    timer = int(libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
    if timer < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    every_ns = max(1, round(interval_s * 1e9))
    pair = (every_ns // 10**9, every_ns % 10**9)
    specification = (ctypes.c_long * 4)(*pair, *pair)
    if libc.timerfd_settime(timer, 0, ctypes.byref(specification), None):
        raise OSError(ctypes.get_errno(), "timerfd_settime")
    return timer


def _plain(found: Percentiles | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


def request_of(body: bytes, key: str, path: str, headers: list[str]) -> bytes:
    """The request's bytes."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    lines += [f"authorization: Bearer {key}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def run(plan: Plan) -> dict[str, Any]:
    """Carry a plan out; its figures."""
    load = Load(plan)
    await load.run()
    return load.figures()


def main() -> int:
    parser = argparse.ArgumentParser(description="Open or closed load, with latencies.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--body", type=Path, required=True, help="file with the request's body")
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--header", action="append", default=[], help="one more header line")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=0.0, help="open loop: arrivals a second")
    parser.add_argument("--concurrency", type=int, default=1, help="at once; open loop: at most")
    parser.add_argument("--spread", type=float, default=0.0, help="closed: seconds in which all have begun")
    options = parser.parse_args()
    request = request_of(options.body.read_bytes(), options.key, options.path, options.header)
    plan = Plan(options.port, request, options.seconds, options.rate, options.concurrency, options.spread)
    gc.disable()
    print(json.dumps(uvloop.run(run(plan))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
