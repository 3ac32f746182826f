"""Random histories: whatever comes in whatever order, every user adds up after every step (M1, M2, M4).

Beside the store runs a plain account of what was promised: money put in, charges booked, money written off.
Balances are exactly what that account says, however often records were replayed and leases fenced or lost.
"""

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import mongodb
from farebox.base.records import WALLETS, LotAmount, Settlement, Transaction
from farebox.ledger.conservation import differences
from farebox.ledger.settlement import expiry_rows
from farebox.store.base import Booked, Event, EventResult, Store
from farebox.store.mongo import MongoStore
from farebox.store.sqlite import SQLiteStore
from store.conftest import LOG_TTL_DAYS

NOW = 1_760_000_000_000
USERS = ("alice", "bob")
JOURNALS = ("a" * 16, "b" * 16)
POOLS = ("credits", "refCredits", "creditsNew")
WALLET_NAMES = ("ohmygpt", "openhands")

ON_MONGODB = int(os.environ.get("FAREBOX_MONGODB_HISTORIES", "3"))
"""Histories there: each step is several round trips."""

users = st.sampled_from(USERS)
journals = st.sampled_from(JOURNALS)
pools = st.sampled_from(POOLS)
wallets = st.sampled_from(WALLET_NAMES)
amounts = st.integers(min_value=0, max_value=120)


class Histories(RuleBasedStateMachine):
    """Two users, two journals, one store."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.store = self.new_store()
        self.now = NOW
        self.numbers = 0
        self.epochs = dict.fromkeys(JOURNALS, 1)
        self.ops: dict[tuple[str, str], int] = {}
        self.records: list[tuple[str, Settlement]] = []
        self.waiting: set[str] = set()
        self.put_in = dict.fromkeys(USERS, 0)
        self.charged = dict.fromkeys(USERS, 0)
        self.run(self._start())

    def new_store(self) -> Store:
        return SQLiteStore(Path(self.folder.name) / "store.db")

    async def _start(self) -> None:
        await self.store.open()
        for user in USERS:
            await self.store.create_user(user, "user", "test", NOW)
        for journal in JOURNALS:
            await self.store.claim_epoch(journal, 1, "host", NOW)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.loop.close()
        self.folder.cleanup()

    def fresh(self, length: int) -> str:
        self.numbers += 1
        return f"{self.numbers:0{length}x}"

    # -- what can happen ---------------------------------------------------------------------------------
    @rule(user=users, pool=pools, amount=amounts, lives=st.sampled_from([None, 5, 50]))
    def purchase(self, user: str, pool: str, amount: int, lives: int | None) -> None:
        lot = self.fresh(24)
        row = Transaction(
            user, "earned_purchase", lot, pool, amount, (LotAmount(lot, pool, amount),), "test", self.now
        )
        event = Event((row,), None if lives is None else self.now + lives)
        assert self.run(self.store.apply_event(event, self.now)) is EventResult.DONE
        assert self.run(self.store.apply_event(event, self.now)) is EventResult.DUPLICATE
        self.put_in[user] += amount

    @rule(giver=users, taker=users, pool=pools, amount=amounts)
    def transfer(self, giver: str, taker: str, pool: str, amount: int) -> None:
        reference, lot = self.fresh(8), self.fresh(24)
        out = Transaction(giver, "transfer_out", reference, pool, -amount, (), "test", self.now)
        into = Transaction(
            taker, "transfer_in", reference, pool, amount, (LotAmount(lot, pool, amount),), "test", self.now
        )
        result = self.run(self.store.apply_event(Event((out, into)), self.now))
        assert result in {EventResult.DONE, EventResult.SHORT}
        if result is EventResult.DONE:
            self.put_in[giver] -= amount
            self.put_in[taker] += amount

    @rule(user=users, journal=journals, wallet=wallets, need=amounts, more=amounts, stale=st.booleans())
    def grant(self, user: str, journal: str, wallet: str, need: int, more: int, stale: bool) -> None:
        op = self.ops.get((user, journal), 0) + (1 if stale else 0)
        answer = self.run(
            self.store.grant(user, wallet, journal, self.epochs[journal], op, need, need + more, self.now)
        )
        if stale:
            assert answer.reason == "stale"
        if answer.reason == "":
            self.ops[user, journal] = answer.op
            assert need <= sum(part.amount_pico for part, _ in answer.added) <= need + more
        else:
            assert answer.added == ()

    @rule(user=users, journal=journals, share=st.sampled_from([0, 1, 2]))
    def give_back(self, user: str, journal: str, share: int) -> None:
        parts = [
            part._replace(amount_pico=part.amount_pico // max(share, 1))
            for part in self._lease(user, journal)
        ]
        op = self.ops.get((user, journal), 0)
        answer = self.run(self.store.give_back(user, journal, self.epochs[journal], op, parts, self.now))
        if answer is not None:
            self.ops[user, journal] = answer

    @rule(user=users, journal=journals)
    def fence(self, user: str, journal: str) -> None:
        asked = [record.exchange for _, record in self.records]
        fenced = self.run(self.store.fence(user, journal, self.epochs[journal], asked, self.now))
        self.ops[user, journal] = fenced.op

    @rule(journal=journals, ended=st.sampled_from(["lost", "retired"]))
    def end_and_claim_again(self, journal: str, ended: str) -> None:
        self.run(self.store.end_journal(journal, ended))
        self.epochs[journal] += 1
        self.run(
            self.store.claim_epoch(journal, self.epochs[journal], "host", self.now + self.epochs[journal])
        )
        for user in USERS:
            account = self.run(self.store.account(user))
            entry = account.leases.get(journal)
            self.ops[user, journal] = entry.op if entry else 0

    @rule(
        user=users,
        journal=journals,
        wallet=wallets,
        amounts=st.lists(amounts, min_size=1, max_size=4),
        shape=st.sampled_from(["covered", "covered", "late", "quarantined", "twice"]),
    )
    def book(self, user: str, journal: str, wallet: str, amounts: list[int], shape: str) -> None:
        free = {part.lot: part for part in self._lease(user, journal) if part.pool in WALLETS[wallet]}
        records = [self._settlement(user, wallet, amount, free, shape) for amount in amounts]
        if shape == "twice":
            records += records[:1]
        results = self.run(self.store.book(journal, self.epochs[journal], records, self.now))
        for record, result in zip(records, results, strict=True):
            if result in {Booked.BOOKED, Booked.LATE}:
                self.charged[user] += record.amount_pico
            elif result is Booked.PARKED:
                self.waiting.add(record.exchange)
            else:
                assert shape == "twice"
            self.records.append((journal, record))

    @rule(pick=st.integers(min_value=0))
    def replay(self, pick: int) -> None:
        if self.records:
            journal, record = self.records[pick % len(self.records)]
            results = self.run(self.store.book(journal, 1, [record, record], self.now))
            assert results == [Booked.DUPLICATE] * 2

    @rule(pick=st.integers(min_value=0), amount=st.none() | amounts)
    def resolve(self, pick: int, amount: int | None) -> None:
        if self.waiting:
            exchange = sorted(self.waiting)[pick % len(self.waiting)]
            owner = next(record.user for _, record in self.records if record.exchange == exchange)
            assert self.run(self.store.resolve_parked(exchange, amount, "test", self.now)) is Booked.BOOKED
            self.waiting.discard(exchange)
            self.charged[owner] += amount or 0

    @rule(passes=st.integers(min_value=1, max_value=40))
    def time_passes(self, passes: int) -> None:
        self.now += passes

    @rule(user=users)
    def sweep(self, user: str) -> None:
        due = expiry_rows(self.run(self.store.account(user)), self.now)
        if due:
            assert self.run(self.store.apply_event(Event(due), self.now)) is EventResult.DONE

    # -- what must hold ----------------------------------------------------------------------------------
    @invariant()
    def everything_adds_up(self) -> None:
        for user in USERS:
            account, rows = self.run(self.store.account_with_rows(user))
            assert differences(account, rows) == []
            assert account.parked is None
            expired = -sum(row.amount_pico for row in rows if row.type == "expired")
            left = self.put_in[user] - self.charged[user] + account.written_off_pico - expired
            assert sum(account.balances.values()) == left
            assert len(account.reserved) <= len(self.waiting)

    def _lease(self, user: str, journal: str) -> list[LotAmount]:
        account = self.run(self.store.account(user))
        entry = account.leases.get(journal)
        names = {lot.lot: lot.pool for lot in account.lots}
        held = entry.lots if entry else {}
        return [LotAmount(lot, names[lot], amount) for lot, amount in held.items() if amount]

    def _settlement(
        self, user: str, wallet: str, amount: int, free: dict[str, LotAmount], shape: str
    ) -> Settlement:
        takes: list[LotAmount] = []
        missing = amount
        for lot, part in sorted(free.items()):
            share = min(part.amount_pico, missing)
            if share:
                takes.append(part._replace(amount_pico=share))
                free[lot] = part._replace(amount_pico=part.amount_pico - share)
                missing -= share
        charge = amount - missing if shape in {"covered", "twice"} else amount
        quarantined = shape == "quarantined"
        return Settlement(
            *(
                self.fresh(32),
                user,
                wallet,
                "key",
                "model",
                "chat",
                1,
                "1",
                "exact",
                (),
                {"output": 3},
                {},
                5,
                "",
            ),
            *(0 if quarantined else charge, tuple(takes), "unpriced" if quarantined else "", "ok", 200),
            *("main", "model", "", False, NOW, NOW, NOW),
        )


TestHistories = Histories.TestCase
TestHistories.settings = settings(stateful_step_count=20)


def test_histories_on_mongodb(mongodb_url: str, mongodb_database: Any) -> None:
    class OnMongoDB(Histories):
        def new_store(self) -> Store:
            mongodb.empty(mongodb_database)
            return MongoStore(mongodb_url, log_ttl_days=LOG_TTL_DAYS)

    few = settings(max_examples=ON_MONGODB, stateful_step_count=12)
    run_state_machine_as_test(OnMongoDB, settings=few)
