"""Routes of running a deployment: writers, leases, price versions, quarantine, admin tokens, audit log."""

from collections.abc import Mapping
from typing import cast

from farebox.base.units import pico_from_usd, usd_from_pico
from farebox.console.answers import Declined
from farebox.console.input import (
    AfterQuery,
    AuditQuery,
    LeasesQuery,
    NothingInput,
    PageQuery,
    SettleInput,
    TokenInput,
)
from farebox.console.once import once
from farebox.console.paging import before_of, limit_of, next_of, number_of, page_of
from farebox.console.routes import ADMINS, READERS, Call, Route, whole_number
from farebox.credits import admins

Document = Mapping[str, object]


async def writers(call: Call) -> Document:
    """Journals with host, last sign of life and how far each is booked, a page at a time."""
    asked = cast("AfterQuery", call.asked)
    states = sorted(await call.store.journal_states(), key=lambda state: state.journal)
    page, last = page_of([state for state in states if state.journal > asked.after], asked.limit)
    return {
        "writers": [
            {
                "journal": state.journal,
                "host": state.host,
                "state": state.state,
                "epoch": state.epoch,
                "applied": str(state.applied),
                "rolled": str(state.rolled),
                "beat_ms": state.beat_ms,
                "silent_ms": max(0, call.now_ms - state.beat_ms),
            }
            for state in page
        ],
        "next": None if last is None else last.journal,
    }


async def leases(call: Call) -> Document:
    """What journals hold of users' money, by journal and user, a page at a time."""
    asked = cast("LeasesQuery", call.asked)
    found: list[dict[str, object]] = []
    for state in sorted(await call.store.journal_states(), key=lambda state: state.journal):
        if state.state != "live" or (asked.journal and state.journal != asked.journal):
            continue
        for user in sorted(await call.store.leases_of(state.journal)):
            place = f"{state.journal}:{user}"
            if place <= asked.after:
                continue
            if len(found) == asked.limit:
                return {"leases": found, "next": found[-1]["id"]}
            account = await call.store.account(user)
            entry = None if account is None else account.leases.get(state.journal)
            amount_pico = 0 if entry is None else sum(entry.lots.values())
            found.append(
                {
                    "id": place,
                    "journal": state.journal,
                    "user": user,
                    "amount_usd": usd_from_pico(amount_pico),
                    "dead": entry is None or entry.dead,
                    "op": 0 if entry is None else entry.op,
                }
            )
    return {"leases": found, "next": None}


async def prices(call: Call) -> Document:
    """Versions of the price book, newest first."""
    asked = cast("PageQuery", call.asked)
    before = number_of(asked.before) or 2**62
    found = [one for one in reversed(await call.store.price_versions()) if one[0] < before]
    page, last = page_of(found, asked.limit)
    return {
        "versions": [
            {"version": version, "content_hash": digest, "effective_ms": effective_ms}
            for version, digest, effective_ms in page
        ],
        "next": None if last is None else str(last[0]),
    }


async def price_book(call: Call) -> Document:
    """One version of the price book."""
    version = whole_number(call.path["version"], 9)
    book = None if version is None else await call.store.price_book(version)
    if book is None:
        raise Declined(404, "unknown_version", "there is no such version")
    return book


async def parked(call: Call) -> Document:
    """Settlements that wait for an operator, a page at a time."""
    asked = cast("PageQuery", call.asked)
    waiting = sorted(await call.store.parked(), key=lambda one: str(one["id"]))
    page, last = page_of([one for one in waiting if str(one["id"]) > asked.before], asked.limit)
    return {
        "parked": [_parked_view(one) for one in page],
        "next": None if last is None else str(last["id"]),
    }


async def settle(call: Call) -> Document:
    """Charge a parked exchange an amount."""
    body = cast("SettleInput", call.body)
    return await _resolve(call, pico_from_usd(body.amount))


async def void(call: Call) -> Document:
    """Charge a parked exchange nothing."""
    return await _resolve(call, None)


async def audit_log(call: Call) -> Document:
    """Every change and who made it, newest first."""
    asked = cast("AuditQuery", call.asked)
    before = number_of(asked.before)
    found = await call.store.audit_entries(before, asked.limit, asked.actor, asked.subject)
    return {
        "entries": [
            {
                "id": str(one.number),
                "actor": one.actor,
                "action": one.action,
                "subject": one.subject,
                "details": one.details,
                "created_ms": one.created_ms,
            }
            for one in found
        ],
        "next": str(found[-1].number) if len(found) == asked.limit else None,
    }


async def tokens(call: Call) -> Document:
    """Admin tokens, newest first, without their texts."""
    found = await admins.admins(call.store, before_of(call), limit_of(call))
    return {"tokens": [admins.admin_document(one, call.now_ms) for one in found], **next_of(found)}


async def create_token(call: Call) -> Document:
    """Make an admin token; its text is shown now and never again."""
    body = cast("TokenInput", call.body)

    async def make() -> Document:
        made = await admins.create_admin(
            call.store, body.name, body.role, body.expires_ms, call.caller.actor, call.now_ms
        )
        return {**admins.admin_document(made.record, call.now_ms), "token": made.token}

    return await once(call, make)


async def revoke_token(call: Call) -> Document:
    """End an admin token, and every session that began with it."""
    revoked = await admins.revoke_admin(call.store, call.path["name"], call.caller.actor, call.now_ms)
    return admins.admin_document(revoked, call.now_ms)


ROUTES: tuple[Route, ...] = (
    Route("GET", "/api/admin/writers", READERS, writers, query=AfterQuery),
    Route("GET", "/api/admin/leases", READERS, leases, query=LeasesQuery),
    Route("GET", "/api/admin/prices", READERS, prices, query=PageQuery),
    Route("GET", "/api/admin/prices/{version}", READERS, price_book),
    Route("GET", "/api/admin/parked", READERS, parked, query=PageQuery),
    Route("POST", "/api/admin/parked/{exchange}/settle", ADMINS, settle, SettleInput),
    Route("POST", "/api/admin/parked/{exchange}/void", ADMINS, void, NothingInput),
    Route("GET", "/api/admin/audit", READERS, audit_log, query=AuditQuery),
    Route("GET", "/api/admin/tokens", ADMINS, tokens, query=PageQuery),
    Route("POST", "/api/admin/tokens", ADMINS, create_token, TokenInput),
    Route("POST", "/api/admin/tokens/{name}/revoke", ADMINS, revoke_token, NothingInput),
)


def _parked_view(one: Mapping[str, object]) -> dict[str, object]:
    view = {name: value for name, value in one.items() if name != "settlement"}
    for name in ("amount", "reserved"):
        view[f"{name}_usd"] = usd_from_pico(int(str(view.pop(f"{name}_pico", 0))))
    return view


async def _resolve(call: Call, amount_pico: int | None) -> Document:
    exchange = call.path["exchange"]
    result = await call.store.resolve_parked(exchange, amount_pico, call.caller.actor, call.now_ms)
    if result is None:
        raise Declined(404, "unknown_exchange", "nothing of this id waits for an operator")
    amount = None if amount_pico is None else usd_from_pico(amount_pico)
    return {"exchange": exchange, "result": result.value, "amount_usd": amount}
