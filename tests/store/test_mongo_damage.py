"""S09, S18: a field of the money protocol that somebody else wrote parks its user, by name, and nobody else;
nothing is guessed, nothing of the document is overwritten, and once it is repaired everything goes on.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bson import Decimal128

from farebox.store.base import Booked, Event, EventResult
from farebox.store.mongo import MongoStore
from farebox.writer.verify import verify
from store.conftest import LOG_TTL_DAYS
from store.outside import OutsideMongoDB


@pytest.fixture
async def store(mongodb_url: str) -> AsyncIterator[MongoStore]:
    opened = MongoStore(mongodb_url, log_ttl_days=LOG_TTL_DAYS)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def outside(mongodb_database: Any) -> OutsideMongoDB:
    return OutsideMongoDB(mongodb_database)


ABSENT = object()
MONEY = ("seen", "lots", "leases", "leased", "reserved", "claims", "credits", "written_off")
LOT, J = "{lot}", "{journal}"

DAMAGE = {
    "lot left is a double": (f"lots.{LOT}.left", 3.0),
    "lot left is text": (f"lots.{LOT}.left", "3"),
    "lot left is NaN": (f"lots.{LOT}.left", Decimal128("NaN")),
    "lot has no left": (f"lots.{LOT}", {"pool": "credits", "expires_at": None, "source": "x"}),
    "lot of no pool": (f"lots.{LOT}.pool", "gold"),
    "lot ends at a text": (f"lots.{LOT}.expires_at", "tomorrow"),
    "lots are text": ("lots", "none"),
    "leased is a double": (f"leased.{LOT}", 1.5),
    "leased is a list": ("leased", []),
    "lease amount is text": (f"leases.{J}.lots.{LOT}", "1"),
    "lease has no owner": (f"leases.{J}", {"op": 1, "dead": False, "lots": {}}),
    "lease op is a double": (f"leases.{J}.op", 1.0),
    "lease is null": (f"leases.{J}", None),
    "shadow is text": ("seen.credits", "10"),
    "claim is a number": ("claims", {"r": 7}),
    "reserved is a number": ("reserved", {"e": 7}),
    "rev is text": ("rev", "many"),
    "written off is a double": ("written_off", 0.5),
}


@pytest.mark.parametrize(("path", "value"), DAMAGE.values(), ids=DAMAGE)
async def test_S09_a_damaged_field_parks_its_user_and_blocks_nobody(
    scene: Any, outside: OutsideMongoDB, mongodb_database: Any, tmp_path: Path, path: str, value: object
) -> None:
    await scene.journal()
    for user in ("alice", "bob"):
        await scene.user(user, usd=10)
    (part,) = await scene.lease("alice", 50)
    (bobs,) = await scene.lease("bob", 50)
    path = path.replace(LOT, part.lot).replace(J, scene.J)
    right = value_at(mongodb_database, path)
    outside.change("alice", {"$set": {path: value}})
    damaged = money_of(mongodb_database)
    charges = [
        scene.settlement("alice", 5, (part._replace(amount_pico=5),)),
        scene.settlement("bob", 7, (bobs._replace(amount_pico=7),)),
    ]

    results = await scene.store.book(scene.J, 1, charges, scene.NOW)
    grant = await scene.store.grant("alice", "ohmygpt", scene.J, 1, 1, 5, 5, scene.NOW)
    event = Event((scene.row("alice", "adjustment", "credits", 0),))
    applied = await scene.store.apply_event(event, scene.NOW)
    fenced = await scene.store.fence("alice", scene.J, 1, [], scene.NOW)

    assert results[1] is Booked.BOOKED
    assert (grant.reason, applied, fenced.parked) == ("parked", EventResult.PARKED, True)
    assert path.split(".")[0] in (await scene.store.account("alice")).parked
    assert await scene.store.adopt_balances("alice", "operator", scene.NOW) is EventResult.PARKED
    report = await verify(scene.store, tmp_path)
    assert any(note.startswith("user alice is parked: `") for note in report.notes)
    assert not any("bob" in one for one in report.differences)
    if results[0] is Booked.PARKED:
        assert money_of(mongodb_database) == damaged

    if right is ABSENT:
        outside.change("alice", {"$unset": {path: ""}})
    else:
        outside.change("alice", {"$set": {path: right}})
    assert await scene.store.adopt_balances("alice", "operator", scene.NOW) is EventResult.DONE
    if results[0] is Booked.PARKED:
        assert await scene.store.resolve_parked(charges[0].exchange, 5, "operator", scene.NOW)
    assert await scene.balance("alice") == 10 * scene.USD - 5
    await scene.sound()
    assert (await scene.store.grant("alice", "ohmygpt", scene.J, 1, 0, 5, 5, scene.NOW)).reason == "stale"


def value_at(database: Any, path: str) -> Any:
    found = database.usersNew.find_one({"_id": "alice"})
    for name in path.split("."):
        found = ABSENT if found is ABSENT else found.get(name, ABSENT)
    return found


def money_of(database: Any) -> dict[str, Any]:
    found = database.usersNew.find_one({"_id": "alice"})
    return {name: str(found.get(name)) for name in MONEY}


async def test_S09_an_ended_journal_leaves_a_damaged_users_entry_and_frees_the_others(
    scene: Any, outside: OutsideMongoDB
) -> None:
    await scene.journal()
    for user in ("alice", "bob"):
        await scene.user(user, usd=10)
        await scene.lease(user, 50)
    outside.change("alice", {"$set": {"rev": "many"}})
    await scene.store.end_journal(scene.J, "lost")
    assert await scene.leased("bob") == 0
    assert await scene.store.leases_of(scene.J) == ["alice"]
    outside.change("alice", {"$set": {"rev": 1, f"leases.{scene.J}.lots": {"x": "?"}}})
    assert await scene.store.leases_of(scene.J) == ["alice"]


@pytest.mark.parametrize("left_behind", [None, "12", [3]])
async def test_counters_of_the_replaced_system_that_are_no_numbers_begin_anew(
    scene: Any, outside: OutsideMongoDB, left_behind: object
) -> None:
    await scene.journal()
    await scene.user("alice", usd=10)
    (part,) = await scene.lease("alice", 50)
    names = ("tokensUserNew", "totalInputTokens", "total_spent", "creditsUsed", "total_earned")
    outside.change("alice", {"$set": dict.fromkeys(names, left_behind)})
    for _ in range(2):
        charge = scene.settlement("alice", 5, (part._replace(amount_pico=5),))
        assert await scene.book(charge) == [Booked.BOOKED]
    await scene.credit("alice", 3)
    lifetime = await scene.store.lifetime("alice")
    assert lifetime["totalInputTokens"] == 2 * 13_200
    assert (lifetime["total_spent_pico"], lifetime["total_earned_pico"]) == (10, 3)
