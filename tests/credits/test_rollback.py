"""The way back: every balance in the old documents as a double, only when all money is at home.

The documents are decoded as the replaced system does it: its fields must have BSON's double or a number that
its driver takes for one, its dates must be dates, and its rules are applied to what is there.
"""

import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from credits.legacy_data import write_bson
from farebox.base.errors import UsageError
from farebox.credits.import_legacy import Import
from farebox.credits.import_report import ImportReport
from farebox.credits.moves import Move
from farebox.credits.rollback import RollbackReport, check_all_is_home, usd_double, write_documents
from farebox.credits.transfers import perform
from farebox.journal import create, open_journal
from farebox.store.base import Booked
from farebox.store.legacy import open_source
from farebox.store.legacy.writing import DumpWriter
from store.conftest import Scene

NOW = 1_770_000_000_000
USD = 10**12
DATE = datetime(2027, 3, 4, tzinfo=UTC)
KEY = "sk-trollllm-" + "a" * 64
USERS = [
    {
        "_id": "alice",
        "passwordHash": "hash",
        "role": "user",
        "apiKey": KEY,
        "credits": 10.1,
        "creditsNew": 5.0,
        "creditsUsed": 1.5,
        "expiresAt": DATE,
        "referralCode": "ABCD2345",
        "migration": True,
    },
    {"_id": "bob", "credits": 0.0, "oddField": [1, {"x": 2.5}]},
]
DOUBLES = ("credits", "creditsUsed", "creditsNew", "creditsNewUsed", "refCredits")
NUMBERS = ("tokensUserNew", "totalInputTokens", "totalOutputTokens")


def decoded_as_before(users_found: bytes) -> dict[str, dict[str, Any]]:
    """Users as the old proxy's structs take them: money only from a BSON double."""
    users = {}
    for raw in bson.decode_all(users_found, CodecOptions(RawBSONDocument)):
        document = bson.decode(raw.raw, CodecOptions(tz_aware=True))
        for name in DOUBLES:
            at = raw.raw.index(b"\x01" + name.encode() + b"\x00") + len(name) + 2
            assert struct.unpack_from("<d", raw.raw, at)[0] == document[name]
        assert all(isinstance(document[name], int) for name in NUMBERS)
        assert all(isinstance(document.get(name), datetime | None) for name in ("expiresAt", "expiresAtNew"))
        assert isinstance(document["isActive"], bool)
        users[document["_id"]] = document
    return users


def may_spend(user: dict[str, Any], cost: float) -> bool:
    """The old proxy's own guards for its two pools."""
    return user["credits"] + user["refCredits"] >= cost and user["creditsNew"] >= 0


@pytest.fixture
def original(tmp_path):
    folder = tmp_path / "original"
    folder.mkdir()
    write_bson(folder / "usersNew.bson", iter(USERS))
    write_bson(
        folder / "user_keys.bson", iter([{"_id": KEY, "name": "alice", "tier": "pro", "isActive": True}])
    )
    return str(folder)


@pytest.fixture(autouse=True)
async def imported(store, original):
    await Import(store, open_source(original), ImportReport(False), NOW).run()


async def roll_back(store, original: str, to: Path) -> RollbackReport:
    await check_all_is_home(store, to.parent / "journals")
    with DumpWriter(to) as dump:
        return await write_documents(
            store, open_source(original) if original else None, dump, lambda *_: None
        )


async def spend(store, amount: int) -> None:
    scene = Scene(store)
    await scene.journal()
    takes = await scene.lease("alice", amount)
    assert await store.book(scene.J, 1, [scene.settlement("alice", amount, takes)], NOW) == [Booked.BOOKED]
    await store.end_journal(scene.J, "retired")


async def test_balances_go_back_as_doubles_with_what_was_never_kept(store, original, tmp_path):
    await spend(store, 123_456_789_012)
    await perform(store, Move("grant", "g1", "bob", "refCredits", 7 * USD // 3, "gift", "root"), NOW)
    report = await roll_back(store, original, tmp_path / "back")
    users = decoded_as_before((tmp_path / "back" / "usersNew.bson").read_bytes())
    assert users["alice"]["credits"] == 10.1 - 0.123456789012 == usd_double(9_976_543_210_988)
    assert users["alice"]["creditsUsed"] == 1.623456789012
    assert (users["alice"]["creditsNew"], users["alice"]["expiresAt"]) == (5.0, DATE)
    assert (users["alice"]["apiKey"], users["alice"]["passwordHash"]) == (KEY, "hash")
    assert (users["bob"]["refCredits"], users["bob"]["oddField"]) == (2.333333333333, [1, {"x": 2.5}])
    assert may_spend(users["alice"], 9.97)
    assert not may_spend(users["alice"], 9.98)
    assert (report.users, report.pools["creditsNew"], report.keys_missing) == (2, 5 * USD, 0)


async def test_what_went_back_can_come_again_unchanged(store, original, tmp_path):
    await spend(store, 1)
    await roll_back(store, original, tmp_path / "back")
    again = ImportReport(dry_run=True)
    await Import(None, open_source(str(tmp_path / "back")), again, NOW).run()
    account = await store.account("alice")
    assert {pool: sums.booked for pool, sums in again.pools.items()} == {
        pool: amount for pool, amount in account.balances.items() if amount
    }


async def test_keys_that_ended_and_users_that_came_later(store, original, tmp_path):
    await store.create_user("carol", "user", "test", NOW)
    await perform(store, Move("grant", "g1", "carol", "credits_monthly", USD, "plan", "root"), NOW)
    scene = Scene(store)
    await store.create_key(scene.key("carol", "d" * 64), "test", NOW)
    (own,) = await store.keys_of("alice")
    await store.set_key_active(own.digest, False, "test", NOW)
    report = await roll_back(store, original, tmp_path / "back")
    users = decoded_as_before((tmp_path / "back" / "usersNew.bson").read_bytes())
    assert "apiKey" not in users["alice"]
    assert users["carol"]["credits"] == 0.0
    (key,) = bson.decode_all((tmp_path / "back" / "user_keys.bson").read_bytes())
    assert key["isActive"] is False
    (two_pools,) = bson.decode_all((tmp_path / "back" / "users_credits.bson").read_bytes())
    assert (two_pools["user_id"], two_pools["credits_monthly"]) == ("carol", 1.0)
    assert report.keys_missing == 1


async def test_without_the_original_only_balances_go_back(store, tmp_path):
    report = await roll_back(store, "", tmp_path / "back")
    users = decoded_as_before((tmp_path / "back" / "usersNew.bson").read_bytes())
    assert (users["alice"]["credits"], "apiKey" in users["alice"], report.keys_missing) == (10.1, False, 1)


async def test_M2_nothing_goes_back_while_money_is_leased_or_a_user_parked(store, original, tmp_path):
    scene = Scene(store)
    await scene.journal()
    takes = await scene.lease("alice", USD)
    with pytest.raises(UsageError, match=r"is not here.*money is leased"):
        await roll_back(store, original, tmp_path / "back")
    quarantined = scene.settlement("alice", 0, takes, quarantine="no price")
    await store.book(scene.J, 1, [quarantined], NOW)
    await store.end_journal(scene.J, "retired")
    with pytest.raises(UsageError, match=r"parked.*leased or reserved"):
        await roll_back(store, original, tmp_path / "back")
    assert list(tmp_path.glob("back*")) == []
    await store.resolve_parked(quarantined.exchange, 0, "test", NOW)
    await roll_back(store, original, tmp_path / "back")


async def test_M6_nothing_goes_back_while_a_journal_is_in_use_or_unapplied(store, original, tmp_path):
    (tmp_path / "journals").mkdir()
    journal = create(tmp_path / "journals")
    with pytest.raises(UsageError, match="is in use: stop"):
        await roll_back(store, original, tmp_path / "back")
    journal.close()
    open_journal(tmp_path / "journals" / journal.id).close()
    await roll_back(store, original, tmp_path / "back")


async def test_a_dump_that_fails_is_not_there(store, original, tmp_path):
    with pytest.raises(OverflowError), DumpWriter(tmp_path / "back") as dump:
        dump.write("usersNew", {"_id": "alice", "tokensUserNew": 2**70})
    assert not (tmp_path / "back").exists()
    await roll_back(store, original, tmp_path / "back")
    with pytest.raises(UsageError, match="exists"):
        DumpWriter(tmp_path / "back")
