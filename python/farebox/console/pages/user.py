"""What a user's own pages show: what he has and until when, what it went on, his keys and payments."""

from collections.abc import Mapping
from typing import Final

from farebox.base.records import WALLETS, Account
from farebox.console import statistics
from farebox.console.answers import Declined
from farebox.console.pages.operator import curves
from farebox.console.pages.shown import log_rows, transaction_rows
from farebox.console.pages.site import Page, Visit
from farebox.console.paging import page_of
from farebox.console.periods import named_period
from farebox.console.routes import USERS
from farebox.console.wallets import wallet_view
from farebox.credits.orders import order_view
from farebox.ledger.lots import is_expired
from farebox.store.base import Record
from farebox.store.statistics import LogQuery

Shown = Mapping[str, object]

_RECENT: Final = 25
_KEYS: Final = 50
_SOON_MS: Final = 3 * 86_400_000


async def balance(visit: Visit) -> Shown:
    """Balance by wallet, what ends when, what is left of it in requests, usage and charges."""
    account = await _own(visit)
    period = visit.period
    name = visit.caller.name
    points = await statistics.time_series(visit.store, period, visit.now_ms, visit.zone, name)
    before = _place(visit.query.get("before", ""))
    page = await visit.store.search_logs(LogQuery(user=name, before=before), _RECENT)
    return {
        "period": period,
        "wallet": wallet_view(account, visit.now_ms),
        "wallets": await _wallets(visit, account),
        "soon": sorted(
            (lot.expires_at_ms, lot.pool, lot.left_pico)
            for lot in account.lots
            if lot.left_pico and lot.expires_at_ms is not None and _is_soon(lot.expires_at_ms, visit.now_ms)
        ),
        "spent": await statistics.totals(visit.store, period, name),
        "models": await statistics.model_usage(visit.store, period, name),
        "curves": curves(points, visit.zone),
        "logs": log_rows(page.rows, visit.zone),
        "older": "" if page.next is None else f"{page.next[0]}.{page.next[1]}",
    }


def _is_soon(ends_ms: int, now_ms: int) -> bool:
    return now_ms < ends_ms <= now_ms + _SOON_MS


async def _wallets(visit: Visit, account: Account) -> list[Mapping[str, object]]:
    """Each wallet with what can be spent now, and how many requests that is at the last seven days' mean."""
    week = named_period("7d", visit.now_ms, visit.zone)
    burned, sums = await statistics.totals(visit.store, week, account.user)
    found: list[Mapping[str, object]] = []
    for wallet, pools in WALLETS.items():
        left_pico = sum(
            lot.left_pico
            for lot in account.lots
            if lot.pool in pools and not is_expired(lot.expires_at_ms, visit.now_ms)
        )
        requests = left_pico * sums.requests // burned.total_pico if burned.total_pico else None
        found.append({"name": wallet, "pools": pools, "left_pico": left_pico, "requests": requests})
    return found


async def keys(visit: Visit) -> Shown:
    """His API keys."""
    await _own(visit)
    found = await visit.store.keys_of(visit.caller.name, visit.query.get("before", ""), _KEYS + 1)
    page, last = page_of(found, _KEYS)
    return {"keys": page, "older": "" if last is None else last.digest}


async def payments(visit: Visit) -> Shown:
    """Payments, orders, ledger, and transfers between his own pools where they are offered."""
    account = await _own(visit)
    name = visit.caller.name
    paid = await visit.store.records("payment", user=name, limit=_RECENT)
    orders = await visit.store.records("order", user=name, limit=_RECENT)
    rows = await visit.store.transactions(name, _RECENT, visit.query.get("before", ""))
    return {
        "payments": [_payment(payment) for payment in paid],
        "orders": [order_view(order, visit.settings, visit.now_ms) for order in orders],
        "currencies": sorted(visit.settings.rates),
        "ways": visit.settings.allocations,
        "wallet": wallet_view(account, visit.now_ms),
        "rows": transaction_rows(rows),
        "older": rows[-1].id if len(rows) == _RECENT else "",
    }


def _payment(payment: Record) -> Mapping[str, object]:
    """A payment without what operators noted about it."""
    return {
        "payment": payment.id,
        "status": payment.status,
        "created_ms": payment.created_ms,
        **{name: payment.document.get(name, "") for name in ("amount", "currency", "credits")},
    }


async def _own(visit: Visit) -> Account:
    account = await visit.store.account(visit.caller.name)
    if account is None:
        raise Declined(404, "unknown_user", "this account is gone")
    return account


def _place(text: str) -> tuple[int, int] | None:
    """Where a page of the request log begins: "milliseconds.number". Raises Declined."""
    if not text:
        return None
    first, _, second = text.partition(".")
    if not (first.isdecimal() and second.isdecimal() and text.isascii() and len(text) < 60):
        raise Declined(400, "invalid", "this page of the list does not exist")
    return int(first), int(second)


PAGES: Final = (
    Page("/me", USERS, "me.html", balance),
    Page("/me/keys", USERS, "keys.html", keys),
    Page("/me/payments", USERS, "my_payments.html", payments),
)
