"""Reading the ledger from MongoDB: a user's rows, newest first, or all of them with the account in one
snapshot.
"""

from collections.abc import Mapping

from farebox.base.records import Account, Transaction
from farebox.store.mongo import accounts, rows
from farebox.store.mongo.connection import Place
from farebox.store.mongo.schema import ROWS
from farebox.store.mongo.values import pico


async def transactions(place: Place, user: str, limit: int, before: str, kind: str) -> list[Transaction]:
    """Up to `limit` rows of a user, newest first, older than the row whose id is `before`; of one type when
    `kind` names it.
    """
    conditions: dict[str, object] = {"user": user}
    if kind:
        conditions["type"] = kind
    if before:
        last = await place[ROWS].find_one({"_id": before}, {"sequence": 1})
        if last is None:
            return []
        conditions["sequence"] = {"$lt": last["sequence"]}
    cursor = place[ROWS].find(conditions).sort("sequence", -1).limit(limit)
    return [rows.decode(document) async for document in cursor]


async def account_with_rows(place: Place, user: str) -> tuple[Account, list[Transaction]] | None:
    """A user and all his rows, newest first, in the snapshot of the caller's transaction."""
    found = await accounts.find(place, user)
    if found is None:
        return None
    cursor = place[ROWS].find({"user": user}, session=place.session).sort("sequence", -1)
    return found.account(), [rows.decode(document) async for document in cursor]


async def account_with_sums(place: Place, user: str) -> tuple[Account, Mapping[str, int], int] | None:
    """A user, his rows summed by pool, and how many they are, in the snapshot of the caller's transaction."""
    found = await accounts.find(place, user)
    if found is None:
        return None
    sums = {"_id": "$pool", "total": {"$sum": "$amount"}, "count": {"$sum": 1}}
    cursor = await place[ROWS].aggregate(
        [{"$match": {"user": user}}, {"$group": sums}], session=place.session
    )
    groups = await cursor.to_list()
    by_pool = {group["_id"]: pico(group["total"]) for group in groups}
    return found.account(), by_pool, sum(group["count"] for group in groups)
