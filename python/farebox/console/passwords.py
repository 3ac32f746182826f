"""Passwords of users, kept as scrypt digests with a salt each; a password opens the console, never the proxy.

Promises: an unknown user costs the same time as a wrong password; digests are made one at a time, because
each takes 32 MiB, and only so many wait for theirs. A new password ends every session that began with the
old one.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from farebox.base import limits
from farebox.base.errors import UsageError
from farebox.console.answers import Declined
from farebox.store.base import Event, EventResult, Record, RecordChange, Store

_KIND: Final = "password"
_COST: Final = 2**15
_BLOCK: Final = 8
_MEMORY_BYTES_MAX: Final = 64 * 2**20
_NOBODYS: Final = {"salt": "00" * 16, "digest": "", "cost": _COST}
_waiting: Final[set[Callable[[], str]]] = set()
_thread = ThreadPoolExecutor(1, thread_name_prefix="passwords")


async def set_password(store: Store, user: str, password: str, actor: str, now_ms: int) -> None:
    """Give a user a password, or another one. Raises UsageError on one that is too short or too long."""
    if not limits.password_chars_min <= len(password) <= limits.password_chars_max:
        least, most = limits.password_chars_min, limits.password_chars_max
        raise UsageError(f"a password has {least} to {most} characters")
    salt = secrets.token_hex(16)
    document = {"salt": salt, "digest": await _digest(password, salt, _COST), "cost": _COST}
    known = await store.record(_KIND, user)
    if known is None:
        fresh = Record(_KIND, user, 1, document, user=user, status="set", created_ms=now_ms)
        change = RecordChange.insert(fresh)
    else:
        change = RecordChange.update(replace(known, document=document))
    if await store.apply_event(Event((), records=(change,), actor=actor), now_ms) is not EventResult.DONE:
        raise UsageError("the password was changed just now; try again")


async def password_revision(store: Store, user: str) -> int:
    """How often the password was set; 0: there is none."""
    known = await store.record(_KIND, user)
    return 0 if known is None else known.revision


async def check_password(store: Store, user: str, password: str) -> int | None:
    """The revision of the user's password where it is this one."""
    known = await store.record(_KIND, user)
    kept = _NOBODYS if known is None else known.document
    found = await _digest(password[: limits.password_chars_max], str(kept["salt"]), int(str(kept["cost"])))
    fits = hmac.compare_digest(found, str(kept["digest"]))
    return known.revision if known is not None and fits else None


async def _digest(password: str, salt: str, cost: int) -> str:
    """Raises Declined when too many wait already."""

    def work() -> str:
        raw = password.encode("utf-8", "surrogatepass")
        made = hashlib.scrypt(raw, salt=bytes.fromhex(salt), n=cost, r=_BLOCK, p=1, maxmem=_MEMORY_BYTES_MAX)
        return made.hex()

    if len(_waiting) >= limits.password_checks_waiting_max:
        raise Declined(429, "busy", "too many passwords are being checked; try again", 1)
    _waiting.add(work)
    try:
        return await asyncio.get_running_loop().run_in_executor(_thread, work)
    finally:
        _waiting.discard(work)
