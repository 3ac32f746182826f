"""Stripe's signed events: the `stripe` library checks the signature, this file reads what is meant.

Formats: docs.stripe.com/api/events/types. Amounts are integers in the currency's smallest unit. A payment is
named by its payment intent, which checkout, charge, refund and dispute share; an invoice by its own id, with
the intent as reference. The order code travels as `client_reference_id` (payment links take it as a
parameter) or in `metadata.order`.

Where the API's versions differ (period and price of an invoice, its payment intent) both places are read.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from farebox.base import limits
from farebox.base.redaction import Secret
from farebox.config.credits import Stripe
from farebox.credits.currencies import from_minor_units
from farebox.credits.notices import (
    DisputeChanged,
    InvoicePaid,
    Irrelevant,
    MoneyReceived,
    MoneyReturned,
    Notice,
    SubscriptionChanged,
    WebhookRefusedError,
)

_DISPUTE_STATES: Final = {"won": "won", "lost": "lost", "warning_closed": "won", "prevented": "won"}
_PERIODS: Final = frozenset({"subscription_create", "subscription_cycle", "subscription", ""})
"""Reasons of an invoice that begins a period; the last two are of old versions of the API."""
_PAID: Final = frozenset({"checkout.session.completed", "checkout.session.async_payment_succeeded"})


class StripeProvider:
    """Checks and reads deliveries of one webhook endpoint."""

    def __init__(self, settings: Stripe, secret: Secret, currencies: frozenset[str]) -> None:
        """`currencies`: those in which something is sold."""
        self._settings = settings
        self._secret = secret
        self._currencies = currencies

    def read(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> Notice:
        """See `Provider`."""
        self._check_signature(headers.get("stripe-signature", ""), body, now_ms)
        event = _event(body)
        kind, about = event["type"], event["data"]["object"]
        at_ms = _whole(event, "created") * 1000
        if kind in _PAID:
            return self._checkout(about, at_ms)
        if kind == "invoice.payment_succeeded":
            return self._invoice(about, at_ms)
        if kind in {"customer.subscription.updated", "customer.subscription.deleted"}:
            return _subscription(about, at_ms)
        if kind == "charge.refunded":
            return self._refund(about, at_ms)
        if kind.startswith("charge.dispute.") and not kind.endswith("funds_reinstated"):
            return self._dispute(about, at_ms)
        return Irrelevant(f"an event of type {kind[:60]}")

    def _check_signature(self, header: str, body: bytes, now_ms: int) -> None:
        from stripe import (  # noqa: PLC0415 - takes longer to import than most commands to run
            SignatureVerificationError,
            WebhookSignature,
        )

        try:
            WebhookSignature.verify_header(body, header, self._secret.reveal())
        except (SignatureVerificationError, ValueError):
            raise WebhookRefusedError(401, "unauthorized", "the signature is missing or wrong") from None
        signed_s = next(int(part[2:]) for part in header.split(",") if part.startswith("t="))
        if abs(now_ms - signed_s * 1000) > self._settings.tolerance_s * 1000:
            raise WebhookRefusedError(
                400, "stale", f"it was signed more than {self._settings.tolerance_s} s ago, or in the future"
            )

    def _checkout(self, session: Mapping[str, Any], at_ms: int) -> Notice:
        order = str(session.get("client_reference_id") or _metadata(session).get("order", ""))
        if session.get("mode") == "subscription":
            return SubscriptionChanged(
                subscription=_name(session, "subscription"),
                status="active",
                plan="",
                period_begins_ms=None,
                period_ends_ms=None,
                cancel_at_period_end=False,
                at_ms=at_ms,
                order=order[:64],
                metadata=_metadata(session),
            )
        if session.get("payment_status") not in {"paid", "no_payment_required"}:
            return Irrelevant("a checkout that is not paid yet")
        currency = self._currency(session)
        return MoneyReceived(
            payment=f"stripe:{session.get('payment_intent') or _name(session, 'id')}",
            amount=_amount(session, "amount_total", currency),
            currency=currency,
            order=order[:64],
            at_ms=at_ms,
            reference=f"stripe:{_name(session, 'id')}",
        )

    def _invoice(self, invoice: Mapping[str, Any], at_ms: int) -> Notice:
        subscription = invoice.get("subscription") or _at(
            invoice, "parent", "subscription_details", "subscription"
        )
        if not isinstance(subscription, str):
            return Irrelevant("an invoice of no subscription")
        currency = self._currency(invoice)
        line = _period_line(_at(invoice, "lines", "data"))
        plan = _at(line, "price", "id") or _at(line, "pricing", "price_details", "price") or ""
        details = _at(invoice, "parent", "subscription_details") or invoice.get("subscription_details") or {}
        intent = invoice.get("payment_intent") or _intent_of(_at(invoice, "payments", "data"))
        return InvoicePaid(
            payment=f"stripe:{_name(invoice, 'id')}",
            subscription=subscription,
            plan=str(plan),
            amount=_amount(invoice, "amount_paid", currency, least=0),
            currency=currency,
            period_begins_ms=int(_at(line, "period", "start") or 0) * 1000,
            period_ends_ms=int(_at(line, "period", "end") or 0) * 1000,
            at_ms=at_ms,
            reference=f"stripe:{intent}" if intent else "",
            metadata={**_metadata(line), **_metadata(details), **_metadata(invoice)},
            begins_period=str(invoice.get("billing_reason") or "") in _PERIODS,
        )

    def _refund(self, charge: Mapping[str, Any], at_ms: int) -> Notice:
        currency = self._currency(charge)
        return MoneyReturned(
            payment=f"stripe:{charge.get('payment_intent') or _name(charge, 'id')}",
            returned=_amount(charge, "amount_refunded", currency),
            amount=_amount(charge, "amount", currency),
            currency=currency,
            at_ms=at_ms,
        )

    def _dispute(self, dispute: Mapping[str, Any], at_ms: int) -> Notice:
        currency = self._currency(dispute)
        return DisputeChanged(
            payment=f"stripe:{dispute.get('payment_intent') or _name(dispute, 'charge')}",
            dispute=_name(dispute, "id"),
            disputed=_amount(dispute, "amount", currency),
            currency=currency,
            state=_DISPUTE_STATES.get(str(dispute.get("status")), "open"),
            at_ms=at_ms,
        )

    def _currency(self, about: Mapping[str, Any]) -> str:
        currency = str(about.get("currency", "")).upper()
        if currency not in self._currencies:
            raise WebhookRefusedError(422, "unknown_currency", "nothing is sold in the payment's currency")
        return currency


def _period_line(lines: object) -> Mapping[str, Any]:
    """The line of an invoice that pays for a period: the last that is no proration and no extra item."""
    found = [line for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []
    periods = [line for line in found if not _is_proration(line) and not _is_extra(line)]
    return (periods or found or [{}])[-1]


def _is_proration(line: Mapping[str, Any]) -> bool:
    details = _at(line, "parent", "subscription_item_details")
    return line.get("proration") is True or _at(details, "proration") is True


def _is_extra(line: Mapping[str, Any]) -> bool:
    return line.get("type") == "invoiceitem" or _at(line, "parent", "type") == "invoice_item_details"


def _intent_of(payments: object) -> str:
    """The payment intent of an invoice's first payment, where the API's version lists them."""
    first = payments[0] if isinstance(payments, list) and payments else None
    return str(_at(first, "payment", "payment_intent") or "")


def _subscription(subscription: Mapping[str, Any], at_ms: int) -> SubscriptionChanged:
    items = _at(subscription, "items", "data")
    item = items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else {}
    begins = subscription.get("current_period_start") or item.get("current_period_start")
    ends = subscription.get("current_period_end") or item.get("current_period_end")
    return SubscriptionChanged(
        subscription=_name(subscription, "id"),
        status=str(subscription.get("status", "")),
        plan=str(_at(item, "price", "id") or ""),
        period_begins_ms=int(begins) * 1000 if begins else None,
        period_ends_ms=int(ends) * 1000 if ends else None,
        cancel_at_period_end=subscription.get("cancel_at_period_end") is True,
        at_ms=at_ms,
        metadata=_metadata(subscription),
    )


def _event(body: bytes) -> dict[str, Any]:
    try:
        event = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise WebhookRefusedError(400, "invalid", "the body is no JSON") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise WebhookRefusedError(400, "invalid", "the body is no event")
    if not isinstance(_at(event, "data", "object"), dict):
        raise WebhookRefusedError(400, "invalid", "the event is about nothing")
    return event


def _at(value: object, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _metadata(about: object) -> dict[str, str]:
    found = _at(about, "metadata")
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _name(about: Mapping[str, Any], key: str) -> str:
    value = about.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 255:
        raise WebhookRefusedError(422, "invalid", f"{key} is missing")
    return value


def _whole(about: Mapping[str, Any], key: str) -> int:
    value = about.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise WebhookRefusedError(422, "invalid", f"{key} must be a whole number")
    return value


def _amount(about: Mapping[str, Any], key: str, currency: str, least: int = 1) -> Decimal:
    minor = _whole(about, key)
    amount = from_minor_units(minor, currency)
    if minor < least or amount > limits.payment_amount_max:
        raise WebhookRefusedError(422, "absurd_amount", f"{key} is no amount anybody pays")
    return amount
