"""Routes of the wallet `subscription` with the two-pool system's names, and what operators do there.

Amounts are decimal strings of USD; pools are called `monthly` and `permanent`.
"""

from collections.abc import Mapping
from typing import Final, cast

from farebox.base import limits
from farebox.base.records import Transaction
from farebox.base.units import pico_from_usd, usd_from_pico
from farebox.config.plans import Plan
from farebox.console.answers import Declined
from farebox.console.input import (
    AllocationInput,
    CancelInput,
    HistoryQuery,
    OffsetQuery,
    PeriodInput,
    UndoInput,
)
from farebox.console.paging import before_of, next_of
from farebox.console.routes import ADMINS, READERS, USERS, Call, Route
from farebox.console.wallets import moved
from farebox.credits import subscriptions
from farebox.credits.moves import Move
from farebox.credits.subscriptions import MONTHLY, PERMANENT, PaidPeriod, grant_period
from farebox.credits.transfers import allocate, undo
from farebox.store.base import EventResult, Record

Document = Mapping[str, object]

_SHORT: Final = {MONTHLY: "monthly", PERMANENT: "permanent"}


async def products(call: Call) -> Document:
    """What is sold: plans, and single purchases by currency."""
    return {
        "subscriptions": [_plan_view(plan) for plan in call.settings.plans],
        "purchases": {currency: str(rate) for currency, rate in call.settings.rates.items()},
    }


async def own_credits(call: Call) -> Document:
    """The caller's two pools."""
    return await subscriptions.wallet_document(call.store, call.caller.name)


async def own_transactions(call: Call) -> Document:
    """The caller's ledger rows, newest first, `limit` of them from `offset` on."""
    limit = max(1, call.number("limit", 50, limits.console_page_max))
    offset = call.number("offset", 0, limits.wallet_rows_offset_max)
    rows = await call.store.transactions(call.caller.name, offset + limit)
    return {"transactions": [_transaction_view(row) for row in rows[offset:]]}


async def own_subscriptions(call: Call) -> Document:
    """The caller's subscriptions."""
    return await subscriptions.subscriptions_document(call.store, call.caller.name, call.now_ms)


async def own_cancel(call: Call) -> Document:
    """End one of the caller's subscriptions with its period."""
    await _known(call, owner=call.caller.name)
    canceled = await subscriptions.cancel(
        call.store, call.path["subscription"], call.caller.actor, call.now_ms, owner=call.caller.name
    )
    return subscriptions.subscription_document(canceled, call.now_ms)


async def own_history(call: Call) -> Document:
    """The caller's payments, newest first; `total_count` is the page's."""
    asked = cast("HistoryQuery", call.asked)
    found = await call.store.records(
        "payment", user=call.caller.name, before=before_of(call), limit=asked.limit
    )
    return {
        "payments": [_payment_view(record) for record in found],
        "total_count": len(found),
        **next_of(found),
    }


async def own_allocation(call: Call) -> Document:
    """Move credit between the caller's own pools, where the operator allows it."""
    body = cast("AllocationInput", call.body)
    user = call.caller.name
    move = Move(
        kind="allocation",
        key=call.reference,
        user=user,
        pool=body.pool,
        amount_pico=pico_from_usd(body.amount),
        reason="moved by its owner",
        actor=call.caller.actor,
        to_user=user,
        to_pool=body.to_pool,
    )
    outcome = await allocate(call.store, move, call.settings.allocations, call.now_ms, dry_run=body.dry_run)
    return moved(outcome, body.dry_run)


async def user_subscriptions(call: Call) -> Document:
    """A user's subscriptions."""
    return await subscriptions.subscriptions_document(call.store, call.path["user"], call.now_ms)


async def cancel(call: Call) -> Document:
    """End a subscription with its period."""
    await _known(call, owner=None)
    canceled = await subscriptions.cancel(
        call.store, call.path["subscription"], call.caller.actor, call.now_ms
    )
    return subscriptions.subscription_document(canceled, call.now_ms)


async def grant(call: Call) -> Document:
    """Grant a period of a plan that was paid for outside of any provider."""
    body = cast("PeriodInput", call.body)
    plan = call.settings.plan(body.plan)
    if plan is None:
        raise Declined(404, "unknown_plan", "there is no such plan")
    period = PaidPeriod(
        subscription=f"manual:{body.subscription}",
        user=call.path["user"],
        plan=plan,
        invoice=call.reference,
        starts_ms=body.starts_ms,
        ends_ms=body.ends_ms,
    )
    result = await grant_period(call.store, period, call.caller.actor, call.now_ms)
    if result is EventResult.UNKNOWN_USER:
        raise Declined(404, "unknown_user", "there is no such user")
    if result not in {EventResult.DONE, EventResult.DUPLICATE}:
        raise Declined(409, "not_granted", "the account is on hold")
    return {"result": result.value, "subscription": period.subscription}


async def take_back(call: Call) -> Document:
    """Undo a grant, correction or transfer by counter-transactions."""
    body = cast("UndoInput", call.body)
    outcome = await undo(
        call.store, body.key, body.reason, call.caller.actor, call.now_ms, dry_run=body.dry_run
    )
    return moved(outcome, body.dry_run)


ROUTES: tuple[Route, ...] = (
    Route("GET", "/api/products", USERS, products),
    Route("GET", "/api/credits", USERS, own_credits),
    Route("GET", "/api/credits/transactions", USERS, own_transactions, query=OffsetQuery),
    Route("POST", "/api/credits/allocations", USERS, own_allocation, AllocationInput),
    Route("GET", "/api/subscriptions", USERS, own_subscriptions),
    Route("POST", "/api/subscriptions/{subscription}/cancel", USERS, own_cancel, CancelInput),
    Route("GET", "/api/history", USERS, own_history, query=HistoryQuery),
    Route("GET", "/api/admin/users/{user}/subscriptions", READERS, user_subscriptions),
    Route("POST", "/api/admin/users/{user}/subscriptions", ADMINS, grant, PeriodInput),
    Route("POST", "/api/admin/subscriptions/{subscription}/cancel", ADMINS, cancel, CancelInput),
    Route("POST", "/api/admin/undo", ADMINS, take_back, UndoInput),
)


async def _known(call: Call, owner: str | None) -> None:
    found = await call.store.record("subscription", call.path["subscription"])
    if found is None or (owner is not None and found.user != owner):
        raise Declined(404, "unknown_subscription", "there is no such subscription")


def _plan_view(plan: Plan) -> dict[str, object]:
    return {
        "product_id": plan.id,
        "name": plan.name,
        "product_type": "subscription",
        "credits_monthly": str(plan.credits),
        "usd_per_credit": str(plan.usd_per_credit),
        "credits_monthly_usd": usd_from_pico(plan.grant_pico),
        "renewal": "reset" if plan.resets else "accumulate",
        "price_ids": list(plan.price_ids),
    }


def _transaction_view(row: Transaction) -> dict[str, object]:
    return {
        "transaction_id": row.id,
        "user_id": row.user,
        "type": row.type,
        "pool": _SHORT.get(row.pool, row.pool),
        "amount": usd_from_pico(row.amount_pico),
        "description": row.cause,
        "reference_id": row.reference,
        "created_at": row.created_ms,
    }


def _payment_view(record: Record) -> dict[str, object]:
    document = record.document
    return {
        "payment_id": record.id,
        "user_id": record.user,
        "status": record.status,
        "amount": document.get("amount"),
        "currency": document.get("currency"),
        "credits": document.get("credits"),
        "created_at": record.created_ms,
    }
