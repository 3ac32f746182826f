"""Hole 16: a debit that meets leased money claims it, happens once and whole, or gives up without a trace.

A real store and the leases of a real worker; recalls are carried over as the writer does.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from farebox.base import limits
from farebox.base.clock import wall_ms
from farebox.base.errors import StoreUnknownError
from farebox.base.records import Claim, LotAmount, Transaction
from farebox.credits.debits import debit
from farebox.ledger.user_lease import Hold
from farebox.proxy.leases import Leases
from farebox.store.base import Event, EventResult
from farebox.store.sqlite import SQLiteStore
from farebox.writer.sweep import Claims

JOURNAL = "b" * 16
CLAIM = Claim("a1", "credits", None, 80)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    """Alice has 100, and one worker."""
    opened = SQLiteStore(tmp_path / "store.db")
    await opened.open()
    await opened.claim_epoch(JOURNAL, 1, "host", wall_ms())
    await opened.create_user("alice", "user", "test", wall_ms())
    lot = LotAmount("1" * 24, "credits", 100)
    row = Transaction("alice", "earned_purchase", "p1", "credits", 100, (lot,), "test", wall_ms())
    assert await opened.apply_event(Event((row,)), wall_ms()) is EventResult.DONE
    yield opened
    await opened.close()


@pytest.fixture
async def leases(store: SQLiteStore) -> AsyncIterator[Leases]:
    loop = asyncio.get_running_loop()
    made = Leases(store, JOURNAL, 1, synced_pos=lambda: 0, wall_ms=wall_ms, loop=loop)
    telling = asyncio.create_task(tell(store, made))
    yield made
    telling.cancel()
    await made.close()


async def tell(store: SQLiteStore, leases: Leases) -> None:
    seen = 0
    while True:
        for change in await store.changes_after(seen, 100):
            seen = change.number
            if change.kind == "want":
                leases.recall(change.subject, change.journal)
        await asyncio.sleep(0.01)


async def held(leases: Leases, amount_pico: int) -> Hold:
    hold = await leases.hold("alice", "ohmygpt", amount_pico)
    assert isinstance(hold, Hold)
    return hold


def attempt(store: SQLiteStore, amount_pico: int = 80) -> Callable[[], Any]:
    row = Transaction("alice", "adjustment", "a1", "credits", -amount_pico, (), "test", wall_ms())
    return lambda: store.apply_event(Event((row,)), wall_ms())


async def test_hole_16_the_money_comes_back_and_the_debit_is_whole(
    store: SQLiteStore, leases: Leases
) -> None:
    leases.void("alice", await held(leases, 100))
    assert await attempt(store)() is EventResult.SHORT
    assert await debit(store, "alice", CLAIM, attempt(store), 10.0) is EventResult.DONE
    account = await store.account("alice")
    assert account is not None
    assert (account.balances["credits"], account.claims) == (20, ())


async def test_hole_16_who_waits_too_long_gives_up_and_the_money_serves_on(
    store: SQLiteStore, leases: Leases
) -> None:
    hold = await held(leases, 100)
    assert await debit(store, "alice", CLAIM, attempt(store), 0.2) is EventResult.SHORT
    account = await store.account("alice")
    assert account is not None
    assert (account.balances["credits"], account.claims) == (100, ())
    leases.void("alice", hold)
    await held(leases, 100)


async def test_who_asks_for_more_than_there_is_waits_for_nothing(store: SQLiteStore) -> None:
    async def no_claim(*_: object) -> bool:
        raise AssertionError("a claim was made")

    store.set_claim = no_claim  # type: ignore[method-assign]
    assert (
        await debit(store, "alice", Claim("a1", "credits", None, 101), attempt(store, 101))
        is EventResult.SHORT
    )


async def test_nobody_has_nothing_to_wait_for(store: SQLiteStore) -> None:
    async def short() -> EventResult:
        return EventResult.SHORT

    assert await debit(store, "nobody", CLAIM, short) is EventResult.SHORT


async def test_hole_51_the_claim_of_a_collector_that_died_is_ended_by_the_sweep(
    store: SQLiteStore, leases: Leases
) -> None:
    await held(leases, 100)
    answers = [EventResult.SHORT]

    async def dies(*_: object) -> Any:
        if answers:
            return answers.pop()
        raise StoreUnknownError("killed")

    store.drop_claim = dies  # type: ignore[method-assign]
    with pytest.raises(StoreUnknownError):
        await debit(store, "alice", CLAIM, dies)
    assert [claim.reference for _, claim in await store.claims(9)] == ["a1"]
    collector = Claims(store)
    assert await collector.collect_some(wall_ms()) == 0
    assert await collector.collect_some(wall_ms() + int(1000 * (limits.lease_wait_s + 11))) == 1
    assert await store.claims(9) == []
