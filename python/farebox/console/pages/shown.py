"""Rows of ledger and request log as tables show them, and one exchange explained: for operator and user."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Final

from farebox.base.errors import UsageError
from farebox.base.records import Transaction
from farebox.base.units import usd_from_pico
from farebox.console.answers import Declined
from farebox.console.pages import words
from farebox.console.pages.site import Page, Visit
from farebox.console.routes import KNOWN, USER
from farebox.credits.explained import explained


def transaction_rows(rows: Iterable[Transaction]) -> list[Mapping[str, object]]:
    """Ledger rows for a table."""
    return [
        {
            "user": row.user,
            "created_ms": row.created_ms,
            "type": row.type,
            "pool": row.pool,
            "amount": usd_from_pico(row.amount_pico),
            "cause": row.cause,
            "reference": row.reference,
        }
        for row in rows
    ]


def log_rows(rows: Iterable[Mapping[str, object]], zone: tzinfo) -> list[Mapping[str, object]]:
    """Request-log rows for a table, under the names of the replaced system where they have one."""
    return [
        {
            "id": str(row.get("_id", "")),
            "user": str(row.get("userId", "")),
            "at": _moment(row.get("createdAt"), zone),
            "model": row.get("model", ""),
            "status": row.get("statusCode", ""),
            "outcome": row.get("outcome", ""),
            "input": _count(row.get("inputTokens")),
            "output": _count(row.get("outputTokens")),
            "evidence": row.get("evidence", ""),
            "cost": row.get("creditsCost", ""),
        }
        for row in rows
    ]


def _moment(value: object, zone: tzinfo) -> str:
    if isinstance(value, datetime):
        known = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return known.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
    return words.moment(value, zone) if isinstance(value, int) else str(value or "")


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


async def exchange(visit: Visit) -> Mapping[str, object]:
    """One charge with its lines, and which money paid it. A user sees his own; another's does not exist."""
    number = visit.path["exchange"]
    is_user = visit.caller.role == USER
    owner = visit.caller.name if is_user else visit.query.get("user", "")[:80]
    log = await visit.store.request_log(number)
    details = _OWN_DETAILS if is_user else _DETAILS
    if is_user and log is not None and log.get("userId") != owner:
        raise Declined(404, "unknown_exchange", "there is no such exchange of yours")
    shown: dict[str, object] = {
        "exchange": number,
        "charge": None,
        "reason": "",
        "log": None if log is None else log_rows([log], visit.zone)[0],
        "detail": {name: log[name] for name in details if log.get(name)} if log is not None else {},
    }
    try:
        shown["charge"] = await explained(visit.store, number, owner)
    except UsageError as error:
        if log is None:
            raise Declined(404, "unknown_exchange", "no such exchange is known") from None
        shown["reason"] = str(error)
    return shown


_OWN_DETAILS: Final = ("creditType", "wireFormat", "stream", "ttftMs", "latencyMs", "rawUsage")
_DETAILS: Final = ("upstream", "upstreamModel", "upstreamRequestId", *_OWN_DETAILS)
"""What the provider calls a request, and which provider it was, is the operator's business alone."""

PAGES: Final = (Page("/exchanges/{exchange}", KNOWN, "exchange.html", exchange),)
