"""Documents of the replaced systems that are history or standing orders rather than balances: payments of
both, subscriptions of the two-pool system. Pure.

They credit nothing: what they once did is in the opening balances. Raise `UnusableError` with the reason
where nothing can be made of one.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from farebox.base.units import usd_from_pico
from farebox.credits.currencies import from_minor_units, plain
from farebox.credits.legacy import Document, UnusableError, moment_ms, text_of, times, user_name_of
from farebox.credits.subscriptions import STATUSES
from farebox.ledger.opening import exact_pico
from farebox.store.base import Record

PAYMENTS: Final = "payments"
TWO_POOL_PAYMENTS: Final = "payments_records"
SUBSCRIPTIONS: Final = "users_subscriptions"


def old_payment(document: Document) -> Record:
    """A document of payments, kept as it was for users and operators to see; its status is `imported`."""
    created_ms = moment_ms(document.get("createdAt"))
    user = document.get("userId") or document.get("username")
    if created_ms is None or not isinstance(user, str):
        raise UnusableError("no date, or no user")
    numbers = {
        name: _decimal_text(document.get(name), name)
        for name in ("amount", "credits", "creditsBefore", "creditsAfter")
    }
    kept = {
        **numbers,
        "currency": text_of(document.get("currency")) or "VND",
        "order": text_of(document.get("orderCode")),
        "paid_ms": moment_ms(document.get("completedAt")),
        "details": {"status": text_of(document.get("status"))},
    }
    reference = text_of(str(document.get("sepayTransactionId") or ""))
    return _payment(str(document["_id"]), user, created_ms, kept, reference)


def old_payment_record(document: Document) -> Record:
    """A document of payments_records; its amount counts the currency's smallest unit."""
    created_ms, named = moment_ms(document.get("created_at")), document.get("payment_id", document.get("_id"))
    if created_ms is None or named is None:
        raise UnusableError("no date, or no payment_id")
    cents, currency = document.get("amount"), text_of(document.get("currency")).upper() or "USD"
    if isinstance(cents, bool) or not isinstance(cents, int) or cents < 0:
        raise UnusableError("amount is no count of cents")
    details = {name: document.get(name) for name in ("status", "product_type", "product_id", "quantity")}
    kept = {
        "amount": plain(from_minor_units(cents, currency)),
        "credits": "0",
        "currency": currency,
        "order": "",
        "paid_ms": moment_ms(document.get("completed_at")),
        "details": {name: text_of(str(value)) for name, value in details.items() if value is not None},
    }
    session = text_of(document.get("stripe_payment_intent_id"))
    return _payment(str(named), user_name_of({"_id": document.get("user_id")}), created_ms, kept, session)


def old_subscription(document: Document, usd_per_credit: Decimal) -> Record:
    """A document of users_subscriptions, under Stripe's id: its next invoice grants here as every other.

    The two-pool system never ended monthly credit, so it is kept as one that accumulates until then.
    """
    stripe, starts_ms, ends_ms = (
        text_of(document.get("stripe_subscription_id")),
        moment_ms(document.get("current_period_start")),
        moment_ms(document.get("current_period_end")),
    )
    status = text_of(document.get("status"))
    if not stripe or starts_ms is None or ends_ms is None or status not in STATUSES:
        raise UnusableError("no stripe_subscription_id, no period, or an unknown status")
    try:
        grant_pico, _ = exact_pico(times(document.get("credits_monthly"), usd_per_credit))
    except ValueError as error:
        raise UnusableError(f"credits_monthly is {error}") from None
    plan = text_of(document.get("plan_name"))
    return Record(
        kind="subscription",
        id=f"stripe:{stripe}",
        revision=1,
        document={
            "plan": plan,
            "plan_name": plan,
            "credits_monthly": usd_from_pico(grant_pico),
            "renewal": "accumulate",
            "period_starts_ms": starts_ms,
            "period_ends_ms": ends_ms,
            "cancel_at_period_end": document.get("cancel_at_period_end") is True,
            "invoices": [],
            "told_ms": moment_ms(document.get("updated_at")) or 0,
        },
        user=user_name_of({"_id": document.get("user_id")}),
        status=status,
        reference=f"stripe:{stripe}",
        created_ms=moment_ms(document.get("created_at")) or starts_ms,
        due_ms=ends_ms,
    )


def _payment(named: str, user: str, created_ms: int, kept: Mapping[str, Any], reference: str) -> Record:
    nothing = {"returned": "0", "reversed": {}, "disputes": {}, "bonus": "0", "rows": []}
    return Record(
        kind="payment",
        id=f"legacy:{named}",
        revision=1,
        document={**kept, **nothing},
        user=user,
        status="imported",
        reference=reference,
        created_ms=created_ms,
    )


def _decimal_text(value: object, name: str) -> str:
    if value is None:
        return "0"
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise UnusableError(f"{name} is not a number")
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        raise UnusableError(f"{name} is {number}")
    return plain(number)
