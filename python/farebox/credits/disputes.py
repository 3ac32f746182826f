"""Disputes: what the payer's bank contests is frozen, and freed or taken when the bank has decided.

Promises: while a dispute is open nobody is granted money of the payment's lots. Lost, the payment's credit
is taken in proportion, and what was spent of it is owed by its pool: the next purchase pays it. What ended
unspent is owed by nobody. What exchanges hold at that moment counts as spent; what comes back of it pays the
debt like any other money of the pool. The freeze ends only after that, so nothing is granted in between.

A dispute of a payment that credited nothing is noted with it: money that is gone must not be accepted later.
"""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Final

from farebox.base.errors import StoreConflictError
from farebox.base.records import Account, Claim, Transaction
from farebox.credits import referrals
from farebox.credits.currencies import plain
from farebox.credits.notices import DisputeChanged
from farebox.credits.payments import CREDITED, NEVER_ARRIVED_DISPUTED, REFUSED, REVIEW, Outcome, webhook
from farebox.credits.returns import (
    ATTEMPTS,
    LOST,
    REFUNDED,
    Bought,
    bought,
    counted_apart,
    disputes_of,
    due,
    find_payment,
    reversal_row,
    reversed_pico,
    share,
    unseen_payment,
    with_reversed,
)
from farebox.ledger.claims import claim_of, collected
from farebox.store.base import Event, EventResult, Record, RecordChange, Store
from farebox.writer.verify_payments import rows_of_type

DISPUTED = "disputed"
_WITH_CREDIT: Final = frozenset({CREDITED, DISPUTED, REFUNDED, LOST})
_WITHOUT_CREDIT: Final = frozenset({REVIEW, REFUSED})


async def take_dispute(store: Store, notice: DisputeChanged, now_ms: int) -> Outcome:
    """Freeze what is disputed; when the dispute ends, free it or take it."""
    for _ in range(ATTEMPTS):
        payment = await find_payment(store, notice.payment)
        if payment is None and notice.state != "won":
            if await store.apply_event(_unseen(notice, now_ms), now_ms) is EventResult.DONE:
                return Outcome(REVIEW, notice.payment, NEVER_ARRIVED_DISPUTED)
            continue
        if payment is None or payment.status not in _WITH_CREDIT | _WITHOUT_CREDIT:
            state = "unknown" if payment is None else payment.status
            return Outcome("ignored", notice.payment, f"nothing to freeze: the payment is {state}")
        known = disputes_of(payment).get(notice.dispute, "")
        if known in {"won", "lost"}:
            await _make_up(store, payment, notice, known, now_ms)
            return Outcome("duplicate", payment.id, f"the dispute is {known} already")
        if payment.status in _WITH_CREDIT and notice.state != "won":
            await _freeze(store, payment, notice, now_ms)
        if known == notice.state:
            return Outcome("duplicate", payment.id, "noted before")
        event = await _event(store, await counted_apart(store, payment), notice, now_ms)
        result = EventResult.STALE if event is None else await store.apply_event(event, now_ms)
        if result is EventResult.PARKED:
            raise StoreConflictError(
                f"{payment.user} is on hold; the dispute of {payment.id} must come again"
            )
        if event is not None and result is not EventResult.STALE:
            await _make_up(store, event.records[0].record, notice, notice.state, now_ms)
            word = "disputed" if notice.state == "open" else notice.state
            return Outcome(word if result is EventResult.DONE else "duplicate", payment.id)
    raise StoreConflictError(f"payment {notice.payment} keeps changing; deliver it again")


async def _event(store: Store, payment: Record, notice: DisputeChanged, now_ms: int) -> Event | None:
    """The transaction of a dispute's news: its rows, and the payment's record with it.

    None: money moved while it was read.
    """
    told = _with_dispute(payment, notice)
    if payment.status in _WITHOUT_CREDIT or notice.state != "lost":
        return Event((), records=(RecordChange.update(told),), actor=webhook(payment.id))
    account = await store.account(payment.user)
    if account is None:
        raise StoreConflictError(f"payment {payment.id}: its user is gone")
    unspent_pico = await _unspent(store, account, payment)
    there = await store.account(payment.user)
    if there is None or there.rev != account.rev:
        return None
    rows = _lost_rows(account, told, unspent_pico, notice.dispute, now_ms)
    records = (RecordChange.update(with_reversed(told)),)
    return Event(rows, source="dispute", actor=webhook(payment.id), records=records, claims=True)


def _with_dispute(payment: Record, notice: DisputeChanged) -> Record:
    disputes = {**disputes_of(payment), notice.dispute: notice.state}
    document: dict[str, object] = {**payment.document, "disputes": disputes}
    if notice.state == "lost":
        document["lost"] = plain(Decimal(str(document.get("lost", "0"))) + notice.disputed)
    return replace(payment, status=_status(payment, notice, disputes), document=document)


def _status(payment: Record, notice: DisputeChanged, disputes: Mapping[str, str]) -> str:
    if payment.status in _WITHOUT_CREDIT:
        return payment.status
    if notice.state != "lost" and "open" in disputes.values():
        return DISPUTED
    if "lost" in disputes.values():
        return LOST
    whole = Decimal(str(payment.document["amount"]))
    return REFUNDED if Decimal(str(payment.document["returned"])) >= whole else CREDITED


def _lost_rows(
    account: Account, payment: Record, unspent_pico: Mapping[str, int], dispute: str, now_ms: int
) -> tuple[Transaction, ...]:
    """Rows that take what is due of a payment's lots, and of each pool what was spent of it.

    A row asks for all that is due of its lot, as a refund's does; of a lot that exchanges hold only for what
    is free: a claim on the rest would end with what comes back, and forget what is spent by then.

    Their references name the account's revision: what there is to take differs from one to the next, and a
    delivery that comes too late is to find the payment changed, not rows of another content.
    """
    at = f"{dispute}:{account.rev}"
    rows: list[Transaction] = []
    owed_pico: dict[str, int] = {}
    for number, part in enumerate(due(payment)):
        if not part.amount_pico:
            continue
        row = reversal_row(payment, part, f"{payment.id}:lost:{at}:{number}", now_ms)
        reached = collected(account, claim_of(row, now_ms), now_ms)
        taken_pico = sum(one.amount_pico for one in reached.parts)
        asked_pico = taken_pico if reached.is_leased else part.amount_pico
        if asked_pico:
            asked = replace(part, amount_pico=asked_pico)
            rows.append(reversal_row(payment, asked, row.reference, now_ms))
        covered_pico = max(taken_pico, min(part.amount_pico, unspent_pico[part.lot]))
        owed_pico[part.pool] = owed_pico.get(part.pool, 0) + part.amount_pico - covered_pico
    return (*rows, *_debts(payment, owed_pico, f"{payment.id}:debt:{at}", now_ms))


async def _unspent(store: Store, account: Account, payment: Record) -> dict[str, int]:
    """What of each lot was never spent and no refund or dispute before has asked for; may be negative.

    What went back before counts as met from unspent credit, whether that was still there or had ended: when
    a lot is swept does not change what is owed.
    """
    unspent_pico = {lot.lot: -reversed_pico(payment).get(lot.lot, 0) for lot in bought(payment)}
    for lot in account.lots:
        if lot.lot in unspent_pico:
            unspent_pico[lot.lot] += lot.left_pico - lot.leased_pico
    for kind in ("expired", "refund"):
        for row in await rows_of_type(store, account.user, kind):
            is_ours = kind == "expired" or row.reference.startswith(f"{payment.id}:")
            for part in row.lots:
                if is_ours and part.lot in unspent_pico:
                    unspent_pico[part.lot] -= part.amount_pico
    return unspent_pico


def _debts(
    payment: Record, owed_pico: Mapping[str, int], reference: str, now_ms: int
) -> tuple[Transaction, ...]:
    cause = "spent of a payment that was disputed and lost"
    return tuple(
        Transaction(payment.user, "refund", f"{reference}:{pool}", pool, -amount_pico, (), cause, now_ms)
        for pool, amount_pico in owed_pico.items()
        if amount_pico
    )


async def _make_up(store: Store, payment: Record, notice: DisputeChanged, state: str, now_ms: int) -> None:
    """What follows the end of a dispute outside its transaction; repeatable."""
    if state != "open":
        await _unfreeze(store, payment, notice.dispute)
    if state == "lost" and payment.status == LOST:
        await referrals.reverse(store, payment.user, payment.id, now_ms)


async def _freeze(store: Store, payment: Record, notice: DisputeChanged, now_ms: int) -> None:
    """Keep the disputed part of each lot from grants, where it is not kept yet."""
    account = await store.account(payment.user)
    kept = {claim.reference for claim in account.claims} if account is not None else set()
    for number, lot in enumerate(bought(payment)):
        amount_pico = share(payment, lot, notice.disputed)
        claim = _frozen(payment, notice.dispute, number, lot, amount_pico, now_ms)
        if amount_pico > 0 and claim.reference not in kept:
            await store.set_claim(payment.user, claim)


def _frozen(payment: Record, dispute: str, number: int, lot: Bought, amount_pico: int, now_ms: int) -> Claim:
    return Claim(
        reference=_freeze_reference(payment.id, dispute, number),
        pool=lot.pool,
        lot=lot.lot,
        amount_pico=amount_pico,
        cause=f"dispute {dispute}",
        since_ms=now_ms,
    )


async def _unfreeze(store: Store, payment: Record, dispute: str) -> None:
    for number in range(len(bought(payment))):
        await store.drop_claim(payment.user, _freeze_reference(payment.id, dispute, number))


def _freeze_reference(payment: str, dispute: str, number: int) -> str:
    return f"{payment}:frozen:{dispute}:{number}"


def _unseen(notice: DisputeChanged, now_ms: int) -> Event:
    lost = plain(notice.disputed) if notice.state == "lost" else "0"
    disputes = {notice.dispute: notice.state}
    told = {"disputes": disputes, "lost": lost, "reason": NEVER_ARRIVED_DISPUTED}
    return unseen_payment(notice.payment, notice.disputed, notice.currency, notice.at_ms, told, now_ms)
