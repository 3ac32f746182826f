"""An import into MongoDB: accounts with opening balances, their keys and their old request logs, a page at a
time.

Promises: a page of accounts is one transaction; doing it again changes nothing; an existing account gets its
opening as an ordinary event would. Keys and logs are single inserts by id, so that one that is there stays.
"""

from collections.abc import Sequence
from typing import Any, Final

from pymongo.errors import BulkWriteError

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import POOLS, KeyRecord, Transaction
from farebox.store.base import Event, EventResult
from farebox.store.mongo import accounts, events, faults, feed, rows, statistics
from farebox.store.mongo.connection import Connection, Place
from farebox.store.mongo.document import UserDocument
from farebox.store.mongo.schema import KEYS, LOGS, ROWS, USERS
from farebox.store.mongo.values import SEQUENCE, date, usd
from farebox.store.openings import OPENING_COUNTERS, PARKED_BY_IMPORT, OldLog, Opening, OpeningResult
from farebox.store.rollups import IMPORTED, Sums, Usage

_MONEY: Final = "_pico"


class _DryRunError(Exception):
    """Undo the page: it was only tried."""

    def __init__(self, results: list[OpeningResult]) -> None:
        super().__init__()
        self.results = results


async def open_accounts(
    connection: Connection, openings: Sequence[Opening], now_ms: int, *, dry_run: bool
) -> list[OpeningResult]:
    """Book a page of openings; see `Store.open_accounts`."""
    try:
        return await connection.transact(lambda place: _open_page(place, openings, now_ms, dry_run=dry_run))
    except _DryRunError as tried:
        return tried.results


async def _open_page(
    place: Place, openings: Sequence[Opening], now_ms: int, *, dry_run: bool
) -> list[OpeningResult]:
    """New accounts are written together; who is there already is looked at alone."""
    users = await accounts.find_many(place, [opening.user for opening in openings])
    fresh = [opening for opening in openings if opening.user not in users]
    if len({opening.user for opening in fresh}) != len(fresh):
        raise InvariantBrokenError("a page of openings names no user twice")
    if fresh:
        await place[USERS].insert_many([_document(opening) for opening in fresh], session=place.session)
        await rows.insert(place, [rows.encode(row) for opening in fresh for row in opening.rows])
    results: list[OpeningResult] = []
    for opening in openings:
        user = users.get(opening.user)
        if user is not None:
            results.append(await _open_known(place, user, opening, now_ms))
        else:
            results.append(OpeningResult.PARKED if opening.parked else OpeningResult.CREATED)
    if dry_run:
        raise _DryRunError(results)
    return results


def _document(opening: Opening) -> dict[str, Any]:
    document = accounts.empty_document(opening.user, opening.role, opening.created_ms)
    document["isActive"] = opening.is_active
    if opening.parked:
        document["parked"] = opening.parked
    for row in opening.rows:
        document[row.pool] = document["seen"][row.pool] = usd(row.amount_pico)
        for part in row.lots:
            document["lots"][part.lot] = {
                "pool": part.pool,
                "left": usd(part.amount_pico),
                "expires_at": date(opening.ends_ms.get(part.pool)),
                "source": "opening",
            }
    for pool, suffix in (("credits", ""), ("creditsNew", "New")):
        document[f"purchasedAt{suffix}"] = date(opening.bought_ms.get(pool))
        document[f"expiresAt{suffix}"] = date(opening.ends_ms.get(pool))
    for name in OPENING_COUNTERS:
        amount = opening.counters.get(name, 0)
        document[name.removesuffix(_MONEY)] = usd(amount) if name.endswith(_MONEY) else amount
    return document


async def _open_known(place: Place, user: UserDocument, opening: Opening, now_ms: int) -> OpeningResult:
    """An account that is there: imported before, made here, or parked."""
    if opening.parked:
        return OpeningResult.PARKED
    stored = await _opened(place, opening)
    if stored:
        same = stored == {row.pool: row.amount_pico for row in opening.rows}
        return OpeningResult.UNCHANGED if same else OpeningResult.DIFFERENT
    if (user.parked or "").startswith(PARKED_BY_IMPORT):
        user.park(None)
        await accounts.save(place, user)
        await feed.append(place, feed.change("user", user.name))
    for row in opening.rows:
        event = Event((row,), expires_at_ms=opening.ends_ms.get(row.pool), source="opening")
        if await events.apply_in(place, event, now_ms) is not EventResult.DONE:
            return OpeningResult.PARKED
    steps = {
        name.removesuffix(_MONEY): usd(amount) if name.endswith(_MONEY) else amount
        for name, amount in opening.counters.items()
        if name in OPENING_COUNTERS
    }
    if steps:
        await place[USERS].update_one({"_id": user.name}, {"$inc": steps}, session=place.session)
    return OpeningResult.ADDED


async def _opened(place: Place, opening: Opening) -> dict[str, int]:
    """Pool -> amount of the opening rows of this reference that are booked."""
    reference = opening.rows[0].reference
    asked = [Transaction(opening.user, "opening", reference, pool, 0, (), "", 0).id for pool in POOLS]
    cursor = place[ROWS].find({"_id": {"$in": asked}}, session=place.session)
    found = [rows.decode(document) async for document in cursor]
    return {row.pool: row.amount_pico for row in found}


async def import_keys(place: Place, keys: Sequence[tuple[KeyRecord, int]]) -> int:
    """Insert keys with their dates of creation; one that is there stays as it is. How many are new."""
    cursor = place[USERS].find({"_id": {"$in": [key.user for key, _ in keys]}}, {"_id": 1})
    owners = {raw["_id"] async for raw in cursor}
    documents = [accounts.key_document(key, at_ms) for key, at_ms in keys if key.user in owners]
    return len(documents) - len(await _insert(place, KEYS, documents))


async def import_logs(place: Place, logs: Sequence[OldLog]) -> set[str]:
    """Insert old request logs by id, and raise the rollups by the new ones; the ids that were there already.

    Runs in a transaction.
    """
    asked = {"_id": {"$in": [log.exchange for log in logs]}}
    known = {row["_id"] async for row in place[LOGS].find(asked, {"_id": 1}, session=place.session)}
    fresh = {log.exchange: log for log in logs if log.exchange not in known}
    if fresh:
        await place[LOGS].insert_many([_log(log) for log in fresh.values()], session=place.session)
        await statistics.add(place, IMPORTED, map(_usage, fresh.values()))
    return known


def _usage(log: OldLog) -> Usage:
    sums = Sums(
        requests=1,
        failures=not 200 <= log.status < 300,
        input_tokens=log.input_tokens,
        output_tokens=log.output_tokens,
        cache_write_tokens=log.cache_write_tokens,
        cache_read_tokens=log.cache_hit_tokens,
        tokens_used=log.tokens_used,
        charge_pico=log.charge_pico,
        latency_ms=log.latency_ms,
    )
    return Usage(log.user, log.model, log.credit_type, log.created_ms, sums)


async def _insert(place: Place, collection: str, documents: list[dict[str, Any]]) -> set[str]:
    """Insert by id; the ids that were there already."""
    if not documents:
        return set()
    try:
        await place[collection].insert_many(documents, ordered=False)
    except BulkWriteError as error:
        if not faults.is_duplicate(error) or error.details.get("writeConcernErrors"):
            raise
        return {documents[one["index"]]["_id"] for one in error.details["writeErrors"]}
    return set()


def _log(log: OldLog) -> dict[str, Any]:
    return {
        "_id": log.exchange,
        "sequence": SEQUENCE.next(),
        "userId": log.user,
        "userKeyId": log.key,
        "model": log.model,
        "upstream": log.upstream,
        "inputTokens": log.input_tokens,
        "outputTokens": log.output_tokens,
        "cacheWriteTokens": log.cache_write_tokens,
        "cacheHitTokens": log.cache_hit_tokens,
        "tokensUsed": log.tokens_used,
        "creditsCost": usd(log.charge_pico),
        "creditType": log.credit_type,
        "statusCode": log.status,
        "latencyMs": log.latency_ms,
        "isSuccess": 200 <= log.status < 300,
        "createdAt": date(log.created_ms),
        "upstreamModel": "",
        "upstreamRequestId": "",
        "wireFormat": "",
        "charge": usd(log.charge_pico),
        "ttftMs": None,
        "outcome": "imported",
        "stream": False,
        "evidence": "",
        "priceVersion": 0,
        "multiplier": "",
        "counts": {},
        "rawUsage": "",
    }
