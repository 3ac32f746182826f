"""Routes of users and their API keys: found, shown, made, rotated, limited, revoked, by operators and owners.

A key's text is in the answer of the call that made it and nowhere else, so a repeated Idempotency-Key makes
no second key and cannot show the first one again.
"""

from collections.abc import Mapping
from typing import cast

from farebox.base import limits
from farebox.base.records import KeyRecord
from farebox.base.units import usd_from_pico
from farebox.console.answers import Declined
from farebox.console.input import (
    CreateUserInput,
    KeyInput,
    KeyLimitsInput,
    NothingInput,
    PageQuery,
    UsersQuery,
)
from farebox.console.once import once
from farebox.console.output import usd_number
from farebox.console.paging import page_of
from farebox.console.routes import ADMINS, READERS, USER, USERS, Call, Route
from farebox.credits import accounts
from farebox.credits.accounts import NewKey
from farebox.store.statistics import UserRow

Document = Mapping[str, object]


async def users(call: Call) -> Document:
    """Users by name, a page at a time; `q` is how their names begin."""
    asked = cast("UsersQuery", call.asked)
    found = await call.store.users(max(asked.after, _before(asked.q)), asked.limit + 1)
    fitting = [row for row in found if row.user.startswith(asked.q)]
    page, last = page_of(fitting, asked.limit)
    return {"users": [user_view(row) for row in page], "next": None if last is None else last.user}


async def user(call: Call) -> Document:
    """One user: balances, lifetime counters, his newest keys."""
    name = call.path["user"]
    if not name.isascii() or not name.isprintable():
        raise Declined(404, "unknown_user", "there is no such user")
    found = [row for row in await call.store.users(_before(name), 1) if row.user == name]
    if not found:
        raise Declined(404, "unknown_user", "there is no such user")
    return {**user_view(found[0]), **await _keys(call, name, PageQuery())}


async def create_user(call: Call) -> Document:
    """Make an account with empty pools."""
    body = cast("CreateUserInput", call.body)

    async def make() -> Document:
        await accounts.create_user(call.store, body.user, "user", call.caller.actor, call.now_ms)
        return {"user": body.user}

    return await once(call, make)


async def keys_of_user(call: Call) -> Document:
    """A user's keys, newest first."""
    return await _keys(call, call.path["user"], cast("PageQuery", call.asked))


async def own_keys(call: Call) -> Document:
    """The caller's keys, newest first."""
    return await _keys(call, call.caller.name, cast("PageQuery", call.asked))


async def create_key_for(call: Call) -> Document:
    """Make a key for a user; its text is shown now and never again."""
    return await _create_key(call, call.path["user"])


async def create_own_key(call: Call) -> Document:
    """Make a key for the caller; its text is shown now and never again."""
    return await _create_key(call, call.caller.name)


async def rotate(call: Call) -> Document:
    """A new key with the same label and limits; the old one is revoked."""

    async def make() -> Document:
        key = await _key(call)
        if not key.key_active:
            raise Declined(409, "revoked", "this key is revoked; make a new one")
        return _new_key_view(await accounts.rotate_key(call.store, key, call.caller.actor, call.now_ms))

    return await once(call, make)


async def revoke(call: Call) -> Document:
    """End a key: what runs is finished, nothing new is accepted."""
    key = await _key(call)
    await accounts.revoke_key(call.store, key, call.caller.actor, call.now_ms)
    return {"digest": key.digest, "active": False}


async def limit(call: Call) -> Document:
    """Change what a key may do; null means the service's rate, and every model."""
    body, key = cast("KeyLimitsInput", call.body), await _key(call)
    models = None if body.allowed_models is None else tuple(body.allowed_models)
    await accounts.limit_key(
        call.store, key, body.requests_per_minute, models, call.caller.actor, call.now_ms
    )
    return {
        "digest": key.digest,
        "requests_per_minute": body.requests_per_minute,
        "allowed_models": body.allowed_models,
    }


def key_view(key: KeyRecord) -> dict[str, object]:
    """A key without its text, which nobody has but its owner."""
    return {
        "digest": key.digest,
        "user": key.user,
        "prefix": key.prefix,
        "label": key.label,
        "active": key.key_active,
        "requests_per_minute": key.requests_per_minute,
        "allowed_models": None if key.allowed_models is None else list(key.allowed_models),
        "expires_ms": key.expires_at_ms,
    }


def user_view(row: UserRow) -> dict[str, object]:
    """The replaced system's names; each amount as a number and as a string."""
    view: dict[str, object] = {
        "_id": row.user,
        "username": row.user,
        "isActive": row.is_active,
        "parked": row.parked,
        "created_ms": row.created_ms,
        **row.counts,
    }
    for name, amount_pico in row.amounts.items():
        view[name] = usd_number(amount_pico)
        view[f"{name}_usd"] = usd_from_pico(amount_pico)
    return view


ROUTES: tuple[Route, ...] = (
    Route("GET", "/api/admin/users", READERS, users, query=UsersQuery),
    Route("POST", "/api/admin/users", ADMINS, create_user, CreateUserInput),
    Route("GET", "/api/admin/users/{user}", READERS, user),
    Route("GET", "/api/admin/users/{user}/keys", READERS, keys_of_user, query=PageQuery),
    Route("POST", "/api/admin/users/{user}/keys", ADMINS, create_key_for, KeyInput),
    Route("POST", "/api/admin/keys/{digest}/rotate", ADMINS, rotate, NothingInput),
    Route("POST", "/api/admin/keys/{digest}/revoke", ADMINS, revoke, NothingInput),
    Route("POST", "/api/admin/keys/{digest}/limits", ADMINS, limit, KeyLimitsInput),
    Route("GET", "/api/keys", USERS, own_keys, query=PageQuery),
    Route("POST", "/api/keys", USERS, create_own_key, KeyInput),
    Route("POST", "/api/keys/{digest}/rotate", USERS, rotate, NothingInput),
    Route("POST", "/api/keys/{digest}/revoke", USERS, revoke, NothingInput),
    Route("POST", "/api/keys/{digest}/limits", USERS, limit, KeyLimitsInput),
)


def _before(name: str) -> str:
    """Above every other name that is below this one; names are printable ASCII."""
    return name[:-1] + chr(ord(name[-1]) - 1) + "\U0010ffff" if name else ""


async def _key(call: Call) -> KeyRecord:
    """The key of the path; a user knows only his own."""
    found = await call.store.key(call.path["digest"])
    if found is None or (call.caller.role == USER and found.user != call.caller.name):
        raise Declined(404, "unknown_key", "there is no such key")
    return found


async def _keys(call: Call, owner: str, asked: PageQuery) -> Document:
    found = await call.store.keys_of(owner, asked.before, asked.limit + 1)
    page, last = page_of(found, asked.limit)
    return {"keys": [key_view(key) for key in page], "next": None if last is None else last.digest}


async def _create_key(call: Call, owner: str) -> Document:
    body = cast("KeyInput", call.body)
    models = None if body.allowed_models is None else tuple(body.allowed_models)

    async def make() -> Document:
        active = [key for key in await call.store.keys_of(owner) if key.key_active]
        if len(active) >= limits.keys_per_user_max:
            raise Declined(409, "too_many", f"a user has at most {limits.keys_per_user_max} keys; revoke one")
        made = await accounts.create_key(
            call.store,
            owner,
            body.label,
            call.caller.actor,
            call.now_ms,
            requests_per_minute=body.requests_per_minute,
            allowed_models=models,
            expires_at_ms=body.expires_ms,
        )
        return _new_key_view(made)

    return await once(call, make)


def _new_key_view(made: NewKey) -> dict[str, object]:
    return {**key_view(made.record), "key": made.key}
