"""Payments: money that arrived becomes credit, once, or waits for an operator; nothing is silently kept.

Promises (M4, M6): a payment's record, its ledger rows and its order's state are one transaction, so that any
number of deliveries, in parallel, repeated or cut off by a crash, credit once; what is acknowledged is in the
store. Whether it credits is decided by what is *credited*, never by what was seen before. A payment that does
not fit its order (late, short, over, twice, none) is kept for review with the reason.

Status of a payment: review -> credited | refused; credited -> disputed, refunded or lost (`returns`,
`disputes`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from farebox.base.errors import StoreConflictError, UsageError
from farebox.base.ids import is_user_name
from farebox.base.records import LotAmount, Transaction
from farebox.base.units import pico_from_usd, usd_from_pico
from farebox.config.credits import CreditsSettings
from farebox.credits import referrals
from farebox.credits.accounts import unknown_user
from farebox.credits.currencies import plain
from farebox.credits.notices import MoneyReceived
from farebox.credits.offer import NO_BONUS, Bonus, credits_for
from farebox.credits.orders import PAID, PENDING
from farebox.store.base import Event, EventResult, Record, RecordChange, Store

REVIEW, CREDITED, REFUSED = "review", "credited", "refused"
NEVER_ARRIVED_RETURNED = "money of it was returned, but it never arrived here"
NEVER_ARRIVED_DISPUTED = "it was disputed, but it never arrived here"
_ARRIVED_LATE: Final = {
    NEVER_ARRIVED_RETURNED: "money of it was returned before it arrived here",
    NEVER_ARRIVED_DISPUTED: "it was disputed before it arrived here",
}
"""Why a payment that has not arrived is under review -> why it still is once it has."""
_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a notice; `word` says it: credited, duplicate, review, conflict, returned, ignored.

    For a dispute it is disputed, won or lost.
    """

    word: str
    payment: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Purchase:
    """What a payment buys: `credits_pico` for a pool of a user, and a bonus."""

    user: str
    pool: str
    credits_pico: int
    bonus: Bonus = NO_BONUS


async def take_payment(
    store: Store, settings: CreditsSettings, notice: MoneyReceived, now_ms: int
) -> Outcome:
    """Credit a payment, or put it aside for review. Raises the store's errors: then it must come again."""
    for _ in range(_ATTEMPTS):
        known = await store.record("payment", notice.payment)
        if known is not None and known.status == REVIEW and known.document.get("reason") in _ARRIVED_LATE:
            late = await _arrived_late(store, known, notice, now_ms)
            if late is None:
                continue
            return late
        if known is not None:
            return await _again(store, settings, known, notice, now_ms)
        order = await store.record("order", notice.order) if notice.order else None
        reason = obstacle(notice, order)
        if not reason and order is not None:
            result = await _credit_order(store, settings, notice, order, now_ms)
            reason = _refusal_of(result)
            if result is EventResult.DONE:
                await referrals.award(store, settings, notice.payment, now_ms)
                return Outcome(CREDITED, notice.payment)
        if reason and await _put_aside(store, notice, order, reason, now_ms):
            return Outcome(REVIEW, notice.payment, reason)
    raise StoreConflictError(f"payment {notice.payment} keeps changing while it is booked; deliver it again")


def obstacle(notice: MoneyReceived, order: Record | None) -> str:
    """Why a payment does not simply pay its order; empty where it does."""
    if not notice.order:
        return "it carries no order code"
    if order is None:
        return f"there is no order {notice.order}"
    if notice.currency != order.document["currency"]:
        return f"the order is in {order.document['currency']}, the payment in {notice.currency}"
    if order.status != PENDING:
        return f"the order is {order.status} already, by {order.reference}"
    if order.due_ms is not None and notice.at_ms >= order.due_ms:
        return "it came after the order had expired"
    asked = Decimal(str(order.document["amount"]))
    if notice.amount != asked:
        word = "less" if notice.amount < asked else "more"
        return f"{plain(notice.amount)} {notice.currency} is {word} than the {plain(asked)} asked for"
    return ""


def purchase_event(
    settings: CreditsSettings,
    payment: Record,
    purchase: Purchase,
    others: Sequence[RecordChange],
    actor: str,
    now_ms: int,
) -> Event:
    """The one transaction of a purchase: rows for credit and bonus, the payment, and what changes with it.

    `payment` has the revision it was read at, 0 where it is new. One lot per pool, so that a refund can
    reverse exactly what was paid for.
    """
    rows = purchase_rows(payment.id, purchase, now_ms)
    document = {**payment.document, **_bought(rows)}
    credited = replace(payment, user=purchase.user, status=CREDITED, document=document)
    pools = {row.pool for row in rows}
    return Event(
        rows=rows,
        expires_at_ms=settings.expires_ms(purchase.pool, now_ms),
        source=payment.id.partition(":")[0],
        actor=actor,
        records=(changed(credited), *others),
        renews=tuple(pool for pool in sorted(pools) if settings.renews(pool)),
        balance_of=purchase.pool,
        expires_by_pool={pool: settings.expires_ms(pool, now_ms) for pool in pools - {purchase.pool}},
    )


def purchase_rows(payment: str, purchase: Purchase, now_ms: int) -> tuple[Transaction, ...]:
    """A row for what was bought and, where there is one, a row of its own for the bonus."""
    bought = _row("earned_purchase", payment, purchase.user, purchase.pool, purchase.credits_pico, "", now_ms)
    if not purchase.bonus.amount_pico:
        return (bought,)
    bonus = purchase.bonus
    name = f" ({bonus.name})" if bonus.name else ""
    more = _row("earned_bonus", payment, purchase.user, bonus.pool, bonus.amount_pico, name, now_ms)
    return bought, more


def lot_of_payment(payment: str, pool: str) -> str:
    """The lot that a payment's credit in a pool is: its id follows from the payment."""
    return hashlib.sha256(f"{payment}:{pool}".encode()).hexdigest()[:24]


def changed(record: Record) -> RecordChange:
    """The change to a record as it was read; revision 0 means that it is new."""
    return RecordChange.update(record) if record.revision else RecordChange.insert(record)


async def accept(
    store: Store,
    settings: CreditsSettings,
    payment: str,
    actor: str,
    now_ms: int,
    *,
    user: str = "",
    credits_given: str = "",
    note: str = "",
) -> Record:
    """Credit a payment that waits for review: to its order's user, for what it pays, unless said otherwise.

    Raises UsageError where it does not wait, or it is not clear whom or how much to credit.
    """
    for _ in range(_ATTEMPTS):
        known = await known_payment(store, payment)
        if known.status == CREDITED and _is_decided(known, actor, note):
            return known
        waiting = _waiting(known)
        order_code = str(waiting.document["order"])
        order = await store.record("order", order_code) if order_code else None
        purchase = _accepted_purchase(settings, waiting, order, user, credits_given)
        decided = _decided(waiting, actor, note, now_ms)
        others = _paid(order, payment) if order is not None and order.user == purchase.user else ()
        event = purchase_event(settings, decided, purchase, others, actor, now_ms)
        result = await store.apply_event(event, now_ms)
        if result is EventResult.UNKNOWN_USER:
            raise UsageError(unknown_user(purchase.user))
        if result is EventResult.PARKED:
            raise UsageError(f"{purchase.user} is on hold; see `farebox user show {purchase.user}`")
        if result is not EventResult.STALE:
            await referrals.award(store, settings, payment, now_ms)
            return await known_payment(store, payment)
    raise StoreConflictError(f"payment {payment} keeps changing; try again")


async def refuse(store: Store, payment: str, actor: str, note: str, now_ms: int) -> Record:
    """Decide that a payment credits nothing: the operator sends the money back. Raises UsageError."""
    for _ in range(_ATTEMPTS):
        known = await known_payment(store, payment)
        if known.status == REFUSED and _is_decided(known, actor, note):
            return known
        waiting = _waiting(known)
        refused = replace(_decided(waiting, actor, note, now_ms), status=REFUSED)
        event = Event((), records=(RecordChange.update(refused),), actor=actor)
        if await store.apply_event(event, now_ms) is not EventResult.STALE:
            return await known_payment(store, payment)
    raise StoreConflictError(f"payment {payment} keeps changing; try again")


async def enter_payment(
    store: Store,
    settings: CreditsSettings,
    notice: MoneyReceived,
    purchase: Purchase,
    note: str,
    actor: str,
    now_ms: int,
) -> Record:
    """Credit a payment an operator took himself (cash, another bank). Raises UsageError.

    Entered again with the same reference it changes nothing.
    """
    known = await store.record("payment", notice.payment)
    if known is None:
        document = {**document_of(notice), "decided_by": actor, "note": note}
        payment = _new_payment(notice, "", document, now_ms)
        event = purchase_event(settings, payment, purchase, (), actor, now_ms)
        result = await store.apply_event(event, now_ms)
        if result is EventResult.UNKNOWN_USER:
            raise UsageError(unknown_user(purchase.user))
        if result is EventResult.PARKED:
            raise UsageError(f"{purchase.user} is on hold; see `farebox user show {purchase.user}`")
        known = await known_payment(store, notice.payment)
    if known.user != purchase.user or known.document.get("credits") != usd_from_pico(purchase.credits_pico):
        raise UsageError(f"{notice.payment} was entered before, for {known.user}; use another reference")
    await referrals.award(store, settings, notice.payment, now_ms)
    return known


async def known_payment(store: Store, payment: str) -> Record:
    """A payment by its id. Raises UsageError."""
    found = await store.record("payment", payment)
    if found is None:
        raise UsageError(f"there is no payment {payment!r}; `farebox payment list` shows what there is")
    return found


def gone_back(payment: Record) -> Decimal:
    """How much of a payment has gone back, never more than it: refunds, which its provider tells as a total
    that counts no dispute, and lost disputes.
    """
    returned, lost = (Decimal(str(payment.document.get(name, "0"))) for name in ("returned", "lost"))
    return min(Decimal(str(payment.document["amount"])), returned + lost)


def document_of(notice: MoneyReceived) -> dict[str, object]:
    """What a payment's record keeps of how it arrived."""
    return {
        "amount": plain(notice.amount),
        "currency": notice.currency,
        "order": notice.order,
        "paid_ms": notice.at_ms,
        "details": dict(notice.details),
        "returned": "0",
        "reversed": {},
        "disputes": {},
    }


async def _credit_order(
    store: Store, settings: CreditsSettings, notice: MoneyReceived, order: Record, now_ms: int
) -> EventResult:
    payment = _new_payment(notice, order.user, document_of(notice), now_ms)
    event = purchase_event(
        settings, payment, ordered_purchase(order), _paid(order, notice.payment), webhook(payment.id), now_ms
    )
    return await store.apply_event(event, now_ms)


async def _put_aside(
    store: Store, notice: MoneyReceived, order: Record | None, reason: str, now_ms: int
) -> bool:
    user = order.user if order is not None else ""
    document = {**document_of(notice), "reason": reason}
    payment = replace(_new_payment(notice, user, document, now_ms), status=REVIEW)
    event = Event((), records=(RecordChange.insert(payment),), actor=webhook(payment.id))
    return await store.apply_event(event, now_ms) is EventResult.DONE


async def _arrived_late(store: Store, known: Record, notice: MoneyReceived, now_ms: int) -> Outcome | None:
    """Complete what was kept of a payment that had not arrived; it stays in review. None: try again."""
    reason = _ARRIVED_LATE[str(known.document["reason"])]
    order = await store.record("order", notice.order) if notice.order else None
    told = document_of(notice)
    arrived = {name: told[name] for name in ("amount", "currency", "order", "paid_ms", "details")}
    payment = replace(
        known,
        user=order.user if order is not None else "",
        reference=notice.reference,
        document={**known.document, **arrived, "reason": reason},
    )
    event = Event((), records=(RecordChange.update(payment),), actor=webhook(payment.id))
    if await store.apply_event(event, now_ms) is EventResult.STALE:
        return None
    return Outcome(REVIEW, known.id, reason)


async def _again(
    store: Store, settings: CreditsSettings, known: Record, notice: MoneyReceived, now_ms: int
) -> Outcome:
    """A payment that is known: nothing changes; a step that a crash left out is made up for."""
    told = (plain(notice.amount), notice.currency, notice.order)
    if told != tuple(known.document.get(name) for name in ("amount", "currency", "order")):
        return Outcome("conflict", known.id, "this payment's id was told before with another content")
    if known.status == CREDITED:
        await referrals.award(store, settings, known.id, now_ms)
    return Outcome("duplicate", known.id, known.status)


def ordered_purchase(order: Record) -> Purchase:
    """What an order's exact payment buys: price and bonus as they were when it was placed."""
    bonus: object = order.document["bonus"]
    return Purchase(
        user=order.user,
        pool=str(order.document["pool"]),
        credits_pico=pico_from_usd(str(order.document["credits"])),
        bonus=_bonus(bonus) if isinstance(bonus, Mapping) else NO_BONUS,
    )


def _bonus(kept: Mapping[str, object]) -> Bonus:
    return Bonus(str(kept["name"]), str(kept["pool"]), pico_from_usd(str(kept["credits"])))


def _accepted_purchase(
    settings: CreditsSettings,
    payment: Record,
    order: Record | None,
    user: str,
    credits_given: str,
) -> Purchase:
    """What an operator lets a payment buy: the order's purchase where the amount is right, else pro rata."""
    disputes = payment.document.get("disputes")
    if isinstance(disputes, Mapping) and "open" in disputes.values():
        raise UsageError(f"payment {payment.id} is disputed: wait until that is decided, or refuse it")
    left = Decimal(str(payment.document["amount"])) - gone_back(payment)
    if left <= 0:
        raise UsageError(f"the money of payment {payment.id} has gone back; refuse it")
    exact = order is not None and left == Decimal(str(order.document["amount"]))
    if order is not None and exact and user in {"", order.user} and not credits_given:
        return ordered_purchase(order)
    named = user or (order.user if order is not None else "")
    if not is_user_name(named):
        raise UsageError("say whom to credit: no order names a user of this payment")
    if credits_given:
        return Purchase(named, settings.pool, _positive(credits_given))
    rate = Decimal(str(order.document["rate"])) if order is not None else None
    rate = rate or settings.rates.get(str(payment.document["currency"]))
    if rate is None:
        raise UsageError(f"say how many credits: nothing is sold in {payment.document['currency']}")
    return Purchase(named, settings.pool, credits_for(left, rate))


def _positive(credits_given: str) -> int:
    try:
        amount_pico = pico_from_usd(credits_given)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if amount_pico <= 0:
        raise UsageError("the credits must be more than 0")
    return amount_pico


def _is_decided(payment: Record, actor: str, note: str) -> bool:
    """Whether this is the same decision once more: its answer got lost."""
    return (payment.document.get("decided_by"), payment.document.get("note")) == (actor, note)


def _waiting(payment: Record) -> Record:
    if payment.status != REVIEW:
        raise UsageError(f"payment {payment.id} is {payment.status}; only one under review can be decided")
    return payment


def _decided(payment: Record, actor: str, note: str, now_ms: int) -> Record:
    decision = {"decided_by": actor, "decided_ms": now_ms, "note": note}
    decision["returned_before"] = plain(gone_back(payment))
    return replace(payment, document={**payment.document, **decision})


def _paid(order: Record, payment: str) -> tuple[RecordChange, ...]:
    if order.status == PAID:
        return ()
    return (RecordChange.update(replace(order, status=PAID, reference=payment)),)


def _new_payment(notice: MoneyReceived, user: str, document: dict[str, object], now_ms: int) -> Record:
    return Record(
        kind="payment",
        id=notice.payment,
        revision=0,
        document=document,
        user=user,
        reference=notice.reference,
        created_ms=now_ms,
    )


def _bought(rows: Sequence[Transaction]) -> dict[str, object]:
    """What the payment's record keeps of what it bought; `verify` and refunds go by `rows`."""
    of_type = {row.type: row.amount_pico for row in rows}
    return {
        "credits": usd_from_pico(of_type["earned_purchase"]),
        "bonus": usd_from_pico(of_type.get("earned_bonus", 0)),
        "rows": [
            {
                "user": row.user,
                "type": row.type,
                "pool": row.pool,
                "credits": usd_from_pico(row.amount_pico),
                "lot": row.lots[0].lot,
            }
            for row in rows
        ],
    }


def _row(
    kind: str, payment: str, user: str, pool: str, amount_pico: int, more: str, now_ms: int
) -> Transaction:
    part = LotAmount(lot_of_payment(payment, pool), pool, amount_pico)
    return Transaction(user, kind, payment, pool, amount_pico, (part,), f"payment {payment}{more}", now_ms)


def _refusal_of(result: EventResult) -> str:
    """Why a purchase that fits its order could not be booked; empty where it was, or must be tried again."""
    if result is EventResult.UNKNOWN_USER:
        return "its order's user is gone"
    return "its user's account is on hold" if result is EventResult.PARKED else ""


def webhook(payment: str) -> str:
    """Who acts when a payment's provider tells of it."""
    return f"webhook:{payment.partition(':')[0]}"
