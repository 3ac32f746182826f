"""Leases in MongoDB: grant, return, fence (MONEY section 6).

Grant and return are one guarded update of the user's document outside of any transaction: `op` counts them,
so a call that lands twice or too late meets another `op` and changes nothing (holes 10, 52), also on a server
that does not recognise a driver's retry. Promises: the sum of leases and reserved amounts of a lot is its
`leased` and never above what is left (M2).
"""

from collections.abc import Sequence
from typing import Any

from pymongo import ReturnDocument

from farebox.base.errors import StoreRefusedError
from farebox.base.records import Fenced, Grant, LotAmount
from farebox.ledger.lots import choose_slices
from farebox.store.lease_rules import answer, by_lot, is_stale, why_no_grant, why_nothing_left
from farebox.store.mongo import accounts, events, feed, journals, rows
from farebox.store.mongo.connection import Connection, Place
from farebox.store.mongo.document import UserDocument
from farebox.store.mongo.schema import USERS
from farebox.store.mongo.values import UnstorableError, key, pico, usd

_CHOICES_MAX = 2


async def grant(
    connection: Connection,
    user: str,
    wallet: str,
    journal: str,
    epoch: int,
    op: int,
    need_pico: int,
    want_pico: int,
    now_ms: int,
) -> Grant:
    """Lease between need and want of a wallet; nothing below the need. Chosen again once where the document
    changed between reading and writing.
    """
    for _ in range(_CHOICES_MAX):
        found = await _in_order(connection, user, now_ms)
        if found is None:
            return Grant("unknown", 0, (), 0, 0)
        account = found.account()
        if found.damage is not None:
            return answer(account, wallet, now_ms, "parked", op)
        entry = account.leases.get(journal)
        entry_op = 0 if entry is None else entry.op
        current = await connection.read(lambda place: journals.is_current(place, journal, epoch))
        reason = "stale" if not current or is_stale(entry, epoch, op) else why_no_grant(account)
        slices = () if reason else choose_slices(account, wallet, need_pico, want_pico, now_ms)
        if not reason and not slices:
            reason = why_nothing_left(account, wallet, now_ms)
        if reason:
            return answer(account, wallet, now_ms, reason, entry_op)
        if await _lease_out(connection, found, journal, epoch, slices):
            return answer(account, wallet, now_ms, "", entry_op + 1, slices)
    return Grant("stale", op, (), 0, 0)


async def _in_order(connection: Connection, user: str, now_ms: int) -> UserDocument | None:
    """A user, after balances of the replaced system were opened and foreign writes have parked him."""
    found = await connection.read(lambda place: accounts.find(place, user))
    if found is None or found.parked is not None or not (found.is_damaged() or found.unopened()):
        return found
    await connection.transact(lambda place: events.open_account(place, user, now_ms))
    return await connection.read(lambda place: accounts.find(place, user))


async def _lease_out(
    connection: Connection, user: UserDocument, journal: str, epoch: int, slices: Sequence[LotAmount]
) -> bool:
    """Write a grant; False when the document is not as it was read."""
    guard, update = _grant_update(user, journal, epoch, slices)
    done = await connection.write(lambda place: place[USERS].find_one_and_update(guard, update, {"_id": 1}))
    return done is not None


def _grant_update(
    user: UserDocument, journal: str, epoch: int, slices: Sequence[LotAmount]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Filter and update of a grant: the entry, the lots and the claims must be as they were read."""
    entry = user.leases.get(journal)
    path = f"leases.{key(journal)}"
    guard: dict[str, Any] = {
        "_id": user.name,
        "isActive": {"$ne": False},
        "parked": None,
        "claims": user.claims_guard(),
        "$expr": {
            "$and": [
                {
                    "$gte": [
                        {
                            "$subtract": [
                                f"$lots.{part.lot}.left",
                                {"$ifNull": [f"$leased.{part.lot}", usd(0)]},
                            ]
                        },
                        usd(part.amount_pico),
                    ]
                }
                for part in slices
            ]
        },
    }
    steps: dict[str, Any] = {"rev": 1, f"{path}.op": 1}
    for part in slices:
        steps[f"{path}.lots.{part.lot}"] = steps[f"leased.{part.lot}"] = usd(part.amount_pico)
    update: dict[str, Any] = {"$inc": steps, "$addToSet": {"holders": journal}}
    if entry is None:
        guard[path] = {"$exists": False}
        update["$set"] = {f"{path}.owner": epoch, f"{path}.dead": False}
    else:
        guard |= {f"{path}.owner": epoch, f"{path}.op": entry.op, f"{path}.dead": {"$ne": True}}
    return guard, update


async def give_back(
    place: Place, user: str, journal: str, epoch: int, op: int, amounts: Sequence[LotAmount]
) -> int | None:
    """Move leased money back to its lots; the new op, or None when owner, op or amounts do not match."""
    returned = by_lot(amounts)
    if returned is None:
        return None
    path = f"leases.{key(journal)}"
    guard: dict[str, Any] = {
        "_id": user,
        f"{path}.owner": epoch,
        f"{path}.op": op,
        f"{path}.dead": {"$ne": True},
    }
    steps: dict[str, Any] = {"rev": 1, f"{path}.op": 1}
    for lot, amount in returned.items():
        if amount:
            guard[f"{path}.lots.{key(lot)}"] = {"$gte": usd(amount)}
            steps[f"{path}.lots.{lot}"] = steps[f"leased.{lot}"] = usd(-amount)
    done = await place[USERS].find_one_and_update(
        guard, {"$inc": steps}, {"_id": 1}, return_document=ReturnDocument.AFTER
    )
    return None if done is None else op + 1


async def fence(place: Place, user: str, journal: str, epoch: int, exchanges: Sequence[str]) -> Fenced | None:
    """Take the entry for this epoch, raise its op, and read it with what of `exchanges` is booked: one
    transaction, so one snapshot.
    """
    if not await journals.is_current(place, journal, epoch):
        raise StoreRefusedError(
            f"journal {journal}: epoch {epoch} is over; another process has claimed or ended it"
        )
    found = await accounts.find(place, user)
    if found is None:
        return None
    if found.damage is not None:
        return Fenced(op=0, dead=False, lots=(), booked=frozenset(), parked=True)
    entry = found.lease(journal, epoch)
    entry.owner = epoch
    entry.op += 1
    await accounts.save(place, found)
    lots = (
        (LotAmount(lot, found.lots[lot].pool, amount), found.lots[lot].expires_at_ms)
        for lot, amount in sorted(entry.lots.items())
        if amount > 0
    )
    return Fenced(
        op=entry.op,
        dead=entry.dead,
        lots=tuple(lots),
        booked=frozenset(await rows.booked(place, [(user, exchange) for exchange in exchanges])),
        parked=found.parked is not None,
    )


async def want(place: Place, user: str, journal: str, wanted: bool) -> None:
    """Ask other journals for this user's free money, or stop asking. Runs in a transaction."""
    path = f"wants.{key(journal)}"
    if not wanted:
        await place[USERS].update_one({"_id": user}, {"$unset": {path: ""}}, session=place.session)
        return
    asked = await place[USERS].update_one({"_id": user}, {"$set": {path: True}}, session=place.session)
    if asked.matched_count == 1:
        await feed.append(place, feed.change("want", user, journal))


async def leases_of(place: Place, journal: str) -> list[str]:
    """Users of whom this journal leases money: those recovery must fence."""
    cursor = place[USERS].find({"holders": journal}, {f"leases.{key(journal)}": 1}).sort("_id", 1)
    return [raw["_id"] async for raw in cursor if _holds(raw, journal)]


def _holds(raw: dict[str, Any], journal: str) -> bool:
    """Whether an entry has money in it; a fence says what is wrong with one that cannot be read."""
    try:
        lots = raw.get("leases", {}).get(journal, {}).get("lots", {})
        return any(pico(amount) > 0 for amount in lots.values())
    except (UnstorableError, AttributeError):
        return True
