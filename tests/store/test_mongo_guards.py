"""MongoDB at its edges: a guard that meets no document undoes the transaction, an unsure answer is no
success, and values no field may hold are refused before they leave.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import AutoReconnect, BulkWriteError, OperationFailure

from farebox.base import limits
from farebox.base.errors import FaultError, StoreConflictError, StoreDownError, StoreUnknownError
from farebox.base.records import Claim
from farebox.store.base import Event, Record, RecordChange
from farebox.store.booking_rules import Counters
from farebox.store.mongo import MongoStore, events, feed, schema
from farebox.store.mongo.document import counter_steps
from farebox.store.mongo.turns import Turns
from farebox.store.mongo.values import UnstorableError, key, whole_pico
from store.conftest import LOG_TTL_DAYS, Scene
from store.outside import OutsideMongoDB


@pytest.fixture
async def store(mongodb_url: str) -> AsyncIterator[MongoStore]:
    opened = MongoStore(mongodb_url, log_ttl_days=LOG_TTL_DAYS)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conflicts are tried again without a pause."""
    monkeypatch.setattr(limits, "store_conflict_pause_s", 0.0)


# -- guards --------------------------------------------------------------------------------------------------
def meets_nothing(monkeypatch: pytest.MonkeyPatch, collection: str, method: str) -> None:
    """Updates of a collection answer that they met no document, as if it had changed since it was read."""
    once = getattr(AsyncCollection, method)

    async def answered(self: Any, *arguments: Any, **options: Any) -> Any:
        found = await once(self, *arguments, **options)
        return SimpleNamespace(matched_count=0, inserted_count=0) if self.name == collection else found

    monkeypatch.setattr(AsyncCollection, method, answered)


def _payment(scene: Scene) -> Event:
    row = scene.row("alice", "adjustment", "credits", -5)
    return Event((row,), records=(RecordChange.insert(Record("payment", "sepay:1", 1, {}, "alice")),))


GUARDED: dict[str, tuple[str, str, Callable[[Scene], Any]]] = {
    "a claim on a user": (
        "usersNew",
        "update_one",
        lambda scene: scene.store.set_claim("alice", Claim("c", "credits", None, 5)),
    ),
    "leases of an ended journal": (
        "usersNew",
        "bulk_write",
        lambda scene: scene.store.end_journal(scene.J, "lost"),
    ),
    "a payment and its rows": (
        "payments",
        "bulk_write",
        lambda scene: scene.store.apply_event(_payment(scene), scene.NOW),
    ),
    "a decision about a parked exchange": (
        "parked_settlements",
        "update_one",
        lambda scene: scene.store.resolve_parked("e" * 32, 5, "operator", scene.NOW),
    ),
}


@pytest.mark.parametrize(("collection", "method", "call"), GUARDED.values(), ids=GUARDED)
async def test_S08_a_guard_that_meets_no_document_is_a_conflict_and_changes_nothing(
    scene: Scene,
    at_once: None,
    mongodb_database: Any,
    monkeypatch: pytest.MonkeyPatch,
    collection: str,
    method: str,
    call: Callable[[Scene], Any],
) -> None:
    await scene.user("alice", usd=1)
    await scene.journal()
    (part,) = await scene.lease("alice", 50)
    await scene.book(scene.settlement("alice", 0, (part,), quarantine="no price", exchange="e" * 32))
    await scene.lease("alice", 50)
    names = ("usersNew", "credit_transactions", "payments", "parked_settlements", "journals", "audit_log")
    before = [list(mongodb_database[name].find()) for name in names]
    with monkeypatch.context() as patch:
        meets_nothing(patch, collection, method)
        with pytest.raises(StoreConflictError):
            await call(scene)
    assert [list(mongodb_database[name].find()) for name in names] == before
    await scene.sound()


async def test_a_grant_overtaken_twice_is_stale_and_grants_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.user("alice")
    await scene.credit("alice", 100)
    await scene.journal()
    once = AsyncCollection.find_one_and_update

    async def overtaken(collection: Any, guard: Any, *arguments: Any, **options: Any) -> Any:
        return await once(collection, {**guard, "rev": -1}, *arguments, **options)

    monkeypatch.setattr(AsyncCollection, "find_one_and_update", overtaken)
    answer = await scene.store.grant("alice", "ohmygpt", scene.J, 1, 0, 10, 100, scene.NOW)
    assert (answer.reason, answer.added) == ("stale", ())
    assert await scene.leased("alice") == 0


async def test_M10_numbering_changes_that_others_number_for_ever_is_given_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.store.append_change("user", "alice")

    async def quicker(_place: object) -> None:
        raise StoreConflictError("another host numbers them")

    with monkeypatch.context() as patch:
        patch.setattr(feed, "_give_numbers", quicker)
        patch.setattr(limits, "store_conflict_attempts_max", 2)
        with pytest.raises(StoreConflictError, match="without an end"):
            await scene.store.changes_after(0, 9)
    assert [change.subject for change in await scene.store.changes_after(0, 9)] == ["alice"]


async def test_nobody_is_opened_who_is_not_there(store: MongoStore) -> None:
    assert await store._connection.transact(lambda place: events.open_account(place, "nobody", 1)) is None


async def test_S19_a_collection_another_process_made_meanwhile_is_there(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await schema._create(store._connection.database, "usersNew")

    def quicker(*_: Any, **__: Any) -> Any:
        raise OperationFailure("Collection already exists", 48)

    monkeypatch.setattr(AsyncDatabase, "create_collection", quicker)
    await schema._create(store._connection.database, "usersNew")


# -- answers that do not say ---------------------------------------------------------------------------------
def commit_fails_once(monkeypatch: pytest.MonkeyPatch, error: OperationFailure) -> None:
    """The next commit is not made, and this is the answer."""
    commit = AsyncClientSession.commit_transaction
    failed: list[bool] = []

    async def failing(session: AsyncClientSession) -> None:
        if not failed:
            failed.append(True)
            raise error
        await commit(session)

    monkeypatch.setattr(AsyncClientSession, "commit_transaction", failing)


@pytest.mark.parametrize(
    "error",
    [
        OperationFailure("write conflict", 112),
        OperationFailure("not yet replicated", 64, {"errorLabels": ["UnknownTransactionCommitResult"]}),
    ],
    ids=["conflict", "unknown for now"],
)
async def test_S05_a_commit_the_server_refuses_for_the_moment_is_made_again(
    scene: Scene, at_once: None, monkeypatch: pytest.MonkeyPatch, error: OperationFailure
) -> None:
    await scene.user("alice", usd=1)
    commit_fails_once(monkeypatch, error)
    assert await scene.store.set_user_active("alice", False, "test", scene.NOW)
    assert not (await scene.store.account("alice")).is_active


async def test_S05_a_commit_the_server_knows_nothing_of_is_unknown(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.user("alice", usd=1)
    with monkeypatch.context() as patch:
        commit_fails_once(patch, OperationFailure("interrupted", 11601))
        with pytest.raises(StoreUnknownError, match="nobody knows"):
            await scene.store.set_user_active("alice", False, "test", scene.NOW)
    assert (await scene.store.account("alice")).is_active


async def test_M10_transactions_left_open_are_remembered_up_to_a_limit(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.user("alice", usd=1)

    async def broken(*_: Any, **__: Any) -> Any:
        raise AutoReconnect("connection closed")

    for most, remembered in ((0, 0), (1, 1)):
        with monkeypatch.context() as patch:
            patch.setattr(limits, "store_sessions_noted_max", most)
            patch.setattr(AsyncCollection, "update_one", broken)
            with pytest.raises(StoreDownError):
                await scene.store.set_user_active("alice", False, "test", scene.NOW)
        assert len(scene.store._connection._abandoned) == remembered
    assert await scene.store.set_user_active("alice", False, "test", scene.NOW)


async def test_S09_a_server_that_goes_while_a_predecessor_is_tidied_up_after_is_down(
    mongodb_url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = tmp_path / "writer.sessions"
    noted.write_text(f"{uuid.uuid4()}\n")
    once = AsyncDatabase.command

    async def gone(database: Any, command: Any, *arguments: Any, **options: Any) -> Any:
        if command == "killSessions":
            raise AutoReconnect("connection closed")
        return await once(database, command, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(AsyncDatabase, "command", gone)
        store = MongoStore(mongodb_url, log_ttl_days=LOG_TTL_DAYS, sessions=noted)
        with pytest.raises(StoreDownError):
            await store.open()
        await store.close()
    assert noted.read_text(), "the next opening tidies up"


async def test_S16_log_rows_that_no_majority_has_are_written_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = scene.settlement("alice", 5)

    async def unsafe(*_: Any, **__: Any) -> Any:
        raise BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]})

    with monkeypatch.context() as patch:
        patch.setattr(AsyncCollection, "insert_many", unsafe)
        with pytest.raises(FaultError):
            await scene.store.log([row], {})
    assert await scene.store.log([row], {}) == []
    assert [found["_id"] for found in await scene.store.request_logs("alice", 9)] == [row.exchange]


async def test_S16_keys_that_no_majority_has_are_not_counted_as_imported(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.user("alice")
    keys = [(scene.key("alice"), scene.NOW)]

    def unsafe(*_: Any, **__: Any) -> Any:
        raise BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]})

    with monkeypatch.context() as patch:
        patch.setattr(AsyncCollection, "insert_many", unsafe)
        with pytest.raises(FaultError):
            await scene.store.import_keys(keys)
    assert [await scene.store.import_keys(keys) for _ in range(2)] == [1, 0]


# -- values --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("amount", ["0.0000000000001", "NaN", "-Infinity", "9223372.036854775808"])
def test_M1_an_amount_that_cannot_be_kept_exactly_is_refused(amount: str) -> None:
    with pytest.raises(UnstorableError, match="no amount of money"):
        whole_pico(Decimal(amount))


@pytest.mark.parametrize("name", ["", "a.b", "$inc", "a" * 129, "lot\x00"])
def test_S21_no_name_becomes_a_path_or_an_operator(name: str) -> None:
    with pytest.raises(UnstorableError, match="cannot name a field"):
        key(name)


def test_S10_more_tokens_than_a_counter_holds_are_refused_before_they_leave() -> None:
    assert counter_steps(Counters(input_tokens=2**63 - 1)) == {"totalInputTokens": 2**63 - 1}
    with pytest.raises(UnstorableError, match="more than a store can hold"):
        counter_steps(Counters(input_tokens=2**63))


async def test_counters_the_replaced_system_left_as_no_numbers_are_shown_as_nothing(
    scene: Scene, mongodb_database: Any
) -> None:
    await scene.user("alice", usd=1)
    OutsideMongoDB(mongodb_database).change("alice", {"$set": {"creditsUsed": "lots", "tokensUserNew": 1.5}})
    lifetime = await scene.store.lifetime("alice")
    assert (lifetime["creditsUsed_pico"], lifetime["tokensUserNew"]) == (0, 0)


# -- turns ---------------------------------------------------------------------------------------------------
async def test_hole_39_who_gives_up_waiting_for_a_user_leaves_the_turn_to_the_next() -> None:
    turns, order = Turns(), list[str]()
    held = asyncio.Event()

    async def turn(name: str) -> None:
        async with turns.of(["alice", "bob"]):
            order.append(name)
            await held.wait()

    first, impatient, last = (asyncio.create_task(turn(name)) for name in ("first", "impatient", "last"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    held.set()
    await asyncio.gather(first, last)
    assert order == ["first", "last"]
    assert not turns._locks


async def test_M10_a_turn_that_does_not_come_is_a_store_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "store_timeout_s", 0.01)
    turns = Turns()
    async with turns.of(["alice"]):
        with pytest.raises(StoreDownError, match="wait for the store"):
            async with turns.of(["alice"]):
                pass
    assert not turns._locks
