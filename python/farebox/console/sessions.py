"""Sessions of browsers: a random token in a cookie, known here by its digest, bound to what it began with.

Promises: a session is worth no more than its credential at this moment: revoked, expired or disabled, rotated
or with another password, it ends with the next request. It ends by itself after `session_lasts_s`. The token
is in no store, log or page; scripts cannot read it, and other sites cannot use it (`csrf_of`).
"""

import hashlib
import secrets
from dataclasses import dataclass, replace
from typing import Final

from farebox.base import limits
from farebox.base.keys import key_digest
from farebox.console.passwords import password_revision
from farebox.console.routes import USER, Caller
from farebox.credits.admins import ACTIVE as ADMIN_ACTIVE
from farebox.store.base import SESSION_ACTIVE, SESSION_ENDED, Event, Record, RecordChange, Store

COOKIE: Final = "farebox_session"
_KIND: Final = "session"
ADMIN_TOKEN, API_KEY, PASSWORD = "admin", "key", "password"


@dataclass(frozen=True, slots=True)
class Credential:
    """What a session began with: its kind, and the digest or revision that must still be in force."""

    kind: str
    value: str


async def begin(store: Store, caller: Caller, credential: Credential, now_ms: int) -> str:
    """A session's token, to be sent to the browser and forgotten."""
    token = secrets.token_urlsafe(32)
    record = Record(
        kind=_KIND,
        id=key_digest(token),
        revision=1,
        document={"role": caller.role, "credential": credential.kind, "value": credential.value},
        user=caller.name if caller.role == USER else "",
        status=SESSION_ACTIVE,
        reference=caller.name,
        created_ms=now_ms,
        due_ms=now_ms + int(limits.session_lasts_s * 1000),
    )
    event = Event((), records=(RecordChange.insert(record),), actor=caller.actor)
    await store.apply_event(event, now_ms)
    return token


async def caller_of(store: Store, token: str, now_ms: int) -> Caller | None:
    """Whose session this is; None where it is nobody's, over, or its credential is not in force any more."""
    found = await store.record(_KIND, key_digest(token))
    if found is None or found.status != SESSION_ACTIVE or found.due_ms is None or found.due_ms <= now_ms:
        return None
    caller = Caller(str(found.document["role"]), found.reference)
    credential = Credential(str(found.document["credential"]), str(found.document["value"]))
    return caller if await _is_in_force(store, caller, credential, now_ms) else None


async def _is_in_force(store: Store, caller: Caller, credential: Credential, now_ms: int) -> bool:
    if credential.kind == ADMIN_TOKEN:
        admin = await store.record("admin", credential.value)
        return (
            admin is not None
            and admin.status == ADMIN_ACTIVE
            and admin.document["role"] == caller.role
            and (admin.due_ms is None or admin.due_ms > now_ms)
        )
    if credential.kind == API_KEY:
        key = await store.key(credential.value)
        return (
            key is not None
            and key.key_active
            and key.user_active
            and (key.expires_at_ms is None or key.expires_at_ms > now_ms)
        )
    account = await store.account(caller.name)
    is_user = account is not None and account.is_active
    return is_user and str(await password_revision(store, caller.name)) == credential.value


async def end(store: Store, token: str, actor: str, now_ms: int) -> None:
    """End a session; nothing where it is over."""
    found = await store.record(_KIND, key_digest(token))
    if found is None or found.status != SESSION_ACTIVE:
        return
    change = RecordChange.update(replace(found, status=SESSION_ENDED))
    await store.apply_event(Event((), records=(change,), actor=actor), now_ms)


def csrf_of(token: str) -> str:
    """What a page of ours must send with every write: made of the cookie's token, known to no other site."""
    return hashlib.sha256(b"csrf:" + token.encode()).hexdigest()
