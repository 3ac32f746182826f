"""Routes of logging in and out: by admin token, by API key, or by a user's name and password.

Promises: whoever guesses is locked out (`lockout`), and that is in the audit log; a wrong name and a wrong
password are one answer; the cookie is HttpOnly and SameSite=Strict, and Secure wherever TLS is.
"""

import logging
from collections.abc import Mapping
from typing import cast

from farebox.console import passwords, sessions
from farebox.console.access import check_place, credential_of
from farebox.console.answers import Declined
from farebox.console.input import LoginInput, NothingInput, PasswordInput
from farebox.console.routes import EVERYONE, KNOWN, USER, USERS, Call, Caller, Reply, Route
from farebox.console.sessions import PASSWORD, Credential

_log = logging.getLogger(__name__)


async def log_in(call: Call) -> Reply:
    """Begin a session of this browser."""
    body = cast("LoginInput", call.body)
    check_place(call.shown, call.hosts)
    names = [f"address {call.shown.address}", *([f"user {body.user}"] if body.user else [])]
    wait_s = call.attempts.wait_s(names, call.now_ms)
    if wait_s:
        raise Declined(429, "locked_out", f"too many failed logins; try again in {wait_s} s", wait_s)
    call.attempts.begin(names)
    try:
        found = await _proved(call, body)
    finally:
        call.attempts.end(names)
    if found is None:
        if call.attempts.failed(names, call.now_ms):
            _log.warning("logins are locked: %s", ", ".join(names))
            await call.store.audit("console", "login.locked", names[-1], {"names": names}, call.now_ms)
        raise Declined(401, "unauthorized", "this credential is not valid")
    caller, credential = found
    if credential.kind == PASSWORD:
        call.attempts.succeeded(f"user {caller.name}")
    token = await sessions.begin(call.store, caller, credential, call.now_ms)
    return Reply(_session_view(caller, token), session=token)


async def _proved(call: Call, body: LoginInput) -> tuple[Caller, Credential] | None:
    if body.key and (body.user or body.password):
        raise Declined(422, "invalid", "send a key alone, or a user and a password")
    if body.key:
        return await credential_of(call.store, body.key, call.now_ms)
    if not body.user or not body.password:
        raise Declined(422, "invalid", "send a key, or a user and a password")
    revision = await passwords.check_password(call.store, body.user, body.password)
    account = None if revision is None else await call.store.account(body.user)
    if account is None or not account.is_active:
        return None
    return Caller(USER, body.user), Credential(PASSWORD, str(revision))


async def log_out(call: Call) -> Reply:
    """End the session of this browser."""
    if call.shown.session:
        await sessions.end(call.store, call.shown.session, call.caller.actor, call.now_ms)
    return Reply({"logged_out": True}, session="")


async def show_session(call: Call) -> Mapping[str, object]:
    """Who is logged in, and what a page must send with writes."""
    return _session_view(call.caller, "" if call.shown.authorization else call.shown.session)


async def set_password(call: Call) -> Mapping[str, object]:
    """Set the caller's password. Sessions that began with the old one end."""
    body = cast("PasswordInput", call.body)
    user = call.caller.name
    await passwords.set_password(call.store, user, body.password, call.caller.actor, call.now_ms)
    return {"user": user, "password": "set"}


def _session_view(caller: Caller, token: str) -> dict[str, object]:
    return {
        "role": caller.role,
        "name": caller.name,
        "csrf": sessions.csrf_of(token) if token else None,
    }


ROUTES: tuple[Route, ...] = (
    Route("POST", "/api/login", EVERYONE, log_in, LoginInput, keyed=False),
    Route("POST", "/api/logout", KNOWN, log_out, NothingInput, keyed=False),
    Route("GET", "/api/session", KNOWN, show_session),
    Route("POST", "/api/password", USERS, set_password, PasswordInput),
)
