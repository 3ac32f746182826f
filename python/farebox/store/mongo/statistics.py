"""Statistics in MongoDB: raising cells and reading them, balances of all, the search in the request log.

Promises: every question reads one range of one index, and no more of it than its cells or its bound of rows.
"""

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal
from typing import Any, Final

from bson import Decimal128, Int64, ObjectId
from pymongo import UpdateOne

from farebox.base import limits
from farebox.base.records import POOLS
from farebox.store.mongo.connection import Place
from farebox.store.mongo.log_rows import described
from farebox.store.mongo.schema import AUDIT, LOGS, META, ROLLUPS, ROWS, USERS
from farebox.store.mongo.values import SEQUENCE, UnstorableError, date, legacy_pico, milliseconds, pico, usd
from farebox.store.rollups import CUT, IMPORTED, Cell, Part, Sums, Tally, Usage, cells, together
from farebox.store.statistics import AuditEntry, LogPage, LogQuery, PoolUse, UserRow, Wealth

_EXACT: Final = Context(prec=40)
_MONEY: Final = "charge_pico"
_STORED: Final[Mapping[str, str]] = {
    "requests": "requests",
    "failures": "failures",
    "cut": "cut",
    "partial": "partial",
    "estimated": "estimated",
    "quarantined": "quarantined",
    "input_tokens": "inputTokens",
    "output_tokens": "outputTokens",
    "cache_write_tokens": "cacheWriteTokens",
    "cache_read_tokens": "cacheHitTokens",
    "tokens_used": "tokensUsed",
    _MONEY: "charge",
    "latency_ms": "latencyMs",
    "first_byte_ms": "ttftMs",
    "first_bytes": "firstBytes",
}
"""A sum's name, in their order -> its field in a cell's document."""
_TOTALS: Final = {field: {"$sum": f"${field}"} for field in _STORED.values()}
_ADOPTED: Final = {"_id": "adopted_logs"}
_FIRST: Final = ObjectId(b"\0" * 12)
_BY_TIME: Final = {"series": 1, "start": 1, "name": 1}
"""The index every question about cells is answered from; planners try others while there are few cells."""
_OLD_WALLET: Final = "ohmygpt"


async def add(place: Place, journal: str, usages: Iterable[Usage]) -> None:
    """Raise every cell that exchanges of a journal add to."""
    steps = [_step(journal, cell, sums) for cell, sums in cells(usages).items()]
    if steps:
        await place[ROLLUPS].bulk_write(steps, session=place.session)


def _step(journal: str, cell: Cell, sums: Sums) -> UpdateOne:
    series, start_ms, name, wallet = cell
    numbers = dict(zip(Sums._fields, sums, strict=True))
    return UpdateOne(
        {"_id": f"{journal}:{series}:{start_ms}:{wallet}:{name}"},
        {
            "$setOnInsert": {
                "journal": journal,
                "series": series,
                "start": date(start_ms),
                "name": name,
                "creditType": wallet,
            },
            "$inc": {
                field: usd(numbers[sum_]) if sum_ == _MONEY else Int64(numbers[sum_])
                for sum_, field in _STORED.items()
            },
        },
        upsert=True,
    )


async def tallies(place: Place, parts: Sequence[Part], names: Sequence[str] | None) -> list[Tally]:
    """Sums by name and wallet."""
    sums: dict[tuple[str, str], Sums] = {}
    only = {} if names is None else {"name": {"$in": list(names)}}
    for part in parts:
        for group in await _grouped(place, {**_in(part), **only}, "$name"):
            where = str(group["_id"]["by"]), str(group["_id"]["wallet"])
            found, known = _sums(group), sums.get(where)
            sums[where] = found if known is None else known.plus(found)
    return [Tally(name, 0, wallet, found) for (name, wallet), found in sums.items()]


async def tallies_by_step(place: Place, parts: Sequence[Part], width_ms: int) -> list[Tally]:
    """Sums by step and wallet: one question for the parts of a series, whose steps are told apart here."""
    sums: dict[tuple[int, str], Sums] = {}
    for series in dict.fromkeys(part.series for part in parts):
        own = sorted(part for part in parts if part.series == series)
        begins = [part.from_ms for part in own]
        whole = Part(series, begins[0], max(part.to_ms for part in own))
        for group in await _grouped(place, _in(whole), "$start"):
            start_ms = milliseconds(group["_id"]["by"]) or 0
            part = own[bisect.bisect_right(begins, start_ms) - 1]
            if start_ms >= part.to_ms:
                continue
            where = start_ms - (start_ms - part.from_ms) % width_ms, str(group["_id"]["wallet"])
            found, known = _sums(group), sums.get(where)
            sums[where] = found if known is None else known.plus(found)
    return [Tally("", start_ms, wallet, found) for (start_ms, wallet), found in sums.items()]


async def spending(place: Place, parts: Sequence[Part]) -> dict[str, int]:
    """Charges by name."""
    spent: dict[str, int] = {}
    for part in parts:
        group = {"_id": "$name", "charge": {"$sum": "$charge"}}
        cursor = await place[ROLLUPS].aggregate([{"$match": _in(part)}, {"$group": group}], hint=_BY_TIME)
        for found in await cursor.to_list():
            spent[found["_id"]] = spent.get(found["_id"], 0) + _sum_pico(found["charge"])
    return spent


async def _grouped(place: Place, conditions: Mapping[str, object], by: str) -> list[dict[str, Any]]:
    group = {"_id": {"by": by, "wallet": "$creditType"}, **_TOTALS}
    cursor = await place[ROLLUPS].aggregate([{"$match": conditions}, {"$group": group}], hint=_BY_TIME)
    return await cursor.to_list()


def _in(part: Part) -> dict[str, object]:
    return {"series": part.series, "start": {"$gte": date(part.from_ms), "$lt": _end(part.to_ms)}}


def _end(moment_ms: int) -> object:
    return date(min(moment_ms, _LAST_DATE_MS))


_LAST_DATE_MS: Final = 253_402_300_799_999
"""The end of the year 9999: what every server takes for a date."""


def _sums(group: Mapping[str, Any]) -> Sums:
    return Sums(
        *(_sum_pico(group[field]) if name == _MONEY else int(group[field]) for name, field in _STORED.items())
    )


async def tallied_names(place: Place, parts: Sequence[Part]) -> set[str]:
    """The names that have cells."""
    found: set[str] = set()
    for part in parts:
        cursor = await place[ROLLUPS].aggregate(
            [{"$match": _in(part)}, {"$group": {"_id": "$name"}}], hint=_BY_TIME
        )
        found.update(group["_id"] for group in await cursor.to_list())
    return found


async def usages(place: Place, from_ms: int, to_ms: int, user: str) -> list[Usage]:
    """What single rows add; rows of the replaced system's shape too."""
    conditions: dict[str, object] = {"createdAt": {"$gte": date(from_ms), "$lt": date(to_ms)}}
    if user:
        conditions["userId"] = user
    found = place[LOGS].find(conditions).hint({"createdAt": 1})
    return together([_usage(row) async for row in found])


def _usage(row: Mapping[str, Any]) -> Usage:
    """Absent is 0, an absent wallet ohmygpt, as in rows of the replaced system; what is no number is 0."""
    evidence, outcome, first_byte_ms = row.get("evidence"), row.get("outcome"), row.get("ttftMs")
    sums = Sums(
        requests=1,
        failures=not row.get("isSuccess", True),
        cut=outcome in CUT,
        partial=evidence == "partial",
        estimated=evidence == "estimated",
        quarantined=bool(row.get("quarantine")),
        input_tokens=_count(row.get("inputTokens")),
        output_tokens=_count(row.get("outputTokens")),
        cache_write_tokens=_count(row.get("cacheWriteTokens")),
        cache_read_tokens=_count(row.get("cacheHitTokens")),
        tokens_used=_count(row.get("tokensUsed")),
        charge_pico=_charge_pico(row),
        latency_ms=_count(row.get("latencyMs")),
        first_byte_ms=_count(first_byte_ms),
        first_bytes=first_byte_ms is not None,
    )
    return Usage(
        str(row.get("userId") or ""),
        str(row.get("model") or ""),
        row.get("creditType") or _OLD_WALLET,
        milliseconds(row.get("createdAt")) or 0,
        sums,
    )


def _count(value: object) -> int:
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return max(0, int(value)) if is_number else 0  # type: ignore[call-overload]


def _charge_pico(row: Mapping[str, Any]) -> int:
    return _balance_pico(row.get("charge", row.get("creditsCost")))


async def users(place: Place, after: str, limit: int) -> list[UserRow]:
    """Users by name."""
    names = ("isActive", "parked", "createdAt", *_AMOUNTS, *_COUNTS)
    cursor = place[USERS].find({"_id": {"$gt": after}}, dict.fromkeys(names, 1)).sort("_id", 1).limit(limit)
    return [
        UserRow(
            str(raw["_id"]),
            raw.get("isActive", True) is not False,
            raw.get("parked"),
            milliseconds(raw.get("createdAt")) or 0,
            {name: _balance_pico(raw.get(name)) for name in _AMOUNTS},
            {name: _count(raw.get(name)) for name in _COUNTS},
        )
        async for raw in cursor
    ]


_AMOUNTS: Final = (*POOLS, "creditsUsed", "creditsNewUsed", "total_earned", "total_spent", "written_off")
_COUNTS: Final = ("tokensUserNew", "totalInputTokens", "totalOutputTokens")


async def adopt_logs(place: Place, limit: int) -> bool:
    """Count rows the replaced system left in this database; see `Store.adopt_logs`. Runs in a transaction.

    Its ids are ObjectIds, ours and imported ones are texts: a comparison with the one leaves out the other.
    The place is kept with the sums, so that a row is counted once.
    """
    state = await place[META].find_one(_ADOPTED, session=place.session) or {"after": _FIRST}
    older = {"_id": {"$gt": state["after"]}}
    rows = await place[LOGS].find(older, session=place.session).sort("_id", 1).limit(limit).to_list()
    if not rows:
        return False
    await add(place, IMPORTED, map(_usage, rows))
    await place[LOGS].bulk_write(
        [UpdateOne({"_id": row["_id"]}, {"$set": {"sequence": SEQUENCE.next()}}) for row in rows],
        session=place.session,
    )
    await place[META].update_one(
        _ADOPTED, {"$set": {"after": rows[-1]["_id"]}}, upsert=True, session=place.session
    )
    return True


async def wealth(place: Place) -> Wealth:
    """All balances; what is no amount (a NaN the replaced system left) counts nothing."""
    totals = {pool: {"$sum": {"$cond": [{"$gte": [f"${pool}", 0]}, f"${pool}", 0]}} for pool in POOLS}
    cursor = await place[USERS].aggregate([{"$group": {"_id": None, "users": {"$sum": 1}, **totals}}])
    found = await cursor.to_list()
    if not found:
        return Wealth(0, dict.fromkeys(POOLS, 0))
    return Wealth(found[0]["users"], {pool: _sum_pico(found[0][pool]) for pool in POOLS})


async def pool_use(place: Place, from_ms: int, to_ms: int) -> list[PoolUse]:
    """Sums of the ledger by pool and type, by way of each user's: users are counted, not listed."""
    mine = {"pool": "$pool", "type": "$type"}
    steps: list[dict[str, Any]] = [
        {"$match": {"createdAt": {"$gte": date(from_ms), "$lt": _end(to_ms)}}},
        {
            "$group": {
                "_id": {**mine, "user": "$user"},
                "amount": {"$sum": "$amount"},
                "rows": {"$sum": 1},
            }
        },
        {
            "$group": {
                "_id": {"pool": "$_id.pool", "type": "$_id.type"},
                "amount": {"$sum": "$amount"},
                "rows": {"$sum": "$rows"},
                "users": {"$sum": 1},
            }
        },
    ]
    cursor = await place[ROWS].aggregate(steps, allowDiskUse=True)
    return [
        PoolUse(one["_id"]["pool"], one["_id"]["type"], _sum_pico(one["amount"]), one["rows"], one["users"])
        for one in await cursor.to_list()
    ]


def _sum_pico(total: object) -> int:
    """A sum over users may be more than one balance can be; Decimal128 holds it exactly. A sum of doubles the
    replaced system left stands for its decimal form, to the pico.
    """
    amount = total.to_decimal() if isinstance(total, Decimal128) else Decimal(repr(total))
    return int(amount.scaleb(12, context=_EXACT).to_integral_value(context=_EXACT))


def _balance_pico(stored: object) -> int:
    """An amount of ours or of the replaced system; 0 where it is none."""
    try:
        return pico(stored) if isinstance(stored, Decimal128) else legacy_pico(stored)
    except UnstorableError:
        return 0


async def search_logs(place: Place, query: LogQuery, limit: int) -> LogPage:
    """Rows that fit, newest first, out of the next `log_rows_searched_max` of the time and user asked for."""
    span = _span(query)
    order = [("createdAt", -1), ("sequence", -1)]
    index = dict([("userId", 1), *order] if query.user else order)
    searched = limits.log_rows_searched_max
    ends = place[LOGS].find(span, {"createdAt": 1, "sequence": 1}).sort(order).skip(searched - 1)
    last = _place(await anext(ends.limit(1).hint(index), None))
    within = span if last is None else {"$and": [span, _not_before(last)]}
    found = place[LOGS].find({"$and": [within, _wanted(query)]}).sort(order).limit(limit + 1)
    rows = await found.hint(index).to_list()
    if len(rows) > limit:
        return LogPage([described(row) for row in rows[:limit]], _place(rows[limit - 1]))
    return LogPage([described(row) for row in rows], last)


def _span(query: LogQuery) -> dict[str, object]:
    created: dict[str, object] = {"$gte": date(query.from_ms)}
    if query.to_ms is not None:
        created["$lt"] = date(query.to_ms)
    span: dict[str, object] = {"createdAt": created}
    if query.user:
        span = {"userId": query.user, **span}
    if query.before is not None:
        created_ms, sequence = query.before
        moment = date(created_ms)
        older = [{"createdAt": {"$lt": moment}}, {"createdAt": moment, "sequence": {"$lt": sequence}}]
        return {"$and": [{**span, "createdAt": {**created, "$lte": moment}}, {"$or": older}]}
    return span


def _not_before(place: tuple[int, int]) -> dict[str, object]:
    created_ms, sequence = place
    moment = date(created_ms)
    return {"$or": [{"createdAt": {"$gt": moment}}, {"createdAt": moment, "sequence": {"$gte": sequence}}]}


def _wanted(query: LogQuery) -> dict[str, object]:
    wanted: dict[str, object] = {}
    if query.model:
        wanted["model"] = query.model
    if query.wallet:
        wanted["creditType"] = {"$in": [query.wallet, None]} if query.wallet == _OLD_WALLET else query.wallet
    if query.outcome:
        wanted["outcome"] = query.outcome
    if query.failed is not None:
        wanted["isSuccess"] = not query.failed
    return wanted


def _place(row: Mapping[str, Any] | None) -> tuple[int, int] | None:
    return None if row is None else (milliseconds(row["createdAt"]) or 0, int(row.get("sequence", 0)))


async def audit_entries(
    place: Place, before: int | None, limit: int, actor: str, subject: str
) -> list[AuditEntry]:
    """The audit log, newest first."""
    conditions: dict[str, object] = {}
    if before is not None:
        conditions["sequence"] = {"$lt": before}
    if actor:
        conditions["actor"] = actor
    if subject:
        conditions["subject"] = subject
    cursor = place[AUDIT].find(conditions).sort("sequence", -1).limit(limit)
    return [
        AuditEntry(
            int(one["sequence"]),
            one["actor"],
            one["action"],
            one["subject"],
            one["details"],
            milliseconds(one["createdAt"]) or 0,
        )
        async for one in cursor
    ]


async def series_totals(place: Place) -> dict[str, dict[str, tuple[int, int]]]:
    """What every series adds up to."""
    group = {
        "_id": {"series": {"$arrayElemAt": [{"$split": ["$series", ":"]}, 0]}, "wallet": "$creditType"},
        "requests": {"$sum": "$requests"},
        "charge": {"$sum": "$charge"},
    }
    cursor = await place[ROLLUPS].aggregate(
        [{"$match": {"series": {"$exists": True}}}, {"$group": group}], session=place.session
    )
    totals: dict[str, dict[str, tuple[int, int]]] = {}
    for found in await cursor.to_list():
        sums = int(found["requests"]), _sum_pico(found["charge"])
        totals.setdefault(found["_id"]["series"], {})[found["_id"]["wallet"]] = sums
    return totals
