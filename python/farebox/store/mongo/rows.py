"""Ledger rows as MongoDB documents, and which exchanges have one.

Promises: an amount is Decimal128 USD, exact; the unique `_id` of a row is what keeps an exchange or event
from being booked twice. `sequence` puts a user's rows into the order in which they are shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import bson
import orjson
from bson.raw_bson import RawBSONDocument

from farebox.base.records import POOLS, LotAmount, Settlement, Transaction
from farebox.ledger.settlement import charge_block
from farebox.store.mongo.connection import Place
from farebox.store.mongo.schema import PARKED, ROWS
from farebox.store.mongo.values import SEQUENCE, date, milliseconds, pico, usd


def encode(row: Transaction) -> RawBSONDocument:
    """A row as the bytes that are stored. Raises one of `faults.ROW_ERRORS` for values no store holds."""
    charge = dict(row.charge)
    if "others" in charge:
        charge["others"] = _listed(row.charge["others"])
    return RawBSONDocument(
        bson.encode(
            {
                "_id": row.id,
                "user": row.user,
                "type": row.type,
                "reference": row.reference,
                "pool": row.pool,
                "amount": usd(row.amount_pico),
                "lots": [{"lot": p.lot, "pool": p.pool, "amount": usd(p.amount_pico)} for p in row.lots],
                "cause": row.cause,
                "createdAt": date(row.created_ms),
                "sequence": SEQUENCE.next(),
                "charge": charge,
            }
        )
    )


def _listed(others: Any) -> list[dict[str, object]]:
    """Counts by model as a list: model names hold dots, which no field name should."""
    return [{"model": model, "counts": dict(counts)} for model, counts in others.items()]


def decode(document: Mapping[str, Any]) -> Transaction:
    """A stored row."""
    charge = dict(document["charge"])
    if "others" in charge:
        charge["others"] = {other["model"]: other["counts"] for other in charge["others"]}
    return Transaction(
        user=document["user"],
        type=document["type"],
        reference=document["reference"],
        pool=document["pool"],
        amount_pico=pico(document["amount"]),
        lots=tuple(LotAmount(p["lot"], p["pool"], pico(p["amount"])) for p in document["lots"]),
        cause=document["cause"],
        created_ms=milliseconds(document["createdAt"]) or 0,
        charge=charge,
    )


async def insert(place: Place, documents: Sequence[RawBSONDocument]) -> None:
    """Write rows; an id that is there already fails the transaction."""
    if documents:
        await place[ROWS].insert_many(list(documents), session=place.session)


def _ids(user: str, exchange: str) -> list[str]:
    """Ids one of which an exchange's first row has."""
    return [f"{user}:spent:{exchange}:{pool}" for pool in POOLS]


async def charges(place: Place, records: Iterable[Settlement]) -> dict[str, Mapping[str, object]]:
    """Exchange -> the charge block of those that are booked."""
    asked = [one for record in records for one in _ids(record.user, record.exchange)]
    found: dict[str, Mapping[str, object]] = {}
    cursor = place[ROWS].find({"_id": {"$in": asked}}, session=place.session)
    async for document in cursor.sort("sequence", 1):
        row = decode(document)
        found[row.reference] = row.charge or found.get(row.reference, {})
    return found


def stored_charge(settlement: Settlement) -> Mapping[str, object]:
    """The charge block of a settlement as it reads when it comes back from the store."""
    charge: Mapping[str, object] = orjson.loads(orjson.dumps(charge_block(settlement)))
    return charge


def is_same_charge(stored: Mapping[str, object], settlement: Settlement) -> bool:
    """Whether the rows of an exchange say what the settlement says."""
    return bool(stored == stored_charge(settlement))


async def booked(place: Place, exchanges: Iterable[tuple[str, str]]) -> set[str]:
    """Of (user, exchange) pairs, the exchanges with a ledger row or a place among the parked."""
    pairs = list(exchanges)
    if not pairs:
        return set()
    asked = [one for user, exchange in pairs for one in _ids(user, exchange)]
    cursor = place[ROWS].find({"_id": {"$in": asked}}, {"reference": 1}, session=place.session)
    found = {document["reference"] async for document in cursor}
    names = [exchange for _, exchange in pairs]
    parked = place[PARKED].find({"_id": {"$in": names}}, {"_id": 1}, session=place.session)
    return found | {document["_id"] async for document in parked}
