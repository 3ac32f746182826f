"""Routes of purchases: what is sold, orders, payments and their review, referrals."""

from collections.abc import Mapping
from decimal import Decimal
from typing import cast

from farebox.base import limits
from farebox.base.errors import UsageError
from farebox.base.units import pico_from_usd, usd_from_pico
from farebox.console.answers import Declined
from farebox.console.input import (
    DecisionInput,
    OrderInput,
    PageQuery,
    PaymentInput,
    PaymentsQuery,
    ReferralInput,
    RefusalInput,
)
from farebox.console.paging import before_of, limit_of, next_of
from farebox.console.routes import ADMINS, EVERYONE, READERS, SUPPORTERS, USERS, Call, Route
from farebox.credits.currencies import plain
from farebox.credits.notices import MoneyReceived
from farebox.credits.offer import bonus
from farebox.credits.orders import order_view, place_order
from farebox.credits.payments import Purchase, accept, enter_payment, refuse
from farebox.credits.referrals import refer
from farebox.store.base import Record

Document = Mapping[str, object]


async def offer(call: Call) -> Document:
    """What is sold now, for a shop's page."""
    settings = call.settings
    promotion = bonus(settings, settings.max_pico, call.now_ms)
    validity = settings.validity.get(settings.pool)
    lasts_ms = None if validity is None else validity.lasts_ms
    return {
        "rates": {currency: plain(rate) for currency, rate in settings.rates.items()},
        "min_credits": usd_from_pico(settings.min_pico),
        "max_credits": usd_from_pico(settings.max_pico),
        "whole_credits": settings.whole_credits,
        "pool": settings.pool,
        "validity_days": None if lasts_ms is None else lasts_ms // 86_400_000,
        "order_minutes": settings.order_lasts_ms // 60_000,
        "promotion": promotion.name or None,
    }


async def place_own_order(call: Call) -> Document:
    """An order of the caller."""
    return await _place(call, call.caller.name)


async def place_order_for(call: Call) -> Document:
    """An order for a user, by support."""
    return await _place(call, call.path["user"])


async def own_orders(call: Call) -> Document:
    """The caller's orders, newest first."""
    found = await call.store.records(
        "order", user=call.caller.name, before=before_of(call), limit=limit_of(call)
    )
    return {"orders": [order_view(order, call.settings, call.now_ms) for order in found], **next_of(found)}


async def own_order(call: Call) -> Document:
    """One order of the caller, with what is left of its time."""
    order = await call.store.record("order", call.path["order"])
    if order is None or order.user != call.caller.name:
        raise Declined(404, "unknown_order", "you have no such order")
    return order_view(order, call.settings, call.now_ms)


async def own_payments(call: Call) -> Document:
    """The caller's payments, newest first."""
    found = await call.store.records(
        "payment", user=call.caller.name, before=before_of(call), limit=limit_of(call)
    )
    return {"payments": [_own_view(payment) for payment in found], **next_of(found)}


async def list_payments(call: Call) -> Document:
    """Payments by status and user, newest first; `status=review` is the review queue."""
    found = await call.store.records(
        "payment",
        user=call.query.get("user"),
        status=call.query.get("status"),
        before=before_of(call),
        limit=limit_of(call),
    )
    return {"payments": [payment_view(payment) for payment in found], **next_of(found)}


async def show_payment(call: Call) -> Document:
    """One payment."""
    return payment_view(await _payment(call))


async def accept_payment(call: Call) -> Document:
    """Credit a payment that waits for review."""
    body = cast("DecisionInput", call.body)
    await _payment(call)
    accepted = await accept(
        call.store,
        call.settings,
        call.path["payment"],
        call.caller.actor,
        call.now_ms,
        user=body.user or "",
        credits_given=body.credits or "",
        note=body.note,
    )
    return payment_view(accepted)


async def refuse_payment(call: Call) -> Document:
    """Decide that a payment credits nothing."""
    body = cast("RefusalInput", call.body)
    await _payment(call)
    return payment_view(
        await refuse(call.store, call.path["payment"], call.caller.actor, body.note, call.now_ms)
    )


async def add_payment(call: Call) -> Document:
    """Credit a payment that an operator took himself; its receipt makes it unique."""
    body = cast("PaymentInput", call.body)
    amount = Decimal(body.amount)
    credits_pico = pico_from_usd(body.credits)
    if credits_pico <= 0 or not 0 <= amount <= limits.payment_amount_max:
        raise UsageError("credits must be more than 0, the amount not less")
    notice = MoneyReceived(f"manual:{body.receipt}", amount, body.currency, "", call.now_ms)
    purchase = Purchase(body.user, call.settings.pool, credits_pico)
    return payment_view(
        await enter_payment(
            call.store, call.settings, notice, purchase, body.note, call.caller.actor, call.now_ms
        )
    )


async def add_referral(call: Call) -> Document:
    """Note who brought a user."""
    body = cast("ReferralInput", call.body)
    referral = await refer(call.store, body.user, body.referrer, call.caller.actor, call.now_ms)
    return {"user": referral.id, "referrer": referral.user, "status": referral.status}


def payment_view(payment: Record) -> dict[str, object]:
    """A payment as an operator sees it."""
    return {
        "payment": payment.id,
        "status": payment.status,
        "user": payment.user or None,
        "created_ms": payment.created_ms,
        **payment.document,
    }


ROUTES: tuple[Route, ...] = (
    Route("GET", "/api/offer", EVERYONE, offer),
    Route("POST", "/api/orders", USERS, place_own_order, OrderInput),
    Route("GET", "/api/orders", USERS, own_orders, query=PageQuery),
    Route("GET", "/api/orders/{order}", USERS, own_order),
    Route("GET", "/api/payments", USERS, own_payments, query=PageQuery),
    Route("POST", "/api/admin/users/{user}/orders", SUPPORTERS, place_order_for, OrderInput),
    Route("GET", "/api/admin/payments", READERS, list_payments, query=PaymentsQuery),
    Route("POST", "/api/admin/payments", ADMINS, add_payment, PaymentInput),
    Route("GET", "/api/admin/payments/{payment}", READERS, show_payment),
    Route("POST", "/api/admin/payments/{payment}/accept", ADMINS, accept_payment, DecisionInput),
    Route("POST", "/api/admin/payments/{payment}/refuse", ADMINS, refuse_payment, RefusalInput),
    Route("POST", "/api/admin/referrals", SUPPORTERS, add_referral, ReferralInput),
)


async def _place(call: Call, user: str) -> Document:
    body = cast("OrderInput", call.body)
    order = await place_order(
        call.store,
        call.settings,
        user,
        body.credits,
        body.currency or "",
        call.caller.actor,
        call.now_ms,
        request=call.reference,
    )
    return order_view(order, call.settings, call.now_ms)


async def _payment(call: Call) -> Record:
    payment = await call.store.record("payment", call.path["payment"])
    if payment is None:
        raise Declined(404, "unknown_payment", "there is no such payment")
    return payment


def _own_view(payment: Record) -> dict[str, object]:
    shown = ("amount", "currency", "order", "credits", "bonus", "creditsBefore", "creditsAfter", "returned")
    known = {name: payment.document.get(name) for name in shown}
    return {"payment": payment.id, "status": payment.status, "created_ms": payment.created_ms, **known}
