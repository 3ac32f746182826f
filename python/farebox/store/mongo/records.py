"""The records of money events in MongoDB: payments, subscriptions, transfers and the like, a collection each.

Promises: written only inside the transaction of their event; a revision is met exactly or nothing changes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import bson
import orjson
from pymongo import InsertOne, UpdateOne

from farebox.base import limits
from farebox.store.base import RECORD_KINDS, EventResult, Record, RecordChange
from farebox.store.mongo import faults
from farebox.store.mongo.connection import Connection, Place
from farebox.store.mongo.values import date, milliseconds
from farebox.store.record_rules import check_expiring, document_text, standing


async def record(place: Place, kind: str, id_: str) -> Record | None:
    """One record."""
    if kind not in RECORD_KINDS:
        return None
    found = await place[RECORD_KINDS[kind]].find_one({"_id": id_}, session=place.session)
    return None if found is None else _decode(kind, found)


async def records(
    place: Place,
    kind: str,
    user: str | None,
    status: str | None,
    reference: str | None,
    due_before_ms: int | None,
    before: tuple[int, str] | None,
    limit: int,
) -> list[Record]:
    """Newest first; see `Store.records`."""
    if kind not in RECORD_KINDS:
        return []
    given = {"user": user, "status": status, "reference": reference}
    conditions: dict[str, object] = {"revision": {"$exists": True}}
    conditions |= {name: value for name, value in given.items() if value is not None}
    if due_before_ms is not None:
        conditions["dueAt"] = {"$ne": None, "$lte": date(due_before_ms)}
    if before is not None:
        moment, id_ = date(before[0]), before[1]
        conditions["$or"] = [
            {"createdAt": {"$lt": moment}},
            {"createdAt": moment, "_id": {"$lt": id_}},
        ]
    cursor = place[RECORD_KINDS[kind]].find(conditions).sort([("createdAt", -1), ("_id", -1)])
    return [_decode(kind, found) async for found in cursor.limit(min(limit, limits.records_page_max))]


async def expire(connection: Connection, kind: str, status: str, before_ms: int, limit: int) -> int:
    """Delete records that were due by then, up to `limit`; how many went."""
    check_expiring(kind)
    due = await connection.read(lambda place: _due(place, kind, status, before_ms, limit))
    if not due:
        return 0
    done = await connection.write(lambda place: place[RECORD_KINDS[kind]].delete_many({"_id": {"$in": due}}))
    return done.deleted_count


async def _due(place: Place, kind: str, status: str, before_ms: int, limit: int) -> list[str]:
    wanted = {"status": status, "dueAt": {"$ne": None, "$lte": date(before_ms)}}
    return [one["_id"] async for one in place[RECORD_KINDS[kind]].find(wanted, {"_id": 1}).limit(limit)]


async def obstacle(place: Place, changes: Sequence[RecordChange]) -> EventResult | None:
    """Why changes may not be made: DUPLICATE or STALE; None when they may."""
    found = [await record(place, change.record.kind, change.record.id) for change in changes]
    return standing(changes, found)


Writes = dict[str, list[InsertOne[dict[str, Any]] | UpdateOne]]
"""Kind of record -> what is written of its records."""


def writes(changes: Sequence[RecordChange]) -> Writes:
    """The changes as writes. Raises one of `faults.ROW_ERRORS` for values no store holds."""
    by_kind: Writes = {}
    for change in changes:
        by_kind.setdefault(change.record.kind, []).append(_write(change))
    return by_kind


async def write(place: Place, by_kind: Writes) -> None:
    """Make the changes; `obstacle` was None in the same transaction."""
    for kind, mine in by_kind.items():
        done = await place[RECORD_KINDS[kind]].bulk_write(mine, session=place.session)
        if done.inserted_count + done.matched_count != len(mine):
            raise faults.changed_meanwhile(f"a {kind}")


def _write(change: RecordChange) -> InsertOne[dict[str, Any]] | UpdateOne:
    fields = {
        "revision": change.record.revision,
        "user": change.record.user,
        "status": change.record.status,
        "reference": change.record.reference,
        "createdAt": date(change.record.created_ms),
        "dueAt": date(change.record.due_ms),
        "document": orjson.loads(document_text(change.record)),
    }
    bson.encode(fields)
    if change.expected == 0:
        return InsertOne({"_id": change.record.id, **fields})
    return UpdateOne({"_id": change.record.id, "revision": change.expected}, {"$set": fields})


def _decode(kind: str, found: Mapping[str, Any]) -> Record:
    return Record(
        kind,
        found["_id"],
        found["revision"],
        found["document"],
        found["user"],
        found["status"],
        found["reference"],
        milliseconds(found["createdAt"]) or 0,
        milliseconds(found["dueAt"]),
    )
