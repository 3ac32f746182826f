"""Who may use the console: named tokens with a role, kept as digests only (M11).

A token's text exists once, in the answer of the call that made it. Its record's id is the token's SHA-256;
revoking and expiry bind the next request, for nothing is cached.
"""

import secrets
from dataclasses import dataclass, replace

from farebox.base import limits
from farebox.base.errors import UsageError
from farebox.base.ids import is_user_name
from farebox.base.keys import key_digest
from farebox.store.base import Event, EventResult, Record, RecordChange, Store

ROLES = ("admin", "support", "read-only")
TOKEN_PREFIX = "fbx-admin-"  # noqa: S105 - how a token begins, no token
ACTIVE, REVOKED = "active", "revoked"
_DIGEST_SHOWN = 12
_DIGEST_NAMED = 6
"""So much of a digest names a token at least."""


@dataclass(frozen=True, slots=True)
class NewAdmin:
    """A token just made: shown once and forgotten."""

    token: str
    record: Record


async def create_admin(
    store: Store, name: str, role: str, expires_at_ms: int | None, actor: str, now_ms: int
) -> NewAdmin:
    """A token for a person or program. Raises UsageError on a bad or taken name, or no such role."""
    if not is_user_name(name):
        raise UsageError(f"{name!r} is no name: use 3 to 50 of a-z, 0-9, _ and -")
    if role not in ROLES:
        raise UsageError(f"{role!r} is no role; choose one of {', '.join(ROLES)}")
    if any(known.status == ACTIVE for known in await store.records("admin", reference=name, limit=100)):
        raise UsageError(f"{name} has a token already; revoke it first, or choose another name")
    token = TOKEN_PREFIX + secrets.token_hex(32)
    record = Record(
        kind="admin",
        id=key_digest(token),
        revision=1,
        document={"role": role},
        status=ACTIVE,
        reference=name,
        created_ms=now_ms,
        due_ms=expires_at_ms,
    )
    event = Event((), records=(RecordChange.insert(record),), actor=actor)
    await store.apply_event(event, now_ms)
    return NewAdmin(token, record)


async def admin_of(store: Store, token: str, now_ms: int) -> Record | None:
    """Whose token this is; None where it is nobody's, revoked or expired."""
    found = await store.record("admin", key_digest(token))
    if found is None or found.status != ACTIVE:
        return None
    return None if found.due_ms is not None and found.due_ms <= now_ms else found


async def admins(
    store: Store, before: tuple[int, str] | None = None, limit: int = limits.records_page_max
) -> list[Record]:
    """Tokens, newest first, a page at a time."""
    return await store.records("admin", before=before, limit=limit)


async def revoke_admin(store: Store, named: str, actor: str, now_ms: int) -> Record:
    """End a token, named by its owner's name or the start of its digest. Raises UsageError."""
    fitting = await store.records("admin", status=ACTIVE, reference=named, limit=2)
    if not fitting and len(named) >= _DIGEST_NAMED:
        active = await store.records("admin", status=ACTIVE, limit=limits.records_page_max)
        fitting = [known for known in active if known.id.startswith(named)]
    if len(fitting) != 1:
        found = "no active token" if not fitting else f"{len(fitting)} tokens"
        raise UsageError(f"{found} of {named!r}; `farebox admin list` shows them")
    revoked = replace(fitting[0], status=REVOKED)
    event = Event((), records=(RecordChange.update(revoked),), actor=actor)
    if await store.apply_event(event, now_ms) is EventResult.STALE:
        raise UsageError(f"the token of {named!r} was changed just now; look again")
    return revoked


def admin_document(admin: Record, now_ms: int) -> dict[str, object]:
    """A token for people and programs, without anything secret."""
    expired = admin.due_ms is not None and admin.due_ms <= now_ms
    return {
        "name": admin.reference,
        "role": admin.document["role"],
        "status": "expired" if expired and admin.status == ACTIVE else admin.status,
        "digest": admin.id[:_DIGEST_SHOWN],
        "created_ms": admin.created_ms,
        "expires_ms": admin.due_ms,
    }
