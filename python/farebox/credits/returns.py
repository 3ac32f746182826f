"""Refunds and disputes: a payment that goes back takes the credit it bought, lot by lot, and no more.

Promises: exactly the lots that the payment paid for are reversed, in proportion to what was returned, and
never below what running exchanges hold (a claim waits for those and then takes what is left). Refunds are
told as totals, so deliveries may be lost, doubled or come in any order. A disputed payment's lots are frozen:
nobody is granted money of them. Of a lost dispute the part that was spent stays as a debt on the pool, which
the next purchase pays; of a refund it does not.

Every step is one transaction guarded by the payment's revision, or repeatable; a delivery that was cut off
anywhere is made up for by the next one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, Context, Decimal
from typing import Final

from farebox.base.errors import StoreConflictError
from farebox.base.records import Account, Claim, LotAmount, Transaction
from farebox.base.units import pico_from_usd, usd_from_pico
from farebox.credits import referrals
from farebox.credits.currencies import plain
from farebox.credits.notices import DisputeChanged, MoneyReturned
from farebox.credits.payments import CREDITED, REFUSED, REVIEW, Outcome
from farebox.store.base import Event, EventResult, Record, RecordChange, Store

DISPUTED, REFUNDED, LOST = "disputed", "refunded", "lost"
_WITH_CREDIT: Final = frozenset({CREDITED, DISPUTED, REFUNDED, LOST})
_ATTEMPTS: Final = 8
_EXACT = Context(prec=60)
_UNSEEN = "money of it was returned, but it never arrived here"


@dataclass(frozen=True, slots=True)
class Bought:
    """The credit a payment brought to one pool: one lot."""

    lot: str
    pool: str
    amount_pico: int


async def take_return(store: Store, notice: MoneyReturned, now_ms: int) -> Outcome:
    """Reverse what has been returned of a payment and is not reversed yet."""
    for _ in range(_ATTEMPTS):
        payment = await find_payment(store, notice.payment)
        if payment is None:
            event = Event(
                (), records=(RecordChange.insert(_unseen(notice, now_ms)),), actor=_actor(notice.payment)
            )
            if await store.apply_event(event, now_ms) is EventResult.DONE:
                return Outcome(REVIEW, notice.payment, _UNSEEN)
            continue
        if payment.status in {REVIEW, REFUSED}:
            if await _note_return(store, payment, notice.returned, now_ms):
                return Outcome("returned", payment.id, f"nothing was credited: it is {payment.status}")
            continue
        whole = Decimal(str(payment.document["amount"]))
        returned = min(notice.returned, whole)
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


async def take_dispute(store: Store, notice: DisputeChanged, now_ms: int) -> Outcome:
    """Freeze what is disputed; when the dispute ends, free it or take it."""
    for _ in range(_ATTEMPTS):
        payment = await find_payment(store, notice.payment)
        if payment is None or payment.status not in _WITH_CREDIT:
            state = "unknown" if payment is None else payment.status
            return Outcome("ignored", notice.payment, f"nothing to freeze: the payment is {state}")
        known = _disputes(payment).get(notice.dispute, "")
        if known in {"won", "lost"}:
            await _make_up(store, payment, notice, known, now_ms)
            return Outcome("duplicate", payment.id, f"the dispute is {known} already")
        if notice.state == "open":
            await _freeze(store, payment, notice, now_ms)
        if known == notice.state:
            return Outcome("duplicate", payment.id, "frozen before")
        if notice.state == "lost":
            await _unfreeze(store, payment, notice.dispute)
        event = await _dispute_event(store, payment, notice, now_ms)
        result = await store.apply_event(event, now_ms)
        if result is EventResult.PARKED:
            raise StoreConflictError(
                f"{payment.user} is on hold; the dispute of {payment.id} must come again"
            )
        if result is not EventResult.STALE:
            await _make_up(store, payment, notice, notice.state, now_ms)
            return Outcome("disputed" if notice.state == "open" else notice.state, payment.id)
    raise StoreConflictError(f"payment {notice.payment} keeps changing; deliver it again")


async def find_payment(store: Store, named: str) -> Record | None:
    """A payment by its id, or by the other id its provider knows it by."""
    found = await store.record("payment", named)
    if found is None:
        others = await store.records("payment", reference=named, limit=1)
        found = others[0] if others else None
    return found


def return_event(payment: Record, returned: Decimal, now_ms: int) -> Event:
    """The transaction that reverses up to `returned` of a payment's amount."""
    whole = Decimal(str(payment.document["amount"]))
    rows, reversed_ = _reversal(payment, returned, f"{payment.id}:returned:{plain(returned)}", now_ms)
    status = payment.status if payment.status == LOST or returned < whole else REFUNDED
    document = {**payment.document, "returned": plain(returned), "reversed": reversed_}
    change = RecordChange.update(replace(payment, status=status, document=document))
    return Event(rows, source="refund", actor=_actor(payment.id), records=(change,), claims=True)


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


def _reversal(
    payment: Record, returned: Decimal, reference: str, now_ms: int
) -> tuple[tuple[Transaction, ...], dict[str, str]]:
    """Rows that bring the reversed part of each lot to its share, and those parts."""
    whole, of_it = _paid_for_credit(payment), returned - _returned_before(payment)
    rows: list[Transaction] = []
    reversed_ = _reversed(payment)
    for number, lot in enumerate(bought(payment)):
        due_pico = _share(lot.amount_pico, of_it, whole) - pico_from_usd(reversed_.get(lot.lot, "0"))
        if due_pico <= 0:
            continue
        reversed_[lot.lot] = usd_from_pico(pico_from_usd(reversed_.get(lot.lot, "0")) + due_pico)
        part = LotAmount(lot.lot, lot.pool, -due_pico)
        cause = f"payment {payment.id} returned"
        rows.append(
            Transaction(
                payment.user, "refund", f"{reference}:{number}", lot.pool, -due_pico, (part,), cause, now_ms
            )
        )
    return tuple(rows), reversed_


def _paid_for_credit(payment: Record) -> Decimal:
    """What bought the payment's lots: what had gone back before an operator accepted it bought nothing."""
    return Decimal(str(payment.document["amount"])) - _returned_before(payment)


def _returned_before(payment: Record) -> Decimal:
    return Decimal(str(payment.document.get("returned_before", "0")))


def _share(amount_pico: int, returned: Decimal, whole: Decimal) -> int:
    """The part of a lot that belongs to the returned part of what paid for it: all of it for all of it."""
    if returned >= whole:
        return amount_pico
    share = _EXACT.divide(Decimal(amount_pico) * returned, whole)
    return int(share.to_integral_value(rounding=ROUND_DOWN))


async def _dispute_event(store: Store, payment: Record, notice: DisputeChanged, now_ms: int) -> Event:
    disputes = {**_disputes(payment), notice.dispute: notice.state}
    document = {**payment.document, "disputes": disputes}
    if notice.state != "lost":
        status = DISPUTED if "open" in disputes.values() else _settled_status(payment)
        change = RecordChange.update(replace(payment, status=status, document=document))
        return Event((), actor=_actor(payment.id), records=(change,))
    before = Decimal(str(payment.document["returned"]))
    returned = min(Decimal(str(payment.document["amount"])), before + notice.disputed)
    rows, reversed_ = _reversal(payment, returned, f"{payment.id}:lost:{notice.dispute}", now_ms)
    account = await store.account(payment.user)
    debts = () if account is None else _debts(account, rows, f"{payment.id}:debt:{notice.dispute}", now_ms)
    document.update(returned=plain(returned), reversed=reversed_)
    change = RecordChange.update(replace(payment, status=LOST, document=document))
    return Event((*rows, *debts), source="dispute", actor=_actor(payment.id), records=(change,), claims=True)


def _debts(
    account: Account, rows: tuple[Transaction, ...], reference: str, now_ms: int
) -> tuple[Transaction, ...]:
    """What of the rows their lots do not hold any more, for it was spent: owed by the whole pool."""
    left = {lot.lot: lot.left_pico for lot in account.lots}
    owed: dict[str, int] = {}
    for row in rows:
        missing_pico = -row.amount_pico - left.get(row.lots[0].lot, 0)
        owed[row.pool] = owed.get(row.pool, 0) + max(0, missing_pico)
    cause = "spent of a payment that was disputed and lost"
    return tuple(
        Transaction(account.user, "refund", f"{reference}:{pool}", pool, -owed_pico, (), cause, now_ms)
        for pool, owed_pico in owed.items()
        if owed_pico
    )


async def _make_up(store: Store, payment: Record, notice: DisputeChanged, state: str, now_ms: int) -> None:
    """What follows the end of a dispute outside its transaction; repeatable."""
    if state == "won":
        await _unfreeze(store, payment, notice.dispute)
    if state == "lost":
        await referrals.reverse(store, payment.user, payment.id, now_ms)


async def _freeze(store: Store, payment: Record, notice: DisputeChanged, now_ms: int) -> None:
    whole = _paid_for_credit(payment)
    for number, lot in enumerate(bought(payment)):
        amount_pico = _share(lot.amount_pico, notice.disputed, whole)
        if amount_pico > 0:
            claim = Claim(
                reference=_freeze_reference(payment.id, notice.dispute, number),
                pool=lot.pool,
                lot=lot.lot,
                amount_pico=amount_pico,
                cause=f"dispute {notice.dispute}",
                since_ms=now_ms,
            )
            await store.set_claim(payment.user, claim)


async def _unfreeze(store: Store, payment: Record, dispute: str) -> None:
    for number in range(len(bought(payment))):
        await store.drop_claim(payment.user, _freeze_reference(payment.id, dispute, number))


def _freeze_reference(payment: str, dispute: str, number: int) -> str:
    return f"{payment}:frozen:{dispute}:{number}"


async def _undo_referral(store: Store, payment: Record, now_ms: int) -> None:
    if payment.status == REFUNDED:
        await referrals.reverse(store, payment.user, payment.id, now_ms)


async def _note_return(store: Store, payment: Record, returned: Decimal, now_ms: int) -> bool:
    document = {**payment.document, "returned": plain(returned)}
    change = RecordChange.update(replace(payment, document=document))
    event = Event((), records=(change,), actor=_actor(payment.id))
    return await store.apply_event(event, now_ms) is not EventResult.STALE


def _settled_status(payment: Record) -> str:
    """The status of a payment whose disputes are over and won."""
    whole = Decimal(str(payment.document["amount"]))
    return REFUNDED if Decimal(str(payment.document["returned"])) >= whole else CREDITED


def _unseen(notice: MoneyReturned, now_ms: int) -> Record:
    document: dict[str, object] = {
        "amount": plain(notice.amount),
        "currency": notice.currency,
        "order": "",
        "paid_ms": notice.at_ms,
        "details": {},
        "returned": plain(notice.returned),
        "reversed": {},
        "disputes": {},
        "reason": _UNSEEN,
    }
    return Record("payment", notice.payment, 1, document, status=REVIEW, created_ms=now_ms)


def _disputes(payment: Record) -> dict[str, str]:
    kept = payment.document.get("disputes")
    return dict(kept) if isinstance(kept, Mapping) else {}


def _reversed(payment: Record) -> dict[str, str]:
    kept = payment.document.get("reversed")
    return dict(kept) if isinstance(kept, Mapping) else {}


def _actor(payment: str) -> str:
    return f"webhook:{payment.partition(':')[0]}"
