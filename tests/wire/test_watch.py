"""Deadlines are noticed in the sweep in which a look at everything would have noticed them, and who is silent
costs no look before his time.
"""

import asyncio
import random
from typing import Any

import pytest

from farebox.base.errors import UpstreamTimeoutError
from farebox.wire.incoming import Incoming
from farebox.wire.server import Server
from farebox.wire.upstream import Pool
from farebox.wire.watch import AT_NEXT_SWEEP, NEVER, Watch, Watched
from wire.rig import HANG, Truncated, connected, on_uvloop, post, proxying, serving, until, upstream_playing

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
INTERVAL_S = 0.25


class Thing:
    """Something that may be silent for so long after it stirred last; None: for ever."""

    def __init__(self, silent_max_s: float | None) -> None:
        self.silent_max_s = silent_max_s
        self.stirred_s = 0.0
        self.overdue_at_s: float | None = None
        self.looks = 0

    def look(self, now_s: float) -> float:
        self.looks += 1
        if self.silent_max_s is None:
            return NEVER
        if now_s > self.stirred_s + self.silent_max_s:
            self.overdue_at_s = now_s
            return AT_NEXT_SWEEP
        return self.stirred_s + self.silent_max_s


@pytest.mark.parametrize("seed", range(20))
def test_each_is_overdue_in_the_same_sweep_as_if_all_were_looked_at(seed: int) -> None:
    chance = random.Random(seed)
    silences_s = [None, 0.0, 0.2, 0.25, 1.0, 3.7, 40.0]
    things = [Thing(chance.choice(silences_s)) for _ in range(50)]
    shadows = [Thing(thing.silent_max_s) for thing in things]
    watch = Watch(Thing.look, INTERVAL_S)
    places = [Watched(watch) for _ in things]
    now_s = chance.uniform(0, 1000)
    for place, thing, shadow in zip(places, things, shadows, strict=True):
        thing.stirred_s = shadow.stirred_s = now_s
        watch.add(place, thing)
    for _ in range(400):
        for number in chance.sample(range(50), chance.choice([0, 1, 5])):
            things[number].stirred_s = shadows[number].stirred_s = now_s
            things[number].overdue_at_s = shadows[number].overdue_at_s = None
            places[number].stir()
        now_s += chance.choice([0.25, 0.25, 0.26, 0.1, 2.0])
        watch.sweep(now_s)
        for shadow in shadows:
            shadow.look(now_s)
        assert [thing.overdue_at_s for thing in things] == [shadow.overdue_at_s for shadow in shadows]
    for place in places:
        place.end()
        place.stir()
        place.end()
    assert len(watch) == 0


def test_who_is_silent_is_looked_at_once_and_again_when_he_may_be_overdue() -> None:
    watch = Watch(Thing.look, INTERVAL_S)
    things = [Thing(100.0), Thing(None)]
    for thing in things:
        watch.add(Watched(watch), thing)
    for number in range(400):
        watch.sweep(number * INTERVAL_S)
    assert [thing.looks for thing in things] == [1, 1]
    watch.sweep(100.0)
    assert [thing.looks for thing in things] == [2, 1]


def test_a_look_may_end_any_of_them() -> None:
    watch: Watch[int]
    places: list[Watched] = []
    looked_at: list[int] = []

    def look(number: int, now_s: float) -> float:
        del now_s
        looked_at.append(number)
        for place in places:
            place.end()
        return NEVER

    watch = Watch(look, INTERVAL_S)
    for number in range(3):
        places.append(Watched(watch))
        watch.add(places[-1], number)
    watch.sweep(1.0)
    assert looked_at == [0]
    assert len(watch) == 0


# ---- who sleeps is woken by whatever starts a deadline -----------------------------------------------------


def later(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def swept_by_hand(owner: Server | Pool) -> Watch[Any]:
    """The owner's timer sweeps no more: time goes as the test says."""
    assert owner._sweep_handle is not None
    owner._sweep_handle.cancel()
    return owner.watch


@on_uvloop
async def test_S_a_client_that_falls_asleep_between_requests_must_still_send_its_next_head_and_body() -> None:
    async def handle(incoming: Incoming) -> None:
        await incoming.body()
        incoming.answer(200, b"", b"")

    for begun in (b"POST /v1", post(b"{}" * 2**20)[:500]):
        async with serving(handle, keepalive_timeout_s=1000.0) as (server, port), connected(port) as client:
            watch = swept_by_hand(server)
            client.send(post())
            assert (await client.response()).status == 200
            (connection,) = server._open_connections
            watch.sweep(later(0.0))
            assert connection.watched.asleep
            client.send(begun)
            await until(lambda: connection.head_since_s + connection.body_since_s > 0)  # noqa: B023
            watch.sweep(later(0.0))
            assert connection.watched.asleep
            watch.sweep(later(150.0))
            assert (await client.response()).status == 408


@on_uvloop
async def test_S_a_connection_that_waited_long_for_its_answer_is_closed_when_nothing_follows() -> None:
    going_on = asyncio.Event()

    async def handle(incoming: Incoming) -> None:
        await going_on.wait()
        incoming.answer(200, b"", b"")

    async with serving(handle) as (server, port), connected(port) as client:
        watch = swept_by_hand(server)
        client.send(post())
        await until(lambda: server.open_count == 1)
        (connection,) = server._open_connections
        watch.sweep(later(0.0))
        assert connection.watched.asleep
        going_on.set()
        assert (await client.response()).status == 200
        watch.sweep(later(0.0))
        assert connection.watched.asleep
        watch.sweep(later(80.0))
        assert await client.rest() == b""


@on_uvloop
async def test_S_a_stream_that_was_silent_for_long_is_dropped_when_its_client_takes_nothing() -> None:
    going_on = asyncio.Event()

    async def handle(incoming: Incoming) -> None:
        incoming.start_stream(200, b"")
        await going_on.wait()
        incoming.write_framed(bytes(50 * 2**20))

    buffers = {"SO_SNDBUF": 8192, "SO_RCVBUF": 8192}
    async with (
        serving(handle, listen_buffers=buffers) as (server, port),
        connected(port, **buffers) as client,
    ):
        watch = swept_by_hand(server)
        client.send(post())
        assert (await client.head()).status == 200
        (connection,) = server._open_connections
        watch.sweep(later(0.0))
        assert connection.watched.asleep
        going_on.set()
        await until(lambda: connection.current is not None and connection.current.paused)
        assert not connection.watched.asleep
        for days in range(1, 1000):
            watch.sweep(later(86_400.0 * days))
            if connection.transport is None:
                break
            await asyncio.sleep(0.005)
        assert not server._open_connections


@on_uvloop
async def test_U02_a_connection_that_slept_in_the_pool_must_still_answer_in_time() -> None:
    plain: list[bytes | float | str] = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    async with (
        upstream_playing(plain, [HANG]) as upstream,
        proxying(upstream, keepalive_timeout_s=10_000.0, first_byte_timeout_s=1000.0) as (proxy, port),
        connected(port) as client,
    ):
        client.send(post())
        assert (await client.response()).status == 200
        (connection,) = proxy.pool._open
        watch = swept_by_hand(proxy.pool)
        watch.sweep(later(0.0))
        assert connection.watched.asleep
        client.send(post())
        await until(lambda: connection.receiver is not None)
        assert not connection.watched.asleep
        watch.sweep(later(0.0))
        assert connection.watched.asleep
        watch.sweep(later(1001.0))
        assert (await client.response()).status == 502
        error = proxy.exchanges[-1].error
        assert isinstance(error, UpstreamTimeoutError)
        assert error.phase == "first_byte"


@on_uvloop
async def test_U03_the_idle_deadline_of_a_stream_runs_from_its_last_chunk_however_long_it_slept() -> None:
    script: list[bytes | float | str] = [CHUNKED, b"5\r\nhello\r\n", 1.0, b"5\r\nagain\r\n", HANG]
    async with (
        upstream_playing(script) as upstream,
        proxying(upstream, stream=True, idle_stream_timeout_s=1000.0) as (proxy, port),
        connected(port) as client,
    ):
        client.send(post())
        assert (await client.head()).status == 200
        assert await client.reader.readexactly(10) == b"5\r\nhello\r\n"
        (connection,) = proxy.pool._open
        watch = swept_by_hand(proxy.pool)
        watch.sweep(later(0.0))
        assert connection.watched.asleep
        assert await client.reader.readexactly(10) == b"5\r\nagain\r\n"
        assert not connection.watched.asleep
        watch.sweep(later(900.0))
        watch.sweep(later(1500.0))
        assert connection.watched.asleep
        watch.sweep(later(1901.0))
        with pytest.raises(Truncated):
            await client.response()
        error = proxy.exchanges[0].error
        assert isinstance(error, UpstreamTimeoutError)
        assert error.phase == "idle"
