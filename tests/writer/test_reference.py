"""Random histories through writer and store equal a reference ledger of fifty lines (L26, M1, M2, M4).

The reference knows what is leased of a user's lot and what is free; it follows the same history in plain
sums. The writer is interrupted, its batches are cut at random, and records come twice.
"""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.base.records import LotAmount
from farebox.writer.apply import JournalApplier
from farebox.writer.dead_letter import DeadLetters

USERS = ("alice", "bob", "carol")
LEASED, FREE = 60, 40
"""Each user has one lot of 100 pico; this much of it is leased to the journal, the rest is free."""


class Reference:
    """What must come out: the charge in full, taken from what is leased and free, the rest written off."""

    def __init__(self) -> None:
        self.leased = dict.fromkeys(USERS, LEASED)
        self.free = dict.fromkeys(USERS, FREE)
        self.reserved = dict.fromkeys(USERS, 0)
        self.written_off = dict.fromkeys(USERS, 0)
        self.spent = dict.fromkeys(USERS, 0)

    def settle(self, user: str, amount: int, taken: int) -> None:
        """A charge of which the record says that `taken` comes from the lease."""
        self.spent[user] += amount
        on_time = taken == amount and taken <= self.leased[user]
        own = amount if on_time else min(taken, self.leased[user])
        others = 0 if on_time else min(amount - own, self.free[user])
        own += 0 if on_time else min(amount - own - others, self.leased[user] - own)
        self.leased[user] -= own
        self.free[user] -= others
        self.written_off[user] += amount - own - others

    def quarantine(self, user: str, held: int) -> None:
        """A hold set aside until an operator decides."""
        own = min(held, self.leased[user])
        others = min(held - own, self.free[user])
        self.leased[user] -= own
        self.free[user] -= others
        self.reserved[user] += own + others

    def balance(self, user: str) -> int:
        return self.leased[user] + self.free[user] + self.reserved[user]


charges = st.tuples(
    st.just("settle"), st.sampled_from(USERS), st.integers(0, 50), st.sampled_from(["all", "none", "half"])
)
quarantines = st.tuples(st.just("quarantine"), st.sampled_from(USERS), st.integers(1, 50), st.just(""))
repeats = st.tuples(st.just("repeat"), st.just(""), st.integers(0, 30), st.just(""))
histories = st.lists(st.one_of(charges, charges, quarantines, repeats), max_size=40)


def played(world: Any, history: list[Any]) -> tuple[list[Any], Reference]:
    """The records of a history, and the reference after it."""
    reference, records = Reference(), []
    for kind, user, number, how in history:
        if kind == "repeat":
            records += records[number : number + 1]
            continue
        lot = world.lots[user][0]
        if kind == "quarantine":
            takes = (lot._replace(amount_pico=number),)
            records.append(world.settlement(user, 0, takes=takes, quarantine="no price"))
            reference.quarantine(user, number)
            continue
        taken = {"all": number, "none": 0, "half": number // 2}[how]
        takes = (LotAmount(lot.lot, lot.pool, taken),) if taken else ()
        records.append(world.settlement(user, number, takes=takes))
        reference.settle(user, number, taken)
    return records, reference


async def run(
    make: Callable[[Path], Any], in_memory: Any, history: list[Any], batch: int, interrupted: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = make(Path(folder) / "store.db")
        await world.store.open()
        await world.store.claim_epoch(world.J, 1, "host", world.NOW)
        for user in USERS:
            await world.user_with(user, LEASED + FREE, LEASED)
        records, reference = played(world, history)
        for steps in [*interrupted, 100]:
            state = await world.state()
            source = in_memory(records, after=state.applied, batch=batch)
            letters = DeadLetters(Path(folder) / "letters")
            applier = JournalApplier(world.J, world.store, source, letters, lambda _journal, _user: None)
            for _ in range(steps):
                await applier.step(await world.state(), world.NOW)
        assert (await world.state()).applied == max([0, *[frame.pos for frame in in_memory(records).frames]])
        for user in USERS:
            account = await world.store.account(user)
            assert account.balances["credits"] == reference.balance(user)
            assert account.written_off_pico == reference.written_off[user]
            assert sum(account.leases[world.J].lots.values()) == reference.leased[user]
            assert sum(sum(lots.values()) for lots in account.reserved.values()) == reference.reserved[user]
            rows = await world.store.transactions(user, 1000)
            assert -sum(row.amount_pico for row in rows if row.type == "spent") == reference.spent[user]
        assert await world.differences() == []
        await world.store.close()


@pytest.mark.fuzz
@given(history=histories, batch=st.integers(1, 8), interrupted=st.lists(st.integers(0, 3), max_size=3))
def test_L26_random_histories_equal_the_reference_ledger(
    make_world: Any, in_memory: Any, history: list[Any], batch: int, interrupted: list[int]
) -> None:
    asyncio.run(run(make_world, in_memory, history, batch, interrupted))
