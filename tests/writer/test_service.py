"""From journal to store through the writer process's own loop: booked, told, tidied, and stopped clean
(J11-J14).
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from farebox.base import frames, limits
from farebox.base.errors import (
    InvariantBrokenError,
    JournalError,
    StoreConflictError,
    StoreDownError,
    StoreUnknownError,
)
from farebox.base.records import LotAmount, Transaction, Void
from farebox.journal import Reader, prices_payload
from farebox.journal.frames import Frame
from farebox.meter import to_plain
from farebox.meter.price_book import new_price_book
from farebox.store.base import SESSION_STATUSES, Event, EventResult, Record, RecordChange
from farebox.store.remote import RemoteStore
from farebox.writer.adopt import adopt
from farebox.writer.journals import JournalSource
from farebox.writer.service import Writer
from farebox.writer.sweep import Claims, sweep_expired_lots
from farebox.writer.verify import verify

USD = 10**12


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "journals"


async def until(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    """Wait for something another task does; the test's own timeout is the bound."""
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        await asyncio.sleep(0.005)


async def written(journal: Any) -> None:
    """Until everything appended is in the file."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_M4_whole_path_journal_to_store(world: Any, root: Path) -> None:
    await world.user("alice", 10)
    journal = await world.journal(root)
    await world.lease("alice", 8, journal=journal.id)
    for _ in range(20):
        world.put(journal, world.settlement("alice", USD // 10))
    journal.append(frames.VOID, Void("e" * 32, "alice", "refused").encode())
    await written(journal)
    writer = Writer(world.store, root)
    await writer.drain()
    account = await world.store.account("alice")
    assert account.balances["credits"] == 8 * USD
    assert len(world.dump()["request_logs"]) == 20
    assert writer.status()["booked"] == 20
    report = await verify(world.store, root)
    assert report.differences == []
    assert (report.records, report.pending) == (20, {})
    writer.close()
    journal.close()


async def test_hole_58_a_journal_that_cannot_be_read_stops_no_other(world: Any, root: Path) -> None:
    await world.user("alice", 10)
    good, bad = await world.journal(root), await world.journal(root)
    await world.lease("alice", 8, journal=good.id)
    world.put(good, world.settlement("alice", USD))
    await written(good)
    segment = next(bad.directory.glob("*.segment"))
    header = bytearray(segment.read_bytes())
    header[7] = 99
    segment.write_bytes(_with_crc(header))
    writer = Writer(world.store, root)
    await writer.drain()
    assert (await world.store.account("alice")).balances["credits"] == 9 * USD
    assert "version 99" in str(writer.status()["damaged"][bad.id])  # type: ignore[index]
    writer.close()
    good.close()
    bad.close()


def _with_crc(header: bytearray) -> bytes:
    from zlib import crc32

    return bytes(header[:-4]) + crc32(bytes(header[:-4])).to_bytes(4, "little")


async def test_workers_are_told_what_is_applied_changed_and_stale(
    world: Any, root: Path, tmp_path: Path
) -> None:
    await world.user("alice", 1)
    journal = await world.journal(root)
    heard: list[Any] = []
    writer = Writer(world.store, root, tmp_path / "writer.sock")
    running = asyncio.create_task(writer.run())
    remote = RemoteStore(tmp_path / "writer.sock", heard.append)
    await remote.open()
    await until(lambda: {"connected": []} in heard)
    assert (await remote.account("alice")).balances["credits"] == USD
    assert writer.workers == 1
    world.put(journal, world.settlement("alice", 3 * USD))
    await until(lambda: {"applied": [journal.id, journal.last_pos]} in heard)
    assert {"fence": [journal.id, "alice"]} in heard
    await world.store.append_change("key", "digest", "")
    await until(lambda: any(m.get("change", [0, ""])[1:3] == ["key", "digest"] for m in heard))
    await remote.close()
    await until(lambda: writer.workers == 0)
    writer.stop()
    await running
    journal.close()
    assert not (tmp_path / "writer.sock").exists()


async def test_a_clean_stop_books_what_the_journals_hold(world: Any, root: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "apply_interval_s", 30.0)
    await world.user("alice", 10)
    journal = await world.journal(root)
    await world.lease("alice", 8, journal=journal.id)
    writer = Writer(world.store, root)
    running = asyncio.create_task(writer.run())
    await until(lambda: journal.id in writer.status()["journals"])
    world.put(journal, world.settlement("alice", USD))
    await written(journal)
    writer.stop()
    await running
    assert (await world.store.account("alice")).balances["credits"] == 9 * USD
    journal.close()


async def test_a_backlog_is_booked_batch_after_batch_without_a_pause(
    world: Any, root: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(limits, "apply_interval_s", 3600.0)
    monkeypatch.setattr(limits, "batch_bytes", 1024)
    await world.user("alice", 10)
    journal = await world.journal(root)
    await world.lease("alice", 8, journal=journal.id)
    for _ in range(10):
        world.put(journal, world.settlement("alice", USD // 10))
        await written(journal)
    writer = Writer(world.store, root)
    running = asyncio.create_task(writer.run())

    async def is_applied() -> bool:
        return (await world.state(journal.id)).applied == journal.last_pos

    await until(is_applied)
    writer.stop()
    await running
    assert (await world.store.account("alice")).balances["credits"] == 9 * USD
    journal.close()


async def test_S17_a_journal_the_store_has_forgotten_is_not_booked_a_second_time(
    world: Any, root: Path
) -> None:
    await world.user("alice", 10)
    journal = await world.journal(root)
    await world.lease("alice", 8, journal=journal.id)
    world.put(journal, world.settlement("alice", USD))
    await written(journal)
    writer = Writer(world.store, root)
    await writer.drain()
    with sqlite3.connect(world.path) as connection:
        connection.execute("DELETE FROM journals")
    connection.close()
    world.put(journal, world.settlement("alice", USD))
    await written(journal)
    await writer.drain()
    writer.close()
    assert (await world.store.account("alice")).balances["credits"] == 9 * USD
    journal.close()


async def test_S02_a_store_that_is_down_is_tried_again_for_ever(
    world: Any, root: Path, faulty: Any, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "apply_interval_s", 0.001)
    monkeypatch.setattr(limits, "store_retry_max_s", 0.002)
    monkeypatch.setattr(limits, "changes_poll_interval_s", 0.001)
    await world.user("alice", 10)
    journal = await world.journal(root)
    await world.lease("alice", 8, journal=journal.id)
    world.put(journal, world.settlement("alice", USD))
    store = faulty(world.store)
    for number in range(5):
        store.fail("journal_states", number, "before", StoreDownError("no server"))
        store.fail("book", number, "before", StoreDownError("no server"))
        store.fail("changes_after", number, "before", StoreDownError("no server"))
    store.fail("log", 0, "before", StoreConflictError("busy"))
    store.fail("advance_applied", 0, "after", StoreUnknownError("no answer"))
    writer = Writer(store, root)
    running = asyncio.create_task(writer.run())
    await until(lambda: "no server" in str(writer.status()["store_error"]))

    async def is_applied() -> bool:
        return (await world.state(journal.id)).applied == journal.last_pos

    await until(is_applied)
    await until(lambda: writer.status()["store_error"] == "")
    writer.stop()
    await running
    assert (await world.store.account("alice")).balances["credits"] == 9 * USD
    assert len(world.dump()["request_logs"]) == 1
    assert "the store is back" in caplog.text or "trying again" in caplog.text
    journal.close()


async def test_segments_that_are_applied_go(world: Any, root: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "segment_bytes_max", 4096)
    await world.user("alice", 10)
    journal = await world.journal(root)
    await world.lease("alice", 8, journal=journal.id)
    for _ in range(40):
        world.put(journal, world.settlement("alice", USD // 100))
        await written(journal)
    segments = len(list(journal.directory.glob("*.segment")))
    writer = Writer(world.store, root)
    await writer.drain()
    await writer.drain()
    assert segments > 5
    assert len(list(journal.directory.glob("*.segment"))) <= 2
    assert (await verify(world.store, root)).differences == []
    writer.close()
    journal.close()


async def test_a_directory_that_has_gone_is_let_go(world: Any, root: Path) -> None:
    journal = await world.journal(root)
    writer = Writer(world.store, root)
    await writer.drain()
    assert journal.id in writer.status()["journals"]
    journal.directory.rename(root / "away")
    await writer.drain()
    assert writer.status()["journals"] == {}
    journal.close()


async def test_a_directory_that_goes_while_it_is_read_is_no_damage(
    world: Any, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = await world.journal(root)
    writer = Writer(world.store, root)
    await writer.drain()
    source = writer._journals[journal.id].source

    async def gone() -> Any:
        journal.directory.rename(root / "away")
        raise JournalError("no such file")

    source.read_synced = gone  # type: ignore[method-assign]
    await world.user("alice", 1)
    world.put(journal, world.settlement("alice", 1))
    await asyncio.sleep(0)
    await writer.drain()
    assert (writer.status()["journals"], writer.status()["damaged"]) == ({}, {})
    assert caplog.text == ""
    journal.close()


async def test_hole_17_expired_lots_are_swept_once_and_only_what_nobody_leases(world: Any) -> None:
    later = world.NOW + 1000
    await world.user("alice", 10, expires_at_ms=later)
    await world.user("bob", 10)
    await world.lease("alice", 4)
    assert await sweep_expired_lots(world.store, world.NOW) == 0
    assert await sweep_expired_lots(world.store, later) == 1
    assert (await world.store.account("alice")).balances["credits"] == 4 * USD
    assert await sweep_expired_lots(world.store, later) == 0
    assert (await world.store.account("bob")).balances["credits"] == 10 * USD
    assert await world.differences() == []


async def test_request_logs_go_after_their_ttl(world: Any, monkeypatch: Any) -> None:
    from farebox.writer.sweep import expire_request_logs

    monkeypatch.setattr(limits, "records_per_batch_max", 2)
    await world.store.log([world.settlement("alice", 0) for _ in range(5)], {})
    day_ms = 86_400_000
    assert await expire_request_logs(world.store, world.NOW + 29 * day_ms) == 0
    assert await expire_request_logs(world.store, world.NOW + 31 * day_ms) == 5


async def test_sessions_go_when_their_time_is_over_in_bounded_steps(world: Any, monkeypatch: Any) -> None:
    from farebox.writer.sweep import expire_sessions

    monkeypatch.setattr(limits, "records_page_max", 2)
    for number in range(7):
        status = SESSION_STATUSES[number % 2]
        record = Record("session", f"s{number}", 1, {}, status=status, due_ms=world.NOW + number // 5)
        event = Event((), records=(RecordChange.insert(record),))
        assert await world.store.apply_event(event, world.NOW) is EventResult.DONE
    assert await expire_sessions(world.store, world.NOW - 1) == 0
    assert await expire_sessions(world.store, world.NOW) == 5
    assert await expire_sessions(world.store, world.NOW + 1) == 2


async def test_hole_17_an_account_that_changed_since_it_was_read_waits_for_the_next_sweep(world: Any) -> None:
    later = world.NOW + 1000
    await world.user("alice", 10, expires_at_ms=later)
    stale = await world.store.account("alice")
    await world.lease("alice", 4)

    class Stale:
        apply_event = world.store.apply_event

        async def accounts(self) -> Any:
            yield stale

    assert await sweep_expired_lots(Stale(), later) == 0  # type: ignore[arg-type]
    assert (await world.store.account("alice")).balances["credits"] == 10 * USD


async def test_hole_51_a_claim_whose_collector_died_is_collected_by_every_writer(
    world: Any, root: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(limits, "claims_interval_s", 0.02)
    await world.user("alice", 0)
    refund = Transaction("alice", "refund", "r1", "credits", -3 * USD, (), "dispute", world.NOW)
    assert await world.store.apply_event(Event((refund,), claims=True), world.NOW) is EventResult.DONE
    writer = Writer(world.store, root, wall_ms=lambda: world.NOW)
    running = asyncio.create_task(writer.run())
    lot = LotAmount("9" * 24, "credits", 10 * USD)
    bought = Transaction("alice", "earned_purchase", "p1", "credits", 10 * USD, (lot,), "test", world.NOW)
    assert await world.store.apply_event(Event((bought,)), world.NOW) is EventResult.DONE
    while await world.store.claims(1):
        await asyncio.sleep(0.02)
    assert (await world.store.account("alice")).balances["credits"] == 7 * USD
    writer.stop()
    await running


async def test_hole_51_claims_that_stand_for_long_keep_nobody_from_his_turn(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "claims_per_round_max", 2)
    for user in ("alice", "bob", "carol"):
        await world.user(user, 0)
        for number in range(2):
            refund = Transaction(user, "refund", f"r{number}", "credits", -USD, (), "dispute", world.NOW)
            assert await world.store.apply_event(Event((refund,), claims=True), world.NOW) is EventResult.DONE
    await credited(world, "carol", 2)
    claims = Claims(world.store)
    assert [await claims.collect_some(world.NOW) for _ in range(3)] == [0, 0, 2]
    await credited(world, "alice", 2)
    assert [await claims.collect_some(world.NOW) for _ in range(4)] == [0, 2, 0, 0]
    assert await world.differences() == []


async def test_hole_51_a_claim_at_which_something_is_wrong_keeps_nobody_from_his_turn(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for user in ("alice", "bob"):
        await world.user(user, 0)
        refund = Transaction(user, "refund", "r1", "credits", -USD, (), "dispute", world.NOW)
        assert await world.store.apply_event(Event((refund,), claims=True), world.NOW) is EventResult.DONE
    await credited(world, "bob", 1)

    class Broken:
        claims = world.store.claims

        async def collect(self, user: str, reference: str, now_ms: int) -> int | None:
            if user == "alice":
                raise InvariantBrokenError("her rows do not add up")
            found: int | None = await world.store.collect(user, reference, now_ms)
            return found

    assert await Claims(Broken()).collect_some(world.NOW) == 1  # type: ignore[arg-type]
    assert "alice: claim r1 cannot be collected" in caplog.text


async def credited(world: Any, user: str, usd: int) -> None:
    lot = LotAmount(world.fresh(24), "credits", usd * USD)
    row = Transaction(user, "earned_purchase", lot.lot, "credits", lot.amount_pico, (lot,), "test", 1)
    assert await world.store.apply_event(Event((row,)), world.NOW) is EventResult.DONE


async def test_what_must_not_be_beside_the_bookings_stops_none_of_them(
    world: Any, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> int:
        raise InvariantBrokenError("two rows contradict each other")

    monkeypatch.setattr("farebox.writer.service.sweep_expired_lots", broken)
    await world.user("alice", 10)
    journal = await world.journal(root)
    await world.lease("alice", 8, journal=journal.id)
    writer = Writer(world.store, root)
    running = asyncio.create_task(writer.run())
    await until(lambda: "what must not be" in caplog.text)
    world.put(journal, world.settlement("alice", USD))
    await until(lambda: writer.status()["booked"] == 1)
    writer.stop()
    await running
    journal.close()


async def test_hole_18_a_lot_another_host_swept_by_a_clock_behind_ours_is_no_contradiction(
    world: Any,
) -> None:
    """It took one of two lots; the account as we read it has both."""
    soon, later = world.NOW + 1000, world.NOW + 2000
    await world.user("alice", 10, expires_at_ms=soon)
    lot = LotAmount(world.fresh(24), "credits", 5 * USD)
    row = Transaction("alice", "earned_purchase", lot.lot, "credits", lot.amount_pico, (lot,), "test", 1)
    assert await world.store.apply_event(Event((row,), later), world.NOW) is EventResult.DONE
    both = await world.store.account("alice")
    assert await sweep_expired_lots(world.store, soon) == 1

    class Behind:
        apply_event = world.store.apply_event

        async def accounts(self) -> Any:
            yield both

    assert await sweep_expired_lots(Behind(), later) == 0  # type: ignore[arg-type]
    assert await sweep_expired_lots(world.store, later) == 1
    assert (await world.store.account("alice")).balances["credits"] == 0
    assert await world.differences() == []


async def test_hole_16_a_claim_goes_on_until_what_it_asks_for_is_there(world: Any) -> None:
    claims = Claims(world.store)
    await world.user("alice", 1)
    refund = Transaction("alice", "refund", "r1", "credits", -3 * USD, (), "dispute", world.NOW)
    assert await world.store.apply_event(Event((refund,), claims=True), world.NOW) is EventResult.DONE
    for bought_usd, ended in ((1, 0), (5, 1)):
        lot = LotAmount(world.fresh(24), "credits", bought_usd * USD)
        row = Transaction("alice", "earned_purchase", lot.lot, "credits", lot.amount_pico, (lot,), "test", 1)
        assert await world.store.apply_event(Event((row,)), world.NOW) is EventResult.DONE
        assert await claims.collect_some(world.NOW) == ended
    assert await claims.collect_some(world.NOW) == 0
    assert (await world.store.account("alice")).balances["credits"] == 4 * USD
    assert await world.differences() == []


async def test_what_comes_before_damage_is_booked_before_the_damage_is_told(
    world: Any, root: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(limits, "segment_bytes_max", 2048)
    await world.user("alice", 10)
    journal = await world.journal(root)
    await world.lease("alice", 8, journal=journal.id)
    for _ in range(10):
        world.put(journal, world.settlement("alice", USD // 10))
        await written(journal)
    journal.close()
    segments = sorted(journal.directory.glob("*.segment"))
    data = bytearray(segments[2].read_bytes())
    data[7] = 99
    segments[2].write_bytes(_with_crc(data[:44]) + bytes(data[44:]))
    told: list[Any] = []
    writer = Writer(world.store, root, on_push=told.append)
    await writer.drain()
    await writer.drain()
    spent = 10 * USD - (await world.store.account("alice")).balances["credits"]
    assert spent >= 2 * USD // 10
    assert "version 99" in str(writer.status()["damaged"])
    assert told[0]["applied"][0] == journal.id
    writer.close()


async def test_M10_batches_give_every_settlement_once_and_how_far_they_are(
    world: Any, root: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(limits, "batch_bytes", 1500)
    journal = await world.journal(root)
    for _ in range(10):
        world.put(journal, world.settlement("alice", 0))
    await written(journal)
    source = JournalSource(journal.directory, 0)
    positions: list[int] = []
    settled: list[int] = []
    has_more = True
    while has_more:
        read, has_more = await source.read_synced()
        positions += [frame.pos for frame in read]
        settled += [frame.pos for frame in read if frame.kind == frames.SETTLE]
    assert positions == sorted(set(positions))
    assert (len(settled), positions[-1]) == (10, journal.last_pos)
    source.close()
    journal.close()


async def test_a_record_over_the_rest_of_a_torn_one_is_seen_although_the_file_is_no_longer(
    world: Any, root: Path
) -> None:
    journal = await world.journal(root)
    world.put(journal, world.settlement("alice", 0))
    await written(journal)
    segment = next(journal.directory.glob("*.segment"))
    size = segment.stat().st_size
    with segment.open("r+b") as file:
        file.seek(size)
        file.write(bytes(5_000))
    source = JournalSource(journal.directory, 0)
    while (await source.read_synced())[0]:
        pass
    assert source.is_quiet()
    world.put(journal, world.settlement("alice", 0))
    await written(journal)
    assert segment.stat().st_size == size + 5_000
    assert not source.is_quiet()
    assert [frame.kind for frame in (await source.read_synced())[0]][-1] == frames.SETTLE
    source.close()
    journal.close()


async def test_a_batch_ends_where_the_journal_did_although_its_worker_writes_on(
    world: Any, root: Path, monkeypatch: Any
) -> None:
    journal = await world.journal(root)
    loop, reads, read = asyncio.get_running_loop(), 0, Reader.read

    async def settle_one() -> None:
        world.put(journal, world.settlement("alice", 0))
        await written(journal)

    def read_beside_a_busy_worker(self: Reader, *arguments: Any) -> list[Frame]:
        nonlocal reads
        reads += 1
        found = read(self, *arguments)
        asyncio.run_coroutine_threadsafe(settle_one(), loop).result()
        return found

    monkeypatch.setattr(Reader, "read", read_beside_a_busy_worker)
    await settle_one()
    await settle_one()
    source = JournalSource(journal.directory, 0)
    for settled in (2, 1, 1):
        batch, has_more = await source.read_synced()
        assert [frame.kind for frame in batch].count(frames.SETTLE) == settled
        assert not has_more
    assert reads == 3
    source.close()
    journal.close()


async def test_a_journal_no_worker_takes_is_retired_and_one_that_is_held_is_left(
    world: Any, root: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "tidy_interval_s", 0.05)
    await world.user("alice", 10)
    held, orphan, damaged = [await world.journal(root) for _ in range(3)]
    await world.lease("alice", 8, journal=orphan.id)
    world.put(orphan, world.settlement("alice", USD))
    await written(orphan)
    orphan.close()
    damaged.close()
    segment = next(damaged.directory.glob("*.segment"))
    data = bytearray(segment.read_bytes())
    data[7] = 99
    segment.write_bytes(_with_crc(data[:44]) + bytes(data[44:]))
    writer = Writer(world.store, root, wall_ms=lambda: world.NOW)
    running = asyncio.create_task(writer.run())
    await until(lambda: orphan.id not in writer.status()["journals"] and not orphan.directory.exists())
    await until(lambda: f"journal {damaged.id}, which no worker took" in caplog.text)
    writer.stop()
    await running
    account = await world.store.account("alice")
    assert account.balances["credits"] == 9 * USD
    assert account.leases == {}
    assert held.directory.exists()
    held.close()


async def test_a_journal_that_is_not_applied_in_time_is_retired_another_time(
    world: Any, root: Path, monkeypatch: Any
) -> None:
    await world.user("alice", 10)
    orphan = await world.journal(root)
    world.put(orphan, world.settlement("alice", USD))
    await written(orphan)
    orphan.close()
    writer = Writer(world.store, root, wall_ms=lambda: world.NOW)
    monkeypatch.setattr(limits, "adopt_wait_s", 0.0)
    await writer._adopt_orphans()
    assert orphan.directory.exists()
    assert (await world.state(orphan.id)).state == "live"
    await writer.drain()
    monkeypatch.setattr(limits, "adopt_wait_s", 60.0)
    await writer._adopt_orphans()
    writer.close()
    assert not orphan.directory.exists()
    assert (await world.state(orphan.id)).state == "retired"


async def test_hole_12_the_writer_ends_no_exchange_only_its_journals_owner_does(
    world: Any, root: Path
) -> None:
    await world.user("alice", 10)
    journal = await world.journal(root)
    await world.lease("alice", 8, journal=journal.id)
    cut_off = world.settlement("alice", USD)
    book = new_price_book({"model-1": {"lines": {"input": "3"}, "multiplier": "1"}}, 1, 0)
    journal.append(frames.PRICES, prices_payload(1, orjson.dumps(to_plain(book))))
    journal.append(frames.OPEN_SENT, world.opened(cut_off, USD).encode())
    await written(journal)
    journal.close()
    writer = Writer(world.store, root, wall_ms=lambda: world.NOW)
    await writer.drain()
    assert await world.store.row_ids([("alice", cut_off.exchange)]) == set()
    running = asyncio.create_task(writer.run())
    assert await adopt(journal.directory, world.store, "host", wall_ms=lambda: world.NOW)
    writer.stop()
    await running
    assert await world.store.row_ids([("alice", cut_off.exchange)]) == {cut_off.exchange}
    rows = [row for row in await world.store.transactions("alice", 9) if row.type == "spent"]
    assert [row.reference for row in rows] == [cut_off.exchange]


async def test_changes_that_the_feed_has_lost_make_workers_read_everything_anew(
    world: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "changes_kept_max", 3)
    told: list[Any] = []
    writer = Writer(world.store, root, on_push=told.append)
    await world.store.append_change("user", "before")
    await writer._skip_old_changes()
    for number in range(3):
        await world.store.append_change("user", f"in time {number}")
    await writer._tell_changes()
    assert [message["change"][2] for message in told] == ["in time 0", "in time 1", "in time 2"]
    told.clear()
    for number in range(5):
        await world.store.append_change("user", f"late {number}")
    await writer._tell_changes()
    assert told[0] == {"connected": []}
    assert [message["change"][2] for message in told[1:]] == ["late 2", "late 3", "late 4"]
