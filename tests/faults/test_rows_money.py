"""Rows L05 to L19, S20 and J16 of the fault matrix: settling, crediting and pricing the same thing twice,
late, out of order, at its limits, and with wrong clocks.
"""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.base import frames
from farebox.base.errors import InvariantBrokenError, JournalDamagedError, UsageError
from farebox.base.records import LotAmount, Settlement, Transaction, Void
from farebox.credits.moves import Move
from farebox.credits.transfers import perform
from farebox.journal import scan
from farebox.journal.files import Files
from farebox.journal.segments import HEADER_BYTES, read_epoch, write_epoch
from farebox.ledger.user_lease import Hold, UserLease
from farebox.meter.price_book import charge_of, new_price_book
from farebox.store.base import Booked, Event, EventResult
from farebox.writer.service import Writer
from farebox.writer.verify import verify
from journal.rig import Rig
from writer.conftest import World

USD = 10**12
WALLET = "ohmygpt"
LARGEST_PICO = 2**62


async def booked(world: World, root: Path) -> None:
    writer = Writer(world.store, root)
    await writer.drain()
    writer.close()


async def leased_journal(world: World, root: Path) -> Any:
    """A journal with money of alice."""
    await world.user("alice", 10)
    journal = await world.journal(root)
    await world.lease("alice", 5, journal=journal.id)
    return journal


# -- one end, one booking ------------------------------------------------------------------------------------
async def test_L05_a_settlement_recorded_twice_is_booked_once(world: World, tmp_path: Path) -> None:
    journal = await leased_journal(world, tmp_path / "journals")
    one = world.settlement("alice", USD)
    for _ in range(2):
        world.put(journal, one)
    await asyncio.sleep(0)
    journal.close()
    await booked(world, tmp_path / "journals")
    assert (await world.store.account("alice")).balances["credits"] == 9 * USD
    assert await world.differences() == []
    assert len(await world.store.request_logs("alice", 10)) == 1


ENDS: dict[str, Callable[[UserLease, Hold], object]] = {
    "settled": lambda lease, hold: lease.settle(hold, 3, 0),
    "voided": lambda lease, hold: lease.void(hold),
    "quarantined": lambda lease, hold: lease.reserve(hold, 0),
}


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("second", ENDS)
def test_L06_of_two_ends_of_a_hold_the_first_wins(first: str, second: str) -> None:
    lease = UserLease()
    lease.add([(LotAmount("a", "credits", 10), None)])
    hold = lease.hold(WALLET, 5, 0)
    assert hold is not None
    ENDS[first](lease, hold)
    free_pico = lease.free_pico(WALLET, 0)
    with pytest.raises(InvariantBrokenError, match="M3"):
        ENDS[second](lease, hold)
    assert lease.free_pico(WALLET, 0) == free_pico


async def test_L06_a_void_after_the_settlement_gives_nothing_back(world: World, tmp_path: Path) -> None:
    journal = await leased_journal(world, tmp_path / "journals")
    one = world.settlement("alice", USD)
    world.put(journal, one)
    journal.append(frames.VOID, Void(one.exchange, "alice", "client gone").encode())
    await asyncio.sleep(0)
    journal.close()
    await booked(world, tmp_path / "journals")
    assert (await world.store.account("alice")).balances["credits"] == 9 * USD


async def test_L07_a_charge_that_comes_after_its_lease_ended_is_not_lost(
    world: World, tmp_path: Path
) -> None:
    """The lease was given up, all but a dollar spent elsewhere: the dollar is taken, the rest is named."""
    journal = await leased_journal(world, tmp_path / "journals")
    world.put(journal, world.settlement("alice", 3 * USD))
    await asyncio.sleep(0)
    journal.close()
    await world.store.end_journal(journal.id, "lost")
    correction = Move("correction", "spent", "alice", "credits", -9 * USD, "elsewhere", "test")
    assert (await perform(world.store, correction, world.NOW)).result is EventResult.DONE
    await booked(world, tmp_path / "journals")
    account = await world.store.account("alice")
    assert (account.balances["credits"], account.written_off_pico) == (0, 2 * USD)
    assert await world.differences() == []


async def test_L08_replayed_again_and_by_two_at_once_nothing_changes(world: World, tmp_path: Path) -> None:
    journal = await leased_journal(world, tmp_path / "journals")
    for _ in range(40):
        world.put(journal, world.settlement("alice", USD // 100))
    await asyncio.sleep(0)
    journal.close()
    await asyncio.gather(*(booked(world, tmp_path / "journals") for _ in range(3)))
    expected = world.dump()
    with world.store._writer._connection as connection:
        connection.execute("UPDATE journals SET applied = 0")
    await asyncio.gather(*(booked(world, tmp_path / "journals") for _ in range(2)))
    assert world.dump() == expected
    assert (await world.store.account("alice")).balances["credits"] == 10 * USD - 40 * (USD // 100)
    assert (await verify(world.store, tmp_path / "journals")).differences == []


def test_L09_records_in_another_order_are_damage(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.begin()
    for name in ("e1", "e2", "e3"):
        rig.append(frames.VOID, name)
    rig.turn()
    rig.sync_round()
    rig.append(frames.VOID, "e4")
    rig.turn()
    rig.stop()
    path = rig.segment(1)
    data = path.read_bytes()
    length = (len(data) - HEADER_BYTES) // 4
    first, second = (
        slice(HEADER_BYTES + number * length, HEADER_BYTES + (number + 1) * length) for number in (0, 1)
    )
    path.write_bytes(data[:HEADER_BYTES] + data[second] + data[first] + data[second.stop :])
    with pytest.raises(JournalDamagedError, match=str(path)):
        scan(rig.directory)


# -- limits of amounts ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("amount_pico", [0, 1, LARGEST_PICO - 1, LARGEST_PICO])
async def test_L11_amounts_at_their_limits(world: World, amount_pico: int) -> None:
    lot = LotAmount(world.fresh(24), "credits", LARGEST_PICO)
    await world.store.create_user("alice", "user", "test", world.NOW)
    row = Transaction("alice", "earned_purchase", "p1", "credits", LARGEST_PICO, (lot,), "test", world.NOW)
    assert await world.store.apply_event(Event((row,), None, "test", "test"), world.NOW) is EventResult.DONE
    granted = await world.store.grant(
        "alice", WALLET, world.J, 1, 0, max(1, amount_pico), LARGEST_PICO, world.NOW
    )
    assert granted.reason == ""
    takes = (lot._replace(amount_pico=amount_pico),) if amount_pico else ()
    one = world.settlement("alice", amount_pico, takes=takes)
    assert await world.store.book(world.J, 1, [one], world.NOW) == [Booked.BOOKED]
    assert (await world.store.account("alice")).balances["credits"] == LARGEST_PICO - amount_pico
    assert await world.differences() == []


def test_L11_a_hold_of_nothing_and_of_everything() -> None:
    lease = UserLease()
    lease.add([(LotAmount("a", "credits", LARGEST_PICO), None)])
    everything = lease.hold(WALLET, LARGEST_PICO, 0)
    nothing = lease.hold(WALLET, 0, 0)
    assert everything is not None
    assert nothing is not None
    assert lease.hold(WALLET, 1, 0) is None
    assert lease.settle(nothing, 0, 0).takes == ()
    assert lease.settle(everything, LARGEST_PICO, 0).uncovered_pico == 0


@pytest.mark.parametrize("amount_pico", [0, -1, -USD])
async def test_L12_what_credits_cannot_be_zero_or_less(world: World, amount_pico: int) -> None:
    await world.user("alice", 10)
    await world.user("bob", 10)
    for other in ({"kind": "grant"}, {"kind": "transfer", "to_user": "bob", "to_pool": "credits"}):
        move = Move(
            key="r", user="alice", pool="credits", amount_pico=amount_pico, reason="c", actor="test", **other
        )
        with pytest.raises(UsageError, match="must not be zero or negative"):
            await perform(world.store, move, world.NOW)
    lot = (LotAmount(world.fresh(24), "credits", amount_pico),)
    row = Transaction("alice", "earned_purchase", "p1", "credits", amount_pico, lot, "test", world.NOW)
    if amount_pico < 0:
        with pytest.raises(InvariantBrokenError, match="wrong sign"):
            await world.store.apply_event(Event((row,), None, "test", "test"), world.NOW)
    assert (await world.store.account("alice")).balances["credits"] == 10 * USD


BOOK = new_price_book({"m": {"lines": {"input": "0.0375", "output": "15"}, "multiplier": "1"}}, 1, 0)


@pytest.mark.parametrize("count", [2**63 - 1, 2**63, 2**64, 2**127])
def test_L13_a_charge_beyond_reach_is_an_error_never_a_wrong_number(count: int) -> None:
    try:
        charge_pico = charge_of(BOOK.models["m"], {"output": count}, 0).amount_pico
    except (ValueError, OverflowError):
        return
    assert charge_pico == 15_000_000 * count


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_L14_a_charge_is_rounded_once_by_at_most_half_a_pico(counts: list[int]) -> None:
    model = BOOK.models["m"]
    parts = [charge_of(model, {"input": count}, count).amount_pico for count in counts]
    for part, count in zip(parts, counts, strict=True):
        assert abs(part - Decimal(37_500) * count) <= Decimal("0.5")
    whole = charge_of(model, {"input": sum(counts)}, 0).amount_pico
    assert abs(sum(parts) - whole) <= Decimal("0.5") * (len(counts) + 1)


# -- events --------------------------------------------------------------------------------------------------
async def test_L19_a_purchase_delivered_by_twenty_at_once_is_one_credit(world: World) -> None:
    await world.user("alice", 0)
    grant = Move("grant", "payment-7", "alice", "credits", USD, "bought", "test")
    outcomes = await asyncio.gather(*(perform(world.store, grant, world.NOW) for _ in range(20)))
    assert sorted(outcome.result.value for outcome in outcomes) == ["done"] + ["duplicate"] * 19
    assert (await world.store.account("alice")).balances["credits"] == USD


async def test_S20_clocks_that_are_wrong_by_hours_change_no_amount(world: World, tmp_path: Path) -> None:
    """Order and exactly-once follow from positions: records that claim any time are booked as they stand."""
    journal = await leased_journal(world, tmp_path / "journals")
    hour_ms = 3_600_000
    made: list[Settlement] = [
        world.settlement("alice", USD // 10, started_ms=world.NOW + skew_ms, ended_ms=world.NOW + skew_ms - 5)
        for skew_ms in (0, hour_ms, -hour_ms, 24 * hour_ms, -24 * hour_ms)
    ]
    for one in made:
        world.put(journal, one)
    await asyncio.sleep(0)
    journal.close()
    await booked(world, tmp_path / "journals")
    await booked(world, tmp_path / "journals")
    assert (await world.store.account("alice")).balances["credits"] == 10 * USD - 5 * (USD // 10)
    report = await verify(world.store, tmp_path / "journals")
    assert (report.differences, report.pending) == ([], {})


# -- the one file that is replaced ---------------------------------------------------------------------------
def test_J16_the_noted_epoch_is_the_old_or_the_new_one_never_a_mix(tmp_path: Path) -> None:
    class CrashError(Exception):
        """The power fails at a step of writing the note."""

    class Crashing(Files):
        def __init__(self, step: str) -> None:
            self.step = step

        def fdatasync(self, descriptor: int) -> None:
            if self.step == "sync":
                raise CrashError
            super().fdatasync(descriptor)

        def sync_directory(self, path: Path) -> None:
            if self.step == "directory":
                raise CrashError
            super().sync_directory(path)

    write_epoch(Files(), tmp_path, 41)
    with pytest.raises(CrashError):
        write_epoch(Crashing("sync"), tmp_path, 42)
    assert read_epoch(tmp_path) == 41
    with pytest.raises(CrashError):
        write_epoch(Crashing("directory"), tmp_path, 42)
    assert read_epoch(tmp_path) in {41, 42}
    write_epoch(Files(), tmp_path, 43)
    assert read_epoch(tmp_path) == 43
