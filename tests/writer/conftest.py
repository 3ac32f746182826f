"""A store with users, leases and settlements for the writer's tests, and a store that fails where it is told
to.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from farebox.base import frames
from farebox.base.ids import position
from farebox.base.records import LotAmount, Opened, Settlement, Transaction
from farebox.journal import Journal, create
from farebox.journal.frames import Frame
from farebox.ledger.conservation import differences
from farebox.store.base import Event, EventResult, JournalState
from farebox.store.sqlite import SQLiteStore

NOW = 1_760_000_000_000
USD = 10**12
JOURNAL = "a1" * 8


class World:
    """One SQLite store with one journal, and short ways to put things into it."""

    NOW = NOW
    USD = USD
    J = JOURNAL

    def __init__(self, path: Path, store: Any = None) -> None:
        self.path = path
        self.store: Any = SQLiteStore(path) if store is None else store
        self._count = 0
        self.lots: dict[str, list[LotAmount]] = {}

    def fresh(self, length: int) -> str:
        self._count += 1
        return f"{self._count:0{length}x}"

    async def user(
        self, name: str, usd: int, *, pool: str = "credits", expires_at_ms: int | None = None
    ) -> None:
        """A user with one lot in one pool."""
        await self.store.create_user(name, "user", "test", NOW)
        if usd:
            lot = LotAmount(self.fresh(24), pool, usd * USD)
            row = Transaction(name, "earned_purchase", self.fresh(12), pool, usd * USD, (lot,), "test", NOW)
            result = await self.store.apply_event(Event((row,), expires_at_ms, "test", "test"), NOW)
            assert result is EventResult.DONE
            self.lots.setdefault(name, []).append(lot)

    async def user_with(self, name: str, pico: int, leased_pico: int) -> None:
        """A user with one lot of a few pico-USD, part of it leased to the journal."""
        await self.store.create_user(name, "user", "test", NOW)
        lot = LotAmount(self.fresh(24), "credits", pico)
        row = Transaction(name, "earned_purchase", self.fresh(12), "credits", pico, (lot,), "test", NOW)
        await self.store.apply_event(Event((row,), None, "test", "test"), NOW)
        self.lots[name] = [lot]
        await self.store.grant(name, "ohmygpt", JOURNAL, 1, 0, leased_pico, leased_pico, NOW)

    async def lease(self, user: str, usd: int, *, journal: str = JOURNAL, wallet: str = "ohmygpt") -> None:
        """Lease money of a user to the journal, whatever operations went before."""
        account = await self.store.account(user)
        entry = account.leases.get(journal)
        op = 0 if entry is None else entry.op
        grant = await self.store.grant(user, wallet, journal, 1, op, usd * USD, usd * USD, NOW)
        assert grant.reason == ""

    def opened(self, settlement: Settlement, hold_pico: int, **changes: Any) -> Opened:
        """The `open` that goes before a settlement."""
        fields: dict[str, Any] = {
            "exchange": settlement.exchange,
            "user": settlement.user,
            "wallet": settlement.wallet,
            "key": settlement.key,
            "model": settlement.model,
            "wire_format": settlement.wire_format,
            "price_version": settlement.price_version,
            "upstream": settlement.upstream,
            "stream": settlement.stream,
            "started_ms": settlement.started_ms,
            "input_estimate_tokens": 1000,
            "hold_pico": hold_pico,
        }
        return Opened(**{**fields, **changes})

    def put(self, journal: Journal, settlement: Settlement) -> None:
        """A whole exchange into a journal."""
        journal.append(frames.OPEN_SENT, self.opened(settlement, settlement.amount_pico).encode())
        journal.append(frames.SETTLE, settlement.encode())

    def settlement(self, user: str, amount_pico: int, **changes: Any) -> Settlement:
        """A settled exchange of `user`, paid from his first lot unless `takes` says otherwise."""
        lots = self.lots.get(user, [])
        takes = (lots[0]._replace(amount_pico=amount_pico),) if lots and amount_pico else ()
        fields: dict[str, Any] = {
            "exchange": self.fresh(32),
            "user": user,
            "wallet": "ohmygpt",
            "key": "k" * 64,
            "model": "model-1",
            "wire_format": "chat",
            "price_version": 1,
            "multiplier": "1.05",
            "evidence": "exact",
            "flags": (),
            "counts": {"input": 1200, "output": 800},
            "others": {},
            "input_total": 1200,
            "variant": "",
            "amount_pico": amount_pico,
            "takes": takes,
            "quarantine": "",
            "outcome": "done",
            "status": 200,
            "upstream": "main",
            "upstream_model": "model-1",
            "upstream_request": "req-1",
            "stream": False,
            "started_ms": NOW - 1000,
            "first_byte_ms": NOW - 500,
            "ended_ms": NOW,
        }
        return Settlement(**{**fields, **changes})

    async def journal(self, root: Path) -> Journal:
        """A real journal, begun under epoch 1, ready to append."""
        loop = asyncio.get_running_loop()
        made = create(root)
        made.scan()
        made.intend_epoch(1)
        await self.store.claim_epoch(made.id, 1, "host", NOW)
        made.begin_epoch(1, loop.call_soon, loop.call_soon_threadsafe)
        return made

    async def state(self, journal: str = JOURNAL) -> JournalState:
        states = {state.journal: state for state in await self.store.journal_states()}
        return states[journal]

    async def differences(self) -> list[str]:
        """M1 and M2 over all users."""
        found: list[str] = []
        async for account in self.store.accounts():
            found += differences(*await self.store.account_with_rows(account.user))
        return found

    def dump(self) -> dict[str, list[Any]]:
        """Everything the store holds about money, logs and positions, without times and order."""
        columns = {
            "users": "user, parked, written_off_pico, total_spent_pico, total_input_tokens",
            "pools": "*",
            "lots": "*",
            "lease_lots": "user, lot, sum(amount_pico)",
            "reserved": "*",
            "credit_transactions": "user, type, reference, pool, amount_pico, lots, charge",
            "request_logs": "exchange, user, charge_pico, charged_pico, outcome, evidence, counts, raw_usage",
            "rollups": "start_ms, series, name, requests, failures, input_tokens, output_tokens, charge_pico",
            "parked_settlements": "id, user, kind, reason, settlement",
            "journals": "applied, rolled",
        }
        grouped = {"lease_lots": "GROUP BY user, lot", "rollups": "WHERE series = 'models/quarter'"}
        with sqlite3.connect(self.path) as connection:
            found = {
                table: sorted(
                    connection.execute(f"SELECT {names} FROM {table} {grouped.get(table, '')}").fetchall()
                )
                for table, names in columns.items()
            }
        connection.close()
        return found


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "store.db")
    await made.store.open()
    await made.store.claim_epoch(JOURNAL, 1, "host", NOW)
    yield made
    await made.store.close()


@pytest.fixture
async def new_world(tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
    """A factory of further worlds in one test."""
    made: list[World] = []

    async def make() -> World:
        one = World(tmp_path / f"store-{len(made)}.db")
        made.append(one)
        await one.store.open()
        await one.store.claim_epoch(JOURNAL, 1, "host", NOW)
        return one

    yield make
    for one in made:
        await one.store.close()


@pytest.fixture(scope="session")
def make_world() -> type[World]:
    return World


class Killed(BaseException):
    """The process is gone: nothing may be caught, nothing is remembered."""


class FaultyStore:
    """A store whose n-th call of a method fails: before it happens, or after it has (the answer is lost).

    `finish` is three calls, as in a store that needs them, unless `joint` is set.
    """

    def __init__(self, store: Any) -> None:
        self.store = store
        self.joint = False
        self.calls: list[str] = []
        self.plan: dict[tuple[str, int], tuple[str, BaseException]] = {}
        self.kill_at: tuple[int, str] | None = None
        self._counts: dict[str, int] = {}

    def fail(self, method: str, number: int, when: str, error: BaseException) -> None:
        """Plan a failure of the `number`-th call (from 0) of `method`; `when` is before or after."""
        self.plan[method, number] = (when, error)

    async def finish(self, *arguments: Any) -> Any:
        if self.joint:
            return await self.__getattr__("finish")(*arguments)
        journal, epoch, to_log, charged, to_roll_up, rolled_from, rolled_pos, applied_pos = arguments
        failed = await self.log(to_log, charged)
        if await self.roll_up(journal, epoch, to_roll_up, rolled_from, rolled_pos):
            await self.advance_applied(journal, epoch, applied_pos)
        return failed

    def __getattr__(self, method: str) -> Any:
        operation = getattr(self.store, method)
        if method == "accounts":
            return operation

        async def call(*arguments: Any) -> Any:
            index, number = len(self.calls), self._counts.get(method, 0)
            self.calls.append(method)
            self._counts[method] = number + 1
            when, error = self.plan.get((method, number), ("", None))
            if self.kill_at is not None and self.kill_at[0] == index:
                when, error = self.kill_at[1], Killed()
            if when == "before":
                raise error
            result = await operation(*arguments)
            if when == "after":
                raise error
            return result

        return call


@pytest.fixture
def faulty() -> Callable[[Any], FaultyStore]:
    return FaultyStore


@pytest.fixture
def killed() -> type[BaseException]:
    return Killed


class Frames:
    """A journal in memory: the frames of settlements at rising positions, read in batches."""

    def __init__(
        self,
        records: Sequence[Settlement | bytes | None],
        *,
        after: int = 0,
        epoch: int = 1,
        batch: int = 1000,
    ) -> None:
        self.frames = [
            Frame(frames.SENT, position(epoch, number), orjson.dumps(["x"]))
            if record is None
            else Frame(
                frames.SETTLE,
                position(epoch, number),
                record if isinstance(record, bytes) else record.encode(),
            )
            for number, record in enumerate(records, 1)
        ]
        self.rest = [frame for frame in self.frames if frame.pos > after]
        self._batch = batch

    async def read_synced(self) -> tuple[Sequence[Frame], bool]:
        read, self.rest = self.rest[: self._batch], self.rest[self._batch :]
        return read, bool(self.rest)


@pytest.fixture(scope="session")
def in_memory() -> type[Frames]:
    return Frames
