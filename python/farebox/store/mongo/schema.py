"""Collections and indexes of the MongoDB store, their version, and the checks made when a database is opened.

Promises: opening is idempotent and safe beside processes that are running, also older ones: collections and
indexes are only ever added, a newer schema is refused by name (fault row S19); nothing of the replaced
system's own collections is removed. Every collection is there before the first transaction needs it.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any, Final

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from farebox.base.errors import StoreRefusedError
from farebox.store.base import RECORD_KINDS

VERSION: Final = 1

META: Final = "farebox_meta"
USERS: Final = "usersNew"
KEYS: Final = "api_keys"
ROWS: Final = "credit_transactions"
LOGS: Final = "request_logs"
JOURNALS: Final = "journals"
PARKED: Final = "parked_settlements"
CHANGES: Final = "changes"
AUDIT: Final = "audit_log"
ROLLUPS: Final = "rollups"
PRICE_BOOKS: Final = "price_books"

_SECONDS_PER_DAY: Final = 86_400
_LOG_TTL_INDEX: Final = "createdAt_ttl"
_NAMESPACE_EXISTS: Final = 48
_INDEX_CONFLICTS: Final = frozenset({85, 86})
"""IndexOptionsConflict, IndexKeySpecsConflict."""

_RECORD_INDEXES: Final = (
    IndexModel([("createdAt", DESCENDING), ("_id", DESCENDING)]),
    IndexModel([("user", ASCENDING), ("createdAt", DESCENDING)]),
    IndexModel([("status", ASCENDING), ("createdAt", DESCENDING)]),
    IndexModel([("reference", ASCENDING)]),
    IndexModel([("status", ASCENDING), ("dueAt", ASCENDING)]),
)
_INDEXES: Final[Mapping[str, tuple[IndexModel, ...]]] = {
    META: (),
    USERS: (
        IndexModel([("holders", ASCENDING)]),
        IndexModel([("claiming", ASCENDING), ("_id", ASCENDING)], partialFilterExpression={"claiming": True}),
    ),
    KEYS: (IndexModel([("user", ASCENDING), ("createdAt", DESCENDING)]),),
    ROWS: (IndexModel([("user", ASCENDING), ("sequence", DESCENDING)]),),
    LOGS: (
        IndexModel([("userId", ASCENDING), ("createdAt", DESCENDING), ("sequence", DESCENDING)]),
        IndexModel([("creditType", ASCENDING), ("createdAt", DESCENDING)]),
        IndexModel([("createdAt", DESCENDING), ("sequence", DESCENDING)]),
    ),
    JOURNALS: (),
    PARKED: (IndexModel([("resolvedAt", ASCENDING), ("sequence", ASCENDING)]),),
    CHANGES: (IndexModel([("number", ASCENDING)]),),
    AUDIT: (
        IndexModel([("createdAt", DESCENDING)]),
        IndexModel([("sequence", DESCENDING)]),
        IndexModel([("subject", ASCENDING), ("sequence", DESCENDING)]),
        IndexModel([("actor", ASCENDING), ("sequence", DESCENDING)]),
    ),
    ROLLUPS: (IndexModel([("series", ASCENDING), ("start", ASCENDING), ("name", ASCENDING)]),),
    PRICE_BOOKS: (IndexModel([("contentHash", ASCENDING)], unique=True),),
    **dict.fromkeys(RECORD_KINDS.values(), _RECORD_INDEXES),
}


async def prepare(database: AsyncDatabase[dict[str, Any]], where: str, log_ttl_days: int) -> None:
    """Check the version, then create what is missing. Raises StoreRefusedError, pymongo's errors."""
    known = await _checked(database, where)
    fingerprint = _fingerprint(log_ttl_days)
    if known == fingerprint:
        return
    there = set(await database.list_collection_names())
    await asyncio.gather(*(_create(database, name) for name in _INDEXES if name not in there))
    await asyncio.gather(
        *(database[name].create_indexes(list(models)) for name, models in _INDEXES.items() if models)
    )
    await _keep_logs_for(database, log_ttl_days)
    await database[META].update_one(
        {"_id": "schema"}, {"$max": {"version": VERSION}, "$set": {"made": fingerprint}}, upsert=True
    )


def _fingerprint(log_ttl_days: int) -> str:
    """What is made of a version: an opening that finds it made has nothing to do."""
    made = {name: [model.document for model in models] for name, models in _INDEXES.items()}
    return hashlib.sha256(repr((VERSION, log_ttl_days, made)).encode()).hexdigest()


async def _checked(database: AsyncDatabase[dict[str, Any]], where: str) -> str:
    """The fingerprint of what is there; "" when nothing is. Refuses a newer version."""
    found = await database[META].find_one({"_id": "schema"}) or {}
    version = found.get("version", 0)
    if version > VERSION:
        raise StoreRefusedError(
            f"{where}: written by a newer Farebox (schema {version}, this one knows {VERSION}); "
            "start the newer version, or restore a backup made before the upgrade"
        )
    return str(found.get("made", ""))


async def _create(database: AsyncDatabase[dict[str, Any]], name: str) -> None:
    try:
        await database.create_collection(name, check_exists=False)
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise


async def _keep_logs_for(database: AsyncDatabase[dict[str, Any]], days: int) -> None:
    """The TTL of request logs; an index that expires them after another time is changed, never doubled."""
    seconds = days * _SECONDS_PER_DAY
    try:
        await database[LOGS].create_index(
            [("createdAt", ASCENDING)], name=_LOG_TTL_INDEX, expireAfterSeconds=seconds
        )
    except OperationFailure as error:
        if error.code not in _INDEX_CONFLICTS:
            raise
        await database.command(
            {
                "collMod": LOGS,
                "index": {"keyPattern": {"createdAt": 1}, "expireAfterSeconds": seconds},
            }
        )
