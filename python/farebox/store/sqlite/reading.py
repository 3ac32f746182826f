"""Reading the ledger from SQLite: a user's rows, newest first, or all of them with the account in one
snapshot.
"""

import sqlite3
from collections.abc import Iterable, Mapping

import orjson

from farebox.base.records import Account, LotAmount, Transaction
from farebox.store.sqlite import accounts, rows

_COLUMNS = "user, type, reference, pool, amount_pico, lots, cause, created_ms, charge"
_OF_USER = f"SELECT {_COLUMNS} FROM credit_transactions WHERE user = ?"  # noqa: S608 - names of our own
_OLDER = """ AND sequence < (SELECT sequence FROM credit_transactions
    WHERE reference = ? AND type = ? AND user = ? AND pool = ?)"""
_NEWEST_FIRST = " ORDER BY sequence DESC"


def transactions(
    connection: sqlite3.Connection, user: str, limit: int, before: str, kind: str
) -> list[Transaction]:
    """Up to `limit` rows of a user, newest first, older than the row whose id is `before`, of one type."""
    statement, values = _OF_USER, [user]
    if kind:
        statement, values = statement + " AND type = ?", [*values, kind]
    if before:
        statement, values = statement + _OLDER, [*values, *_parts_of(user, before)]
    return _transactions(connection.execute(statement + _NEWEST_FIRST + " LIMIT ?", (*values, limit)))


def _parts_of(user: str, row_id: str) -> tuple[str, str, str, str]:
    """Reference, type, user and pool of a row of `user`: a reference may hold colons, the others do not."""
    type_, _, rest = row_id.removeprefix(f"{user}:").partition(":")
    reference, _, pool = rest.rpartition(":")
    return reference, type_, user, pool


def account_with_rows(connection: sqlite3.Connection, user: str) -> tuple[Account, list[Transaction]] | None:
    """A user and all his rows, newest first, in the snapshot of the caller's transaction."""
    account = accounts.load(connection, user)
    if account is None:
        return None
    return account, _transactions(connection.execute(_OF_USER + _NEWEST_FIRST, (user,)))


def account_with_sums(
    connection: sqlite3.Connection, user: str
) -> tuple[Account, Mapping[str, int], int] | None:
    """A user, his rows summed by pool, and how many they are, in the snapshot of the caller's transaction."""
    account = accounts.load(connection, user)
    if account is None:
        return None
    found = connection.execute(
        "SELECT pool, sum(amount_pico), count(*) FROM credit_transactions WHERE user = ? GROUP BY pool",
        (user,),
    ).fetchall()
    return account, {pool: total for pool, total, _ in found}, sum(count for *_, count in found)


def _transactions(found: Iterable[tuple[str, str, str, str, int, str, str, int, str]]) -> list[Transaction]:
    return [
        Transaction(
            user=user,
            type=type_,
            reference=reference,
            pool=pool,
            amount_pico=amount,
            lots=tuple(LotAmount(*part) for part in orjson.loads(lots)),
            cause=cause,
            created_ms=created,
            charge=rows.charge_from(charge),
        )
        for user, type_, reference, pool, amount, lots, cause, created, charge in found
    ]
