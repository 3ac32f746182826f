"""A store in the replaced system's own database gives it its fields back: doubles, as it decodes them, with
all money at home; and takes them over again afterwards, whatever has been spent there meanwhile.
"""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from credits.test_rollback import KEY, decoded_as_before
from farebox.base.errors import StoreConflictError, UsageError
from farebox.base.keys import key_digest
from farebox.credits.moves import Move
from farebox.credits.rollback import ROLLED_BACK, check_all_is_home
from farebox.credits.rollback_in_place import give_back
from farebox.credits.transfers import perform
from farebox.ledger.conservation import differences
from farebox.store.base import Booked, EventResult
from farebox.store.legacy.in_place import DatabaseInPlace
from store.conftest import Scene

STORES = ("mongo",)
NOW = 1_770_000_000_000
USD = 10**12
DATE = datetime(2027, 3, 4, tzinfo=UTC)
REVOKED = "sk-troll-revoked"


@pytest.fixture(autouse=True)
async def old(store, mongodb_database):
    """Alice as the old system left her and Farebox used her, Bob never touched, Carol made here."""
    mongodb_database.usersNew.insert_many(
        [
            {"_id": "alice", "passwordHash": "hash", "apiKey": KEY, "credits": 10.1, "creditsUsed": 1.5},
            {"_id": "bob", "creditsNew": 0.1 + 0.2, "expiresAtNew": DATE, "apiKey": REVOKED},
        ]
    )
    mongodb_database.user_keys.insert_one({"_id": REVOKED, "name": "bob", "isActive": True})
    await store.create_user("carol", "user", "test", NOW)
    await perform(store, Move("grant", "g1", "carol", "credits_monthly", USD, "plan", "root"), NOW)
    scene = Scene(store)
    for user, digest in (("alice", key_digest(KEY)), ("bob", key_digest(REVOKED)), ("carol", "d" * 64)):
        await store.create_key(scene.key(user, digest), "test", NOW)
    await store.set_key_active(key_digest(REVOKED), False, "test", NOW)
    await scene.journal()
    takes = await scene.lease("alice", 123_456_789_012)
    spent = scene.settlement("alice", 123_456_789_012, takes)
    assert await store.book(scene.J, 1, [spent], NOW) == [Booked.BOOKED]
    await scene.lease("alice", USD)
    return scene


@pytest.fixture
def database(mongodb_url):
    opened = DatabaseInPlace(mongodb_url)
    yield opened
    opened.close()


def users_of(mongodb_database):
    raw = mongodb_database.usersNew.with_options(CodecOptions(RawBSONDocument)).find()
    return decoded_as_before(b"".join(document.raw for document in raw))


async def home(store, scene):
    await store.end_journal(scene.J, "lost")


async def test_every_balance_is_a_double_again_in_the_document_it_was_in(
    store, old, mongodb_url, mongodb_database, tmp_path
):
    with pytest.raises(UsageError, match="money is leased"):
        await check_all_is_home(store, tmp_path)
    await home(store, old)
    command = [sys.executable, "-m", "farebox.run.cli", "rollback-legacy", "--in-place", "--json"]
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, "--store", mongodb_url],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    users = users_of(mongodb_database)
    assert (users["alice"]["credits"], users["alice"]["creditsUsed"]) == (9.976543210988, 1.623456789012)
    assert (users["alice"]["passwordHash"], users["alice"]["apiKey"]) == ("hash", KEY)
    assert (users["bob"]["creditsNew"], users["bob"]["expiresAtNew"]) == (0.3, DATE)
    assert users["carol"]["credits_monthly"] == 1.0
    assert "apiKey" not in users["bob"]
    assert mongodb_database.user_keys.find_one({"_id": REVOKED})["isActive"] is False
    assert (report["users"], report["keys_missing"]) == (3, 1)
    assert report["pools"] == {"credits": "9.976543210988", "creditsNew": "0.3", "credits_monthly": "1"}


async def test_what_was_rolled_back_is_not_spent_here_until_it_is_adopted(
    store, old, database, mongodb_database, tmp_path
):
    await home(store, old)
    await give_back(store, database, lambda *_: None)
    assert (await store.account("alice")).parked == ROLLED_BACK
    gift = Move("grant", "g2", "alice", "credits", USD, "gift", "root")
    assert (await perform(store, gift, NOW)).result is EventResult.PARKED
    mongodb_database.usersNew.update_one({"_id": "alice"}, {"$inc": {"credits": -2.5, "creditsUsed": 2.5}})
    await check_again(store, database, tmp_path)
    assert await store.adopt_balances("alice", "eve", NOW) is EventResult.DONE
    account, rows = await store.account_with_rows("alice")
    assert (account.parked, account.balances["credits"]) == (None, 7_476_543_210_988)
    assert (rows[0].type, rows[0].amount_pico) == ("adjustment", -25 * USD // 10)
    assert differences(account, rows) == []
    assert (await store.lifetime("alice"))["creditsUsed_pico"] == 4_123_456_789_012
    assert (await perform(store, gift, NOW)).result is EventResult.DONE


async def check_again(store, database, tmp_path):
    """The command once more: who is back already stays as he is, whatever the old system did since."""
    before = (await store.account("alice")).rev
    assert (await give_back(store, database, lambda *_: None)).users == 3
    assert (await store.account("alice")).rev == before


async def test_a_document_that_changes_under_the_way_back_is_not_written(
    store, old, database, mongodb_database, monkeypatch
):
    await home(store, old)
    lifetime = store.lifetime

    async def meanwhile(user):
        mongodb_database.usersNew.update_one({"_id": user}, {"$inc": {"rev": 1}})
        return await lifetime(user)

    monkeypatch.setattr(store, "lifetime", meanwhile)
    with pytest.raises(StoreConflictError, match="alice changed meanwhile"):
        await give_back(store, database, lambda *_: None)
    monkeypatch.undo()
    assert (await give_back(store, database, lambda *_: None)).users == 3
