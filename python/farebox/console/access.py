"""Who asks: an admin's token, a user's API key, or a browser's session, looked up by digest, never cached.

Revoked, expired, disabled, unknown and malformed credentials are one and the same 401; a genuine one without
the role is a 403. A credential is never logged, stored or repeated. A cookie counts only under a host name of
ours (a rebound name reaches nothing), and for writes only together with the session's CSRF token and from our
own origin; a token in `Authorization` is sent by no browser on its own, and needs neither.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from farebox.base.keys import key_digest
from farebox.base.limits import api_key_bytes_max
from farebox.console import sessions
from farebox.console.answers import Declined
from farebox.console.routes import ANYONE, USER, Caller, Route
from farebox.console.sessions import ADMIN_TOKEN, API_KEY, Credential
from farebox.credits.admins import TOKEN_PREFIX, admin_of
from farebox.store.base import Store

CSRF_HEADER: Final = "X-CSRF-Token"
LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_READS: Final = frozenset({"GET", "HEAD"})
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", ""})
_NOBODY: Final = Caller(ANYONE, "")


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request shows of whom it comes from and where it was made."""

    method: str
    authorization: str
    session: str
    csrf: str
    host: str
    origin: str
    is_cross_site: bool
    is_secure: bool
    address: str


def presented(request: web.Request) -> Presented:
    """Read from a request. A proxy on this machine is believed what it forwards."""
    headers, remote = request.headers, request.remote or ""
    is_forwarded = remote in _LOOPBACK
    forwarded = headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    return Presented(
        method=request.method,
        authorization=headers.get("Authorization", ""),
        session=request.cookies.get(sessions.COOKIE, ""),
        csrf=headers.get(CSRF_HEADER, ""),
        host=headers.get("Host", ""),
        origin=headers.get("Origin", ""),
        is_cross_site=headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"},
        is_secure=request.secure or (is_forwarded and headers.get("X-Forwarded-Proto", "") == "https"),
        address=forwarded[:64] if is_forwarded and forwarded else remote,
    )


async def admitted(store: Store, route: Route, shown: Presented, hosts: Iterable[str], now_ms: int) -> Caller:
    """The caller, if the route's row lets him in. Raises Declined, and the store's errors."""
    if ANYONE in route.roles:
        return _NOBODY
    caller = await identified(store, shown, hosts, now_ms)
    if caller is None:
        raise Declined(401, "unauthorized", "send a valid credential as `Authorization: Bearer …`, or log in")
    if caller.role not in route.roles:
        raise Declined(403, "forbidden", f"the role {caller.role} may not do this")
    return caller


async def identified(store: Store, shown: Presented, hosts: Iterable[str], now_ms: int) -> Caller | None:
    """Who asks, by whichever credential was sent; None: nobody we know. Raises Declined on a session that is
    used from elsewhere.
    """
    if shown.authorization:
        found = await credential_of(store, _bearer(shown.authorization), now_ms)
        return None if found is None else found[0]
    if not shown.session or len(shown.session) > api_key_bytes_max:
        return None
    check_place(shown, hosts)
    caller = await sessions.caller_of(store, shown.session, now_ms)
    if caller is not None and shown.method not in _READS:
        expected = sessions.csrf_of(shown.session)
        if not hmac.compare_digest(shown.csrf.encode(), expected.encode()):
            raise Declined(403, "csrf", f"send the session's token as {CSRF_HEADER}")
    return caller


def check_place(shown: Presented, hosts: Iterable[str]) -> None:
    """Raise Declined where a browser was led here under another name, or by another site."""
    try:
        name = urlsplit(f"//{shown.host}").hostname or ""
    except ValueError:
        name = ""
    if name not in hosts:
        raise Declined(
            403,
            "host",
            "the console is not known by this host name; add it to `console.hosts` if it is yours",
        )
    if shown.method in _READS:
        return
    if _is_foreign(shown) or shown.is_cross_site:
        raise Declined(403, "origin", "this came from a page of another site")


def _is_foreign(shown: Presented) -> bool:
    try:
        return bool(shown.origin) and urlsplit(shown.origin).netloc != shown.host
    except ValueError:
        return True


async def credential_of(store: Store, token: str, now_ms: int) -> tuple[Caller, Credential] | None:
    """Whose admin token or API key this is; None where it is nobody's or not in force."""
    if not token or len(token) > api_key_bytes_max or not token.isascii():
        return None
    if token.startswith(TOKEN_PREFIX):
        admin = await admin_of(store, token, now_ms)
        if admin is None:
            return None
        return Caller(str(admin.document["role"]), admin.reference), Credential(ADMIN_TOKEN, admin.id)
    key = await store.key(key_digest(token))
    if key is None or not key.key_active or not key.user_active:
        return None
    expired = key.expires_at_ms is not None and key.expires_at_ms <= now_ms
    return None if expired else (Caller(USER, key.user), Credential(API_KEY, key.digest))


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token if scheme.lower() == "bearer" else ""
