"""Parked settlements in MongoDB: records that wait for an operator, and what he decides (MONEY sections 4 and
9).

Promises: a parked record is kept for ever, resolved or not, so that its replay is recognised; resolving is
one transaction that frees what was reserved, writes the rows of the exchange and says who did it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bson import Decimal128

from farebox.base.errors import StoreConflictError
from farebox.base.records import Settlement
from farebox.ledger.settlement import rows_of
from farebox.store.base import Booked
from farebox.store.booking_rules import (
    ACCOUNT,
    CONFLICT,
    Counters,
    check_resolution,
    described,
    final_settlement,
    parked_name,
    resolved_split,
)
from farebox.store.mongo import accounts, feed, rows
from farebox.store.mongo.connection import Place
from farebox.store.mongo.document import UserDocument
from farebox.store.mongo.schema import LOGS, PARKED, USERS
from farebox.store.mongo.values import SEQUENCE, date, milliseconds, pico, usd


def parked(
    record: Settlement, kind: str, reason: str, journal: str, epoch: int, now_ms: int
) -> dict[str, object]:
    """A parked record as a document."""
    return {
        "_id": parked_name(record, kind),
        "exchange": record.exchange,
        "user": record.user,
        "kind": kind,
        "reason": reason,
        "settlement": record.encode(),
        "journal": journal,
        "epoch": epoch,
        "parkedAt": date(now_ms),
        "sequence": SEQUENCE.next(),
        "resolvedAt": None,
    }


async def insert(place: Place, documents: Sequence[dict[str, object]]) -> None:
    """Keep records for an operator; one that is there already is left as it is."""
    if not documents:
        return
    names = [document["_id"] for document in documents]
    cursor = place[PARKED].find({"_id": {"$in": names}}, {"_id": 1}, session=place.session)
    known = {document["_id"] async for document in cursor}
    new = {document["_id"]: document for document in documents if document["_id"] not in known}
    if new:
        await place[PARKED].insert_many(list(new.values()), session=place.session)


async def payloads(place: Place, exchanges: Sequence[str]) -> dict[str, bytes]:
    """Exchange -> the record parked under its own id, resolved or not."""
    cursor = place[PARKED].find({"_id": {"$in": list(exchanges)}}, {"settlement": 1}, session=place.session)
    return {document["_id"]: bytes(document["settlement"]) async for document in cursor}


async def waiting(place: Place) -> list[Mapping[str, object]]:
    """What awaits an operator, oldest first; `id` is what `resolve` takes."""
    found = await place[PARKED].find({"resolvedAt": None}).sort("sequence", 1).to_list()
    users = sorted({document["user"] for document in found})
    reserved = {
        raw["_id"]: raw.get("reserved") or {}
        async for raw in place[USERS].find({"_id": {"$in": users}}, {"reserved": 1})
    }
    return [_described(document, reserved.get(document["user"], {})) for document in found]


def _described(document: Mapping[str, Any], reserved: object) -> Mapping[str, object]:
    record = Settlement.decode(document["settlement"])
    set_aside = reserved.get(document["_id"], {}) if isinstance(reserved, Mapping) else {}
    return described(
        document["_id"],
        document["kind"],
        document["reason"],
        record,
        document["journal"],
        milliseconds(document["parkedAt"]) or 0,
        sum(pico(amount) for amount in set_aside.values() if isinstance(amount, Decimal128)),
    )


async def resolve(place: Place, name: str, amount_pico: int | None, actor: str, now_ms: int) -> Booked | None:
    """Settle a parked exchange at an amount, or void it; None when nothing of that name waits."""
    found = await place[PARKED].find_one({"_id": name, "resolvedAt": None}, session=place.session)
    if found is None:
        return None
    kind, record = found["kind"], Settlement.decode(found["settlement"])
    user = await accounts.find(place, record.user)
    check_resolution(name, kind, record, amount_pico, None if user is None else user.account())
    if user is not None and kind != CONFLICT:
        if user.parked is not None or user.is_damaged():
            return Booked.PARKED
        if kind == ACCOUNT:
            user.set_unresolved(max(0, user.unresolved - 1))
        await _settle(place, user, final_settlement(record, kind, amount_pico or 0), now_ms)
    done = await place[PARKED].update_one(
        {"_id": name, "resolvedAt": None},
        {
            "$set": {
                "resolvedAt": date(now_ms),
                "resolvedBy": actor,
                "resolvedAmount": None if amount_pico is None else usd(amount_pico),
            }
        },
        session=place.session,
    )
    if done.matched_count != 1:
        raise StoreConflictError(f"{name} was resolved at the same time")
    action = "quarantine.void" if amount_pico is None else "quarantine.settle"
    details = {"amount_pico": amount_pico, "user": record.user}
    await feed.audit(place, actor, action, name, details, now_ms)
    await feed.append(place, feed.change("user", record.user))
    return Booked.BOOKED


async def _settle(place: Place, user: UserDocument, final: Settlement, now_ms: int) -> None:
    """Charge what was reserved first, then what is available; the rest is written off."""
    late = resolved_split(user.account(), final, now_ms)
    user.release(final.exchange)
    for part in late.split:
        user.move(part._replace(amount_pico=-part.amount_pico))
    counters = Counters()
    counters.take(late.split, late.written_off_pico)
    counters.count_tokens((final,))
    user.count(counters)
    made = rows_of(final, late.split, late.written_off_pico, now_ms)
    await rows.insert(place, [rows.encode(row) for row in made])
    await accounts.save(place, user)
    await place[LOGS].update_one(
        {"_id": final.exchange},
        {
            "$set": {
                "charge": usd(final.amount_pico),
                "creditsCost": usd(final.amount_pico - late.written_off_pico),
            }
        },
        session=place.session,
    )
