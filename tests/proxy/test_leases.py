"""Promise M2, M3 at the seam of ledger and store: no hold without money, none lost, whatever the store
answers.

Real SQLite stores; a wrapper makes single calls fail before or after they happen, hang, or answer late.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from farebox.base import limits
from farebox.base.errors import FaultError, StoreDownError, StoreRefusedError, StoreUnknownError
from farebox.base.records import Debit, LotAmount, Settlement, Transaction
from farebox.ledger.user_lease import Hold
from farebox.proxy import leases as leases_module
from farebox.proxy.lease_calls import next_ahead_holds
from farebox.proxy.leases import Leases
from farebox.proxy.user_money import Shortage
from farebox.store.base import Event, EventResult
from farebox.store.sqlite import SQLiteStore

NOW = 1_760_000_000_000
WALLET = "ohmygpt"
POOL = "credits"
JOURNAL, OTHER = "b" * 16, "a" * 16
CALLS = frozenset(("grant", "give_back", "fence", "want"))


class Shaky:
    """A store whose money calls can be disturbed: `disturb(name, number, call)` runs instead of each."""

    def __init__(self, store: SQLiteStore) -> None:
        self.store = store
        self.count = 0
        self.names: list[str] = []
        self.disturb: Callable[[str, int, Callable[[], Awaitable[Any]]], Awaitable[Any]] | None = None

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.store, name)
        if name not in CALLS:
            return real

        async def call(*args: Any) -> Any:
            self.count += 1
            self.names.append(name)
            if self.disturb is None:
                return await real(*args)
            return await self.disturb(name, self.count, lambda: real(*args))

        return call


class Bank:
    """A store with one user, and leases of one or more journals on it."""

    def __init__(self, store: SQLiteStore) -> None:
        self.store = store
        self.shaky = Shaky(store)
        self.synced_pos = 0
        self.pos = 0
        self.number = 0
        self.made: list[Leases] = []

    def leases(self, journal: str = JOURNAL, wait_s: float = 0.3, **options: Any) -> Leases:
        made = Leases(
            self.shaky,
            journal,
            1,
            synced_pos=lambda: self.synced_pos,
            wall_ms=lambda: NOW,
            loop=asyncio.get_running_loop(),
            lease_wait_s=wait_s,
            **options,
        )
        self.made.append(made)
        return made

    async def top_up(
        self, amount_pico: int, user: str = "alice", expires_at_ms: int | None = None, pool: str = POOL
    ) -> None:
        self.number += 1
        lot = LotAmount(f"{self.number:024x}", pool, amount_pico)
        row = Transaction(user, "earned_purchase", f"r{self.number}", pool, amount_pico, (lot,), "test", NOW)
        assert (
            await self.store.apply_event(Event((row,), expires_at_ms, "t", "t"), NOW - 10) is EventResult.DONE
        )

    def settle(self, leases: Leases, hold: Hold, charge_pico: int, *, sync: bool = True) -> Settlement:
        """Settle as a worker does, written and perhaps synced at once."""
        self.number += 1
        exchange = f"{self.number:032x}"
        record = leases.settle("alice", exchange, hold, charge_pico, NOW)
        self.pos += 1
        leases.written("alice", record, self.pos)
        if sync:
            self.synced_pos = self.pos
        return settlement_of(exchange, charge_pico, record.takes)

    async def book(
        self, leases: Leases, *records: Settlement, journal: str = JOURNAL, tell: bool = True
    ) -> None:
        await self.store.book(journal, 1, records, NOW)
        if tell:
            leases.applied(self.pos)

    async def lot_sums(self) -> tuple[int, int]:
        """Left and leased."""
        account = await self.store.account("alice")
        assert account is not None
        return sum(lot.left_pico for lot in account.lots), sum(lot.leased_pico for lot in account.lots)

    async def leased_pico(self, journal: str = JOURNAL) -> int:
        account = await self.store.account("alice")
        assert account is not None
        entry = account.leases.get(journal)
        return 0 if entry is None else sum(entry.lots.values())


def settlement_of(exchange: str, amount_pico: int, takes: tuple[LotAmount, ...]) -> Settlement:
    return Settlement(
        exchange, "alice", WALLET, "k" * 16, "m", "chat", 1, "1", "exact", (), {"output": 1}, {}, 0, "",
        amount_pico, takes, "", "ok", 200, "up", "m", "", False, NOW, NOW, NOW,
    )  # fmt: skip


def memory(leases: Leases) -> tuple[int, int]:
    """Free and held of alice in memory."""
    lease = leases._users["alice"].lease
    return lease.free_pico(WALLET, NOW), lease.held_pico(WALLET)


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Bank]:
    store = SQLiteStore(tmp_path / "store.db")
    await store.open()
    for journal in (JOURNAL, OTHER):
        await store.claim_epoch(journal, 1, "host", NOW)
    await store.create_user("alice", "user", "test", NOW)
    made = Bank(store)
    yield made
    made.shaky.disturb = None
    for leases in made.made:
        await leases.close()
    await store.close()


async def at_rest(leases: Leases) -> None:
    """Wait until nothing is asked of the store any more."""
    while leases._tasks - {leases._sweeper}:
        await asyncio.sleep(0.005)


async def got(leases: Leases, amount_pico: int) -> Hold:
    hold = await leases.hold("alice", WALLET, amount_pico)
    assert isinstance(hold, Hold), hold
    return hold


async def test_M2_a_hold_needs_the_store_once_and_then_memory(bank: Bank) -> None:
    await bank.top_up(1000)
    leases = bank.leases()
    assert leases.hold_now("alice", WALLET, 10, NOW) is None
    first = await got(leases, 10)
    await got(leases, 10)
    second = leases.hold_now("alice", WALLET, 10, NOW)
    assert second is not None
    assert bank.shaky.names == ["grant", "grant"]
    assert sum(memory(leases)) == await bank.leased_pico()
    leases.void("alice", first)
    assert leases.extend("alice", second, 5, NOW)
    assert second.amount_pico == 15
    assert not leases.extend("alice", second, 10_000, NOW)


async def test_M2_many_holds_lease_ahead_without_waiting(bank: Bank) -> None:
    await bank.top_up(100_000)
    leases = bank.leases()
    holds = [await got(leases, 10)]
    while len(holds) < 100:
        hold = leases.hold_now("alice", WALLET, 10, NOW)
        holds.append(hold if hold is not None else await got(leases, 10))
        await asyncio.sleep(0)
    await at_rest(leases)
    assert sum(memory(leases)) == await bank.leased_pico() >= 1000
    assert len(bank.shaky.names) < 50


@pytest.mark.parametrize(
    ("ahead_holds", "lasted_s", "next_holds"),
    [
        (16, 0.0, 32),
        (16, 150.0, 32),
        (1_000, 200.0, 1_500),
        (1_000, 300.0, 1_000),
        (1_000, 600.0, 500),
        (1_000, 100_000.0, 16),
        (65_536, 1.0, 65_536),
    ],
)
def test_S02_what_is_leased_ahead_comes_to_last_for_five_minutes(
    ahead_holds: int, lasted_s: float, next_holds: int
) -> None:
    assert next_ahead_holds(ahead_holds, lasted_s) == next_holds


async def test_L01_who_waits_is_served_in_order_as_money_comes_free(bank: Bank) -> None:
    await bank.top_up(100)
    leases = bank.leases(wait_s=2.0)
    first = await got(leases, 100)
    order: list[int] = []

    async def wait(number: int) -> Hold:
        hold = await got(leases, 50)
        order.append(number)
        return hold

    tasks = [asyncio.create_task(wait(number)) for number in range(4)]
    await asyncio.sleep(0.05)
    assert leases.hold_now("alice", WALLET, 1, NOW) is None
    bank.settle(leases, first, 0)
    one, two = await tasks[0], await tasks[1]
    assert not tasks[2].done()
    leases.void("alice", one)
    leases.void("alice", two)
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]


async def test_a_dry_wallet_holds_up_no_other_of_the_same_user(bank: Bank) -> None:
    await bank.top_up(100)
    await bank.top_up(1000, pool="creditsNew")
    leases = bank.leases(wait_s=30.0)
    first = await got(leases, 100)
    waiting = asyncio.create_task(leases.hold("alice", WALLET, 100))
    while "want" not in bank.shaky.names:
        await asyncio.sleep(0.01)
    other = await leases.hold("alice", "openhands", 10)
    assert isinstance(other, Hold)
    assert not waiting.done()
    leases.void("alice", first)
    assert isinstance(await waiting, Hold)


async def test_lease_wait_ends_in_a_shortage_that_says_what_is_held(bank: Bank) -> None:
    await bank.top_up(100)
    leases = bank.leases(wait_s=0.15)
    await got(leases, 80)
    assert await leases.hold("alice", WALLET, 50) == Shortage("short", 100, 80)
    assert await leases.hold("alice", WALLET, 500) == Shortage("short", 100, 80)
    account = await bank.store.account("alice")
    assert account is not None


@pytest.mark.parametrize("reason", ["unknown", "inactive", "expired", "written_off", "quarantined", "down"])
async def test_M2_each_obstacle_is_named(bank: Bank, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    user, options = "alice", {}
    await bank.top_up(100, expires_at_ms=NOW - 1 if reason == "expired" else None)
    if reason == "unknown":
        user = "nobody"
    elif reason == "inactive":
        await bank.store.set_user_active("alice", False, "t", NOW)
    elif reason == "written_off":
        options = {"written_off_pico_max": 0}
    elif reason == "quarantined":
        monkeypatch.setattr(limits, "quarantined_per_user_max", 0)
    elif reason == "down":

        async def down(name: str, number: int, call: Callable[[], Awaitable[Any]]) -> Any:
            raise StoreDownError("away")

        bank.shaky.disturb = down
    got_ = await bank.leases(**options).hold(user, WALLET, 10)
    assert isinstance(got_, Shortage)
    assert got_.reason == reason


async def test_M10_only_so_many_wait_for_one_user(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "lease_waiters_per_user_max", 1)
    await bank.top_up(10)
    leases = bank.leases()
    await got(leases, 10)
    waiting = asyncio.create_task(leases.hold("alice", WALLET, 10))
    await asyncio.sleep(0.02)
    assert await leases.hold("alice", WALLET, 10) == Shortage("crowded")
    assert isinstance(await waiting, Shortage)


@pytest.mark.parametrize("happened", [False, True])
async def test_hole_10_after_an_unknown_grant_the_lease_is_fenced_and_nothing_is_held_twice(
    bank: Bank, happened: bool
) -> None:
    await bank.top_up(100)

    async def lose(name: str, number: int, call: Callable[[], Awaitable[Any]]) -> Any:
        if number != 1:
            return await call()
        if happened:
            await call()
        raise StoreUnknownError("timeout")

    bank.shaky.disturb = lose
    leases = bank.leases()
    await got(leases, 60)
    assert "fence" in bank.shaky.names
    assert sum(memory(leases)) == await bank.leased_pico() <= 100


@pytest.mark.parametrize("happened", [False, True])
@pytest.mark.parametrize("error", [StoreDownError("away"), StoreUnknownError("timeout")])
async def test_S02_leased_money_serves_on_while_the_store_is_away(
    bank: Bank, error: Exception, happened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call without an answer is followed by a fence; what was leased before it may be used meanwhile."""
    monkeypatch.setattr("farebox.proxy.lease_calls._AHEAD_AGAIN_S", 0.0)
    await bank.top_up(10_000)
    leases = bank.leases()
    leases.void("alice", await got(leases, 400))
    await at_rest(leases)
    free_pico = memory(leases)[0]
    assert free_pico >= 100

    async def away(name: str, number: int, call: Callable[[], Awaitable[Any]]) -> Any:
        if happened and isinstance(error, StoreUnknownError):
            await call()
        raise error

    bank.shaky.disturb = away
    holds = []
    while (hold := leases.hold_now("alice", WALLET, 10, NOW)) is not None:
        holds.append(hold)
        await asyncio.sleep(0)
    assert len(holds) == free_pico // 10
    assert await leases.hold("alice", WALLET, 10) == Shortage("down")
    bank.shaky.disturb = None
    assert isinstance(await leases.hold("alice", WALLET, 10), Hold)
    assert sum(memory(leases)) == await bank.leased_pico() <= 10_000


async def test_hole_10_a_grant_that_lands_after_its_fence_changes_nothing(bank: Bank) -> None:
    await bank.top_up(100)
    late: list[Callable[[], Awaitable[Any]]] = []

    async def delay(name: str, number: int, call: Callable[[], Awaitable[Any]]) -> Any:
        if number == 1:
            late.append(call)
            raise StoreUnknownError("timeout")
        return await call()

    bank.shaky.disturb = delay
    leases = bank.leases()
    await got(leases, 60)
    before = await bank.leased_pico()
    assert (await late[0]()).reason == "stale"
    assert await bank.leased_pico() == before == sum(memory(leases))


async def test_hole_24_money_freed_by_a_record_goes_back_only_after_its_sync(bank: Bank) -> None:
    await bank.top_up(100)
    leases = bank.leases()
    hold = await got(leases, 100)
    bank.settle(leases, hold, 40, sync=False)
    leases.recall("alice", OTHER)
    await at_rest(leases)
    assert "give_back" not in bank.shaky.names
    bank.synced_pos = bank.pos
    leases.recall("alice", OTHER)
    await at_rest(leases)
    assert bank.shaky.names.count("give_back") == 1
    assert await bank.leased_pico() == 40
    assert memory(leases) == (0, 0)


async def test_hole_11_a_hold_never_takes_what_is_on_its_way_back(bank: Bank) -> None:
    await bank.top_up(100)
    leases = bank.leases()
    leases.void("alice", await got(leases, 100))
    gate = asyncio.Event()

    async def slow(name: str, number: int, call: Callable[[], Awaitable[Any]]) -> Any:
        if name == "give_back":
            await gate.wait()
        return await call()

    bank.shaky.disturb = slow
    leases.recall("alice", OTHER)
    await asyncio.sleep(0.05)
    assert leases.hold_now("alice", WALLET, 1, NOW) is None
    gate.set()
    await got(leases, 100)
    assert sum(memory(leases)) == await bank.leased_pico() == 100


async def test_hole_35_two_journals_do_not_both_sit_on_parts(bank: Bank) -> None:
    await bank.top_up(100)
    one, two = bank.leases(JOURNAL, wait_s=20.0), bank.leases(OTHER, wait_s=20.0)
    first, second = await got(one, 40), await got(two, 40)
    wants = [asyncio.create_task(leases.hold("alice", WALLET, 90)) for leases in (one, two)]
    asked: set[str] = set()
    while asked != {JOURNAL, OTHER}:
        changes = await bank.store.changes_after(0, 100)
        asked = {change.journal for change in changes if change.kind == "want"}
    one.void("alice", first)
    two.void("alice", second)
    one.recall("alice", OTHER)
    two.recall("alice", JOURNAL)
    done, _ = await asyncio.wait(wants, return_when=asyncio.FIRST_COMPLETED)
    assert [isinstance(task.result(), Hold) for task in done] == [True]
    await asyncio.gather(*wants)


async def test_hole_13_a_settlement_booked_while_a_fence_runs_is_not_given_out_again(bank: Bank) -> None:
    await bank.top_up(100)
    leases = bank.leases()
    record = bank.settle(leases, await got(leases, 100), 70)

    async def overtaken(name: str, number: int, call: Callable[[], Awaitable[Any]]) -> Any:
        answer = await call()
        if name == "fence":
            await bank.book(leases, record)
        return answer

    bank.shaky.disturb = overtaken
    leases.distrust("alice")
    assert isinstance(await leases.hold("alice", WALLET, 60), Shortage)
    free_pico, held_pico = memory(leases)
    assert free_pico + held_pico <= await bank.leased_pico() <= 30


async def test_hole_13_a_doubt_raised_while_a_fence_runs_outlives_it(bank: Bank) -> None:
    await bank.top_up(100)
    leases = bank.leases()
    leases.void("alice", await got(leases, 50))

    async def doubt(name: str, number: int, call: Callable[[], Awaitable[Any]]) -> Any:
        answer = await call()
        if name == "fence" and bank.shaky.names.count("fence") == 1:
            leases.distrust("alice")
        return answer

    bank.shaky.disturb = doubt
    leases.distrust("alice")
    await got(leases, 10)
    assert bank.shaky.names.count("fence") == 2


async def test_hole_13_what_is_settled_while_a_fence_runs_is_not_free(bank: Bank) -> None:
    await bank.top_up(1000)
    leases = bank.leases()
    holds = [await got(leases, 100) for _ in range(5)]
    leases.distrust("alice")

    async def settling(name: str, number: int, call: Callable[[], Awaitable[Any]]) -> Any:
        if name == "fence" and holds:
            bank.settle(leases, holds.pop(), 100)
        return await call()

    bank.shaky.disturb = settling
    await got(leases, 10)
    assert sum(memory(leases)) == await bank.leased_pico() - 100 * (5 - len(holds))


async def test_L04_an_abandoned_lease_refuses_instead_of_spinning(bank: Bank) -> None:
    await bank.top_up(100)
    leases = bank.leases(wait_s=5.0)
    leases.void("alice", await got(leases, 10))
    await bank.store.end_journal(JOURNAL, "lost")
    assert await leases.hold("alice", WALLET, 100) == Shortage("down")
    assert bank.shaky.count < 20


@pytest.mark.parametrize("error", [StoreRefusedError("other copy"), ValueError("a defect")])
async def test_M10_a_store_that_cannot_be_used_refuses_at_once(bank: Bank, error: Exception) -> None:
    async def refuse(name: str, number: int, call: Callable[[], Awaitable[Any]]) -> Any:
        raise error

    bank.shaky.disturb = refuse
    assert await bank.leases(wait_s=5.0).hold("alice", WALLET, 10) == Shortage("down")
    assert bank.shaky.count == 1


async def test_S05_a_store_that_never_knows_ends_the_wait(bank: Bank) -> None:
    async def unknown(name: str, number: int, call: Callable[[], Awaitable[Any]]) -> Any:
        raise StoreUnknownError("timeout")

    bank.shaky.disturb = unknown
    assert await bank.leases(wait_s=0.1).hold("alice", WALLET, 10) == Shortage("down")


async def test_a_waiter_that_is_cancelled_loses_nothing(bank: Bank) -> None:
    await bank.top_up(100)
    leases = bank.leases(wait_s=2.0)
    first = await got(leases, 100)
    waiting = asyncio.create_task(leases.hold("alice", WALLET, 100))
    await asyncio.sleep(0.02)
    leases.void("alice", first)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert memory(leases) == (100, 0)


async def test_MONEY_6_a_top_up_wakes_who_waits(bank: Bank) -> None:
    await bank.top_up(10)
    leases = bank.leases(wait_s=5.0)
    await got(leases, 10)
    waiting = asyncio.create_task(leases.hold("alice", WALLET, 10))
    await asyncio.sleep(0.02)
    await bank.top_up(10)
    leases.user_changed("alice")
    assert isinstance(await waiting, Hold)
    leases.user_changed("nobody")
    leases.distrust("nobody")
    leases.recall("nobody", OTHER)
    leases.distrust_all()


async def test_MONEY_6_idle_money_goes_back_and_idle_users_are_forgotten(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "lease_idle_return_s", 0.01)
    monkeypatch.setattr(leases_module, "_SWEEP_INTERVAL_S", 0.01)
    monkeypatch.setattr(leases_module, "_FORGET_AFTER_S", 0.05)
    await bank.top_up(100)
    leases = bank.leases()
    hold = await got(leases, 20)
    await asyncio.sleep(0.1)
    assert await bank.leased_pico() == 20
    record = bank.settle(leases, hold, 5)
    await bank.book(leases, record)
    while leases._users:
        await asyncio.sleep(0.01)
    assert await bank.leased_pico() == 0
    await got(leases, 20)
    assert sum(memory(leases)) == await bank.leased_pico()


async def test_hole_18_idle_money_that_has_expired_goes_back_for_the_sweeper(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bank.top_up(100, expires_at_ms=NOW + 10)
    leases = bank.leases()
    record = bank.settle(leases, await got(leases, 20), 5)
    await bank.book(leases, record)
    assert await bank.leased_pico() > 0
    leases._wall_ms = lambda: NOW + 10
    monkeypatch.setattr(limits, "lease_idle_return_s", 0.01)
    monkeypatch.setattr(leases_module, "_SWEEP_INTERVAL_S", 0.01)
    while await bank.leased_pico():
        await asyncio.sleep(0.01)
    assert await bank.lot_sums() == (95, 0)


async def test_L10_a_charge_above_its_hold_is_covered_before_anything_new(bank: Bank) -> None:
    await bank.top_up(100)
    leases = bank.leases()
    record = bank.settle(leases, await got(leases, 50), 80)
    assert memory(leases)[0] <= 0
    assert isinstance(await leases.hold("alice", WALLET, 60), Shortage)
    await bank.book(leases, record)
    leases.distrust("alice")
    await got(leases, 20)
    assert sum(memory(leases)) == await bank.leased_pico() == 20


async def test_hole_36_a_charge_above_its_hold_while_the_store_is_down_is_owed_and_nothing_else_is_held(
    bank: Bank,
) -> None:
    await bank.top_up(100)
    leases = bank.leases(wait_s=0.1)
    hold = await got(leases, 50)

    async def down(name: str, number: int, call: Callable[[], Awaitable[Any]]) -> Any:
        raise StoreDownError("away")

    bank.shaky.disturb = down
    record = bank.settle(leases, hold, 80)
    assert memory(leases)[0] == sum(take.amount_pico for take in record.takes) - 80 == -30
    assert leases.hold_now("alice", WALLET, 1, NOW) is None
    assert await leases.hold("alice", WALLET, 1) == Shortage("down", 0, 0)
    bank.shaky.disturb = None
    await bank.book(leases, record)
    leases.distrust("alice")
    await got(leases, 20)
    assert await bank.lot_sums() == (20, 20)


async def test_quarantine_of_nothing_and_of_a_hold_leave_no_hold(bank: Bank) -> None:
    await bank.top_up(100)
    leases = bank.leases()
    for amount_pico in (0, 30):
        hold = await got(leases, amount_pico)
        record = leases.reserve("alice", f"{amount_pico:032x}", hold, NOW)
        assert sum(take.amount_pico for take in record.takes) == amount_pico
        leases.written("alice", record, 1)
    assert memory(leases)[1] == 0


async def test_MONEY_8_what_recovery_left_unbooked_is_not_free(bank: Bank) -> None:
    await bank.top_up(100)
    before = bank.leases()
    record = bank.settle(before, await got(before, 100), 70)
    after = bank.leases()
    after.remember([], [Debit.of(bank.pos, record)])
    assert isinstance(await after.hold("alice", WALLET, 40), Shortage)
    await got(after, 30)
    await bank.book(after, record)
    assert sum(memory(after)) == await bank.leased_pico() == 30


async def test_MONEY_8_what_recovery_left_leased_is_fenced_then_used_or_returned(bank: Bank) -> None:
    await bank.top_up(100)
    before = bank.leases()
    record = bank.settle(before, await got(before, 100), 70)
    used = bank.leases()
    used.remember(["alice"], [Debit.of(bank.pos, record)])
    assert used.hold_now("alice", WALLET, 30, NOW) is None
    bank.shaky.names.clear()
    await got(used, 30)
    assert bank.shaky.names[0] == "fence"
    idle = bank.leases()
    idle.remember(["alice"], [Debit.of(bank.pos, record)])
    while await bank.leased_pico() > 70:
        await asyncio.sleep(0.01)
    assert bank.shaky.names[-1] == "give_back"


async def test_an_unwritten_settlement_keeps_its_money_out_of_use(bank: Bank) -> None:
    await bank.top_up(100)
    leases = bank.leases()
    hold = await got(leases, 100)
    leases.settle("alice", "f" * 32, hold, 60, NOW)
    leases.unwritten("alice")
    assert isinstance(await leases.hold("alice", WALLET, 50), Shortage)
    leases.recall("alice", OTHER)
    await at_rest(leases)
    assert "give_back" not in bank.shaky.names


async def test_a_recorded_void_gives_its_money_back_once_it_is_written(bank: Bank) -> None:
    await bank.top_up(100)
    leases = bank.leases()
    hold = await got(leases, 100)
    leases.void("alice", hold, recorded=True)
    leases.recall("alice", OTHER)
    await at_rest(leases)
    assert "give_back" not in bank.shaky.names
    leases.void_written("alice", 0)
    await at_rest(leases)
    assert await bank.leased_pico() == 0


async def test_closing_refuses_who_waits_and_returns_everything(bank: Bank) -> None:
    await bank.top_up(100)
    leases = bank.leases(wait_s=5.0)
    hold = await got(leases, 100)
    waiting = asyncio.create_task(leases.hold("alice", WALLET, 100))
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(leases.close())
    assert await waiting == Shortage("down")
    await closing
    assert await leases.hold("alice", WALLET, 1) == Shortage("down")
    leases.void("alice", hold)


async def test_closing_does_not_wait_for_a_store_that_never_answers(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leases stay for the journal's recovery, which returns them."""
    monkeypatch.setattr("farebox.base.limits.shutdown_return_s", 0.05)
    await bank.top_up(100)
    leases = bank.leases()
    leases.void("alice", await got(leases, 10))

    async def silent(*_arguments: Any) -> None:
        await asyncio.Event().wait()

    leases._calls._store = type("Silent", (), {"give_back": silent, "fence": silent})()
    async with asyncio.timeout(60):
        await leases.close()


async def history(bank: Bank, leases: Leases) -> None:
    """Holds, a wait, settlements, a recall: enough to make every kind of store call."""
    holds = await asyncio.gather(*(leases.hold("alice", WALLET, 30) for _ in range(5)))
    records = [bank.settle(leases, hold, 10) for hold in holds if isinstance(hold, Hold)]
    await bank.book(leases, *records)
    leases.recall("alice", OTHER)
    await asyncio.sleep(0.05)
    last = await leases.hold("alice", WALLET, 20)
    if isinstance(last, Hold):
        leases.void("alice", last)
    await at_rest(leases)


@pytest.mark.parametrize("how", ["before", "after", "cancelled"])
@pytest.mark.parametrize("bomb", range(1, 9))
async def test_L23_whichever_store_call_fails_no_hold_leaks_and_no_money_is_free_twice(
    bank: Bank, how: str, bomb: int
) -> None:
    await bank.top_up(100)
    leases = bank.leases(wait_s=0.15)

    async def explode(name: str, number: int, call: Callable[[], Awaitable[Any]]) -> Any:
        if number != bomb:
            return await call()
        if how == "cancelled":
            raise asyncio.CancelledError
        if how == "after":
            await call()
        raise StoreUnknownError("timeout")

    bank.shaky.disturb = explode
    try:
        await asyncio.wait_for(history(bank, leases), 60.0)
    except FaultError:
        pytest.fail("a store's fault reached a caller")
    bank.shaky.disturb = None
    left_pico, leased_pico = await bank.lot_sums()
    free_pico, held_pico = memory(leases)
    assert held_pico == 0
    money = leases._users["alice"]
    if money.known and not money.in_doubt:
        assert free_pico == await bank.leased_pico()
    assert free_pico <= await bank.leased_pico()
    await leases.close()
    left_pico, leased_pico = await bank.lot_sums()
    assert leased_pico == 0
    assert left_pico <= 100


async def test_M2_a_parked_account_spends_no_lease_it_had(bank: Bank) -> None:
    await bank.top_up(1000)
    leases = bank.leases()
    await got(leases, 100)
    with sqlite3.connect(bank.store.path) as connection:
        connection.execute("UPDATE users SET parked = 'foreign write' WHERE user = 'alice'")
    connection.close()
    leases.distrust("alice")
    for _ in range(2):
        assert leases.hold_now("alice", WALLET, 1, NOW) is None
        refused = await leases.hold("alice", WALLET, 1)
        assert isinstance(refused, Shortage)
        assert refused.reason == "parked"


async def test_M2_hole_21_past_the_cap_of_written_off_money_every_request_is_refused(bank: Bank) -> None:
    await bank.top_up(1000)
    leases = bank.leases(written_off_pico_max=0)
    for _ in range(3):
        assert leases.hold_now("alice", WALLET, 10, NOW) is None
        refused = await leases.hold("alice", WALLET, 10)
        assert isinstance(refused, Shortage)
        assert refused.reason == "written_off"


async def test_M2_a_grown_hold_keeps_the_money_it_waited_for(bank: Bank) -> None:
    await bank.top_up(100)
    leases = bank.leases()
    stream = await got(leases, 40)
    more = await got(leases, 60)
    waiting = asyncio.create_task(leases.hold("alice", WALLET, 30))
    await asyncio.sleep(0.02)
    assert leases.merge("alice", stream, more, NOW)
    assert stream.amount_pico == 100
    assert isinstance(await waiting, Shortage)
