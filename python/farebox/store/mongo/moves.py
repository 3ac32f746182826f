"""The rows of events and their effect on one user's document, for top-ups, debits and claims.

Promises: a row, its lots and its pool move together; expired money leaves before anything else happens to a
user's money (hole 17). Charges are booked elsewhere.
"""

from collections.abc import Sequence
from dataclasses import replace

from farebox.base.records import LotAmount, Transaction
from farebox.ledger.settlement import expiry_rows
from farebox.store.event_rules import counts_as_earned, dates_its_pool, signed
from farebox.store.mongo.document import UserDocument


def expire_due(user: UserDocument, now_ms: int) -> list[Transaction]:
    """Take what has expired and nobody leases; the rows that did."""
    return [apply_row(user, row, row.lots) for row in expiry_rows(user.account(), now_ms)]


def apply_row(
    user: UserDocument,
    row: Transaction,
    parts: Sequence[LotAmount],
    expires_at_ms: int | None = None,
    source: str = "",
) -> Transaction:
    """Move a row's lots, and give the row as it is to be stored; a new lot gets this expiry and source."""
    moved = signed(row, parts)
    for part in moved:
        user.move(part, expires_at_ms, source)
    if counts_as_earned(row):
        user.earn(row.amount_pico)
    if dates_its_pool(row):
        user.set_dates(row.pool, row.created_ms, expires_at_ms)
    return replace(row, lots=moved)
