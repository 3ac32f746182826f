"""Request logs and hourly rollups in MongoDB: what readers of the replaced system look at.

Promises: a row is written once per exchange, a bad row never delays the others, and nothing here touches
money. Rollups are added once per journal position (hole 27).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import bson
from bson import Decimal128, Int64
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from farebox.base.records import Settlement
from farebox.base.units import usd_from_pico
from farebox.store import log_rows
from farebox.store.booking_rules import output_tokens
from farebox.store.mongo import faults, journals
from farebox.store.mongo.connection import Connection, Place
from farebox.store.mongo.schema import JOURNALS, LOGS, ROLLUPS
from farebox.store.mongo.values import SEQUENCE, date, milliseconds, pico, usd


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
    output = output_tokens(record)
    detail = log_rows.detail(record)
    others = [{"model": model, "counts": dict(counts)} for model, counts in record.others.items()]
    return RawBSONDocument(
        bson.encode(
            {
                "_id": record.exchange,
                "sequence": SEQUENCE.next(),
                "userId": record.user,
                "userKeyId": record.key,
                "model": record.model,
                "upstream": record.upstream,
                "inputTokens": record.counts.get("input", 0),
                "outputTokens": output,
                "cacheWriteTokens": record.counts.get("cache_write_5m", 0)
                + record.counts.get("cache_write_1h", 0),
                "cacheHitTokens": record.counts.get("cache_read", 0),
                "tokensUsed": record.input_total + output,
                "creditsCost": usd(charged_pico),
                "creditType": record.wallet,
                "statusCode": record.status,
                "latencyMs": record.ended_ms - record.started_ms,
                "isSuccess": 200 <= record.status < 300,
                "createdAt": date(record.ended_ms),
                "upstreamModel": record.upstream_model,
                "upstreamRequestId": record.upstream_request,
                "wireFormat": record.wire_format,
                "charge": usd(0 if record.quarantine else record.amount_pico),
                "ttftMs": record.first_byte_ms - record.started_ms if record.first_byte_ms else None,
                "outcome": record.outcome,
                "stream": record.stream,
                "evidence": record.evidence,
                "priceVersion": record.price_version,
                "multiplier": record.multiplier,
                "counts": dict(record.counts),
                "rawUsage": record.raw_usage,
                **detail,
                **({"others": others} if others else {}),
            }
        )
    )


async def request_log(place: Place, exchange: str) -> Mapping[str, object] | None:
    """One request-log row."""
    row = await place[LOGS].find_one({"_id": exchange})
    return None if row is None else _described(row)


async def request_logs(
    place: Place, user: str, limit: int, before_ms: int | None
) -> list[Mapping[str, object]]:
    """A user's request-log rows, newest first."""
    conditions: dict[str, object] = {"userId": user}
    if before_ms is not None:
        conditions["createdAt"] = {"$lt": date(before_ms)}
    cursor = place[LOGS].find(conditions).sort([("createdAt", -1), ("sequence", -1)]).limit(limit)
    return [_described(row) async for row in cursor]


async def logs_after(place: Place, exchange: str, limit: int) -> list[Mapping[str, object]]:
    """Rows of all users by exchange id, from behind `exchange` on."""
    cursor = place[LOGS].find({"_id": {"$gt": exchange}}).sort("_id", 1).limit(limit)
    return [_described(row) async for row in cursor]


_OURS: Mapping[str, object] = {"flags": [], "variant": "", "quarantine": "", "free": False}


def _described(row: Mapping[str, Any]) -> Mapping[str, object]:
    """The replaced system's names first, then ours; money as exact USD strings, dates in UTC."""
    described = {**_OURS, **{name: _plain(value) for name, value in row.items()}}
    described["others"] = {other["model"]: other["counts"] for other in row.get("others", [])}
    described.setdefault("creditType", "ohmygpt")
    for internal in ("sequence", "startedMs"):
        described.pop(internal, None)
    return described


def _plain(value: object) -> object:
    if isinstance(value, Decimal128):
        return usd_from_pico(pico(value))
    moment = milliseconds(value)
    return datetime.fromtimestamp(moment / 1000, UTC) if moment is not None else value


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
    rolled_pos: int,
    applied_pos: int,
) -> list[str]:
    """What follows a booking: one insert of the log rows, whose doubles would end a transaction, then one
    transaction.
    """
    failed = await log(connection, to_log, charged)

    async def mark(place: Place) -> None:
        await roll_up(place, journal, epoch, to_roll_up, rolled_pos)
        await journals.advance_applied(place, journal, epoch, applied_pos)

    await connection.transact(mark)
    return failed


async def roll_up(place: Place, journal: str, epoch: int, records: Sequence[Settlement], pos: int) -> None:
    """Add records to the hourly rollups and raise `rolled` to `pos`; nothing when that is done already."""
    raised = await place[JOURNALS].update_one(
        {"_id": journal, "epoch": epoch, "rolled": {"$lt": pos}},
        {"$set": {"rolled": pos}},
        session=place.session,
    )
    steps = [_step(journal, where, cell) for where, cell in log_rows.cells(records).items()]
    if raised.matched_count == 1 and steps:
        await place[ROLLUPS].bulk_write(steps, session=place.session)


def _step(journal: str, where: log_rows.Cell, cell: Sequence[int]) -> UpdateOne:
    hour_ms, user, model, wallet = where
    requests, failures, input_tokens, output, charge_pico = cell
    names = {"journal": journal, "hour": date(hour_ms), "user": user, "model": model, "creditType": wallet}
    return UpdateOne(
        {"_id": f"{journal}:{hour_ms}:{user}:{wallet}:{model}"},
        {
            "$setOnInsert": names,
            "$inc": {
                "requests": requests,
                "failures": failures,
                "inputTokens": Int64(input_tokens),
                "outputTokens": Int64(output),
                "charge": usd(charge_pico),
            },
        },
        upsert=True,
    )
