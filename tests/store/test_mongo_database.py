"""The database: refused by name when it cannot be used, opened by many at once, read beside the replaced
system's documents; and an answer that was lost never moves money twice.
"""

import asyncio
import math
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from bson import Decimal128, Int64
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import AutoReconnect, OperationFailure
from pymongo.monitoring import CommandListener

import mongodb
from farebox.base import clock, limits
from farebox.base.errors import (
    StoreConflictError,
    StoreDownError,
    StoreRefusedError,
    StoreUnknownError,
)
from farebox.ledger.conservation import differences
from farebox.store import open_store
from farebox.store.base import Booked, Event, EventResult
from farebox.store.mongo import MongoStore, schema
from store.conftest import LOG_TTL_DAYS
from store.outside import OutsideMongoDB


class Commands(CommandListener):
    """What the driver asked the server, by name."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: Any) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: Any) -> None:
        pass

    def failed(self, event: Any) -> None:
        pass


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
async def store(mongodb_url: str, commands: Commands) -> AsyncIterator[MongoStore]:
    opened = MongoStore(mongodb_url, listeners=[commands], log_ttl_days=LOG_TTL_DAYS)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def other_host(mongodb_url: str, store: MongoStore) -> AsyncIterator[MongoStore]:
    opened = MongoStore(mongodb_url, log_ttl_days=LOG_TTL_DAYS)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def outside(mongodb_database: Any) -> OutsideMongoDB:
    return OutsideMongoDB(mongodb_database)


async def opens(url: str) -> None:
    store = MongoStore(url, log_ttl_days=LOG_TTL_DAYS)
    try:
        await store.open()
    finally:
        await store.close()


# -- opening -------------------------------------------------------------------------------------------------
async def test_a_server_without_transactions_is_refused_with_the_command_that_helps(tmp_path):
    server = mongodb.MongoDBServer(tmp_path, "--standalone")
    await asyncio.to_thread(server.start)
    try:
        with pytest.raises(StoreRefusedError, match=r"standalone.*--replSet rs0.*rs\.initiate\(\)"):
            await opens(server.url)
    finally:
        server.kill()


async def test_S01_a_server_that_is_not_there_is_down_within_the_limit(monkeypatch):
    monkeypatch.setattr(limits, "store_select_timeout_s", 0.2)
    with pytest.raises(StoreDownError, match=r"no server answers \(.*\); start the database"):
        await opens(f"mongodb://127.0.0.1:{mongodb.free_port()}/farebox")


@pytest.mark.parametrize(("ahead_s", "said"), [(3600, "3600 s ahead of"), (-3600, "3600 s behind")])
async def test_a_clock_an_hour_off_the_servers_is_refused_with_what_helps(
    mongodb_url, monkeypatch, ahead_s, said
):
    wall_ms = clock.wall_ms
    monkeypatch.setattr(clock, "wall_ms", lambda: wall_ms() + 1000 * ahead_s)
    with pytest.raises(StoreRefusedError, match=rf"this machine's clock is \d+ s {said[7:]}.*timedatectl"):
        await opens(mongodb_url)


async def test_S19_a_newer_schema_is_refused(store, mongodb_url, mongodb_database):
    meta = mongodb_database.farebox_meta
    meta.update_one({"_id": "schema"}, {"$set": {"version": 999}})
    try:
        with pytest.raises(StoreRefusedError, match="newer Farebox"):
            await opens(mongodb_url)
    finally:
        meta.update_one({"_id": "schema"}, {"$set": {"version": schema.VERSION}})


async def test_S19_several_processes_open_an_unmade_database_at_once(mongodb_server, mongodb_database):
    name = f"{mongodb_database.name}_new"
    try:
        await asyncio.gather(*(opens(f"{mongodb_server}/{name}") for _ in range(4)))
        made = mongodb_database.client[name]
        (ttl,) = [index for index in made.request_logs.list_indexes() if "expireAfterSeconds" in index]
        assert ttl["expireAfterSeconds"] == LOG_TTL_DAYS * 86_400
        assert dict(made.api_keys.index_information())
        shorter = MongoStore(f"{mongodb_server}/{name}", log_ttl_days=7)
        await shorter.open()
        await shorter.close()
        seconds = [index.get("expireAfterSeconds") for index in made.request_logs.list_indexes()]
        assert [one for one in seconds if one is not None] == [7 * 86_400]
    finally:
        mongodb_database.client.drop_database(name)


@pytest.mark.parametrize(
    ("makes", "says"), [("create_collection", "usersNew"), ("create_index", "createdAt_ttl")]
)
async def test_a_user_without_the_right_to_make_the_schema_is_told_so(
    mongodb_server, mongodb_database, monkeypatch, makes, says
):
    name = f"{mongodb_database.name}_new"
    kind = AsyncDatabase if makes == "create_collection" else AsyncCollection

    async def forbidden(*arguments: Any, **options: Any) -> Any:
        raise OperationFailure(f"not authorized to make {says}", 13)

    monkeypatch.setattr(kind, makes, forbidden)
    try:
        with pytest.raises(StoreRefusedError, match=rf"make {says}.*check the user, password and rights"):
            await opens(f"{mongodb_server}/{name}")
    finally:
        mongodb_database.client.drop_database(name)


async def test_an_opening_of_a_made_database_asks_and_makes_nothing(store, mongodb_url):
    commands = Commands()
    again = MongoStore(mongodb_url, listeners=[commands], log_ttl_days=LOG_TTL_DAYS)
    await again.open()
    await again.close()
    assert [name for name in commands.names if name != "endSessions"] == ["hello", "find"]


@pytest.mark.parametrize(
    "option", ["w=1", "journal=false", "readPreference=nearest", "readConcernLevel=local"]
)
def test_S07_options_that_lower_durability_are_refused(option):
    with pytest.raises(StoreRefusedError, match=f"take {option.partition('=')[0].lower()} out"):
        open_store(f"mongodb://alice:hunter2@db.example/farebox?{option}")


def test_M11_no_error_holds_the_password():
    for url in ("mongodb://alice:hunter2@db.example/farebox?w=1", "mongodb://alice:hunter2@:::/farebox"):
        with pytest.raises(StoreRefusedError) as error:
            open_store(url)
        assert "hunter2" not in str(error.value)


async def test_a_store_not_open_or_closed_says_so(mongodb_url):
    store = MongoStore(mongodb_url)
    with pytest.raises(StoreDownError, match="not open"):
        await store.account("alice")
    await store.close()
    with pytest.raises(StoreDownError, match="closed"):
        await store.account("alice")
    with pytest.raises(StoreDownError, match="closed"):
        await store.open()


# -- what it costs -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("users", "each"), [(1, 200), (50, 4)])
async def test_a_steady_batch_reads_nothing_and_is_three_operations(scene, commands, users, each, capsys):
    await scene.journal()
    records = []
    for number in range(users):
        user = await scene.user(f"user{number:02d}", usd=1)
        (part,) = await scene.lease(user, scene.USD)
        records += [scene.settlement(user, 5, (part._replace(amount_pico=5),)) for _ in range(each)]
    commands.names.clear()
    assert await scene.store.book(scene.J, 1, records, scene.NOW) == [Booked.BOOKED] * len(records)
    booking = list(commands.names)
    assert await scene.store.finish(scene.J, 1, records, {}, records, 0, 9, 9) == []
    finishing = commands.names[len(booking) :]
    assert booking == ["insert", "update", "commitTransaction"]
    assert finishing == ["insert", "update", "update", "update", "commitTransaction"]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{users} users, {len(records)} exchanges: {len(booking)} + {len(finishing)} operations\n"
        )
    await scene.sound()


async def test_a_batch_with_a_look_costs_no_more_the_more_users_it_has(scene, commands):
    await scene.journal()
    counts = []
    for size in (2, 20):
        users = [await scene.user(f"user{size:02d}{number:02d}", usd=1) for number in range(size)]
        charges = [scene.settlement(user, 5) for user in users]
        commands.names.clear()
        assert await scene.store.book(scene.J, 1, charges, scene.NOW) == [Booked.LATE] * size
        counts.append(len(commands.names))
    assert counts[0] == counts[1]


async def test_a_return_is_one_operation_and_a_grant_three(scene, commands):
    await scene.user("alice", usd=1)
    await scene.journal()
    commands.names.clear()
    (part,) = await scene.lease("alice", 50)
    assert commands.names == ["find", "find", "findAndModify"]
    commands.names.clear()
    assert await scene.store.give_back("alice", scene.J, 1, 1, [part], scene.NOW) == 2
    assert commands.names == ["findAndModify"]


# -- lost answers --------------------------------------------------------------------------------------------
def lose_commit(monkeypatch: pytest.MonkeyPatch, *, happens: bool, may_retry: bool = False) -> None:
    """Let the answer to the next commit be lost: after it happened, or without it."""
    commit = AsyncClientSession.commit_transaction
    lost: list[bool] = []

    async def losing(session: AsyncClientSession) -> None:
        if lost:
            await commit(session)
            return
        lost.append(True)
        await (commit(session) if happens else session.abort_transaction())
        error = AutoReconnect("connection closed")
        if may_retry:
            error._add_error_label("UnknownTransactionCommitResult")
        raise error

    monkeypatch.setattr(AsyncClientSession, "commit_transaction", losing)


async def test_S05_a_commit_whose_answer_is_lost_is_asked_for_again(scene, monkeypatch):
    await scene.user("alice", usd=1)
    with monkeypatch.context() as patch:
        lose_commit(patch, happens=True, may_retry=True)
        assert await scene.store.set_user_active("alice", False, "test", scene.NOW)
    assert not (await scene.store.account("alice")).is_active


@pytest.mark.parametrize("happens", [False, True])
async def test_S05_a_commit_nobody_knows_of_is_unknown_and_its_replay_books_once(scene, monkeypatch, happens):
    await scene.user("alice", usd=1)
    await scene.journal()
    (part,) = await scene.lease("alice", 50)
    charge = scene.settlement("alice", 5, (part._replace(amount_pico=5),))
    with monkeypatch.context() as patch:
        lose_commit(patch, happens=happens)
        with pytest.raises(StoreUnknownError, match="nobody knows"):
            await scene.store.book(scene.J, 1, [charge], scene.NOW)
    known = await scene.store.row_ids([("alice", charge.exchange)])
    assert known == ({charge.exchange} if happens else set())
    assert await scene.book(charge) == [Booked.DUPLICATE if happens else Booked.BOOKED]
    assert await scene.balance("alice") == scene.USD - 5


@pytest.mark.parametrize("happens", [False, True])
async def test_S05_an_event_whose_answer_is_lost_is_asked_again_and_done_once(scene, monkeypatch, happens):
    await scene.user("alice", usd=1)
    debit = Event((scene.row("alice", "adjustment", "credits", -5),))
    with monkeypatch.context() as patch:
        lose_commit(patch, happens=happens)
        assert await scene.store.apply_event(debit, scene.NOW) is EventResult.DONE
    assert await scene.balance("alice") == scene.USD - 5
    await scene.sound()


async def test_S04_a_lease_call_that_lands_twice_moves_money_once(scene, monkeypatch):
    """A server that does not recognise the driver's retry runs it again."""
    await scene.user("alice", usd=1)
    await scene.journal()
    (part,) = await scene.lease("alice", 50)
    once = AsyncCollection.find_one_and_update

    async def twice(collection: Any, *arguments: Any, **options: Any) -> Any:
        await once(collection, *arguments, **options)
        return await once(collection, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(AsyncCollection, "find_one_and_update", twice)
        answer = await scene.store.grant("alice", "ohmygpt", scene.J, 1, 1, 30, 30, scene.NOW)
        assert (answer.reason, answer.added) == ("stale", ())
    assert await scene.leased("alice") == 80
    with monkeypatch.context() as patch:
        patch.setattr(AsyncCollection, "find_one_and_update", twice)
        assert await scene.store.give_back("alice", scene.J, 1, 2, [part], scene.NOW) is None
    assert await scene.leased("alice") == 30
    await scene.sound()


async def test_a_grant_chooses_again_when_another_host_was_quicker(scene, other_host, monkeypatch):
    await scene.user("alice")
    await scene.credit("alice", 100)
    await scene.journal()
    await scene.journal(scene.K)
    once = AsyncCollection.find_one_and_update
    first = [True]

    async def overtaken(collection: Any, *arguments: Any, **options: Any) -> Any:
        if first.pop() if first else False:
            await other_host.grant("alice", "ohmygpt", scene.K, 1, 0, 60, 60, scene.NOW)
        return await once(collection, *arguments, **options)

    monkeypatch.setattr(AsyncCollection, "find_one_and_update", overtaken)
    answer = await scene.store.grant("alice", "ohmygpt", scene.J, 1, 0, 10, 100, scene.NOW)
    assert sum(part.amount_pico for part, _ in answer.added) == 40
    await scene.sound()


async def test_M4_two_hosts_book_the_same_records_once(scene, other_host):
    await scene.user("alice", usd=5)
    await scene.user("bob", usd=5)
    await scene.journal()
    charges = []
    for user in ("alice", "bob"):
        (part,) = await scene.lease(user, scene.USD)
        charges += [scene.settlement(user, 1000, (part._replace(amount_pico=1000),)) for _ in range(10)]

    async def book(host: MongoStore) -> int:
        booked = 0
        for start in range(0, 20, 5):
            while True:
                try:
                    results = await host.book(scene.J, 1, charges[start : start + 5], scene.NOW)
                except StoreConflictError:
                    continue
                booked += results.count(Booked.BOOKED)
                break
        return booked

    assert sum(await asyncio.gather(book(scene.store), book(other_host))) == 20
    assert await scene.balance("alice") == 5 * scene.USD - 10_000
    await scene.sound()


async def test_S06_a_server_that_says_no_is_down_refused_or_in_conflict(scene, monkeypatch):
    await scene.user("alice", usd=1)
    for code, labels, kind in (
        (112, ["TransientTransactionError"], StoreConflictError),
        (13, [], StoreRefusedError),
        (189, [], StoreDownError),
        (14031, [], StoreDownError),
    ):

        async def failing(*_: Any, code: int = code, labels: list[str] = labels, **__: Any) -> Any:
            raise OperationFailure("no", code, {"errorLabels": labels})

        with monkeypatch.context() as patch:
            patch.setattr(AsyncCollection, "update_one", failing)
            patch.setattr(limits, "store_conflict_pause_s", 0.0)
            with pytest.raises(kind):
                await scene.store.set_user_active("alice", False, "test", scene.NOW)
    assert (await scene.store.account("alice")).is_active


# -- changes -------------------------------------------------------------------------------------------------
async def test_a_change_that_commits_late_gets_a_later_number(scene, other_host, mongodb_database):
    await scene.store.append_change("user", "before")
    with mongodb_database.client.start_session() as session, session.start_transaction():
        late = {"number": None, "sequence": 0, "kind": "user", "subject": "late", "journal": ""}
        mongodb_database.changes.insert_one(late, session=session)
        await scene.store.append_change("user", "after")
        seen = await scene.store.changes_after(0, 10)
        assert [change.subject for change in seen] == ["before", "after"]
    (last,) = await other_host.changes_after(seen[-1].number, 10)
    assert last.subject == "late"


async def test_readers_of_several_hosts_see_every_change_in_one_order(scene, other_host):
    async def follow(host: MongoStore) -> list[str]:
        seen, number = [], 0
        while len(seen) < 30:
            for change in await host.changes_after(number, 7):
                assert change.number > number
                number = change.number
                seen.append(change.subject)
        return seen

    async def tell() -> None:
        for number in range(30):
            await (scene.store if number % 2 else other_host).append_change("user", f"u{number:02d}")

    first, second, _ = await asyncio.gather(follow(scene.store), follow(other_host), tell())
    assert first == second
    assert sorted(first) == [f"u{number:02d}" for number in range(30)]


# -- documents of the replaced system ------------------------------------------------------------------------
def legacy(database: Any, user: str = "alice", **fields: Any) -> None:
    """A document as the replaced system keeps it: doubles, no field of ours, some that we do not know."""
    database.usersNew.insert_one(
        {"_id": user, "passwordHash": "x", "role": "user", "isActive": True, "migration": True, **fields}
    )


async def test_a_double_is_opened_with_a_row_and_unknown_fields_are_kept(scene, mongodb_database):
    legacy(mongodb_database, credits=12.3, refCredits=1, creditsNew=0.1 + 0.2, creditsUsed=4.5)
    scene.users.add("alice")

    account = await scene.store.account("alice")

    wanted = {"credits": 12_300_000_000_000, "refCredits": scene.USD, "creditsNew": 300_000_000_000}
    assert {pool: amount for pool, amount in account.balances.items() if amount} == wanted
    rows = await scene.store.transactions("alice", 9)
    assert {(row.type, row.pool): row.amount_pico for row in rows} == {
        ("opening", pool): amount for pool, amount in wanted.items()
    }
    stored = mongodb_database.usersNew.find_one({"_id": "alice"})
    assert (stored["passwordHash"], stored["migration"]) == ("x", True)
    assert stored["credits"] == stored["seen"]["credits"] == Decimal128("12.300000000000")
    assert (await scene.store.lifetime("alice"))["creditsUsed_pico"] == 4_500_000_000_000
    await scene.sound()
    assert await scene.store.account("alice") == account


async def test_a_legacy_users_first_grant_event_and_charge_open_him(scene, mongodb_database):
    await scene.journal()
    for user in ("alice", "bob", "carol"):
        legacy(mongodb_database, user, credits=2.0)
        scene.users.add(user)
    answer = await scene.store.grant("alice", "ohmygpt", scene.J, 1, 0, 5, 5, scene.NOW)
    assert answer.reason == ""
    await scene.credit("bob", 5)
    assert await scene.balance("bob") == 2 * scene.USD + 5
    assert await scene.book(scene.settlement("carol", 5)) == [Booked.LATE]
    assert await scene.balance("carol") == 2 * scene.USD - 5


async def test_an_absent_balance_reads_as_nothing(scene, mongodb_database):
    legacy(mongodb_database)
    scene.users.add("alice")
    assert sum((await scene.store.account("alice")).balances.values()) == 0
    assert await scene.store.transactions("alice", 9) == []
    await scene.sound()


async def test_expiry_dates_of_the_replaced_system_are_those_of_the_lots(scene, mongodb_database):
    from bson import DatetimeMS

    legacy(
        mongodb_database,
        credits=1.0,
        refCredits=1.0,
        creditsNew=1.0,
        expiresAt=DatetimeMS(scene.NOW + 5),
        expiresAtNew=DatetimeMS(scene.NOW + 7),
    )
    lots = {lot.pool: lot.expires_at_ms for lot in (await scene.store.account("alice")).lots}
    assert lots == {"credits": scene.NOW + 5, "refCredits": None, "creditsNew": scene.NOW + 7}


@pytest.mark.parametrize(
    "wrong",
    [math.nan, math.inf, -0.01, -5, "12.3", True, Decimal128("NaN"), Decimal128("-1"), {"usd": 1}, 1e30],
)
async def test_a_balance_that_is_no_amount_parks_the_user_and_guesses_nothing(
    scene, mongodb_database, outside, wrong
):
    legacy(mongodb_database, credits=wrong, refCredits=7.5)
    await scene.journal()
    answer = await scene.store.grant("alice", "ohmygpt", scene.J, 1, 0, 1, 1, scene.NOW)
    assert (answer.reason, answer.remaining_pico) == ("parked", 0)
    account = await scene.store.account("alice")
    assert "`credits`" in account.parked
    assert await scene.store.transactions("alice", 9) == []
    assert (
        await scene.store.apply_event(Event((scene.row("alice", "adjustment", "credits", 0),)), scene.NOW)
        is EventResult.PARKED
    )
    assert await scene.store.adopt_balances("alice", "operator", scene.NOW) is EventResult.PARKED
    outside.change("alice", {"$set": {"credits": 3.25}})
    assert await scene.store.adopt_balances("alice", "operator", scene.NOW) is EventResult.DONE
    scene.users.add("alice")
    await scene.sound()
    assert await scene.balance("alice") == 3_250_000_000_000
    assert await scene.balance("alice", "refCredits") == 7_500_000_000_000


@pytest.mark.parametrize("wrong", [3.0, 10.0, "10", math.nan, None, -4, Decimal128("11"), Int64(10)])
async def test_S18_a_foreign_write_of_any_kind_parks_the_user(scene, outside, wrong):
    await scene.user("alice", usd=10)
    await scene.journal()
    (part,) = await scene.lease("alice", 50)
    outside.change("alice", {"$set": {"credits": wrong}})
    charge = scene.settlement("alice", 5, (part._replace(amount_pico=5),))
    assert await scene.store.book(scene.J, 1, [charge], scene.NOW) == [Booked.PARKED]
    account = await scene.store.account("alice")
    assert "outside" in account.parked
    outside.change("alice", {"$set": {"credits": 10.5}})
    assert await scene.store.adopt_balances("alice", "operator", scene.NOW) is EventResult.DONE
    assert await scene.store.resolve_parked(charge.exchange, 5, "operator", scene.NOW) is Booked.BOOKED
    assert await scene.balance("alice") == 10_500_000_000_000 - 5
    await scene.sound()


async def test_an_opening_meets_a_balance_that_changed_meanwhile(scene, mongodb_database, monkeypatch):
    """The replaced system must not write any more; if it does in this very moment, its value is the one."""
    legacy(mongodb_database, credits=1.0)
    scene.users.add("alice")
    update = AsyncCollection.bulk_write
    first = [True]

    async def overtaken(collection: Any, *arguments: Any, **options: Any) -> Any:
        if first:
            first.clear()
            await options["session"].abort_transaction()
            mongodb_database.usersNew.update_one({"_id": "alice"}, {"$set": {"credits": 2.5}})
            raise OperationFailure("conflict", 112, {"errorLabels": ["TransientTransactionError"]})
        return await update(collection, *arguments, **options)

    monkeypatch.setattr(AsyncCollection, "bulk_write", overtaken)
    assert (await scene.store.account("alice")).balances["credits"] == 2_500_000_000_000
    await scene.sound()


async def test_accounts_not_opened_yet_hold_nothing_of_ours(scene, mongodb_database):
    legacy(mongodb_database, credits=5.0)
    account, rows = await scene.store.account_with_rows("alice")
    assert differences(account, rows) == []
    assert [one.user async for one in scene.store.accounts()] == ["alice"]
