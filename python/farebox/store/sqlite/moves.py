"""The rows of events and their effect on pools, lots and counters in SQLite, for top-ups, debits and claims.

Promises: a row, its lots and its pool move together; expired money leaves before anything else happens to a
user's money (hole 17). Charges are written by `rows`, not here.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import Account, LotAmount, Transaction
from farebox.ledger.settlement import expiry_rows
from farebox.store.event_rules import counts_as_earned, dates_its_pool, signed
from farebox.store.sqlite import accounts, rows

_VALIDITY: Final = {
    "credits": ("purchased_at_ms", "expires_at_ms"),
    "creditsNew": ("purchased_at_new_ms", "expires_at_new_ms"),
}
"""Pool -> the columns with the dates of its last purchase, which readers of the replaced system show."""


def loaded(connection: sqlite3.Connection, user: str) -> Account:
    """One user's money as it is now, inside the caller's transaction."""
    account = accounts.load(connection, user)
    if account is None:
        raise InvariantBrokenError(f"user {user} vanished inside a transaction")
    return account


def expire_due(connection: sqlite3.Connection, account: Account, now_ms: int) -> set[str]:
    """Take what has expired and nobody leases; the ids of the rows that did."""
    due = expiry_rows(account, now_ms)
    for row in due:
        apply_row(connection, row, row.lots)
    return {row.id for row in due}


def apply_row(
    connection: sqlite3.Connection,
    row: Transaction,
    parts: Sequence[LotAmount],
    expires_at_ms: int | None = None,
    source: str = "",
) -> None:
    """Write one row and move its lots; a lot that is new gets this expiry and source."""
    moved = signed(row, parts)
    rows.insert(connection, [replace(row, lots=moved)])
    for part in moved:
        _move(connection, row.user, part, expires_at_ms, source)
    connection.execute(
        """UPDATE pools SET balance_pico = balance_pico + ?1, seen_pico = seen_pico + ?1
           WHERE user = ?2 AND pool = ?3""",
        (row.amount_pico, row.user, row.pool),
    )
    if counts_as_earned(row):
        _count_earned(connection, row, expires_at_ms)


def _move(
    connection: sqlite3.Connection, user: str, part: LotAmount, expires_at_ms: int | None, source: str
) -> None:
    changed = connection.execute(
        "UPDATE lots SET left_pico = left_pico + ? WHERE user = ? AND lot = ? AND pool = ?",
        (part.amount_pico, user, part.lot, part.pool),
    )
    if changed.rowcount == 0:
        connection.execute(
            "INSERT INTO lots (user, lot, pool, left_pico, expires_at_ms, source) VALUES (?, ?, ?, ?, ?, ?)",
            (user, part.lot, part.pool, part.amount_pico, expires_at_ms, source),
        )


def _count_earned(connection: sqlite3.Connection, row: Transaction, expires_at_ms: int | None) -> None:
    connection.execute(
        "UPDATE users SET total_earned_pico = total_earned_pico + ? WHERE user = ?",
        (row.amount_pico, row.user),
    )
    if dates_its_pool(row):
        columns = _VALIDITY[row.pool]
        connection.execute(
            f"UPDATE users SET {columns[0]} = ?, {columns[1]} = ? WHERE user = ?",  # noqa: S608 - names of our own
            (row.created_ms, expires_at_ms, row.user),
        )
