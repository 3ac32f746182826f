"""The database away, slow, cut off, killed: every call ends within its limit, says what it knows, and works
again afterwards; nothing acknowledged is lost and nothing happens twice.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import mongodb
import needs
from farebox.base import limits
from farebox.base.errors import FaultError, StoreDownError, StoreUnknownError
from farebox.store.base import Booked, Event, EventResult
from farebox.store.mongo import MongoStore
from faults.tcp_proxy import TcpProxy
from store.conftest import LOG_TTL_DAYS, Scene

_PATIENCE_S = 60.0
"""Far above every limit set below: a call that takes so long hangs."""


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "store_timeout_s", 1.5)
    monkeypatch.setattr(limits, "store_select_timeout_s", 0.5)
    monkeypatch.setattr(limits, "store_abort_timeout_s", 0.2)


@pytest.fixture
def network(mongodb_server: str) -> Any:
    if mongodb.NAMED_SERVER:
        pytest.skip("the network before a named server is not ours to cut")
    with TcpProxy(int(urlsplit(mongodb_server).port or 0)) as proxy:
        yield proxy


@pytest.fixture
async def store(network: TcpProxy, mongodb_database: Any) -> AsyncIterator[MongoStore]:
    url = f"mongodb://127.0.0.1:{network.port}/{mongodb_database.name}?directConnection=true"
    opened = MongoStore(url, log_ttl_days=LOG_TTL_DAYS)
    async with asyncio.timeout(_PATIENCE_S):
        await until_done(opened.open)
    yield opened
    network.heal()
    await opened.close()


async def until_done(call: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat a call that may be repeated until the store takes it."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            try:
                return await call()
            except FaultError:
                await asyncio.sleep(0.05)


def every_call(scene: Scene) -> dict[str, Callable[[], Awaitable[Any]]]:
    """A call of each kind: reads, single writes, transactions."""
    store, now = scene.store, scene.NOW
    event = Event((scene.row("alice", "adjustment", "credits", 0),))
    return {
        "account": lambda: store.account("alice"),
        "changes": lambda: store.changes_after(0, 10),
        "beat": lambda: store.beat(scene.J, 1, now),
        "log": lambda: store.log([scene.settlement("alice", 1)], {}),
        "grant": lambda: store.grant("alice", "ohmygpt", scene.J, 1, 1, 1, 1, now),
        "book": lambda: store.book(scene.J, 1, [scene.settlement("alice", 0)], now),
        "event": lambda: store.apply_event(event, now),
        "rows": lambda: store.account_with_sums("alice"),
    }


@pytest.mark.parametrize("trouble", ["cut", "blackhole"])
async def test_S02_S04_every_call_ends_within_its_limit_and_works_again(scene, network, trouble):
    await until_done(lambda: scene.store.create_user("alice", "user", "test", scene.NOW))
    await until_done(scene.journal)
    getattr(network, trouble)()
    calls = every_call(scene)
    async with asyncio.timeout(_PATIENCE_S):
        ended = await asyncio.gather(*(call() for call in calls.values()), return_exceptions=True)
    for name, result in zip(calls, ended, strict=True):
        assert isinstance(result, StoreDownError | StoreUnknownError), (name, result)
        if name in {"account", "changes", "rows", "event"}:
            assert isinstance(result, StoreDownError), (name, result)
    network.heal()
    assert await until_done(lambda: scene.store.account("alice"))
    assert await until_done(lambda: scene.store.beat(scene.J, 1, scene.NOW))


async def test_S05_connections_that_break_in_every_moment_book_once(scene, network):
    await until_done(lambda: scene.store.create_user("alice", "user", "test", scene.NOW))
    scene.users.add("alice")
    await until_done(scene.journal)
    await scene.credit("alice", scene.USD)
    (leased,) = await scene.lease("alice", scene.USD)
    batches = [
        [scene.settlement("alice", 7, (leased._replace(amount_pico=7),)) for _ in range(3)] for _ in range(15)
    ]
    dice = random.Random(needs.SEED)

    async def break_once() -> None:
        await asyncio.sleep(dice.uniform(0.0, 0.06))
        network.reset()

    for batch in batches:
        breaking = asyncio.create_task(break_once())
        results = await until_done(lambda batch=batch: scene.store.book(scene.J, 1, batch, scene.NOW))
        assert set(results) <= {Booked.BOOKED, Booked.DUPLICATE}
        await breaking
    account, rows = await until_done(lambda: scene.store.account_with_rows("alice"))
    assert account.balances["credits"] == scene.USD - 15 * 3 * 7
    assert len(rows) == 1 + 15 * 3
    await until_done(scene.sound)


async def test_M6_what_was_acknowledged_survives_kill_9_of_the_server(tmp_path: Path):
    server = mongodb.MongoDBServer(tmp_path, "--sync-on-commit")
    await asyncio.to_thread(server.start)
    store = MongoStore(f"{server.url}/farebox", log_ttl_days=LOG_TTL_DAYS)
    scene = Scene(store)
    try:
        await until_done(store.open)
        await until_done(lambda: store.create_user("alice", "user", "test", scene.NOW))
        events = [Event((scene.row("alice", "adjustment", "credits", 0),)) for _ in range(60)]
        acknowledged: list[Event] = []

        async def book() -> None:
            for event in events:
                assert await until_done(lambda event=event: store.apply_event(event, scene.NOW)) in {
                    EventResult.DONE,
                    EventResult.DUPLICATE,
                }
                acknowledged.append(event)

        booking = asyncio.create_task(book())
        while len(acknowledged) < 20:
            await asyncio.sleep(0.01)
        server.kill()
        before = [event.rows[0].id for event in acknowledged]
        await asyncio.to_thread(server.start)
        there = {row.id for row in await until_done(lambda: store.transactions("alice", 1000))}
        assert there.issuperset(before)
        await booking
        rows = await until_done(lambda: store.transactions("alice", 1000))
        assert sorted(row.id for row in rows) == sorted(event.rows[0].id for event in events)
    finally:
        await store.close()
        server.kill()


async def test_S16_single_writes_ask_for_the_journal_themselves(tmp_path: Path):
    """This server syncs nothing that nobody asks for (and, unlike mongod, no transaction at all)."""
    server = mongodb.MongoDBServer(tmp_path)
    await asyncio.to_thread(server.start)
    store = MongoStore(f"{server.url}/farebox", log_ttl_days=LOG_TTL_DAYS)
    scene = Scene(store)
    try:
        await until_done(store.open)
        await until_done(lambda: store.create_user("alice", "user", "test", scene.NOW))
        await until_done(scene.journal)
        await scene.credit("alice", 1000)
        for _ in range(15):
            await scene.lease("alice", 10)
        records = [scene.settlement("alice", 1) for _ in range(5)]
        assert await store.log(records, {}) == []
        server.kill()
        await asyncio.to_thread(server.start)
        account = await until_done(lambda: store.account("alice"))
        assert account.leases[scene.J].lots == {account.lots[0].lot: 150}
        for record in records:
            assert await until_done(lambda record=record: store.request_log(record.exchange))
    finally:
        await store.close()
        server.kill()
