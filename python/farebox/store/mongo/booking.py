"""Booking settled exchanges in MongoDB (MONEY section 4): a whole batch of users in three operations while
nothing is out of the ordinary, and otherwise with a look at everything first (`careful`).

Promises: one result per record, in order; an exchange is booked once however often its record comes (M4),
because its row's id is unique; the steady way reads nothing: each user's update is guarded by what must hold.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne

from farebox.base import limits
from farebox.base.errors import InvariantBrokenError, StoreConflictError
from farebox.base.records import POOLS, LotAmount, Settlement
from farebox.ledger.settlement import rows_of
from farebox.store.base import Booked
from farebox.store.booking_rules import Counters, is_refusal
from farebox.store.mongo import careful, faults, rows
from farebox.store.mongo.connection import Connection, Place
from farebox.store.mongo.document import counter_steps
from farebox.store.mongo.schema import USERS
from farebox.store.mongo.values import key, usd

_UNTOUCHED: Mapping[str, object] = {
    "parked": None,
    "unresolved": {"$in": [None, 0]},
    **{pool: {"$type": "decimal"} for pool in POOLS},
    "$expr": {"$and": [{"$eq": [f"${pool}", f"$seen.{pool}"]} for pool in POOLS]},
}
"""What holds of a user whom nobody parked and nobody wrote to from outside."""


class _NeedsLookError(Exception):
    """Some user's lease does not cover his records, or his account is out of the ordinary: undo."""


async def book(
    connection: Connection, journal: str, epoch: int, records: Sequence[Settlement], now_ms: int
) -> list[Booked]:
    """Book records of one journal in order; see `Store.book`."""
    by_user: dict[str, list[Settlement]] = defaultdict(list)
    for record in records:
        if not is_refusal(record):
            by_user[record.user].append(record)
    if await _book_steady(connection, journal, by_user, now_ms):
        return [Booked.BOOKED] * len(records)
    attempts = 1 if len(by_user) > 1 else limits.store_conflict_attempts_max
    return await connection.transact(
        lambda place: careful.book(place, journal, epoch, records, now_ms), attempts=attempts
    )


async def _book_steady(
    connection: Connection, journal: str, by_user: Mapping[str, Sequence[Settlement]], now_ms: int
) -> bool:
    """Book everything as its leases cover it; False, with nothing changed, where they do not."""
    if not by_user:
        return True
    try:
        documents = [row for records in by_user.values() for row in _rows(records, now_ms)]
        updates = [_update(journal, user, records) for user, records in by_user.items()]
        await connection.transact(lambda place: _write(place, documents, updates), attempts=1)
    except (_NeedsLookError, StoreConflictError, InvariantBrokenError, *faults.ROW_ERRORS):
        return False
    return True


async def _write(place: Place, documents: Sequence[RawBSONDocument], updates: list[UpdateOne]) -> None:
    await rows.insert(place, documents)
    done = await place[USERS].bulk_write(updates, session=place.session)
    if done.matched_count != len(updates):
        raise _NeedsLookError


def _rows(records: Sequence[Settlement], now_ms: int) -> list[RawBSONDocument]:
    if any(record.quarantine for record in records):
        raise _NeedsLookError
    return [rows.encode(row) for record in records for row in rows_of(record, record.takes, 0, now_ms)]


def _update(journal: str, user: str, records: Sequence[Settlement]) -> UpdateOne:
    """One user's update: his lease must hold what is taken, from lots of the pools named."""
    taken: dict[LotAmount, int] = defaultdict(int)
    for record in records:
        for part in record.takes:
            if part.amount_pico <= 0:
                raise _NeedsLookError
            taken[part._replace(amount_pico=0)] += part.amount_pico
    parts = [part._replace(amount_pico=amount) for part, amount in taken.items()]
    counters = Counters()
    counters.take(parts, 0)
    counters.count_tokens(records)
    lease = f"leases.{key(journal)}"
    conditions: dict[str, object] = {"_id": user, **_UNTOUCHED, f"{lease}.dead": {"$ne": True}}
    steps: dict[str, object] = {"rev": 1, **counter_steps(counters)}
    pools: dict[str, int] = defaultdict(int)
    for lot, pool, amount in parts:
        conditions[f"lots.{key(lot)}.pool"] = pool
        for path in (f"{lease}.lots.{lot}", f"leased.{lot}", f"lots.{lot}.left"):
            conditions[path] = {"$gte": usd(amount), "$type": "decimal"}
            steps[path] = usd(-amount)
        pools[pool] += amount
    for pool, amount in pools.items():
        steps[pool] = steps[f"seen.{pool}"] = usd(-amount)
    return UpdateOne(conditions, {"$inc": steps})
