"""Refunds: a payment that goes back takes the credit it bought, lot by lot, and no more.

Promises: exactly the lots that the payment paid for are reversed, in proportion to what went back (refunds
and lost disputes, together never more than was paid), and never below what running exchanges hold (a claim
waits for those and then takes what is left). Refunds are told as totals, so deliveries may be lost, doubled
or come in any order. A provider's total counts no dispute: the record keeps the two apart.

Every step is one transaction guarded by the payment's revision, or repeatable; a delivery that was cut off
anywhere is made up for by the next one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, Context, Decimal
from typing import Final

from farebox.base.errors import StoreConflictError
from farebox.base.records import LotAmount, Transaction
from farebox.base.units import pico_from_usd, usd_from_pico
from farebox.credits import referrals
from farebox.credits.currencies import plain, rounded
from farebox.credits.notices import MoneyReturned
from farebox.credits.payments import NEVER_ARRIVED_RETURNED, REFUSED, REVIEW, Outcome, gone_back, webhook
from farebox.ledger.claims import ASKED
from farebox.store.base import Event, EventResult, Record, RecordChange, Store
from farebox.writer.verify_payments import rows_of_type

REFUNDED, LOST = "refunded", "lost"
ATTEMPTS: Final = 8
_EXACT = Context(prec=60)


@dataclass(frozen=True, slots=True)
class Bought:
    """The credit a payment brought to one pool: one lot."""

    lot: str
    pool: str
    amount_pico: int


async def take_return(store: Store, notice: MoneyReturned, now_ms: int) -> Outcome:
    """Reverse what has been returned of a payment and is not reversed yet."""
    for _ in range(ATTEMPTS):
        payment = await find_payment(store, notice.payment)
        if payment is None:
            told = {"returned": plain(notice.returned), "reason": NEVER_ARRIVED_RETURNED}
            unseen = unseen_payment(
                notice.payment, notice.amount, notice.currency, notice.at_ms, told, now_ms
            )
            if await store.apply_event(unseen, now_ms) is EventResult.DONE:
                return Outcome(REVIEW, notice.payment, NEVER_ARRIVED_RETURNED)
            continue
        if payment.status in {REVIEW, REFUSED}:
            if await _note_return(store, payment, notice.returned, now_ms):
                return Outcome("returned", payment.id, f"nothing was credited: it is {payment.status}")
            continue
        payment = await counted_apart(store, payment)
        returned = min(notice.returned, Decimal(str(payment.document["amount"])))
        if returned <= Decimal(str(payment.document["returned"])):
            await _undo_referral(store, payment, now_ms)
            return Outcome("duplicate", payment.id, "returned before")
        event = return_event(payment, returned, now_ms)
        result = await store.apply_event(event, now_ms)
        if result is EventResult.PARKED:
            raise StoreConflictError(f"{payment.user} is on hold; deliver the refund of {payment.id} again")
        if result is not EventResult.STALE:
            await _undo_referral(store, replace(payment, status=event.records[0].record.status), now_ms)
            word = "returned" if result is EventResult.DONE else "duplicate"
            return Outcome(word, payment.id)
    raise StoreConflictError(f"payment {notice.payment} keeps changing; deliver it again")


async def find_payment(store: Store, named: str) -> Record | None:
    """A payment by its id, or by the other id its provider knows it by."""
    found = await store.record("payment", named)
    if found is None:
        others = await store.records("payment", reference=named, limit=1)
        found = others[0] if others else None
    return found


def return_event(payment: Record, returned: Decimal, now_ms: int) -> Event:
    """The transaction that reverses what is due once `returned` of a payment's amount was refunded."""
    is_whole = returned >= Decimal(str(payment.document["amount"]))
    status = REFUNDED if is_whole and payment.status != LOST else payment.status
    told = replace(payment, status=status, document={**payment.document, "returned": plain(returned)})
    reference = f"{payment.id}:returned:{plain(returned)}"
    rows = tuple(
        reversal_row(payment, part, f"{reference}:{number}", now_ms)
        for number, part in enumerate(due(told))
        if part.amount_pico
    )
    records = (RecordChange.update(with_reversed(told)),)
    return Event(rows, source="refund", actor=webhook(payment.id), records=records, claims=True)


def bought(payment: Record) -> tuple[Bought, ...]:
    """The lots a payment made, bonus included, as its record keeps them."""
    sums: dict[str, Bought] = {}
    rows = payment.document.get("rows")
    for row in rows if isinstance(rows, list) else []:
        amount_pico = pico_from_usd(row["credits"])
        known = sums.get(row["lot"])
        total_pico = amount_pico + (known.amount_pico if known is not None else 0)
        sums[row["lot"]] = Bought(row["lot"], row["pool"], total_pico)
    return tuple(sums.values())


def due(payment: Record) -> tuple[Bought, ...]:
    """What of each lot is to be reversed for all that has gone back, and is not yet; 0 where nothing is."""
    of_it, done_pico = gone_back(payment) - _returned_before(payment), reversed_pico(payment)
    return tuple(
        replace(lot, amount_pico=max(0, share(payment, lot, of_it) - done_pico.get(lot.lot, 0)))
        for lot in bought(payment)
    )


def share(payment: Record, lot: Bought, amount: Decimal) -> int:
    """The part of a lot that belongs to an amount of what bought it: all of it for all of that."""
    paid = _paid_for_credit(payment)
    if amount >= paid:
        return lot.amount_pico
    exact = _EXACT.divide(Decimal(lot.amount_pico) * amount, paid)
    return int(exact.to_integral_value(rounding=ROUND_DOWN))


def reversed_pico(payment: Record) -> dict[str, int]:
    """What of each lot has been asked back so far, taken or not."""
    kept = payment.document.get("reversed")
    return {lot: pico_from_usd(part) for lot, part in kept.items()} if isinstance(kept, Mapping) else {}


def with_reversed(payment: Record) -> Record:
    """The payment's record once what is `due` has been asked back."""
    sums = reversed_pico(payment)
    for part in due(payment):
        if part.amount_pico:
            sums[part.lot] = sums.get(part.lot, 0) + part.amount_pico
    kept = {lot: usd_from_pico(amount_pico) for lot, amount_pico in sums.items()}
    return replace(payment, document={**payment.document, "reversed": kept})


def reversal_row(payment: Record, part: Bought, reference: str, now_ms: int) -> Transaction:
    """The row that takes a part of a payment's lot back."""
    lots = (LotAmount(part.lot, part.pool, -part.amount_pico),)
    cause = f"payment {payment.id} returned"
    return Transaction(payment.user, "refund", reference, part.pool, -part.amount_pico, lots, cause, now_ms)


async def counted_apart(store: Store, payment: Record) -> Record:
    """A payment's record with lost disputes counted apart from refunds, as it is not where they were counted
    together: what their rows asked for says how much of it was theirs.
    """
    lost = [name for name, state in disputes_of(payment).items() if state == "lost"]
    if not lost or "lost" in payment.document:
        return payment
    lots = bought(payment)
    theirs = {f"{payment.id}:lost:{name}:{number}" for name in lost for number in range(len(lots))}
    asked_pico = 0
    for row in await rows_of_type(store, payment.user, "refund"):
        if row.reference in theirs:
            asked_pico += int(str(row.charge[ASKED]))
    of_all = _EXACT.divide(_paid_for_credit(payment) * asked_pico, sum(lot.amount_pico for lot in lots))
    amount = rounded(of_all, str(payment.document["currency"]))
    returned = Decimal(str(payment.document["returned"])) - amount
    document = {**payment.document, "returned": plain(returned), "lost": plain(amount)}
    return replace(payment, document=document)


def disputes_of(payment: Record) -> dict[str, str]:
    """Dispute -> open, won or lost."""
    kept = payment.document.get("disputes")
    return dict(kept) if isinstance(kept, Mapping) else {}


def unseen_payment(
    payment: str, amount: Decimal, currency: str, at_ms: int, told: Mapping[str, object], now_ms: int
) -> Event:
    """The event that keeps, for review, what a provider told of a payment that never arrived."""
    document: dict[str, object] = {
        "amount": plain(amount),
        "currency": currency,
        "order": "",
        "paid_ms": at_ms,
        "details": {},
        "returned": "0",
        "reversed": {},
        "disputes": {},
        **told,
    }
    record = Record("payment", payment, 1, document, status=REVIEW, created_ms=now_ms)
    return Event((), records=(RecordChange.insert(record),), actor=webhook(payment))


def _paid_for_credit(payment: Record) -> Decimal:
    """What bought the payment's lots: what had gone back before an operator accepted it bought nothing."""
    return Decimal(str(payment.document["amount"])) - _returned_before(payment)


def _returned_before(payment: Record) -> Decimal:
    return Decimal(str(payment.document.get("returned_before", "0")))


async def _undo_referral(store: Store, payment: Record, now_ms: int) -> None:
    if payment.status == REFUNDED:
        await referrals.reverse(store, payment.user, payment.id, now_ms)


async def _note_return(store: Store, payment: Record, told: Decimal, now_ms: int) -> bool:
    returned = max(told, Decimal(str(payment.document["returned"])))
    change = RecordChange.update(replace(payment, document={**payment.document, "returned": plain(returned)}))
    event = Event((), records=(change,), actor=webhook(payment.id))
    return await store.apply_event(event, now_ms) is not EventResult.STALE
