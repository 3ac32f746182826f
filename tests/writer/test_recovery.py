"""A journal left by a dead process is made whole again, the same however often that is cut short (J05-J08,
J17, S17).
"""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import orjson
import pytest

from farebox.base import frames, limits
from farebox.base.errors import (
    JournalError,
    StoreConflictError,
    StoreDownError,
    StoreRefusedError,
    StoreUnknownError,
)
from farebox.base.ids import position
from farebox.base.records import Fenced, LotAmount, Settlement, Void
from farebox.journal import (
    JournalScan,
    open_journal,
    prices_payload,
    progress_payload,
    scan,
)
from farebox.journal.frames import Frame
from farebox.meter import to_plain
from farebox.meter.price_book import model_price, new_price_book
from farebox.store.base import JournalState
from farebox.writer.adopt import RETIRED_SUFFIX, adopt
from farebox.writer.recovery import debits_after, free_parts, next_epoch, recover
from farebox.writer.service import Writer
from farebox.writer.unfinished import Unfinished, close_open_exchanges
from farebox.writer.verify import verify

USD = 10**12
BOOK = new_price_book({"model-1": {"lines": {"input": "3", "output": "15"}, "multiplier": "1.05"}}, 1, 0)
INPUT_1000_PICO = 3_150_000_000
"""1000 input tokens at 3 USD per million, times 1.05."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "journals"


def price_of(version: int, model: str) -> Any:
    return BOOK.models.get(model) if version == 1 else None


# -- the decision --------------------------------------------------------------------------------------------


def ended(
    world: Any, *, sent: bool = True, progress: int | None = None, hold: int = USD, **changes: Any
) -> Any:
    opened = world.opened(world.settlement("alice", 0), hold, **changes)
    return close_open_exchanges([Unfinished(opened, sent, progress)], world.NOW, price_of)[0]


async def test_J05_an_open_that_was_never_sent_is_voided(world: Any) -> None:
    assert isinstance(ended(world, sent=False, progress=None), Void)


async def test_J07_hole_20_sent_without_progress_costs_the_input_and_is_unsure(world: Any) -> None:
    end = ended(world)
    assert (end.amount_pico, end.evidence, end.flags) == (INPUT_1000_PICO, "estimated", ("unsure",))
    assert (end.takes, end.outcome, end.quarantine) == ((), "recovered", "")
    assert end.counts == {"input": 1000}


async def test_J08_progress_is_charged_too(world: Any) -> None:
    end = ended(world, progress=100)
    assert end.amount_pico == INPUT_1000_PICO + 100 * 15_750_000
    assert (end.flags, end.counts) == ((), {"input": 1000, "output": 100})


async def test_J08_never_more_than_the_hold(world: Any) -> None:
    end = ended(world, progress=100, hold=INPUT_1000_PICO)
    assert (end.amount_pico, end.flags) == (INPUT_1000_PICO, ("capped_at_hold",))


async def test_a_fee_per_call_is_part_of_the_estimate(world: Any) -> None:
    opened = world.opened(world.settlement("alice", 0), USD)
    price = model_price({"lines": {"input": "0", "output": "0", "call": "0.5"}})
    end = close_open_exchanges([Unfinished(opened, True, 0)], world.NOW, lambda _version, _model: price)[0]
    assert end.amount_pico == USD // 2  # type: ignore[union-attr]
    assert end.counts == {"input": 1000, "call": 1}  # type: ignore[union-attr]


async def test_hole_31_without_prices_it_is_quarantined_not_free(world: Any) -> None:
    end = ended(world, price_version=7)
    assert (end.amount_pico, end.evidence) == (USD, "estimated")
    assert "version 7" in end.quarantine


async def test_a_kind_without_a_price_is_quarantined(world: Any) -> None:
    opened = world.opened(world.settlement("alice", 0), USD)
    price = model_price({"lines": {"input": "3"}})
    end = close_open_exchanges([Unfinished(opened, True, 5)], world.NOW, lambda _version, _model: price)[0]
    assert end.quarantine == "no price for output"  # type: ignore[union-attr]


async def test_a_charge_beyond_reach_is_quarantined(world: Any) -> None:
    assert ended(world, input_estimate_tokens=2**127 // 10**6).quarantine


# -- the epoch -----------------------------------------------------------------------------------------------


def scanned(last_pos: int, first_pos: int = 0) -> JournalScan:
    return JournalScan(last_pos, last_pos, 0, {}, (), (), {}, None, first_pos)


def stored(epoch: int, applied: int = 0) -> JournalState:
    return JournalState("a" * 16, epoch, applied, applied, "live", "host", 0)


@pytest.mark.parametrize(
    ("intended", "last_pos", "state", "epoch"),
    [
        (0, 0, None, 1),
        (1, 0, None, 1),
        (1, position(1, 9), stored(1), 2),
        (2, position(1, 9), stored(1), 2),
        (2, position(1, 9), stored(2, position(1, 9)), 3),
    ],
)
def test_the_next_epoch_is_one_above_the_store_s(
    intended: int, last_pos: int, state: Any, epoch: int
) -> None:
    assert next_epoch("a" * 16, intended, scanned(last_pos), state) == epoch


@pytest.mark.parametrize(
    ("intended", "last_pos", "state", "words"),
    [
        (1, position(1, 9), stored(2), "old copy or a clone"),
        (2, position(2, 9), stored(2, position(2, 10)), "old copy or a clone"),
        (3, position(2, 9), stored(1), "restored from a backup"),
        (2, position(2, 9), stored(1), "restored from a backup"),
        (2, position(2, 9), None, "restored from a backup"),
    ],
)
def test_hole_02_S17_a_copy_or_a_restored_store_is_refused(
    intended: int, last_pos: int, state: Any, words: str
) -> None:
    with pytest.raises(StoreRefusedError, match=words):
        next_epoch("a" * 16, intended, scanned(last_pos), state)


def test_S17_hole_22_a_store_older_than_the_oldest_record_is_refused() -> None:
    """Its epoch is the right one; but segments went because of what a newer copy of it had applied."""
    found = scanned(position(1, 90), first_pos=position(1, 50))
    assert next_epoch("a" * 16, 1, found, stored(1, position(1, 50))) == 2
    with pytest.raises(StoreRefusedError, match="restored from a backup"):
        next_epoch("a" * 16, 1, found, stored(1, position(1, 49)))


# -- what may be returned ------------------------------------------------------------------------------------


def fenced(booked: frozenset[str] = frozenset(), *, dead: bool = False) -> Fenced:
    lots = ((LotAmount("a", "credits", 10), None), (LotAmount("b", "refCredits", 10), None))
    return Fenced(3, dead, lots, booked)


async def test_hole_13_recorded_debits_are_kept_until_they_are_booked(world: Any) -> None:
    debit = world.settlement("alice", 4, takes=(LotAmount("a", "credits", 4),))
    assert free_parts(fenced(), [debit]) == (LotAmount("a", "credits", 6), LotAmount("b", "refCredits", 10))
    assert free_parts(fenced(frozenset({debit.exchange})), [debit])[0].amount_pico == 10
    assert free_parts(fenced(dead=True), [debit]) == ()


async def test_what_a_debit_has_no_lot_for_is_kept_in_wallet_order(world: Any) -> None:
    debit = world.settlement("alice", 13, takes=(LotAmount("gone", "credits", 1),))
    assert free_parts(fenced(), [debit]) == (LotAmount("b", "refCredits", 8),)
    other = world.settlement("alice", 13, wallet="openhands")
    assert len(free_parts(fenced(), [other])) == 2


# -- the whole -----------------------------------------------------------------------------------------------


async def crashed(world: Any, root: Path, *, usd: int = 5) -> tuple[Any, dict[str, Settlement]]:
    """A journal whose worker died: settled exchanges and open ones of every kind, money leased to it."""
    await world.user("alice", 10)
    await world.user("idle", 10)
    journal = await world.journal(root)
    for user in ("alice", "idle"):
        await world.lease(user, usd, journal=journal.id)
    journal.append(frames.PRICES, prices_payload(1, orjson.dumps(to_plain(BOOK))))
    made = {
        name: world.settlement("alice", USD) for name in ("settled", "opened", "sent", "streamed", "settled2")
    }
    made["settled2"] = dataclasses.replace(made["settled2"], amount_pico=2 * USD)
    for name in ("settled", "settled2"):
        world.put(journal, made[name])
    for name in ("opened", "sent"):
        journal.append(frames.OPEN, world.opened(made[name], USD).encode())
    journal.append(frames.SENT, orjson.dumps([made["sent"].exchange]))
    journal.append(frames.OPEN_SENT, world.opened(made["streamed"], USD).encode())
    journal.append(frames.PROGRESS, progress_payload(made["streamed"].exchange, 100))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    journal.close()
    return journal.directory, made


async def recovered(world: Any, directory: Path, store: Any = None, now_ms: int | None = None) -> Any:
    loop = asyncio.get_running_loop()
    journal = open_journal(directory)
    try:
        result = await recover(
            journal,
            store or world.store,
            now_ms=now_ms or world.NOW,
            host="host",
            schedule=loop.call_soon,
            wake=loop.call_soon_threadsafe,
        )
    finally:
        journal.close()
    return result


async def applied(world: Any, root: Path) -> None:
    writer = Writer(world.store, root)
    await writer.drain()
    writer.close()


async def test_M5_every_exchange_has_one_end_and_free_money_is_returned(world: Any, root: Path) -> None:
    directory, made = await crashed(world, root)
    result = await recovered(world, directory)
    assert result.epoch == 2
    assert [one.exchange for one in result.unapplied] == [
        made[name].exchange for name in ("settled", "settled2", "sent", "streamed")
    ]
    assert (await world.store.account("idle")).leases[directory.name].lots.get(
        world.lots["idle"][0].lot, 0
    ) == 0
    await applied(world, root)
    charged = 3 * USD + INPUT_1000_PICO * 2 + 100 * 15_750_000
    assert (await world.store.account("alice")).balances["credits"] == 10 * USD - charged
    log = await world.store.request_log(made["sent"].exchange)
    assert (log["outcome"], log["evidence"], log["flags"]) == ("recovered", "estimated", ["unsure"])
    report = await verify(world.store, root)
    assert (report.differences, report.pending) == ([], {})
    again = await recovered(world, directory)
    assert (again.epoch, again.unapplied) == (3, [])


async def test_MONEY_8_a_worker_keeps_what_is_leased_to_fence_it_before_use(world: Any, root: Path) -> None:
    directory, _ = await crashed(world, root)
    loop = asyncio.get_running_loop()
    journal = open_journal(directory)
    result = await recover(
        journal,
        world.store,
        now_ms=world.NOW,
        host="host",
        schedule=loop.call_soon,
        wake=loop.call_soon_threadsafe,
        keeps_leases=True,
    )
    journal.close()
    assert sorted(result.leased) == ["alice", "idle"]
    leased = (await world.store.account("idle")).leases[directory.name].lots
    assert leased == {world.lots["idle"][0].lot: 5 * USD}


async def test_J17_cut_short_at_every_store_call_and_begun_anew_the_end_is_the_same(
    new_world: Any, tmp_path: Path, faulty: Any, killed: Any
) -> None:
    async def run(kill_at: tuple[int, str] | None) -> tuple[Any, int]:
        world = await new_world()
        root = tmp_path / f"journals-{kill_at}"
        directory, _ = await crashed(world, root)
        store = faulty(world.store)
        store.kill_at = kill_at
        if kill_at is not None:
            with pytest.raises(BaseException) as raised:  # noqa: PT011 - the killed, or a group of them
                await recovered(world, directory, store, world.NOW + 1)
            assert raised.group_contains(killed) if isinstance(raised.value, BaseExceptionGroup) else True
        store.kill_at = None
        await recovered(world, directory, store, world.NOW + 2)
        await applied(world, root)
        assert (await verify(world.store, root)).differences == []
        dump = world.dump()
        del dump["journals"]
        return dump, len(store.calls)

    expected, calls = await run(None)
    assert calls >= 5
    for index in range(calls):
        for when in ("before", "after"):
            found, _ = await run((index, when))
            assert found == expected, (index, when)


@pytest.mark.parametrize("method", ["journal_states", "price_book", "claim_epoch"])
@pytest.mark.parametrize("error", [StoreDownError, StoreUnknownError])
async def test_a_store_that_is_down_is_told_and_the_same_journal_tried_again(
    world: Any, root: Path, faulty: Any, method: str, error: type[Exception]
) -> None:
    directory, made = await crashed(world, root)
    loop = asyncio.get_running_loop()
    journal = open_journal(directory)
    other = world.opened(world.settlement("alice", 0), USD, price_version=2)
    store = faulty(world.store)
    store.fail(method, 0, "after" if error is StoreUnknownError else "before", error("no answer"))
    arguments = {"host": "host", "schedule": loop.call_soon, "wake": loop.call_soon_threadsafe}
    if method == "price_book":
        journal.scan()
        journal.intend_epoch(2)
        await world.store.claim_epoch(journal.id, 2, "host", world.NOW)
        journal.begin_epoch(2, loop.call_soon, loop.call_soon_threadsafe)
        journal.append(frames.OPEN_SENT, other.encode())
        await asyncio.sleep(0)
        journal.close()
        journal = open_journal(directory)
    with pytest.raises(error):
        await recover(journal, store, now_ms=world.NOW + 1, **arguments)
    result = await recover(journal, store, now_ms=world.NOW + 2, **arguments)
    assert made["sent"].exchange in [one.exchange for one in result.unapplied]
    journal.close()
    if method == "price_book":
        ends = [one for one in scan(directory).finished if isinstance(one, Frame)]
        settled = [Settlement.decode(one.payload) for one in ends if one.kind == frames.SETTLE]
        assert [one.quarantine for one in settled if one.exchange == other.exchange] != [""]


async def test_prices_whose_segment_has_gone_come_from_the_store(world: Any, root: Path) -> None:
    await world.user("alice", 10)
    version = await world.store.put_price_book(to_plain(BOOK), BOOK.content_hash, world.NOW)
    journal = await world.journal(root)
    opened = world.opened(world.settlement("alice", 0), USD, price_version=version)
    journal.append(frames.OPEN_SENT, opened.encode())
    await asyncio.sleep(0)
    journal.close()
    result = await recovered(world, journal.directory)
    assert [one.amount_pico for one in result.unapplied] == [INPUT_1000_PICO]


async def test_money_that_cannot_be_returned_is_no_reason_not_to_serve(
    world: Any, root: Path, faulty: Any, caplog: pytest.LogCaptureFixture
) -> None:
    directory, _ = await crashed(world, root)
    store = faulty(world.store)
    store.fail("fence", 0, "before", StoreConflictError("busy"))
    result = await recovered(world, directory, store)
    assert result.epoch == 2
    assert "not all leases could be returned" in caplog.text
    await applied(world, root)
    assert await world.differences() == []


async def test_a_record_that_cannot_be_read_is_left_to_the_writer(world: Any, root: Path) -> None:
    journal = await world.journal(root)
    journal.append(frames.SETTLE, b'["0123456789"]')
    await asyncio.sleep(0)
    journal.close()
    assert debits_after(open_and_scan(journal.directory), 0) == []


def open_and_scan(directory: Path) -> Any:
    journal = open_journal(directory)
    found = journal.scan().finished
    journal.close()
    return found


async def test_a_journal_that_breaks_while_ends_are_synced_says_so(
    world: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from farebox.journal import Journal

    directory, _ = await crashed(world, root)
    monkeypatch.setattr(Journal, "synced_pos", 0)
    monkeypatch.setattr(Journal, "broken", OSError("disk"))
    with pytest.raises(JournalError, match="cannot be synced: disk"):
        await recovered(world, directory)


async def test_ends_that_cannot_be_written_are_an_error(
    world: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from farebox.journal import Journal

    directory, _ = await crashed(world, root)
    monkeypatch.setattr(Journal, "append", lambda _self, _kind, _payload, then: then(JournalError("disk")))
    with pytest.raises(JournalError, match="disk"):
        await recovered(world, directory)


# -- adoption ------------------------------------------------------------------------------------------------


async def test_a_journal_nobody_takes_is_applied_retired_and_put_away(world: Any, root: Path) -> None:
    directory, _ = await crashed(world, root)
    writer = Writer(world.store, root)
    running = asyncio.create_task(writer.run())
    assert await adopt(directory, world.store, "host", wall_ms=lambda: world.NOW)
    writer.stop()
    await running
    assert (await world.state(directory.name)).state == "retired"
    assert not directory.exists()
    assert directory.with_name(directory.name + RETIRED_SUFFIX).exists()
    account = await world.store.account("alice")
    assert directory.name not in account.leases
    report = await verify(world.store, root)
    assert (report.differences, report.journals) == ([], 0)


@pytest.mark.parametrize("ended", ["lost", "retired"])
async def test_L04_L25_a_directory_that_comes_back_after_its_journal_ended_is_booked_and_retired(
    world: Any, root: Path, ended: str
) -> None:
    directory, made = await crashed(world, root)
    await world.store.end_journal(directory.name, ended)
    writer = Writer(world.store, root)
    running = asyncio.create_task(writer.run())
    assert await adopt(directory, world.store, "host", wall_ms=lambda: world.NOW)
    writer.stop()
    await running
    assert (await world.state(directory.name)).state == "retired"
    settled = [made[name].exchange for name in ("settled", "settled2", "sent", "streamed")]
    assert await world.store.row_ids([("alice", one) for one in settled]) == set(settled)
    report = await verify(world.store, root)
    assert (report.differences, report.journals) == ([], 0)


async def test_a_journal_nobody_applies_is_not_retired(
    world: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "adopt_wait_s", 0.1)
    directory, _ = await crashed(world, root)
    assert not await adopt(directory, world.store, "host", wall_ms=lambda: world.NOW)
    assert (await world.state(directory.name)).state == "live"
    assert directory.exists()
