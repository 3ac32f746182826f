"""Balances of the replaced system, taken over where their owner's money is first touched (MONEY section 5).

Promises: a balance becomes Decimal128, a lot and an `opening` row in one transaction, under a filter that
names the exact value read; what is no amount of money parks the user with the reason, and guesses nothing.
"""

from farebox.base.records import LotAmount, Transaction
from farebox.ledger.opening import opening_row
from farebox.store.mongo.document import UserDocument
from farebox.store.mongo.values import UnstorableError


def open_balances(user: UserDocument, now_ms: int) -> list[Transaction]:
    """Open every pool not opened yet; the rows to insert with the update. May park the user instead."""
    rows: list[Transaction] = []
    for pool in user.unopened():
        try:
            balance_pico = user.open_pool(pool)
        except UnstorableError as error:
            user.forget_changes()
            user.park(f"the balance `{pool}` {error}: write the right amount, then `farebox wallet adopt`")
            return []
        if balance_pico:
            row = opening_row(user.name, pool, balance_pico, "opening", "opening", now_ms)
            (part,) = row.lots
            user.move(LotAmount(part.lot, pool, balance_pico), user.legacy_expiry_ms(pool), "opening")
            rows.append(row)
    return rows
