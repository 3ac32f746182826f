"""Who asks: an admin's token or a user's API key, looked up by digest, nothing cached.

Revoked, expired, disabled, unknown and malformed credentials are one and the same 401; a genuine one without
the role is a 403. A credential is never logged, stored or repeated.
"""

from farebox.base.keys import key_digest
from farebox.base.limits import api_key_bytes_max
from farebox.console.answers import Declined
from farebox.console.routes import ANYONE, USER, Caller, Route
from farebox.credits.admins import TOKEN_PREFIX, admin_of
from farebox.store.base import Store

_NOBODY = Caller(ANYONE, "")


async def admitted(store: Store, route: Route, authorization: str, now_ms: int) -> Caller:
    """The caller, if the route's row lets him in. Raises Declined, and the store's errors."""
    if ANYONE in route.roles:
        return _NOBODY
    caller = await _caller(store, authorization, now_ms)
    if caller is None:
        raise Declined(401, "unauthorized", "send a valid credential as `Authorization: Bearer …`")
    if caller.role not in route.roles:
        raise Declined(403, "forbidden", f"the role {caller.role} may not do this")
    return caller


async def _caller(store: Store, authorization: str, now_ms: int) -> Caller | None:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > api_key_bytes_max or not token.isascii():
        return None
    if token.startswith(TOKEN_PREFIX):
        admin = await admin_of(store, token, now_ms)
        return None if admin is None else Caller(str(admin.document["role"]), admin.reference)
    key = await store.key(key_digest(token))
    if key is None or not key.key_active or not key.user_active:
        return None
    expired = key.expires_at_ms is not None and key.expires_at_ms <= now_ms
    return None if expired else Caller(USER, key.user)
