"""Users and API keys in MongoDB.

Promises: a user is read as one document, so always in one snapshot; only digests of keys are ever seen here
(M11). A user whom the replaced system left behind is opened where his money is first asked for.
"""

from collections.abc import Mapping
from typing import Any

from pymongo import UpdateOne

from farebox.base.records import POOLS, Account, KeyRecord
from farebox.store.mongo import faults, feed
from farebox.store.mongo.connection import Place
from farebox.store.mongo.document import UserDocument, lifetime_of
from farebox.store.mongo.schema import KEYS, USERS
from farebox.store.mongo.values import date, milliseconds, usd

_COUNTS = ("tokensUserNew", "totalInputTokens", "totalOutputTokens")
_AMOUNTS = ("creditsUsed", "creditsNewUsed", "total_earned", "total_spent", "written_off")


async def find(place: Place, user: str) -> UserDocument | None:
    """One user; None when there is no such user."""
    raw = await place[USERS].find_one({"_id": user}, session=place.session)
    return None if raw is None else UserDocument(raw)


async def find_many(place: Place, users: list[str]) -> dict[str, UserDocument]:
    """Those of the users there are, by name."""
    cursor = place[USERS].find({"_id": {"$in": users}}, session=place.session)
    return {raw["_id"]: UserDocument(raw) async for raw in cursor}


async def create_user(place: Place, user: str, role: str, actor: str, now_ms: int) -> bool:
    """An account with empty pools; False when the name is taken. Runs in a transaction."""
    if await place[USERS].find_one({"_id": user}, {"_id": 1}, session=place.session) is not None:
        return False
    document = empty_document(user, role, now_ms)
    await place[USERS].insert_one(document, session=place.session)
    await feed.append(place, feed.change("user", user))
    await feed.audit(place, actor, "user.create", user, {"role": role}, now_ms)
    return True


def empty_document(user: str, role: str, created_ms: int) -> dict[str, Any]:
    """An account with empty pools, as it is stored."""
    zero = usd(0)
    return {
        "_id": user,
        "role": role,
        "isActive": True,
        "createdAt": date(created_ms),
        "rev": 0,
        **dict.fromkeys(POOLS, zero),
        "seen": dict.fromkeys(POOLS, zero),
        "lots": {},
        **dict.fromkeys(_AMOUNTS, zero),
        **dict.fromkeys(_COUNTS, 0),
        "holders": [],
    }


async def set_user_active(place: Place, user: str, active: bool, actor: str, now_ms: int) -> bool:
    """Enable or disable; binds grants only. Runs in a transaction."""
    changed = await place[USERS].update_one(
        {"_id": user}, {"$set": {"isActive": active}, "$inc": {"rev": 1}}, session=place.session
    )
    if changed.matched_count != 1:
        return False
    await feed.append(place, feed.change("user", user))
    await feed.audit(place, actor, "user.enable" if active else "user.disable", user, {}, now_ms)
    return True


async def page(place: Place, after: str, limit: int) -> list[Account]:
    """Up to `limit` accounts with names above `after`, ascending."""
    cursor = place[USERS].find({"_id": {"$gt": after}}).sort("_id", 1).limit(limit)
    return [UserDocument(raw).account() async for raw in cursor]


async def lifetime(place: Place, user: str) -> Mapping[str, int] | None:
    """A user's lifetime counters under the replaced system's names; money in pico-USD."""
    raw = await place[USERS].find_one({"_id": user})
    return None if raw is None else lifetime_of(raw)


# -- keys ----------------------------------------------------------------------------------------------------
async def create_key(place: Place, key_: KeyRecord, actor: str, now_ms: int) -> bool:
    """Insert a key by its digest; False when the digest is taken or no such user exists."""
    owner = await place[USERS].find_one({"_id": key_.user}, {"_id": 1}, session=place.session)
    taken = await place[KEYS].find_one({"_id": key_.digest}, {"_id": 1}, session=place.session)
    if owner is None or taken is not None:
        return False
    document = key_document(key_, now_ms)
    await place[KEYS].insert_one(document, session=place.session)
    await feed.append(place, feed.change("key", key_.digest))
    details = {"user": key_.user, "label": key_.label}
    await feed.audit(place, actor, "key.create", key_.digest, details, now_ms)
    return True


def key_document(key_: KeyRecord, created_ms: int) -> dict[str, Any]:
    """A key as it is stored."""
    return {
        "_id": key_.digest,
        "user": key_.user,
        "prefix": key_.prefix,
        "label": key_.label,
        "isActive": key_.key_active,
        "limits": {"requestsPerMinute": key_.requests_per_minute},
        "allowedModels": None if key_.allowed_models is None else list(key_.allowed_models),
        "expiresAt": date(key_.expires_at_ms),
        "createdAt": date(created_ms),
    }


async def key(place: Place, digest: str) -> KeyRecord | None:
    """A key by digest, joined with its owner."""
    found = await place[KEYS].find_one({"_id": digest})
    owner = None if found is None else await _owner(place, found["user"])
    return None if found is None or owner is None else _key_record(found, owner)


async def keys_of(place: Place, user: str, before: str, limit: int | None) -> list[KeyRecord]:
    """A user's keys, newest first, up to `limit` behind the one whose digest is `before`."""
    owner = await _owner(place, user)
    last = await place[KEYS].find_one({"_id": before}, {"createdAt": 1}) if before else None
    if owner is None or (before and last is None):
        return []
    wanted: dict[str, object] = {"user": user}
    if last is not None:
        moment = last["createdAt"]
        older = [{"createdAt": {"$lt": moment}}, {"createdAt": moment, "_id": {"$gt": before}}]
        wanted = {**wanted, "createdAt": {"$lte": moment}, "$or": older}
    cursor = place[KEYS].find(wanted).sort([("createdAt", -1), ("_id", 1)]).limit(limit or 0)
    return [_key_record(found, owner) async for found in cursor]


async def set_key_active(place: Place, digest: str, active: bool, actor: str, now_ms: int) -> bool:
    """Revoke or restore a key; False when it is unknown. Runs in a transaction."""
    changed = await place[KEYS].update_one(
        {"_id": digest}, {"$set": {"isActive": active}}, session=place.session
    )
    if changed.matched_count != 1:
        return False
    await feed.append(place, feed.change("key", digest))
    await feed.audit(place, actor, "key.restore" if active else "key.revoke", digest, {}, now_ms)
    return True


async def set_key_limits(
    place: Place,
    digest: str,
    requests_per_minute: int | None,
    allowed_models: tuple[str, ...] | None,
    actor: str,
    now_ms: int,
) -> bool:
    """Change what a key may do; False when it is unknown. Runs in a transaction."""
    models = None if allowed_models is None else list(allowed_models)
    limits = {"limits.requestsPerMinute": requests_per_minute, "allowedModels": models}
    changed = await place[KEYS].update_one({"_id": digest}, {"$set": limits}, session=place.session)
    if changed.matched_count != 1:
        return False
    await feed.append(place, feed.change("key", digest))
    details = {"requests_per_minute": requests_per_minute, "allowed_models": allowed_models}
    await feed.audit(place, actor, "key.limit", digest, details, now_ms)
    return True


async def _owner(place: Place, user: str) -> Mapping[str, Any] | None:
    return await place[USERS].find_one({"_id": user}, {"isActive": 1, "role": 1})


def _key_record(found: Mapping[str, Any], owner: Mapping[str, Any]) -> KeyRecord:
    models = found.get("allowedModels")
    return KeyRecord(
        digest=found["_id"],
        user=found["user"],
        prefix=found["prefix"],
        label=found["label"],
        key_active=found["isActive"],
        user_active=owner.get("isActive", True) is not False,
        role=owner.get("role", "user"),
        requests_per_minute=found["limits"]["requestsPerMinute"],
        allowed_models=None if models is None else tuple(models),
        expires_at_ms=milliseconds(found.get("expiresAt")),
    )


async def save(place: Place, user: UserDocument) -> None:
    """Write what changed of a user inside the transaction that read him."""
    changed = await place[USERS].update_one(user.guard(), user.update(), session=place.session)
    if changed.matched_count != 1:
        raise faults.changed_meanwhile(user.name)


async def save_many(place: Place, users: list[UserDocument]) -> None:
    """`save` for several, in one operation."""
    if users:
        done = await place[USERS].bulk_write(
            [UpdateOne(user.guard(), user.update()) for user in users], session=place.session
        )
        if done.matched_count != len(users):
            raise faults.changed_meanwhile(", ".join(user.name for user in users))
