"""Users and keys as an operator makes them: the steps behind the commands, one function each.

Every change is acknowledged only when the store holds it, is written to the audit log, and reaches running
workers over the change feed. A key's text exists once, in the answer of the call that made it (M11).
"""

from dataclasses import dataclass

from farebox.base.errors import UsageError
from farebox.base.ids import is_user_name
from farebox.base.keys import display_prefix, key_digest, new_key
from farebox.base.records import KeyRecord
from farebox.store.base import Store

ROLES = ("user", "admin")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: `key` is its text, to be shown once and forgotten."""

    key: str
    record: KeyRecord


async def create_user(store: Store, user: str, role: str, actor: str, now_ms: int) -> None:
    """Create an account with empty pools. Raises UsageError on a bad or taken name."""
    if not is_user_name(user):
        raise UsageError(f"{user!r} is no user name: use 3 to 50 of a-z, 0-9, _ and -")
    if role not in ROLES:
        raise UsageError(f"{role!r} is no role; choose one of {', '.join(ROLES)}")
    if not await store.create_user(user, role, actor, now_ms):
        raise UsageError(f"the user {user!r} exists already")


async def set_user_active(store: Store, user: str, active: bool, actor: str, now_ms: int) -> None:
    """Enable or disable a user's requests; money can still be credited and corrected. Raises UsageError."""
    if not await store.set_user_active(user, active, actor, now_ms):
        raise UsageError(unknown_user(user))


async def create_key(
    store: Store,
    user: str,
    label: str,
    actor: str,
    now_ms: int,
    *,
    requests_per_minute: int | None = None,
    allowed_models: tuple[str, ...] | None = None,
    expires_at_ms: int | None = None,
) -> NewKey:
    """Make a key for a user. Raises UsageError when there is no such user."""
    if await store.account(user) is None:
        raise UsageError(unknown_user(user))
    key = new_key()
    record = KeyRecord(
        digest=key_digest(key),
        user=user,
        prefix=display_prefix(key),
        label=label,
        key_active=True,
        user_active=True,
        role="user",
        requests_per_minute=requests_per_minute,
        allowed_models=allowed_models,
        expires_at_ms=expires_at_ms,
    )
    if not await store.create_key(record, actor, now_ms):
        raise UsageError(f"the key was not stored: {unknown_user(user)}")
    return NewKey(key, record)


async def find_key(store: Store, named: str, user: str | None = None) -> KeyRecord:
    """The key an operator means: its digest, the start of it, its displayed prefix, or (with a user) its
    label.

    Raises UsageError when none or several fit.
    """
    if user is None:
        record = await store.key(named)
        if record is None:
            raise UsageError(f"no key with the digest {named!r}; name its user to find it by prefix or label")
        return record
    fitting = [key for key in await store.keys_of(user) if _is_meant(key, named)]
    if len(fitting) != 1:
        found = "no key" if not fitting else f"{len(fitting)} keys"
        raise UsageError(f"{found} of {user!r} fit {named!r}; `farebox key list {user}` shows their digests")
    return fitting[0]


def _is_meant(key: KeyRecord, named: str) -> bool:
    return named in {key.digest, key.prefix, key.label} or (len(named) >= 6 and key.digest.startswith(named))


async def revoke_key(store: Store, record: KeyRecord, actor: str, now_ms: int) -> None:
    """End a key: running exchanges finish, new ones are refused."""
    if not await store.set_key_active(record.digest, False, actor, now_ms):
        raise UsageError(f"no key with the digest {record.digest!r}")


async def limit_key(
    store: Store,
    record: KeyRecord,
    requests_per_minute: int | None,
    allowed_models: tuple[str, ...] | None,
    actor: str,
    now_ms: int,
) -> None:
    """Change a key's rate and models (None: the service's rate, every model); running exchanges finish."""
    if not await store.set_key_limits(record.digest, requests_per_minute, allowed_models, actor, now_ms):
        raise UsageError(f"no key with the digest {record.digest!r}")


async def rotate_key(store: Store, record: KeyRecord, actor: str, now_ms: int) -> NewKey:
    """A new key with the same label and limits; the old one is revoked once the new one is stored."""
    fresh = await create_key(
        store,
        record.user,
        record.label,
        actor,
        now_ms,
        requests_per_minute=record.requests_per_minute,
        allowed_models=record.allowed_models,
        expires_at_ms=record.expires_at_ms,
    )
    await revoke_key(store, record, actor, now_ms)
    return fresh


def unknown_user(user: str) -> str:
    """What to say about a user name nobody has."""
    return f"there is no user {user!r}; `farebox user list` shows who there is"
