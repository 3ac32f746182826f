"""Money events in SQLite: top-ups, transfers, adjustments, refunds, expiry (MONEY section 5).

Promises: all rows of an event and all its effects are one transaction; a redelivery changes nothing; the same
ids with other content are an alarm, never taken for success (hole 9); expired money is taken out first, so
that nothing revives it (hole 17).
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import orjson

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import Account, LotAmount, Transaction
from farebox.ledger.lots import lots_to_renew
from farebox.ledger.settlement import expiry_rows, plan_event
from farebox.store import event_rules
from farebox.store.base import Event, EventResult, RecordChange
from farebox.store.event_rules import (
    ShortError,
    StoredRow,
    adopted_rows,
    counts_as_earned,
    dates_its_pool,
    signed,
)
from farebox.store.lease_rules import FOREIGN_WRITE, is_damaged
from farebox.store.record_rules import audit_entry, event_name, with_balances
from farebox.store.sqlite import accounts, feed, records, rows
from farebox.store.sqlite.connection import is_row_error, savepoint

_VALIDITY: Final = {
    "credits": ("purchased_at_ms", "expires_at_ms"),
    "creditsNew": ("purchased_at_new_ms", "expires_at_new_ms"),
}
"""Pool -> the columns with the dates of its last purchase, which readers of the replaced system show."""


def apply_event(connection: sqlite3.Connection, event: Event, now_ms: int) -> EventResult:
    """Apply one event as a whole, or not at all; see `Store.apply_event`."""
    event_rules.check_shape(event)
    if event.rows and _is_booked(connection, event.rows):
        return EventResult.DUPLICATE
    state = records.obstacle(connection, event.records)
    if state is not None:
        return EventResult.STALE if event.rows else state
    users = list(dict.fromkeys(row.user for row in event.rows))
    obstacle = _obstacle(connection, users)
    if obstacle is not None:
        return obstacle
    try:
        with savepoint(connection):
            for user in users:
                _apply_to(connection, user, event, now_ms)
            records.write(connection, _changes(connection, event))
    except ShortError:
        return EventResult.SHORT
    except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
        if not is_row_error(error):
            raise
        raise InvariantBrokenError(f"event {event_name(event)}: cannot be stored: {error}") from error
    if event.actor:
        feed.audit(connection, event.actor, *audit_entry(event), now_ms)
    return EventResult.DONE


def adopt_balances(connection: sqlite3.Connection, user: str, actor: str, now_ms: int) -> EventResult:
    """Book what someone outside wrote to a user's balances as adjustments; see `Store.adopt_balances`."""
    account = accounts.load(connection, user)
    if account is None:
        return EventResult.UNKNOWN_USER
    if account.parked is None and not is_damaged(account):
        return EventResult.DUPLICATE
    event = Event(adopted_rows(account, now_ms), source="adopted")
    try:
        with savepoint(connection):
            connection.execute("UPDATE pools SET balance_pico = seen_pico WHERE user = ?", (user,))
            connection.execute("UPDATE users SET parked = NULL WHERE user = ?", (user,))
            _apply_to(connection, user, event, now_ms)
    except ShortError:
        return EventResult.SHORT
    feed.audit(connection, actor, "wallet.adopt", user, {"rows": [row.id for row in event.rows]}, now_ms)
    return EventResult.DONE


def _is_booked(connection: sqlite3.Connection, wanted: Sequence[Transaction]) -> bool:
    stored = {row.id: found for row in wanted if (found := _stored(connection, row)) is not None}
    return event_rules.is_booked(wanted, stored)


def _stored(connection: sqlite3.Connection, row: Transaction) -> StoredRow | None:
    found = connection.execute(
        "SELECT amount_pico, lots FROM credit_transactions WHERE id = ?", (row.id,)
    ).fetchone()
    if found is None:
        return None
    return StoredRow(found[0], tuple(LotAmount(*part) for part in orjson.loads(found[1])))


def _obstacle(connection: sqlite3.Connection, users: Sequence[str]) -> EventResult | None:
    """Why nothing may be applied; an account someone else wrote to is parked on the way."""
    found = [accounts.load(connection, user) for user in users]
    if any(account is None for account in found):
        return EventResult.UNKNOWN_USER
    blocked = False
    for account in found:
        if account is not None and account.parked is None and is_damaged(account):
            accounts.park(connection, account.user, FOREIGN_WRITE)
            blocked = True
        blocked = blocked or (account is not None and account.parked is not None)
    return EventResult.PARKED if blocked else None


def _apply_to(connection: sqlite3.Connection, user: str, event: Event, now_ms: int) -> None:
    """Expire what is due for one user, then apply his rows in order."""
    due = expiry_rows(_loaded(connection, user), now_ms)
    for row in due:
        _apply_row(connection, row, row.lots, event)
    done = {row.id for row in due}
    for row in event.rows:
        if row.user == user and row.id not in done:
            parts = plan_event(_loaded(connection, user), row, now_ms)
            if parts is None:
                raise ShortError
            _apply_row(connection, row, parts, event)
    _renew(connection, user, event, now_ms)
    connection.execute("UPDATE users SET rev = rev + 1 WHERE user = ?", (user,))
    feed.append(connection, "user", user)


def _changes(connection: sqlite3.Connection, event: Event) -> tuple[RecordChange, ...]:
    """The event's record changes, with the balances it says to keep."""
    if not event.balance_of:
        return event.records
    account = _loaded(connection, event.rows[0].user)
    return with_balances(event, account.balances.get(event.balance_of, 0))


def _renew(connection: sqlite3.Connection, user: str, event: Event, now_ms: int) -> None:
    """Let the unexpired lots of pools this event credits last as long as what it brings."""
    credited = {row.pool for row in event.rows if row.user == user and row.amount_pico > 0}
    for pool in credited.intersection(event.renews):
        expires_ms = event.expiry_ms(pool)
        lots = lots_to_renew(_loaded(connection, user), pool, expires_ms, now_ms)
        connection.executemany(
            "UPDATE lots SET expires_at_ms = ? WHERE user = ? AND lot = ?",
            [(expires_ms, user, lot) for lot in lots],
        )


def _loaded(connection: sqlite3.Connection, user: str) -> Account:
    account = accounts.load(connection, user)
    if account is None:
        raise InvariantBrokenError(f"user {user} vanished inside a transaction")
    return account


def _apply_row(
    connection: sqlite3.Connection, row: Transaction, parts: Sequence[LotAmount], event: Event
) -> None:
    moved = signed(row, parts)
    rows.insert(connection, [replace(row, lots=moved)])
    for part in moved:
        _move(connection, row.user, part, event)
    connection.execute(
        """UPDATE pools SET balance_pico = balance_pico + ?1, seen_pico = seen_pico + ?1
           WHERE user = ?2 AND pool = ?3""",
        (row.amount_pico, row.user, row.pool),
    )
    if counts_as_earned(row):
        _count_earned(connection, row, event)


def _move(connection: sqlite3.Connection, user: str, part: LotAmount, event: Event) -> None:
    changed = connection.execute(
        "UPDATE lots SET left_pico = left_pico + ? WHERE user = ? AND lot = ? AND pool = ?",
        (part.amount_pico, user, part.lot, part.pool),
    )
    if changed.rowcount == 0:
        connection.execute(
            "INSERT INTO lots (user, lot, pool, left_pico, expires_at_ms, source) VALUES (?, ?, ?, ?, ?, ?)",
            (user, part.lot, part.pool, part.amount_pico, event.expiry_ms(part.pool), event.source),
        )


def _count_earned(connection: sqlite3.Connection, row: Transaction, event: Event) -> None:
    connection.execute(
        "UPDATE users SET total_earned_pico = total_earned_pico + ? WHERE user = ?",
        (row.amount_pico, row.user),
    )
    if dates_its_pool(row):
        columns = _VALIDITY[row.pool]
        connection.execute(
            f"UPDATE users SET {columns[0]} = ?, {columns[1]} = ? WHERE user = ?",  # noqa: S608 - names of our own
            (row.created_ms, event.expiry_ms(row.pool), row.user),
        )
