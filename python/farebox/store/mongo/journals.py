"""Rows of journals in MongoDB: epochs by compare-and-set, beats, low-water marks, the end of a journal.

Promises: an epoch is claimed once (a copy of a directory, a clone or a restored store is refused, hole 2 and
fault row S17), and the money a journal leased is free again in the transaction that ends the journal; of a
journal that leases of very many users, in several, of which the last one ends it.
"""

from collections.abc import Mapping
from typing import Any

from farebox.base import limits
from farebox.base.errors import StoreRefusedError
from farebox.store.base import JournalState
from farebox.store.journal_rules import check_end, wrong_epoch
from farebox.store.mongo import accounts, feed
from farebox.store.mongo.connection import Connection, Place
from farebox.store.mongo.document import UserDocument
from farebox.store.mongo.schema import JOURNALS, USERS
from farebox.store.mongo.values import date, key, milliseconds


async def claim_epoch(place: Place, journal: str, epoch: int, host: str, now_ms: int) -> JournalState:
    """Raise the epoch from `epoch - 1`; the same call again (same host, same moment) is answered alike."""
    found = await place[JOURNALS].find_one({"_id": journal}, session=place.session)
    stored = 0 if found is None else found["epoch"]
    if found is not None and (stored, found["host"], milliseconds(found["claimedAt"])) == (
        epoch,
        host,
        now_ms,
    ):
        return _state(found)
    if stored != epoch - 1:
        raise StoreRefusedError(wrong_epoch(journal, epoch, stored))
    claimed = {
        "epoch": epoch,
        "state": "live",
        "host": host,
        "beatAt": date(now_ms),
        "claimedAt": date(now_ms),
    }
    if found is None:
        found = {"_id": key(journal), "applied": 0, "rolled": 0, **claimed}
        await place[JOURNALS].insert_one(found, session=place.session)
    else:
        found |= claimed
        await place[JOURNALS].update_one({"_id": journal}, {"$set": claimed}, session=place.session)
    await _revive(place, journal, epoch)
    return _state(found)


async def _revive(place: Place, journal: str, epoch: int) -> None:
    """Dead entries of the journal serve again, empty, from its new epoch on."""
    path = f"leases.{key(journal)}"
    await place[USERS].update_many(
        {"holders": journal, f"{path}.dead": True},
        {"$set": {f"{path}.dead": False, f"{path}.owner": epoch}, "$inc": {f"{path}.op": 1, "rev": 1}},
        session=place.session,
    )


def _state(found: Mapping[str, Any]) -> JournalState:
    return JournalState(
        found["_id"],
        found["epoch"],
        found["applied"],
        found["rolled"],
        found["state"],
        found["host"],
        milliseconds(found["beatAt"]) or 0,
    )


async def states(place: Place) -> list[JournalState]:
    """All journals known."""
    return [_state(found) async for found in place[JOURNALS].find().sort("_id", 1)]


async def is_current(place: Place, journal: str, epoch: int) -> bool:
    """Whether `epoch` is the live epoch of the journal: an earlier owner's calls change nothing (hole 52)."""
    found = await place[JOURNALS].find_one(
        {"_id": journal, "epoch": epoch, "state": "live"}, {"_id": 1}, session=place.session
    )
    return found is not None


async def beat(place: Place, journal: str, epoch: int, now_ms: int) -> bool:
    """Record a sign of life; False when the epoch is over."""
    changed = await place[JOURNALS].update_one(
        {"_id": journal, "epoch": epoch, "state": "live"}, {"$set": {"beatAt": date(now_ms)}}
    )
    return changed.matched_count == 1


async def advance_applied(place: Place, journal: str, epoch: int, pos: int) -> None:
    """Raise the low-water mark; an older position or another epoch changes nothing."""
    await place[JOURNALS].update_one(
        {"_id": journal, "epoch": epoch, "applied": {"$lt": pos}},
        {"$set": {"applied": pos}},
        session=place.session,
    )


async def rolled(place: Place, journal: str) -> int:
    """How far a journal is in the rollups; 0 when it is unknown."""
    found = await place[JOURNALS].find_one({"_id": journal}, {"rolled": 1}, session=place.session)
    return 0 if found is None else int(found["rolled"])


async def end_journal(
    connection: Connection, journal: str, ended: str, seen: JournalState | None = None
) -> bool:
    """Retire a journal, or mark it lost, and return what it leased to the lots it came from.

    A retired journal's entries go; a lost one's stay, dead, until its next epoch: its charges may still come.
    """
    check_end(ended)
    wants = f"wants.{key(journal)}"
    await connection.write(
        lambda place: place[USERS].update_many({wants: {"$exists": True}}, {"$unset": {wants: ""}})
    )
    after: str | None = ""
    if seen is not None:
        is_silent, after = await connection.transact(
            lambda place: _end_if_silent(place, journal, ended, seen)
        )
        if not is_silent:
            return False
    while after is not None:
        after = await connection.transact(
            lambda place, after=after: _end_some(place, journal, ended, after)  # type: ignore[misc]
        )
    return True


async def _end_if_silent(
    place: Place, journal: str, ended: str, seen: JournalState
) -> tuple[bool, str | None]:
    """Whether the journal gave no sign of life since it was seen; then the first page, and where it ended.

    The journal's document is written: of this and a beat or a claim at the same time one begins anew.
    """
    silent = await place[JOURNALS].update_one(
        {"_id": journal, "state": "live", "epoch": seen.epoch, "beatAt": date(seen.beat_ms)},
        {"$inc": {"silences": 1}},
        session=place.session,
    )
    if silent.matched_count != 1:
        return False, None
    return True, await _end_some(place, journal, ended, "")


async def _end_some(place: Place, journal: str, ended: str, after: str) -> str | None:
    """End a page of entries of users above `after`: the last of them, or None when they were the last and the
    journal is ended with them. The entry of a damaged user stays: `verify` names it once he is repaired.
    """
    path = f"leases.{key(journal)}"
    unended = (
        {"holders": journal} if ended == "retired" else {"holders": journal, f"{path}.dead": {"$ne": True}}
    )
    cursor = place[USERS].find({**unended, "_id": {"$gt": after}}, session=place.session).sort("_id", 1)
    found = [UserDocument(raw) async for raw in cursor.limit(limits.users_per_transaction_max + 1)]
    users = found[: limits.users_per_transaction_max]
    page = [user for user in users if user.damage is None]
    for user in page:
        _end_entry(user, journal, ended)
    await accounts.save_many(place, page)
    await feed.append(place, *(feed.change("fence", user.name, journal) for user in page))
    if len(found) > len(users):
        return users[-1].name
    await place[JOURNALS].update_one({"_id": journal}, {"$set": {"state": ended}}, session=place.session)
    return None


def _end_entry(user: UserDocument, journal: str, ended: str) -> None:
    entry = user.lease(journal, 0)
    for lot, amount in entry.lots.items():
        if amount:
            user.add_leased(lot, -amount)
    if ended == "retired":
        user.drop_lease(journal)
    else:
        entry.lots = {}
        entry.dead = True
        entry.op += 1
