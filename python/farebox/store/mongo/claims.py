"""Claims in MongoDB: money kept for debits that fell short (MONEY section 5).

Promises: setting a claim tells every worker to give the user's free money back; each part collected is a
ledger row and a lower claim in one transaction, so whoever collects, and however often, takes it once.
"""

from dataclasses import replace

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import Claim
from farebox.ledger.claims import collected, part_row
from farebox.store.mongo import accounts, feed, moves, rows
from farebox.store.mongo.connection import Place
from farebox.store.mongo.document import UserDocument
from farebox.store.mongo.schema import USERS


def keep(user: UserDocument, claim: Claim) -> None:
    """Set a claim in memory; the caller writes the user and recalls. Raises InvariantBrokenError."""
    there = user.claims.get(claim.reference)
    if there is None:
        user.claim(claim)
    elif (there.pool, there.lot, there.type) != (claim.pool, claim.lot, claim.type):
        raise InvariantBrokenError(
            f"claim {claim.reference}: another debit of {user.name} waits under this name"
        )


def recall(user: str) -> dict[str, object]:
    """The change that asks every journal for a user's free money, for none of them."""
    return feed.change("want", user)


async def set_claim(place: Place, user_name: str, claim: Claim) -> bool:
    """Keep money for a debit; see `Store.set_claim`."""
    if claim.amount_pico <= 0:
        raise InvariantBrokenError(f"claim {claim.reference}: it asks for nothing")
    user = await accounts.find(place, user_name)
    if user is None or user.damage is not None:
        return False
    keep(user, claim)
    await accounts.save(place, user)
    await feed.append(place, recall(user_name))
    return True


async def drop(place: Place, user_name: str, reference: str) -> None:
    """End a claim; workers may ask for money again."""
    user = await accounts.find(place, user_name)
    if user is not None and user.drop_claim(reference):
        await accounts.save(place, user)
        await feed.append(place, feed.change("user", user_name))


async def collect(place: Place, user_name: str, reference: str, now_ms: int) -> int | None:
    """One transaction towards a claim's end; see `Store.collect`."""
    user = await accounts.find(place, user_name)
    claim = None if user is None else user.claims.get(reference)
    if user is None or claim is None:
        return None
    if claim.ends_ms is not None and claim.ends_ms <= now_ms:
        user.drop_claim(reference)
        await accounts.save(place, user)
        await feed.append(place, feed.change("user", user_name))
        return None
    if user.parked is not None or user.is_damaged():
        return claim.amount_pico
    booked = moves.expire_due(user, now_ms)
    account = user.account()
    taken = collected(account, claim, now_ms)
    changes = [recall(user_name)] if taken.is_leased else []
    left_pico: int | None = claim.amount_pico
    if claim.type and (taken.parts or not taken.asked_pico):
        if taken.parts:
            row = part_row(user_name, account.rev, claim, taken, now_ms)
            booked.append(moves.apply_row(user, row, row.lots))
        if taken.asked_pico:
            user.claim(replace(claim, amount_pico=taken.asked_pico))
            left_pico = taken.asked_pico
        else:
            user.drop_claim(reference)
            changes.append(feed.change("user", user_name))
            left_pico = None
    await rows.insert(place, [rows.encode(row) for row in booked])
    if user.is_changed:
        await accounts.save(place, user)
    await feed.append(place, *changes)
    return left_pico


async def page(place: Place, limit: int, after: tuple[str, str]) -> list[tuple[str, Claim]]:
    """Claims of all users, by user and reference, from behind one on."""
    found: list[tuple[str, Claim]] = []
    cursor = place[USERS].find({"claiming": True, "_id": {"$gte": after[0]}}).sort("_id", 1)
    async for raw in cursor:
        claims = sorted(UserDocument(raw).claims.values(), key=lambda claim: claim.reference)
        found += [(raw["_id"], claim) for claim in claims if (raw["_id"], claim.reference) > after]
        if len(found) >= limit:
            break
    return found[:limit]
