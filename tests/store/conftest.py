"""A store for every test of the contract, and a scene with users, lots, journals and settlements to play on
it.

`store` is parametrised by implementation: whatever is added to `FACTORIES` runs the whole contract suite.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farebox.base.records import KeyRecord, LotAmount, Settlement, Transaction
from farebox.ledger.conservation import differences
from farebox.store.base import Booked, Event, EventResult, Store
from farebox.store.mongo import MongoStore
from farebox.store.sqlite import SQLiteStore
from store.outside import Outside, OutsideMongoDB, OutsideSQLite
from store.plans import traced, walks

NOW = 1_760_000_000_000
USD = 10**12
JOURNAL = "a" * 16
OTHER_JOURNAL = "b" * 16

LOG_TTL_DAYS = 100_000
"""The servers' clock would expire the log rows of `NOW` while a test looks at them."""


def _sqlite(request: pytest.FixtureRequest, folder: Path) -> tuple[Store, Outside]:
    return SQLiteStore(folder / "store.db"), OutsideSQLite(folder / "store.db")


def _mongo(request: pytest.FixtureRequest, folder: Path) -> tuple[Store, Outside]:
    url = request.getfixturevalue("mongodb_url")
    return MongoStore(url, log_ttl_days=LOG_TTL_DAYS), OutsideMongoDB(
        request.getfixturevalue("mongodb_database")
    )


FACTORIES: dict[str, Callable[[pytest.FixtureRequest, Path], tuple[Store, Outside]]] = {
    "sqlite": _sqlite,
    "mongo": _mongo,
}


@pytest.fixture(params=sorted(FACTORIES))
def implementation(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Outside]:
    return FACTORIES[request.param](request, tmp_path)


@pytest.fixture
async def store(implementation: tuple[Store, Outside]) -> AsyncIterator[Store]:
    opened, _ = implementation
    await opened.open()
    asked = traced(opened) if isinstance(opened, SQLiteStore) else []
    yield opened
    await opened.close()
    if isinstance(opened, SQLiteStore):
        assert walks(opened.path, asked) == []


@pytest.fixture
def outside(implementation: tuple[Store, Outside]) -> Outside:
    """What someone without Farebox does to the store's data, or reads of it."""
    return implementation[1]


@pytest.fixture
def scene(store: Store) -> "Scene":
    return Scene(store)


@pytest.fixture
def by_hand(tmp_path: Path) -> Callable[..., list[Any]]:
    """Run one statement on the SQLite file from outside, as an operator with a shell would."""

    def run(statement: str, *values: object) -> list[Any]:
        with sqlite3.connect(tmp_path / "store.db") as connection:
            found = connection.execute(statement, values).fetchall()
        connection.close()
        return found

    return run


class Scene:
    """Users with money, journals with leases, and the settlements they produce."""

    NOW = NOW
    USD = USD
    J = JOURNAL
    K = OTHER_JOURNAL

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ops: dict[tuple[str, str], int] = {}
        self.users: set[str] = set()
        self._count = 0

    def fresh(self, length: int = 24) -> str:
        self._count += 1
        return f"{self._count:0{length}x}"

    async def user(self, name: str = "alice", usd: int = 0, pool: str = "credits") -> str:
        assert await self.store.create_user(name, "user", "test", NOW)
        self.users.add(name)
        if usd:
            await self.credit(name, usd * USD, pool)
        return name

    async def credit(
        self,
        user: str,
        amount: int,
        pool: str = "credits",
        expires: int | None = None,
        lot: str = "",
        now: int = NOW,
    ) -> LotAmount:
        lot = lot or self.fresh()
        part = LotAmount(lot, pool, amount)
        event = Event((self.row(user, "earned_purchase", pool, amount, (part,), reference=lot),), expires)
        assert await self.store.apply_event(event, now) is EventResult.DONE
        return part

    def row(
        self,
        user: str,
        type_: str,
        pool: str,
        amount: int,
        lots: tuple[LotAmount, ...] = (),
        reference: str = "",
    ) -> Transaction:
        return Transaction(user, type_, reference or self.fresh(), pool, amount, lots, "test", NOW)

    async def journal(self, journal: str = JOURNAL, epoch: int = 1) -> str:
        await self.store.claim_epoch(journal, epoch, "host", NOW + epoch)
        return journal

    async def lease(
        self, user: str, amount: int, journal: str = JOURNAL, wallet: str = "ohmygpt", epoch: int = 1
    ) -> tuple[LotAmount, ...]:
        op = self.ops.get((user, journal), 0)
        answer = await self.store.grant(user, wallet, journal, epoch, op, amount, amount, NOW)
        assert answer.reason == "", answer
        self.ops[user, journal] = answer.op
        return tuple(part for part, _ in answer.added)

    def settlement(
        self, user: str, amount: int, takes: tuple[LotAmount, ...] = (), **changes: Any
    ) -> Settlement:
        plain = Settlement(
            exchange=self.fresh(32),
            user=user,
            wallet="ohmygpt",
            key="digest",
            model="sonnet",
            wire_format="messages",
            price_version=1,
            multiplier="1.05",
            evidence="exact",
            flags=(),
            counts={"input": 1200, "output": 800, "cache_read": 10000, "cache_write_5m": 2000},
            others={},
            input_total=13200,
            variant="",
            amount_pico=amount,
            takes=takes,
            quarantine="",
            outcome="ok",
            status=200,
            upstream="main",
            upstream_model="sonnet-4",
            upstream_request="req_1",
            stream=True,
            started_ms=NOW - 1500,
            first_byte_ms=NOW - 1200,
            ended_ms=NOW,
            raw_usage='{"input_tokens":1200}',
        )
        return replace(plain, **changes)

    async def book(self, *records: Settlement, journal: str = JOURNAL, now: int = NOW) -> list[Booked]:
        results = await self.store.book(journal, 1, records, now)
        await self.sound()
        return results

    async def sound(self) -> None:
        """M1 and M2 of every user."""
        for user in sorted(self.users):
            found = await self.store.account_with_rows(user)
            assert found is not None
            assert differences(*found) == []

    async def balance(self, user: str, pool: str = "credits") -> int:
        account = await self.store.account(user)
        assert account is not None
        return account.balances[pool]

    async def leased(self, user: str, journal: str = JOURNAL) -> int:
        account = await self.store.account(user)
        assert account is not None
        entry = account.leases.get(journal)
        return sum(entry.lots.values()) if entry else 0

    def key(self, user: str, digest: str = "d1", **changes: Any) -> KeyRecord:
        plain = KeyRecord(digest, user, "sk-trollllm-abcd", "laptop", True, True, "user", None, None)
        return replace(plain, **changes)
