"""Payments against earned rows (MONEY section 10): what a payment credited is in the ledger, and back.

Promises to be right while payments arrive: a user's payments are read before his rows (a credited payment's
rows are booked with it, and never change), and the payment that a row names is looked up after them. No more
is held than one user's purchases.
"""

from collections.abc import Iterable, Iterator, Mapping

from farebox.base import limits
from farebox.base.records import Transaction
from farebox.base.units import pico_from_usd, usd_from_pico
from farebox.ledger.conservation import Finding
from farebox.store.base import Record, Store

_UNCREDITED = frozenset({"review", "refused"})


async def payment_findings(store: Store, user: str) -> tuple[int, list[Finding]]:
    """(how many payments a user has, what does not fit between them and his rows)."""
    payments = await _payments_of(store, user)
    types = {"earned_purchase", *(str(said["type"]) for payment in payments for said in _rows(payment))}
    rows = [row for kind in sorted(types) for row in await rows_of_type(store, user, kind)]
    return len(payments), [*_missing(payments, rows), *await _unpaid(store, payments, rows)]


async def _payments_of(store: Store, user: str) -> list[Record]:
    found: list[Record] = []
    before: tuple[int, str] | None = None
    while page := await store.records("payment", user=user, before=before, limit=limits.records_page_max):
        found += page
        before = page[-1].created_ms, page[-1].id
    return found


async def rows_of_type(store: Store, user: str, kind: str) -> list[Transaction]:
    """A user's ledger rows of one type that come from events: they are few, unlike those of exchanges."""
    found: list[Transaction] = []
    before = ""
    while page := await store.transactions(user, limits.records_page_max, before, kind=kind):
        found += page
        before = page[-1].id
    return found


def _missing(payments: Iterable[Record], rows: Iterable[Transaction]) -> Iterator[Finding]:
    """What payments say they credited and the ledger does not have, or has with another amount."""
    booked = {row.id: row.amount_pico for row in rows}
    for payment in payments:
        for said in _rows(payment):
            row_id = f"{said['user']}:{said['type']}:{payment.id}:{said['pool']}"
            said_pico = pico_from_usd(str(said["credits"]))
            values = {"user": payment.user, "payment": payment.id, "row": row_id}
            amount_pico = booked.get(row_id)
            if amount_pico is None:
                text = f"M4 payment {payment.id} of {payment.user}: credited, but row {row_id} is missing"
                yield Finding("payment without row", text, said_pico, values)
            elif amount_pico != said_pico:
                text = (
                    f"M7 row {row_id}: {usd_from_pico(amount_pico)} USD, its payment says {said['credits']}"
                )
                yield Finding("payment differs", text, abs(amount_pico - said_pico), values)


async def _unpaid(store: Store, payments: Iterable[Record], rows: Iterable[Transaction]) -> list[Finding]:
    """Purchases in the ledger that no payment says it credited."""
    known = {payment.id: payment for payment in payments}
    found: list[Finding] = []
    for row in rows:
        if row.type != "earned_purchase":
            continue
        values = {"user": row.user, "payment": row.reference, "row": row.id}
        payment = known.get(row.reference) or await store.record("payment", row.reference)
        if payment is None:
            text = f"M7 row {row.id}: there is no payment {row.reference}"
            found.append(Finding("row without payment", text, row.amount_pico, values))
        elif not _rows(payment):
            text = f"M4 row {row.id}: its payment is {payment.status} and credited nothing"
            found.append(Finding("row without payment", text, row.amount_pico, values))
    return found


def _rows(payment: Record) -> list[Mapping[str, object]]:
    if payment.status in _UNCREDITED:
        return []
    said = payment.document.get("rows")
    return said if isinstance(said, list) else []
