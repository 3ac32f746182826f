"""The change feed, the audit log and the price books in MongoDB: documents that are only ever appended.

A change is inserted without a number, in the transaction of what it tells of. Numbers are given afterwards,
by whoever reads the feed first, in a transaction that raises one counter: so numbers become visible in their
order, and a reader that has seen one has seen all below it. Numbering at the insert would make every money
event of every host conflict on that counter.
"""

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import orjson
from pymongo import ReturnDocument, UpdateOne

from farebox.base import limits
from farebox.base.errors import StoreConflictError
from farebox.store.base import Change
from farebox.store.mongo.connection import Connection, Place
from farebox.store.mongo.schema import AUDIT, CHANGES, META, PRICE_BOOKS
from farebox.store.mongo.values import SEQUENCE, date, milliseconds

_COUNTER: Final = {"_id": "changes"}
_UNNUMBERED: Final = {"number": None}


def change(kind: str, subject: str, journal: str = "") -> dict[str, object]:
    """A change that waits for its number."""
    return {
        "number": None,
        "sequence": SEQUENCE.next(),
        "kind": kind,
        "subject": subject,
        "journal": journal,
    }


async def append(place: Place, *changes: dict[str, object]) -> None:
    """Tell every worker on every host that its memory of these subjects is old."""
    if changes:
        await place[CHANGES].insert_many([dict(one) for one in changes], session=place.session)


async def after(connection: Connection, number: int, limit: int) -> list[Change]:
    """Entries above `number`, ascending; changes that wait are numbered first."""
    for _ in range(limits.store_conflict_attempts_max):
        found = await connection.read(lambda place: _read(place, number, limit))
        if found is not None:
            return found
        with contextlib.suppress(StoreConflictError):  # another host numbers them at this moment
            await connection.transact(_give_numbers)
    raise StoreConflictError("other hosts number the changes without an end")


async def _read(place: Place, number: int, limit: int) -> list[Change] | None:
    """None: some change waits for its number."""
    cursor = place[CHANGES].find({"$or": [{"number": {"$gt": number}}, _UNNUMBERED]})
    entries = await cursor.sort("number", 1).limit(limit).to_list()
    if any(entry["number"] is None for entry in entries):
        return None
    return [Change(entry["number"], entry["kind"], entry["subject"], entry["journal"]) for entry in entries]


async def _give_numbers(place: Place) -> None:
    """Number what waits, a page at a time, and drop the feed's oldest end."""
    cursor = place[CHANGES].find(_UNNUMBERED, {"_id": 1}, session=place.session)
    waiting = await cursor.sort("sequence", 1).limit(limits.changes_numbered_at_once_max).to_list()
    if not waiting:
        return
    counter = await place[META].find_one_and_update(
        _COUNTER,
        {"$inc": {"last": len(waiting)}},
        upsert=True,
        return_document=ReturnDocument.AFTER,
        session=place.session,
    )
    last = int((counter or {})["last"])
    first = last - len(waiting) + 1
    await place[CHANGES].bulk_write(
        [
            UpdateOne({"_id": entry["_id"]}, {"$set": {"number": first + index}})
            for index, entry in enumerate(waiting)
        ],
        session=place.session,
    )
    await place[CHANGES].delete_many(
        {"number": {"$gt": 0, "$lte": last - limits.changes_kept_max}}, session=place.session
    )


async def audit(
    place: Place, actor: str, action: str, subject: str, details: Mapping[str, object], now_ms: int
) -> None:
    """Append to the audit log."""
    entry = {
        "sequence": SEQUENCE.next(),
        "actor": actor,
        "action": action,
        "subject": subject,
        "details": orjson.loads(orjson.dumps(details)),
        "createdAt": date(now_ms),
    }
    await place[AUDIT].insert_one(entry, session=place.session)


async def put_price_book(place: Place, book: Mapping[str, object], content_hash: str, now_ms: int) -> int:
    """The version of the book with this content: the one it has, or the next. Runs in a transaction."""
    found = await place[PRICE_BOOKS].find_one({"contentHash": content_hash}, session=place.session)
    if found is not None:
        return int(found["_id"])
    newest = await place[PRICE_BOOKS].find_one({}, {"_id": 1}, sort=[("_id", -1)], session=place.session)
    version = 1 if newest is None else int(newest["_id"]) + 1
    entry = {
        "_id": version,
        "contentHash": content_hash,
        "effectiveAt": date(now_ms),
        "book": orjson.dumps(book).decode(),
    }
    await place[PRICE_BOOKS].insert_one(entry, session=place.session)
    return version


async def price_book(place: Place, version: int) -> Mapping[str, object] | None:
    """A stored price book, with the version, hash and time it was stored under."""
    entry = await place[PRICE_BOOKS].find_one({"_id": version})
    if entry is None:
        return None
    version, content_hash, effective_ms = _version(entry)
    return {
        **orjson.loads(entry["book"]),
        "version": version,
        "content_hash": content_hash,
        "effective_ms": effective_ms,
    }


async def price_versions(place: Place) -> list[tuple[int, str, int]]:
    """(version, content hash, effective_ms), ascending."""
    entries = await place[PRICE_BOOKS].find({}, {"book": 0}).sort("_id", 1).to_list()
    return [_version(entry) for entry in entries]


def _version(entry: Mapping[str, Any]) -> tuple[int, str, int]:
    return int(entry["_id"]), str(entry["contentHash"]), milliseconds(entry["effectiveAt"]) or 0
