"""What the operator's pages show: figures, money health, users, payments, prices, changes, tokens."""

import json
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Any, Final

from farebox.base import limits
from farebox.base.errors import UsageError
from farebox.base.records import Account
from farebox.console import statistics
from farebox.console.answers import Declined
from farebox.console.pages import charts, words
from farebox.console.pages.shown import log_rows, transaction_rows
from farebox.console.pages.site import Page, Visit
from farebox.console.paging import page_of, place_after, place_of
from farebox.console.purchases import payment_view
from farebox.console.routes import ADMIN, ADMINS, READERS, SUPPORTERS, whole_number
from farebox.console.statistics import Point
from farebox.console.wallets import wallet_view
from farebox.credits import admins
from farebox.store.rollups import DAY_MS
from farebox.store.statistics import LogQuery

Shown = Mapping[str, object]

_SPENDERS: Final = 20
_FOUND: Final = 50
_RECENT: Final = 25
_STATUSES: Final = ("review", "credited", "refused", "refunded", "disputed", "lost", "all")


async def overview(visit: Visit) -> Shown:
    """Cards in the order operators know, curves, and what was used by model and by user."""
    period = visit.period
    found = await statistics.overview(visit.store, period)
    points = await statistics.time_series(visit.store, period, visit.now_ms, visit.zone)
    return {
        "period": period,
        "found": found,
        "models": await statistics.model_usage(visit.store, period),
        "spenders": await statistics.spenders(visit.store, period, _SPENDERS),
        "curves": curves(points, visit.zone),
    }


def curves(points: Sequence[Point], zone: tzinfo) -> Mapping[str, charts.Chart]:
    """Spend, tokens and latency over time."""
    is_daily = len(points) > 1 and points[1].start_ms - points[0].start_ms > DAY_MS // 2
    label = words.day if is_daily else words.hour
    labels = [label(point.start_ms, zone) for point in points]
    spent = [
        (point.burned.ohmygpt_pico, point.burned.openhands_pico, point.burned.subscription_pico)
        for point in points
    ]
    tokens = [
        (
            point.sums.input_tokens,
            point.sums.output_tokens,
            point.sums.cache_read_tokens + point.sums.cache_write_tokens,
        )
        for point in points
    ]
    latency = [(point.sums.latency_ms // max(1, point.sums.requests),) for point in points]
    wallets = ("Burned", "New Burned", "Subscription")
    return {
        "spend": charts.bars("Spend", wallets, list(zip(labels, spent, strict=True)), words.usd),
        "tokens": charts.bars(
            "Tokens", ("Input", "Output", "Cache"), list(zip(labels, tokens, strict=True)), words.short
        ),
        "latency": charts.bars(
            "Mean latency", ("Latency",), list(zip(labels, latency, strict=True)), words.span
        ),
    }


async def live(visit: Visit) -> Shown:
    """What runs just now, and whether the money is right."""
    await visit.figures.refresh()
    states = await visit.store.journal_states()
    living = [state for state in states if state.state == "live"]
    leases = [(state, await visit.store.leases_of(state.journal)) for state in living]
    parked = await visit.store.parked()
    return {
        "exchanges": await visit.live(),
        "writer": _writer_status(visit),
        "figures": visit.figures.known,
        "leases": leases,
        "parked": parked[:_FOUND],
        "parked_total": len(parked),
        "may_write": visit.caller.role == ADMIN,
        "found": await statistics.totals(visit.store, visit.period),
        "period": visit.period,
    }


def _writer_status(visit: Visit) -> Mapping[str, Any] | None:
    try:
        status: dict[str, Any] = json.loads(visit.writer_status.read_bytes())
    except (OSError, ValueError):
        return None
    journals = status["journals"].values()
    return {
        **status,
        "lag_s": max((one["lag_s"] for one in journals), default=0),
        "unbooked": sum(one["unbooked"] for one in journals),
        "dead_letters": sum(one["dead_letters"] for one in journals),
    }


async def users(visit: Visit) -> Shown:
    """Users by the beginning of their name, some at a time."""
    wanted = visit.query.get("q", "").strip().lower()[:50]
    after = visit.query.get("after", "") or _before(wanted)
    found: list[Account] = []
    async for account in visit.store.accounts(after):
        if not account.user.startswith(wanted) or len(found) > _FOUND:
            break
        found.append(account)
    last = found[_FOUND - 1].user if len(found) > _FOUND else ""
    return {"wanted": wanted, "found": found[:_FOUND], "last": last}


def _before(prefix: str) -> str:
    """A text right before all that begin with a prefix."""
    if not prefix:
        return ""
    return prefix[:-1] + chr(max(ord(prefix[-1]) - 1, 0)) + "\U0010ffff"


async def user(visit: Visit) -> Shown:
    """One user: pools, lots, keys, ledger, requests, and what an operator may do."""
    name = visit.path["user"]
    account = await visit.store.account(name)
    if account is None:
        raise Declined(404, "unknown_user", "there is no such user")
    rows = await visit.store.transactions(name, _RECENT, visit.query.get("before", ""))
    page = await visit.store.search_logs(LogQuery(user=name), _RECENT)
    found = await visit.store.keys_of(name, visit.query.get("keys_before", ""), _FOUND + 1)
    keys, last_key = page_of(found, _FOUND)
    return {
        "user": name,
        "account": account,
        "wallet": wallet_view(account, visit.now_ms),
        "keys": keys,
        "older_keys": "" if last_key is None else last_key.digest,
        "rows": transaction_rows(rows),
        "older": rows[-1].id if len(rows) == _RECENT else "",
        "logs": log_rows(page.rows, visit.zone),
        "period": visit.period,
        "models": await statistics.model_usage(visit.store, visit.period, name),
        "may_write": visit.caller.role == ADMIN,
        "may_support": visit.caller.role in SUPPORTERS,
        "pools": tuple(sorted(account.balances)) or ("credits",),
    }


async def payments(visit: Visit) -> Shown:
    """Payments by status; those that wait for a decision come first to mind."""
    status = visit.query.get("status", "review")
    if status not in _STATUSES:
        raise UsageError(f"no such status; one of {', '.join(_STATUSES)}")
    found = await visit.store.records("payment", status=None if status == "all" else status, limit=_FOUND)
    return {
        "status": status,
        "statuses": _STATUSES,
        "payments": [payment_view(payment) for payment in found],
        "may_decide": visit.caller.role in SUPPORTERS,
        "pool": visit.settings.pool,
    }


async def prices(visit: Visit) -> Shown:
    """A price book, and what changed since another."""
    versions = await visit.store.price_versions()
    numbers = [number for number, _, _ in versions]
    chosen = _number(visit.query.get("version", ""), numbers[-1:] or [0])
    against = _number(visit.query.get("against", ""), numbers[-2:-1] or [chosen])
    now = await _lines(visit, chosen)
    before = await _lines(visit, against)
    changes = [
        (model, kind, before.get((model, kind)), now.get((model, kind)))
        for model, kind in sorted(now.keys() | before.keys())
        if before.get((model, kind)) != now.get((model, kind))
    ]
    return {
        "versions": versions[-limits.console_page_max :],
        "chosen": chosen,
        "against": against,
        "lines": [(model, kind, price) for (model, kind), price in sorted(now.items())],
        "changes": changes,
    }


def _number(text: str, default: Sequence[int]) -> int:
    if not text:
        return default[0]
    version = whole_number(text, 12)
    if version is None:
        raise UsageError("a version is a whole number")
    return version


async def _lines(visit: Visit, version: int) -> Mapping[tuple[str, str], str]:
    """(model, kind) -> price as written; the multiplier is a line, too."""
    book = await visit.store.price_book(version)
    found: dict[tuple[str, str], str] = {}
    models: Mapping[str, Any] = {} if book is None else dict(book).get("models", book)  # type: ignore[assignment]
    for model, entry in models.items():
        if not isinstance(entry, dict):
            continue
        found[model, "multiplier"] = entry.get("multiplier", "1")
        found.update({(model, kind): price for kind, price in entry["lines"].items()})
        for threshold, inclusive, lines in entry.get("tiers", ()):
            reach = f"{'from' if inclusive else 'above'} {threshold} prompt tokens"
            found.update({(model, f"{kind}, {reach}"): price for kind, price in lines.items()})
        for variant, lines in entry.get("variants", {}).items():
            found.update({(model, f"{kind}, {variant}"): price for kind, price in lines.items()})
    return found


async def changes(visit: Visit) -> Shown:
    """The audit log, newest first."""
    before = _number(visit.query.get("before", ""), [0]) or None
    found = await visit.store.audit_entries(
        before, _FOUND, visit.query.get("actor", "")[:80], visit.query.get("subject", "")[:80]
    )
    return {"entries": found, "older": found[-1].number if len(found) == _FOUND else 0}


async def tokens(visit: Visit) -> Shown:
    """Admin tokens, newest first, and a new one."""
    found = await admins.admins(visit.store, place_of(visit.query.get("before")), _FOUND)
    return {
        "tokens": [admins.admin_document(one, visit.now_ms) for one in found],
        "older": place_after(found[-1]) if len(found) == _FOUND else "",
        "roles": admins.ROLES[::-1],
    }


PAGES: Final = (
    Page("/overview", READERS, "overview.html", overview),
    Page("/live", READERS, "live.html", live),
    Page("/users", READERS, "users.html", users),
    Page("/users/{user}", READERS, "user.html", user),
    Page("/payments", READERS, "payments.html", payments),
    Page("/prices", READERS, "prices.html", prices),
    Page("/changes", READERS, "changes.html", changes),
    Page("/tokens", ADMINS, "tokens.html", tokens),
)
