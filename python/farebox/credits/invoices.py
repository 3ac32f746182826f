"""Invoices of subscriptions as a provider tells of them: a grant with its payment, or a review.

Promises: the grant, the payment's record and the subscription's state are one transaction; an invoice whose
user or plan nobody knows, or that pays for a change between two periods, is kept for an operator, never
dropped, for it was paid.
"""

from farebox.base.records import Transaction
from farebox.base.units import usd_from_pico
from farebox.config.credits import CreditsSettings
from farebox.credits.notices import InvoicePaid, MoneyReceived, SubscriptionChanged
from farebox.credits.payments import CREDITED, Outcome, document_of, take_payment
from farebox.credits.subscriptions import STATUSES, PaidPeriod, grant_period, grant_row, set_status
from farebox.store.base import EventResult, Record, Store


async def take_invoice(store: Store, settings: CreditsSettings, notice: InvoicePaid, now_ms: int) -> Outcome:
    """Grant what an invoice paid for. Raises the store's errors: then it must be delivered again.

    Where a refund or a dispute was told before it, under its payment intent, an operator decides on both.
    """
    provider = notice.payment.partition(":")[0]
    subscription = f"{provider}:{notice.subscription}"
    known = await store.record("payment", notice.payment)
    if known is not None:
        return Outcome("duplicate", notice.payment, known.status)
    if not notice.begins_period:
        return await _between_periods(store, settings, notice, now_ms)
    if notice.reference and await store.record("payment", notice.reference) is not None:
        return await take_payment(store, settings, _unmatched(notice), now_ms)
    current = await store.record("subscription", subscription)
    user = current.user if current is not None else notice.metadata.get("user", "")
    plan = settings.plan(notice.plan) or settings.plan(notice.metadata.get("plan", ""))
    ordered = notice.period_begins_ms < notice.period_ends_ms
    if plan is None or not ordered or not user or await store.account(user) is None:
        return await take_payment(store, settings, _unmatched(notice), now_ms)
    period = PaidPeriod(
        subscription, user, plan, notice.payment, notice.period_begins_ms, notice.period_ends_ms
    )
    payment = invoice_payment(notice, grant_row(period, now_ms), now_ms)
    result = await grant_period(store, period, provider, now_ms, payment=payment)
    if result in {EventResult.DONE, EventResult.DUPLICATE}:
        return Outcome(CREDITED if result is EventResult.DONE else "duplicate", notice.payment)
    return await take_payment(store, settings, _unmatched(notice), now_ms)


async def _between_periods(
    store: Store, settings: CreditsSettings, notice: InvoicePaid, now_ms: int
) -> Outcome:
    """A change of plan, a threshold, an invoice made by hand: what was paid for it, an operator credits.

    To grant the plan again would mint credit: a change may cost a cent, or nothing.
    """
    if not notice.amount:
        return Outcome("ignored", notice.payment, "nothing was paid, and no period begins")
    return await take_payment(store, settings, _unmatched(notice), now_ms)


async def take_change(store: Store, notice: SubscriptionChanged, now_ms: int) -> Outcome:
    """Note what a provider says of a subscription; one that nobody has paid for yet is not known here."""
    if notice.status not in STATUSES:
        return Outcome("ignored", reason=f"a subscription that is {notice.status[:40]!r}")
    result = await set_status(
        store,
        f"stripe:{notice.subscription}",
        notice.status,
        notice.at_ms,
        "stripe",
        now_ms,
        cancel_at_period_end=notice.cancel_at_period_end,
    )
    words = {EventResult.DONE: "noted", EventResult.DUPLICATE: "duplicate"}
    return Outcome(words.get(result, "ignored"), reason=f"subscription {notice.subscription}")


def invoice_payment(notice: InvoicePaid, row: Transaction, now_ms: int) -> Record:
    """The payment of an invoice that grants `row`: refunds and verify go by its `rows`."""
    credits_usd = usd_from_pico(row.amount_pico)
    bought = {
        "user": row.user,
        "type": row.type,
        "pool": row.pool,
        "credits": credits_usd,
        "lot": row.lots[0].lot,
    }
    return Record(
        kind="payment",
        id=notice.payment,
        revision=1,
        document={
            **document_of(_unmatched(notice)),
            "subscription": notice.subscription,
            "credits": credits_usd,
            "bonus": "0",
            "rows": [bought],
        },
        user=row.user,
        status=CREDITED,
        reference=notice.reference,
        created_ms=now_ms,
    )


def _unmatched(notice: InvoicePaid) -> MoneyReceived:
    """The invoice as money that came without an order."""
    return MoneyReceived(
        payment=notice.payment,
        amount=notice.amount,
        currency=notice.currency,
        order="",
        at_ms=notice.at_ms,
        reference=notice.reference,
        details={"subscription": notice.subscription[:200], "plan": notice.plan[:200]},
    )
