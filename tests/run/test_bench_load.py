"""Promise: the benchmarks' generator charges a late answer for everybody who had to wait, begins what is due
whatever has been answered, counts events however they are cut, and takes no error for an answer.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
REQUEST = b"POST /x HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}"
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
EVENTS = [
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\ndat",
    b"a: 1\r\n",
    b"d\r\ndata: 2data: \r\n",
    b"c\r\ndata: [DONE]\r\n0\r\n\r\n",
]
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """bench/load.py as the scripts import it."""
    monkeypatch.syspath_prepend(str(BENCH))
    import load

    return load


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[int]:
    """A server that reads requests and answers each as told; its port. It ends when all clients have."""
    handling: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                await reader.readexactly(len(REQUEST))
                await answer(writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.append(asyncio.get_running_loop().create_task(handle(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*handling)


async def test_an_open_loop_charges_a_late_answer_for_all_who_waited(load: Any) -> None:
    rate_per_s, due = 200.0, 40
    runs: list[Any] = []

    async def answer(writer: asyncio.StreamWriter) -> None:
        while runs[0].asked < due:
            await asyncio.sleep(0.001)
        writer.write(PLAIN)

    async with serving(answer) as port:
        runs.append(load.Load(load.Plan(port, REQUEST, 0.3, rate_per_s, concurrency=1)))
        await runs[0].run()
    (run,) = runs
    assert (run.asked, len(run.whole_ms), run.errors) == (60, 60, 0)
    for number in range(due):
        assert run.whole_ms[number] >= 1e3 * (due - 1 - number) / rate_per_s - 1e-6, number
    assert all(first <= whole for first, whole in zip(run.first_ms, run.whole_ms, strict=True))
    assert len(run.late_ms) == 60


async def test_a_closed_loop_keeps_so_many_at_once_and_finishes_them(load: Any) -> None:
    at_once: set[int] = set()
    number = itertools.count()
    most = [0]

    async def answer(writer: asyncio.StreamWriter) -> None:
        mine = next(number)
        at_once.add(mine)
        most[0] = max(most[0], len(at_once))
        await asyncio.sleep(0.02)
        at_once.remove(mine)
        writer.write(PLAIN)

    async with serving(answer) as port:
        found = await load.run(load.Plan(port, REQUEST, 0.2, concurrency=5))
    assert most[0] == found["open_max"] == 5
    assert found["exchanges"] == next(number) >= 5
    assert found["errors"] == 0
    assert not at_once


async def test_events_are_counted_however_they_are_cut(load: Any) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        for piece in EVENTS:
            writer.write(piece)
            await asyncio.sleep(0.002)

    async with serving(answer) as port:
        found = await load.run(load.Plan(port, REQUEST, 1.0, concurrency=1))
    assert found["errors"] == 0
    assert found["chunks"] == 4 * found["exchanges"] > 0


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 402 No\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\ndata: 1\r\n0\r\n\r\n",
        b"nothing that is HTTP",
    ],
    ids=["refused", "cut", "no terminal event", "no HTTP"],
)
async def test_what_is_no_whole_answer_is_an_error(load: Any, said: bytes) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    async with serving(answer) as port:
        found = await load.run(load.Plan(port, REQUEST, 0.05, 100.0, concurrency=4))
    assert found["exchanges"] == 0
    assert found["errors"] > 0
    assert found["error"]
