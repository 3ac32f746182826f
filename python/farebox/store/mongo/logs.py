"""Request logs in MongoDB, and what raises the rollups: what readers of the replaced system look at.

Promises: a row is written once per exchange, a bad row never delays the others, and nothing here touches
money. Rollups are added once per journal position (hole 27).
"""

from collections.abc import Mapping, Sequence

import bson
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError

from farebox.base.records import Settlement
from farebox.store import log_rows
from farebox.store.mongo import faults, journals, statistics
from farebox.store.mongo.connection import Connection, Place
from farebox.store.mongo.log_rows import described
from farebox.store.mongo.schema import JOURNALS, LOGS
from farebox.store.mongo.values import SEQUENCE, date, usd
from farebox.store.rollups import usages_of


async def log(connection: Connection, records: Sequence[Settlement], charged: Mapping[str, int]) -> list[str]:
    """Insert request-log rows, leaving those that are there; the ids of those that cannot be stored."""
    rows: list[RawBSONDocument] = []
    failed: list[str] = []
    for record in records:
        try:
            rows.append(_encoded(record, charged.get(record.exchange, record.amount_pico)))
        except faults.ROW_ERRORS:
            failed.append(record.exchange)
    if rows:
        failed += await connection.write(lambda place: _insert(place, rows))
    return failed


async def _insert(place: Place, rows: list[RawBSONDocument]) -> list[str]:
    try:
        await place[LOGS].insert_many(rows, ordered=False)
    except BulkWriteError as error:
        refused = [one for one in error.details["writeErrors"] if one["code"] != faults.DUPLICATE_KEY]
        if error.details.get("writeConcernErrors"):
            raise
        return [rows[one["index"]]["_id"] for one in refused]
    return []


def _encoded(record: Settlement, charged_pico: int) -> RawBSONDocument:
    detail = log_rows.detail(record)
    others = [{"model": model, "counts": dict(counts)} for model, counts in record.others.items()]
    charge = usd(0 if record.quarantine else record.amount_pico)
    return RawBSONDocument(
        bson.encode(
            {
                "_id": record.exchange,
                "sequence": SEQUENCE.next(),
                **log_rows.members(record, usd(charged_pico), charge, date(record.ended_ms)),
                "rawUsage": record.raw_usage,
                **detail,
                **({"others": others} if others else {}),
            }
        )
    )


async def request_log(place: Place, exchange: str) -> Mapping[str, object] | None:
    """One request-log row."""
    row = await place[LOGS].find_one({"_id": exchange})
    return None if row is None else described(row)


async def request_logs(
    place: Place, user: str, limit: int, before_ms: int | None
) -> list[Mapping[str, object]]:
    """A user's request-log rows, newest first."""
    conditions: dict[str, object] = {"userId": user}
    if before_ms is not None:
        conditions["createdAt"] = {"$lt": date(before_ms)}
    cursor = place[LOGS].find(conditions).sort([("createdAt", -1), ("sequence", -1)]).limit(limit)
    return [described(row) async for row in cursor]


async def logs_after(place: Place, exchange: str, limit: int) -> list[Mapping[str, object]]:
    """Rows of all users by exchange id, from behind `exchange` on."""
    cursor = place[LOGS].find({"_id": {"$gt": exchange}}).sort("_id", 1).limit(limit)
    return [described(row) async for row in cursor]


async def expire_logs(connection: Connection, before_ms: int, limit: int) -> int:
    """Delete up to `limit` of the oldest rows created before `before_ms`; how many went.

    The TTL index does the same on the server's clock; this is for a caller's.
    """
    old = await connection.read(lambda place: _oldest(place, before_ms, limit))
    if not old:
        return 0
    done = await connection.write(lambda place: place[LOGS].delete_many({"_id": {"$in": old}}))
    return done.deleted_count


async def _oldest(place: Place, before_ms: int, limit: int) -> list[str]:
    cursor = place[LOGS].find({"createdAt": {"$lt": date(before_ms)}}, {"_id": 1})
    return [row["_id"] async for row in cursor.sort("createdAt", 1).limit(limit)]


async def finish(
    connection: Connection,
    journal: str,
    epoch: int,
    to_log: Sequence[Settlement],
    charged: Mapping[str, int],
    to_roll_up: Sequence[Settlement],
    rolled_from: int,
    rolled_pos: int,
    applied_pos: int,
) -> list[str]:
    """What follows a booking: one insert of the log rows, whose doubles would end a transaction, then one
    transaction.
    """
    failed = await log(connection, to_log, charged)

    async def mark(place: Place) -> None:
        if await roll_up(place, journal, epoch, to_roll_up, rolled_from, rolled_pos):
            await journals.advance_applied(place, journal, epoch, applied_pos)

    await connection.transact(mark)
    return failed


async def roll_up(
    place: Place, journal: str, epoch: int, records: Sequence[Settlement], rolled_from: int, pos: int
) -> bool:
    """Add records to the rollups and raise `rolled` from `rolled_from` to `pos`; see `Store.roll_up`."""
    if rolled_from < pos:
        raised = await place[JOURNALS].update_one(
            {"_id": journal, "epoch": epoch, "rolled": rolled_from},
            {"$set": {"rolled": pos}},
            session=place.session,
        )
        if raised.matched_count == 1:
            await statistics.add(place, journal, usages_of(records))
            return True
    return await journals.rolled(place, journal) >= pos
