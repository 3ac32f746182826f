"""Subscriptions: a paid invoice grants a period's credit into credits_monthly, once.

A subscription is a record of the store; each grant and its state change in one transaction. Promises: an
invoice grants once, whatever is redelivered and in which order it comes; a plan that resets ends what is left
of the period before, also what workers lease just now (as a claim); a late invoice of an older period is
granted too, for it was paid, and resets nothing.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Final

from farebox.base import limits
from farebox.base.errors import FaultError, InvariantBrokenError, StoreConflictError, UsageError
from farebox.base.records import Account, LotAmount, Transaction
from farebox.base.units import usd_from_pico
from farebox.config.plans import Plan
from farebox.credits.accounts import unknown_user
from farebox.ledger.lots import is_expired, spend_order
from farebox.store.base import Event, EventResult, Record, RecordChange, Store

MONTHLY: Final = "credits_monthly"
PERMANENT: Final = "credits_permanent"

STATUSES: Final = frozenset(
    {"active", "canceled", "past_due", "unpaid", "incomplete", "incomplete_expired", "trialing"}
)


@dataclass(frozen=True, slots=True)
class PaidPeriod:
    """One paid invoice: `subscription` and `invoice` are the provider's ids, as `provider:id`."""

    subscription: str
    user: str
    plan: Plan
    invoice: str
    starts_ms: int
    ends_ms: int


async def grant_period(
    store: Store, period: PaidPeriod, actor: str, now_ms: int, *, payment: Record | None = None
) -> EventResult:
    """Book a paid invoice, whichever of its deliveries comes first; `payment` is made with it.

    Raises UsageError on nonsense.
    """
    if period.ends_ms <= period.starts_ms:
        raise UsageError(f"invoice {period.invoice}: its period ends before it begins")
    for _ in range(limits.stale_retries_max):
        current = await store.record("subscription", period.subscription)
        account = await store.account(period.user)
        if account is None:
            return EventResult.UNKNOWN_USER
        if current is not None and period.invoice in current.document["invoices"]:  # type: ignore[operator]
            return EventResult.DUPLICATE
        if current is not None and current.user != period.user:
            raise UsageError(f"subscription {period.subscription} belongs to another user")
        event = period_event(account, current, period, actor, now_ms)
        if payment is not None:
            changes = (RecordChange.insert(payment), *event.records)
            event = replace(event, records=changes, balance_of=MONTHLY)
        result = await _apply(store, event, now_ms)
        if result is not EventResult.STALE:
            return result
    raise _contended(period.subscription)


async def _apply(store: Store, event: Event, now_ms: int) -> EventResult:
    try:
        return await store.apply_event(event, now_ms)
    except InvariantBrokenError:
        # Somebody booked this invoice meanwhile, perhaps with other lots to reset: its grant row decides.
        return await store.apply_event(Event((event.rows[-1],), source=event.source), now_ms)


def period_event(
    account: Account, current: Record | None, period: PaidPeriod, actor: str, now_ms: int
) -> Event:
    """What a paid invoice changes: the end of the old period, if the plan resets; the grant; the record."""
    ends_ms = period.ends_ms
    is_newest = current is None or (current.due_ms or 0) < ends_ms
    if not is_newest and current is not None and current.due_ms is not None:
        ends_ms = current.due_ms
    source = f"subscription:{period.subscription}"
    ended = _reset_rows(account, period, source, now_ms) if period.plan.resets and is_newest else ()
    change = _changed(current, period, is_newest, now_ms)
    return Event(
        rows=(*ended, grant_row(period, now_ms)),
        expires_at_ms=ends_ms if period.plan.resets else None,
        source=source,
        actor=actor,
        records=(change,),
        claims=bool(ended),
    )


def grant_row(period: PaidPeriod, now_ms: int) -> Transaction:
    """The row of an invoice's grant."""
    plan, user = period.plan, period.user
    lot = hashlib.sha256(f"{user}:{period.invoice}:{MONTHLY}".encode()).hexdigest()[:24]
    cause = f"{plan.name}: {plan.credits} credits at {plan.usd_per_credit} USD, invoice {period.invoice}"
    part = LotAmount(lot, MONTHLY, plan.grant_pico)
    return Transaction(
        user, "earned_subscription", period.invoice, MONTHLY, plan.grant_pico, (part,), cause, now_ms
    )


def _reset_rows(account: Account, period: PaidPeriod, source: str, now_ms: int) -> tuple[Transaction, ...]:
    """A row for each lot of the monthly pool that is left from before; other subscriptions' lots stay."""
    rows = []
    for lot in spend_order(account.lots):
        is_other = lot.source.startswith("subscription:") and lot.source != source
        if lot.pool != MONTHLY or not lot.left_pico or is_other or is_expired(lot.expires_at_ms, now_ms):
            continue
        part = LotAmount(lot.lot, MONTHLY, -lot.left_pico)
        reference = f"{period.invoice}.{lot.lot}"
        cause = f"renewal: what is left of the period before, invoice {period.invoice}"
        rows.append(
            Transaction(account.user, "expired", reference, MONTHLY, -lot.left_pico, (part,), cause, now_ms)
        )
    return tuple(rows)


def _changed(current: Record | None, period: PaidPeriod, is_newest: bool, now_ms: int) -> RecordChange:
    if current is None:
        return RecordChange.insert(_record(period, now_ms))
    invoices = [*current.document["invoices"], period.invoice]  # type: ignore[misc]
    document = {**current.document, "invoices": invoices[-limits.subscription_invoices_kept_max :]}
    if not is_newest:
        return RecordChange.update(replace(current, document=document))
    document |= _period_fields(period)
    status = "active" if current.status != "canceled" else current.status
    return RecordChange.update(replace(current, document=document, status=status, due_ms=period.ends_ms))


def _record(period: PaidPeriod, now_ms: int) -> Record:
    document = {
        **_period_fields(period),
        "cancel_at_period_end": False,
        "invoices": [period.invoice],
        "told_ms": 0,
    }
    return Record(
        kind="subscription",
        id=period.subscription,
        revision=1,
        document=document,
        user=period.user,
        status="active",
        reference=period.subscription,
        created_ms=now_ms,
        due_ms=period.ends_ms,
    )


def _period_fields(period: PaidPeriod) -> dict[str, Any]:
    return {
        "plan": period.plan.id,
        "plan_name": period.plan.name,
        "credits_monthly": usd_from_pico(period.plan.grant_pico),
        "renewal": "reset" if period.plan.resets else "accumulate",
        "period_starts_ms": period.starts_ms,
        "period_ends_ms": period.ends_ms,
    }


# -- state ---------------------------------------------------------------------------------------------------


async def set_status(
    store: Store,
    subscription: str,
    status: str,
    told_ms: int,
    actor: str,
    now_ms: int,
    *,
    cancel_at_period_end: bool | None = None,
) -> EventResult:
    """Note what the provider says of a subscription at `told_ms`; older news than what is known is ignored.

    UNKNOWN_USER: there is no such subscription (yet: its first paid invoice makes it).
    """
    if status not in STATUSES:
        raise UsageError(f"{status!r} is no status of a subscription")
    for _ in range(limits.stale_retries_max):
        current = await store.record("subscription", subscription)
        if current is None:
            return EventResult.UNKNOWN_USER
        document = dict(current.document)
        if told_ms < int(str(document["told_ms"])):
            return EventResult.DUPLICATE
        document["told_ms"] = told_ms
        if cancel_at_period_end is not None:
            document["cancel_at_period_end"] = cancel_at_period_end
        changed = replace(current, status=status, document=document)
        if changed == current:
            return EventResult.DUPLICATE
        event = Event((), records=(RecordChange.update(changed),), source="subscription", actor=actor)
        result = await store.apply_event(event, now_ms)
        if result is not EventResult.STALE:
            return result
    raise _contended(subscription)


async def cancel(
    store: Store, subscription: str, actor: str, now_ms: int, *, owner: str | None = None
) -> Record:
    """End a subscription with its period; what was granted stays until then. Raises UsageError.

    `owner`: only his own (a user's request); an operator's names nobody.
    """
    for _ in range(limits.stale_retries_max):
        current = await store.record("subscription", subscription)
        if current is None or (owner is not None and current.user != owner):
            raise UsageError(f"there is no subscription {subscription!r}")
        if current.document["cancel_at_period_end"] or current.status == "canceled":
            return current
        document = {**current.document, "cancel_at_period_end": True}
        change = RecordChange.update(replace(current, document=document))
        event = Event((), records=(change,), source="subscription", actor=actor)
        if await store.apply_event(event, now_ms) is not EventResult.STALE:
            return change.record
    raise _contended(subscription)


# -- reading -------------------------------------------------------------------------------------------------


async def wallet_document(store: Store, user: str) -> dict[str, Any]:
    """The wallet `subscription` as the two-pool system shows it; amounts are decimal strings of USD.

    Raises UsageError on an unknown user.
    """
    account, lifetime = await store.account(user), await store.lifetime(user)
    if account is None or lifetime is None:
        raise UsageError(unknown_user(user))
    newest = await store.transactions(user, 1)
    monthly, permanent = (account.balances.get(pool, 0) for pool in (MONTHLY, PERMANENT))
    return {
        "user_id": user,
        "credits_monthly": usd_from_pico(monthly),
        "credits_permanent": usd_from_pico(permanent),
        "balance": usd_from_pico(monthly + permanent),
        "total_earned": usd_from_pico(lifetime["total_earned_pico"]),
        "total_spent": usd_from_pico(lifetime["total_spent_pico"]),
        "last_updated": newest[0].created_ms if newest else None,
    }


def status_of(record: Record, now_ms: int) -> str:
    """What a subscription is now: one that was to end with its period has ended with it; one that only an
    operator renews is past due after it.
    """
    if record.status != "active" or record.due_ms is None or now_ms < record.due_ms:
        return record.status
    if record.document["cancel_at_period_end"]:
        return "canceled"
    return "past_due" if record.id.startswith("manual:") else record.status


async def subscriptions_document(store: Store, user: str, now_ms: int) -> dict[str, Any]:
    """A user's subscriptions, newest first, and the one that is active."""
    found = await store.records("subscription", user=user, limit=limits.records_page_max)
    shown = [subscription_document(record, now_ms) for record in found]
    active = [record for record in shown if record["status"] in {"active", "trialing"}]
    return {"subscriptions": shown, "active_subscription": active[0] if active else None}


async def rows_of_subscription(store: Store, record: Record, limit: int) -> list[Transaction]:
    """The ledger rows a subscription's invoices made, newest first, out of the user's newest `limit` rows of
    each type.
    """
    invoices = record.document["invoices"]
    granted = await store.transactions(record.user, limit, kind="earned_subscription")
    ended = await store.transactions(record.user, limit, kind="expired")
    found = [row for row in granted if row.reference in invoices]  # type: ignore[operator]
    found += [row for row in ended if row.reference.rpartition(".")[0] in invoices]  # type: ignore[operator]
    return sorted(found, key=lambda row: row.created_ms, reverse=True)


def subscription_document(record: Record, now_ms: int) -> dict[str, Any]:
    """One subscription under the two-pool system's names."""
    document = record.document
    return {
        "subscription_id": record.id,
        "user_id": record.user,
        "stripe_subscription_id": record.id.partition(":")[2] if record.id.startswith("stripe:") else None,
        "plan_name": document["plan_name"],
        "status": status_of(record, now_ms),
        "credits_monthly": document["credits_monthly"],
        "renewal": document["renewal"],
        "current_period_start": document["period_starts_ms"],
        "current_period_end": document["period_ends_ms"],
        "cancel_at_period_end": document["cancel_at_period_end"],
        "created_at": record.created_ms,
    }


def _contended(subscription: str) -> FaultError:
    return StoreConflictError(f"subscription {subscription} changes all the time; try again")
