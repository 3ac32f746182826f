"""The replaced system's MongoDB as a source; MongoDB as the store that imports, exports and gives back."""

from datetime import UTC, datetime, timedelta

import bson
import pytest
from bson import ObjectId

from credits import legacy_data
from credits.legacy_data import LegacyData, write_dump
from farebox.base import limits
from farebox.base.errors import StoreDownError, UsageError
from farebox.base.keys import key_digest
from farebox.credits.export import Export
from farebox.credits.import_legacy import Import
from farebox.credits.import_report import ImportReport
from farebox.credits.rollback import check_all_is_home, write_documents
from farebox.ledger.conservation import differences
from farebox.run.cli_legacy import is_same_database
from farebox.store.legacy import open_source
from farebox.store.legacy.in_place import DatabaseInPlace
from farebox.store.legacy.writing import DumpWriter
from farebox.store.sqlite import SQLiteStore

STORES = ("mongo",)
NOW = 1_770_000_000_000


@pytest.fixture(autouse=True)
def recent(monkeypatch) -> None:
    """A server removes logs past their TTL by its own clock."""
    monkeypatch.setattr(legacy_data, "START", datetime.now(UTC) - timedelta(days=2))


async def run(store, source, **more) -> ImportReport:
    report = ImportReport(more.pop("dry_run", False))
    await Import(store, source, report, NOW, **more).run()
    assert report.adds_up()
    return report


async def test_M1_an_import_into_mongodb_adds_up_repeats_and_goes_back(store, tmp_path):
    sums = write_dump(tmp_path / "dump", LegacyData(24, 60))
    source = open_source(str(tmp_path / "dump"))
    tried = await run(store, source, dry_run=True)
    assert tried.counts["users created"] == 24
    assert await store.account("user-000001") is None
    report = await run(store, source)
    assert {pool: found.booked for pool, found in report.pools.items()} == sums.pools
    assert (report.logs.booked, report.counts["keys new"]) == (sums.logs, 28)
    booked = dict.fromkeys(sums.pools, 0)
    async for account in store.accounts():
        found = await store.account_with_rows(account.user)
        assert differences(*found) == []
        for pool in booked:
            booked[pool] += account.balances[pool]
    assert booked == sums.pools
    again = await run(store, source)
    assert (again.counts["users unchanged"], again.counts["keys new"]) == (24, 0)
    assert again.logs.before == sums.logs
    with Export(tmp_path / "out") as files:
        await files.run(store, lambda *_: None)
    assert (files.state.rows["balances"], files.state.rows["request_logs"]) == (24, 60)
    await check_all_is_home(store, tmp_path / "journals")
    with DumpWriter(tmp_path / "back") as dump:
        back = await write_documents(store, source, dump, lambda *_: None)
    assert back.pools == sums.pools
    users = bson.decode_all((tmp_path / "back" / "usersNew.bson").read_bytes())
    assert all(type(user[pool]) is float for user in users for pool in sums.pools)


@pytest.fixture
async def other(tmp_path):
    opened = SQLiteStore(tmp_path / "other.db")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def legacy_url(mongodb_database, mongodb_url) -> str:
    at = datetime.now(UTC)
    mongodb_database["usersNew"].insert_many(
        [
            {"_id": "alice", "credits": 1.25, "apiKey": "sk-trollllm-1", "expiresAt": at},
            {"_id": "bob", "credits": "x"},
        ]
    )
    log = {"_id": ObjectId(), "userId": "alice", "creditsCost": 0.5, "createdAt": at}
    mongodb_database["request_logs"].insert_one(log)
    return mongodb_url


async def test_the_old_database_is_read_in_place(other, legacy_url):
    source = open_source(legacy_url)
    report = await run(other, source)
    source.close()
    assert (await other.account("alice")).balances["credits"] == 1_250_000_000_000
    assert (await other.key(key_digest("sk-trollllm-1"))).user == "alice"
    assert report.logs.booked == 500_000_000_000
    assert report.problems == ["user bob: parked: import: credits is a text, not a number"]


async def test_a_source_that_cannot_be_reached_is_named_without_its_password(other, monkeypatch):
    monkeypatch.setattr(limits, "store_timeout_s", 0.2)
    place = DatabaseInPlace("mongodb://me:secret@127.0.0.1:9/fproxy")
    with pytest.raises(StoreDownError) as refused:
        await run(other, place)
    with pytest.raises(StoreDownError) as not_written:
        place.change("usersNew", {"_id": "alice"}, {"credits": 1.0})
    place.close()
    for error in (refused.value, not_written.value):
        assert "127.0.0.1/fproxy" in str(error)
        assert "secret" not in str(error)
    for place, said in (
        ("mongodb://127.0.0.1", "name the database"),
        ("mongodb://:x:y/z", "no MongoDB address"),
    ):
        with pytest.raises(UsageError, match=said):
            open_source(place)
    with pytest.raises(UsageError, match="no folder"):
        open_source("/nowhere")


@pytest.mark.parametrize(
    ("store", "source", "same"),
    [
        ("mongodb://a:1,b:2/fproxy", "mongodb://u:p@b:2/fproxy?w=1", True),
        ("mongodb://a:1/farebox", "mongodb://a:1/fproxy", False),
        ("mongodb://a:1/fproxy", "mongodb://c:1/fproxy", False),
        ("sqlite:///x", "mongodb://c:1/fproxy", False),
    ],
)
def test_a_database_is_not_imported_into_itself(store, source, same):
    assert is_same_database(store, source) is same
