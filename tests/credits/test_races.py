"""M1, M2, M4 under races: spending, expiry, refund, transfer and renewal at once, against a plain reference.

Each step lets up to three operations run at the same time, some delivered twice, beside a reader that checks
every snapshot it gets. Afterwards the balances must be those of some order in which the reference does, one
by one, what the store said was done.

`make races` plays as many histories as a time has room for.
"""

import asyncio
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st

import needs
from credits.reference import World
from farebox.base.clock import monotonic_s
from farebox.base.records import Account, LotAmount, Transaction
from farebox.config.plans import Plan
from farebox.credits.moves import Move
from farebox.credits.subscriptions import PaidPeriod, grant_period
from farebox.credits.transfers import perform
from farebox.ledger.conservation import differences
from farebox.ledger.settlement import expiry_rows
from farebox.store.base import Booked, Event, EventResult, Store
from store.conftest import FACTORIES, Scene

NOW = 1_760_000_000_000
JOURNALS = ("a" * 16, "b" * 16, "c" * 16)
POOLS = ("credits", "refCredits", "credits_permanent", "credits_monthly")
DONE = EventResult.DONE
WORLDS_MAX = 600
Delivery = Callable[[], Coroutine[Any, Any, bool]]
EXAMPLES = {"sqlite": 30, "mongo": 2}
"""Histories in the suite; a hundred times as many in `make fuzz`."""
THOROUGH = os.environ.get("FAREBOX_HYPOTHESIS") == "thorough"
RACES_S = int(os.environ.get("FAREBOX_RACES_S", "0"))
BATCH = 25
"""Histories of one seed in `make races`."""
LOOKS_AGAIN_S = 0.01


@dataclass(frozen=True)
class Put:
    user: int
    pool: str
    amount: int
    lives: int | None


@dataclass(frozen=True)
class Spend:
    user: int
    wallet: str
    amount: int


@dataclass(frozen=True)
class Transfer:
    user: int
    pool: str
    to: int
    to_pool: str
    amount: int
    rate: str


@dataclass(frozen=True)
class Renew:
    user: int
    subscription: str
    amount: int
    resets: bool


@dataclass(frozen=True)
class Refund:
    user: int
    purchase: int


@dataclass(frozen=True)
class Sweep:
    user: int


users = st.integers(0, 1)
pools = st.sampled_from(POOLS)
amounts = st.integers(1, 60)
operations = st.one_of(
    st.builds(Put, users, pools, amounts, st.sampled_from([None, 3, 20])),
    st.builds(Spend, users, st.sampled_from(["ohmygpt", "subscription"]), st.integers(1, 170)),
    st.builds(Transfer, users, pools, users, pools, amounts, st.sampled_from(["1", "0.5", "2"])).filter(
        lambda move: (move.user, move.pool) != (move.to, move.to_pool)
    ),
    st.builds(Renew, users, st.just("sub:1"), amounts, st.booleans()),
    st.builds(Refund, users, st.integers(0, 20)),
    st.builds(Sweep, users),
)
steps = st.tuples(st.integers(0, 8), st.lists(st.tuples(operations, st.booleans()), min_size=1, max_size=3))


@dataclass
class History:
    """One history on two users of its own."""

    store: Store
    name: str
    worlds: list[World] = field(default_factory=lambda: [World(NOW)])
    """All that the reference may have come to: equal balances may hide lots that end at different times."""
    purchases: list[tuple[str, str]] = field(default_factory=list)
    invoices: dict[str, int] = field(default_factory=dict)
    ops: dict[tuple[str, str], int] = field(default_factory=dict)
    count: int = 0

    @property
    def now(self) -> int:
        return self.worlds[0].now

    def user(self, number: int) -> str:
        return f"{self.name}-{number}"

    def fresh(self) -> str:
        self.count += 1
        return f"{self.name}.{self.count}"

    async def begin(self) -> None:
        for number in range(2):
            await self.store.create_user(self.user(number), "user", "test", NOW)
            self.worlds[0].users[self.user(number)] = []
        for lives in (12, None):
            puts = [self.put(Put(number, pool, 40, lives)) for number in range(2) for pool in POOLS]
            rows = tuple(row for event, _ in puts for row in event.rows)
            assert await self.store.apply_event(Event(rows, puts[0][0].expires_at_ms), NOW) is DONE
            for _, effect in puts:
                effect(self.worlds[0])

    async def step(self, later: int, wanted: list[tuple[Any, bool]]) -> None:
        now = self.now + later
        for world in self.worlds:
            world.tick(now)
        planned = [self.plan(op, twice, slot) for slot, (op, twice) in enumerate(wanted)]
        deliveries = [make() for makes, _ in planned for make in makes]
        over = asyncio.Event()
        reading = asyncio.create_task(self.watch(over))
        said = iter(await asyncio.gather(*deliveries))
        over.set()
        await reading
        effects = []
        for (op, _), (makes, effect) in zip(wanted, planned, strict=True):
            done = [next(said) for _ in makes].count(True)
            assert done <= 1, "M4: one event was booked twice"
            assert done or not isinstance(op, Put | Renew), "what was paid for was not granted"
            effects += [effect] * done
        await self.settle_down()
        await self.check(effects)

    async def watch(self, over: asyncio.Event) -> None:
        """Every snapshot adds up, also in the middle of things."""
        while not over.is_set():
            await self.sound()
            await asyncio.sleep(LOOKS_AGAIN_S)

    async def sound(self) -> list[Account]:
        accounts = []
        for number in range(2):
            found = await self.store.account_with_rows(self.user(number))
            assert found is not None
            assert differences(*found) == []
            accounts.append(found[0])
        return accounts

    async def settle_down(self) -> None:
        """Collect what claims wait for, sweep what has expired."""
        for user, claim in await self.store.claims(100):
            if user.startswith(f"{self.name}-"):
                while await self.store.collect(user, claim.reference, self.now) is not None:
                    raise AssertionError("nothing is leased any more, and a claim stays")
        for number in range(2):
            await self.sweep(self.user(number))

    async def sweep(self, user: str) -> bool:
        account = await self.store.account(user)
        assert account is not None
        rows = expiry_rows(account, self.now)
        if rows:
            await self.store.apply_event(Event(rows, source="expiry"), self.now)
        return False

    async def check(self, effects: list[Callable[[World], bool]]) -> None:
        found = {}
        for account in await self.sound():
            found |= {(account.user, pool): left for pool, left in account.balances.items() if left}
            assert all(lot.leased_pico == 0 for lot in account.lots)
        possible: dict[str, World] = {}
        tried = []
        for world, order in itertools.product(self.worlds, itertools.permutations(effects)):
            after = world.copy()
            if all(effect(after) for effect in order):
                tried.append(after.balances())
                if tried[-1] == found:
                    possible[repr(after)] = after
        assert possible, f"the store has {found}, no order of what it did gives that: {tried}"
        self.worlds = list(possible.values())[:WORLDS_MAX]

    # -- operations: (deliveries, effect on the reference) -----------------------------------------------

    def plan(self, op: Any, twice: bool, slot: int) -> tuple[list[Delivery], Any]:
        note(f"{op} {'twice' if twice else ''}")
        makers = {Put: self.bought, Spend: self.spend, Transfer: self.transfer, Renew: self.renew}
        makers |= {Refund: self.refund, Sweep: self.swept}
        make, effect = makers[type(op)](op, slot)
        return [make, make] if twice and not isinstance(op, Spend) else [make], effect

    def bought(self, op: Put, slot: int) -> Any:
        event, effect = self.put(op)

        async def make() -> bool:
            return await self.store.apply_event(event, self.now) is DONE

        return make, effect

    def put(self, op: Put) -> tuple[Event, Callable[[World], bool]]:
        user, key = self.user(op.user), self.fresh()
        ends = None if op.lives is None else self.now + op.lives
        lot = f"{self.count:024x}"
        self.purchases.append((user, lot))
        part = LotAmount(lot, op.pool, op.amount)
        row = Transaction(user, "earned_purchase", key, op.pool, op.amount, (part,), "test", self.now)
        return Event((row,), ends), lambda world: world.put(user, op.pool, op.amount, ends, lot)

    def spend(self, op: Spend, slot: int) -> Any:
        user, journal = self.user(op.user), JOURNALS[slot]
        scene = Scene(self.store)
        exchange = f"{self.name}{self.fresh()}"

        async def make() -> bool:
            known = self.ops.get((user, journal), 0)
            grant = await self.store.grant(user, op.wallet, journal, 1, known, op.amount, op.amount, self.now)
            if grant.reason:
                return False
            self.ops[user, journal] = grant.op
            takes = tuple(part for part, _ in grant.added)
            record = scene.settlement(user, op.amount, takes, wallet=op.wallet, exchange=exchange)
            return await self.store.book(journal, 1, [record], self.now) == [Booked.BOOKED]

        return make, lambda world: world.spend(user, op.wallet, op.amount)

    def transfer(self, op: Transfer, slot: int) -> Any:
        user, to = self.user(op.user), self.user(op.to)
        amount, rate = 2 * op.amount, Decimal(op.rate)
        move = Move("transfer", self.fresh(), user, op.pool, amount, "test", "root", to, op.to_pool, rate)

        async def make() -> bool:
            return (await perform(self.store, move, self.now, wait_s=0)).result is DONE

        def effect(world: World) -> bool:
            return world.transfer(user, op.pool, to, op.to_pool, amount, Fraction(op.rate))

        return make, effect

    def renew(self, op: Renew, slot: int) -> Any:
        user = self.user(op.user)
        subscription = f"{op.subscription}:{user}"
        number = self.invoices[subscription] = self.invoices.get(subscription, 0) + 1
        plan = Plan("p", "P", Decimal(1), Decimal(1), op.amount, op.resets, ())
        ends = NOW + 10_000 + number
        period = PaidPeriod(subscription, user, plan, f"in{number}.{op.subscription[-1]}", self.now, ends)

        async def make() -> bool:
            return await grant_period(self.store, period, "test", self.now) is DONE

        return make, lambda world: world.renew(user, subscription, op.amount, op.resets, ends)

    def refund(self, op: Refund, slot: int) -> Any:
        """A provider takes a purchase back: what is left of its lot goes."""
        if op.purchase >= len(self.purchases):
            return self.sweep_of(0)
        user, lot = self.purchases[op.purchase]
        key = self.fresh()

        async def make() -> bool:
            account = await self.store.account(user)
            assert account is not None
            found = [one for one in account.lots if one.lot == lot and one.left_pico]
            if not found:
                return False
            pool, left = found[0].pool, found[0].left_pico
            part = LotAmount(lot, pool, -left)
            row = Transaction(user, "refund", key, pool, -left, (part,), "test", self.now)
            return await self.store.apply_event(Event((row,), claims=True), self.now) is DONE

        return make, lambda world: world.refund(user, lot)

    def sweep_of(self, number: int) -> Any:
        return lambda: self.sweep(self.user(number)), None

    def swept(self, op: Sweep, slot: int) -> Any:
        return self.sweep_of(op.user)


class Place:
    """A store of one kind that all histories share, and the loop it lives on."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.kind: str = request.param
        self.loop = asyncio.new_event_loop()
        memory = Path("/dev/shm")
        self.folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.store, _ = FACTORIES[request.param](request, Path(self.folder.name))
        self.histories = 0
        self.loop.run_until_complete(self.open())

    async def open(self) -> None:
        await self.store.open()
        for journal in JOURNALS:
            await self.store.claim_epoch(journal, 1, "host", NOW)

    def play(self, history_steps: list[Any]) -> None:
        self.histories += 1
        self.loop.run_until_complete(self.history(f"h{self.histories}", history_steps))

    async def history(self, name: str, history_steps: list[Any]) -> None:
        history = History(self.store, name)
        await history.begin()
        for later, wanted in history_steps:
            await history.step(later, wanted)

    def close(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.close()
        self.folder.cleanup()


@pytest.fixture(params=sorted(FACTORIES))
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(request)
    yield made
    made.close()


@pytest.mark.fuzz
@pytest.mark.timeout(RACES_S + 900)
def test_M1_M2_M4_races_end_as_some_order_of_their_operations(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = BATCH if RACES_S else EXAMPLES[place.kind] * (100 if THOROUGH else 1)

    @settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(steps, min_size=4, max_size=8))
    def play(history_steps: list[Any]) -> None:
        place.play(history_steps)

    begun_s = monotonic_s()
    for batch in itertools.count(needs.SEED):
        seed(batch)(play)()
        took_s = monotonic_s() - begun_s
        if RACES_S:
            with capsys.disabled():
                sys.stderr.write(
                    f"{place.kind}: {place.histories} histories in {took_s:.0f} s, seed {batch}\n"
                )
        if took_s >= RACES_S:
            break
