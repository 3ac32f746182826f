"""The parts whose cost `make guard` watches, as one program to run under callgrind (`callgrind.py`).

    python bench/guard_parts.py [--path]

Each part is done some times to warm up, then a few times to count lines of Python (`sys.settrace`), then
`count` times between the marks of callgrind. The last line is one JSON object: part -> how often it was done,
lines of Farebox's own Python, and writes to client transports, each time. `--path`: only the parts that run
through the modules of `compile_hot_path.py`.

Nothing here reads a clock or a random number that would change what is counted; inputs are fixed. What a
worker does by time, five times a second, happens once in each count.
"""

import asyncio
import gc
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

from callgrind import Marks
from farebox._meter import (
    CHUNKED,
    UNTIL_CLOSE,
    Pipe,
    Price,
    decode_run,
    encode_frames,
    parse_head,
    parse_request,
    scan,
)
from farebox.base import frames
from farebox.base.ids import ExchangeIds
from farebox.base.records import LotAmount
from farebox.journal.frames import Frame
from farebox.ledger.user_lease import Hold, UserLease
from farebox.writer.batch import finished_of
from journal_load import CHARGE_PICO, NOW_MS, POOL, WALLET, opened, settled
from meter_speed import READ_BYTES, completed_line
from socketless import Connections, make_worker
from wire_calls import ANSWER, ANSWER_BODY, CHUNK, REQUEST, REQUEST_BODY
from workloads import long_prompt

WARM_UP = 20
TIMES = 50
TRACED = 3
_PYTHON = str(Path(frames.__file__).resolve().parents[1])
_MIB = 1 << 20


class LineCount:
    """Lines of Farebox's own Python that are executed while it is set; `each` of several times, the least:
    now and then something happens that time brings, not the part.
    """

    def __init__(self) -> None:
        self.lines = 0
        self.each: list[int] = []

    def __enter__(self) -> Self:
        self.lines = 0
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        self.each.append(self.lines)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG002 - a trace function's
        return self._line if frame.f_code.co_filename.startswith(_PYTHON) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG002 - the same
        self.lines += event == "line"
        return self._line


class Parts:
    """Counts one part after the other."""

    def __init__(self) -> None:
        self._marks = Marks()
        self.told: dict[str, dict[str, float]] = {}

    def count(self, name: str, work: Callable[[], object], times: int = TIMES, each: int = 1) -> None:
        """One call of `work` does the part `each` times."""
        for _ in range(WARM_UP if times > 1 else 1):
            work()
        traced = LineCount()
        for _ in range(TRACED):
            with traced:
                work()
        with self._counted(name):
            for _ in range(times):
                work()
        self.told[name] = {"times": times * each, "python_lines": min(traced.each) / each}

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        """Callgrind counts this part. Garbage of the parts before is not collected in it."""
        gc.collect()
        gc.disable()
        self._marks.begin()
        yield
        self._marks.end(name)
        gc.enable()

    async def count_async(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        writes: Callable[[], int],
        afterwards: Callable[[], None],
        times: int = TIMES,
    ) -> None:
        """The same of what awaits; `writes` tells how many there have been so far, `afterwards` is counted
        once.
        """
        for _ in range(WARM_UP):
            await work()
        traced = LineCount()
        for _ in range(TRACED):
            with traced:
                await work()
        writes_before = writes()
        with self._counted(name):
            for _ in range(times):
                await work()
            afterwards()
        self.told[name] = {
            "times": times,
            "python_lines": min(traced.each),
            "socket_writes": (writes() - writes_before) / times,
        }


def meter_parts(parts: Parts) -> None:
    """What the compiled meter does with requests and answers."""
    parts.count("request head and body", lambda: parse_request(REQUEST, _MIB))
    parts.count("scan, small request", lambda: scan(REQUEST_BODY, "chat"))
    large = long_prompt(_MIB)
    parts.count("scan, KiB of a large prompt", lambda: scan(large, "chat"), 1, len(large) // 1024)
    parts.count("answer head", lambda: parse_head(ANSWER, False, 65536, 128).facts(128))  # type: ignore[union-attr]

    def plain_answer() -> None:
        pipe = Pipe("chat", len(ANSWER_BODY))
        pipe.feed(ANSWER_BODY)
        pipe.reading()

    parts.count("tap, plain answer", plain_answer)
    stream = Pipe("chat", CHUNKED, chunked_out=True)
    parts.count("tap, streamed chunk", lambda: stream.feed(CHUNK))
    line = completed_line(_MIB)

    def completed() -> None:
        pipe = Pipe("responses", UNTIL_CLOSE)
        for start in range(0, len(line), READ_BYTES):
            pipe.feed(line[start : start + READ_BYTES])
        if pipe.reading().counts != {"input": 36, "output": 87}:
            raise AssertionError(pipe.reading().counts)

    parts.count("tap, KiB of a large usage line", completed, 1, len(line) // 1024)
    price = Price({"input": "3", "output": "15", "cache_read": "0.3", "cache_write_5m": "3.75"}, "1.05")
    counts = {"input": 1200, "output": 800, "cache_write_5m": 2000, "cache_read": 10000}
    parts.count("price, four kinds", lambda: price.charge(counts, 13200))


def record_parts(parts: Parts) -> None:
    """Journal frames of an exchange, there and back."""
    exchange = ExchangeIds().new(NOW_MS)
    takes = (LotAmount("lot-1", POOL, CHARGE_PICO),)
    records = [
        (frames.OPEN_SENT, opened(exchange, "user-1", NOW_MS)),
        (frames.SETTLE, settled(exchange, "user-1", takes, NOW_MS)),
    ]
    parts.count("frames of an exchange", lambda: encode_frames(records, 1, 1, 0, 0))
    data = encode_frames(records, 1, 1, 0, 0)[0]

    def read_back() -> None:
        run, *_ = decode_run(Frame, data, 1, 0, 0, {}, 1, True)
        settlements, unreadable = finished_of("j", run)
        if len(settlements) != 1 or unreadable:
            raise AssertionError(run)

    parts.count("frames, read by the writer", read_back)


def hold_and_settle() -> Callable[[], None]:
    lease = UserLease()
    lease.add([(LotAmount("lot-1", POOL, 10**18), None)])

    def exchange() -> None:
        hold = lease.hold(WALLET, 2 * CHARGE_PICO, NOW_MS)
        if not isinstance(hold, Hold) or lease.settle(hold, CHARGE_PICO, NOW_MS).uncovered_pico:
            raise AssertionError(hold)

    return exchange


class NoTime:
    """Stands for the loop where a worker's log lines and tallies wait for their moment: it never comes."""

    def call_later(self, *_: object) -> object:
        return self


async def worker_parts(parts: Parts, folder: Path) -> None:
    """Whole exchanges in a worker, everything on, without sockets."""
    worker, server, pool, key = await make_worker(folder)
    worker.settlement_log._loop = NoTime()  # type: ignore[assignment]
    log = worker.settlement_log.flush
    one = Connections(server, pool, key, 1)
    writes = lambda: one.client_transport.writes  # noqa: E731 - read at two moments
    await one.plain_turn()
    await parts.count_async("exchange, plain", one.plain_turn, writes, log)

    async def streamed() -> None:
        await one.begin_streams()
        await one.end_streams()

    await parts.count_async("exchange, stream without chunks", streamed, writes, log)
    await one.begin_streams()

    async def chunk() -> None:
        one.chunks(1)

    await parts.count_async("exchange, each streamed chunk", chunk, writes, log)


def main() -> None:
    parts = Parts()
    if "--path" not in sys.argv[1:]:
        meter_parts(parts)
        record_parts(parts)
    parts.count("hold, settle", hold_and_settle())
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(worker_parts(parts, Path(folder)))
    print(json.dumps(parts.told), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)
