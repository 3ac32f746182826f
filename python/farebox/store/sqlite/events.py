"""Money events in SQLite: top-ups, transfers, adjustments, refunds, expiry (MONEY section 5).

Promises: all rows of an event and all its effects are one transaction; a redelivery changes nothing; the same
ids with other content are an alarm, never taken for success (hole 9); expired money is taken out first, so
that nothing revives it (hole 17).
"""

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import orjson

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import POOLS, TRANSACTION_TYPES, Account, LotAmount, Transaction
from farebox.ledger.lots import lots_to_renew
from farebox.ledger.settlement import expiry_rows, merged, plan_event
from farebox.store.base import Event, EventResult
from farebox.store.record_rules import audit_entry, check_changes, event_name
from farebox.store.sqlite import accounts, feed, records, rows
from farebox.store.sqlite.connection import is_row_error, savepoint

_OF_EXCHANGES: Final = frozenset({"spent", "written_off"})
_ONLY_CREDIT: Final = frozenset(
    {"earned_purchase", "earned_bonus", "earned_subscription", "earned_referral", "transfer_in", "opening"}
)
_ONLY_DEBIT: Final = frozenset({"transfer_out", "expired"})
_VALIDITY: Final = {
    "credits": ("purchased_at_ms", "expires_at_ms"),
    "creditsNew": ("purchased_at_new_ms", "expires_at_new_ms"),
}
"""Pool -> the columns with the dates of its last purchase, which readers of the replaced system show."""


class _ShortError(Exception):
    """A debit met too little unleased money: undo the event."""


def apply_event(connection: sqlite3.Connection, event: Event, now_ms: int) -> EventResult:
    """Apply one event as a whole, or not at all; see `Store.apply_event`."""
    _check_shape(event)
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
            records.write(connection, event.records)
    except _ShortError:
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
    if account.parked is None and not accounts.is_damaged(account):
        return EventResult.DUPLICATE
    event = Event(_foreign_rows(account, now_ms), source="adopted")
    try:
        with savepoint(connection):
            connection.execute("UPDATE pools SET balance_pico = seen_pico WHERE user = ?", (user,))
            connection.execute("UPDATE users SET parked = NULL WHERE user = ?", (user,))
            _apply_to(connection, user, event, now_ms)
    except _ShortError:
        return EventResult.SHORT
    feed.audit(connection, actor, "wallet.adopt", user, {"rows": [row.id for row in event.rows]}, now_ms)
    return EventResult.DONE


def _foreign_rows(account: Account, now_ms: int) -> tuple[Transaction, ...]:
    """An adjustment for every pool whose balance is not its shadow; what was added is a lot of its own."""
    user, reference = account.user, f"adopt:{account.rev}"
    adjustments: list[Transaction] = []
    for pool in sorted(account.balances):
        amount = account.balances[pool] - account.seen[pool]
        if not amount:
            continue
        lot = hashlib.sha256(f"{user}:{reference}:{pool}".encode()).hexdigest()[:24]
        lots = (LotAmount(lot, pool, amount),) if amount > 0 else ()
        adjustments.append(Transaction(user, "adjustment", reference, pool, amount, lots, "adopted", now_ms))
    return tuple(adjustments)


def _check_shape(event: Event) -> None:
    if not (event.rows or event.records) or len({row.id for row in event.rows}) != len(event.rows):
        raise InvariantBrokenError("an event has at least one row or record, and no row twice")
    check_changes(event.records)
    for row in event.rows:
        if row.type not in TRANSACTION_TYPES or row.type in _OF_EXCHANGES or row.pool not in POOLS:
            raise InvariantBrokenError(f"row {row.id}: no event has this type and pool")
        if (row.type in _ONLY_CREDIT and row.amount_pico < 0) or (
            row.type in _ONLY_DEBIT and row.amount_pico > 0
        ):
            raise InvariantBrokenError(f"row {row.id}: {row.amount_pico} has the wrong sign for its type")


def _is_booked(connection: sqlite3.Connection, wanted: Sequence[Transaction]) -> bool:
    """Whether these rows are there. Raises InvariantBrokenError when only some are, or with other content."""
    there = [(row, found) for row in wanted if (found := _stored(connection, row)) is not None]
    if not there:
        return False
    for row, (amount, lots) in there:
        if amount != row.amount_pico or (row.lots and lots != _signed(row, merged(row.lots))):
            raise InvariantBrokenError(
                f"M4: row {row.id} is booked already with other content; nothing was changed"
            )
    if len(there) != len(wanted):
        raise InvariantBrokenError(
            f"M4: only {len(there)} of {len(wanted)} rows beside {there[0][0].id} are booked"
        )
    return True


def _stored(connection: sqlite3.Connection, row: Transaction) -> tuple[int, tuple[LotAmount, ...]] | None:
    found = connection.execute(
        "SELECT amount_pico, lots FROM credit_transactions WHERE id = ?", (row.id,)
    ).fetchone()
    if found is None:
        return None
    return found[0], tuple(LotAmount(*part) for part in orjson.loads(found[1]))


def _signed(row: Transaction, parts: Sequence[LotAmount]) -> tuple[LotAmount, ...]:
    """Lot amounts with the sign of their row, as they are stored."""
    sign = -1 if row.amount_pico < 0 else 1
    return tuple(part._replace(amount_pico=sign * abs(part.amount_pico)) for part in parts)


def _obstacle(connection: sqlite3.Connection, users: Sequence[str]) -> EventResult | None:
    """Why nothing may be applied; an account someone else wrote to is parked on the way."""
    found = [accounts.load(connection, user) for user in users]
    if any(account is None for account in found):
        return EventResult.UNKNOWN_USER
    blocked = False
    for account in found:
        if account is not None and account.parked is None and accounts.is_damaged(account):
            accounts.park(connection, account.user, accounts.FOREIGN_WRITE)
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
                raise _ShortError
            _apply_row(connection, row, parts, event)
    _renew(connection, user, event, now_ms)
    connection.execute("UPDATE users SET rev = rev + 1 WHERE user = ?", (user,))
    feed.append(connection, "user", user)


def _renew(connection: sqlite3.Connection, user: str, event: Event, now_ms: int) -> None:
    """Let the unexpired lots of pools this event credits last as long as what it brings."""
    credited = {row.pool for row in event.rows if row.user == user and row.amount_pico > 0}
    for pool in credited.intersection(event.renews):
        lots = lots_to_renew(_loaded(connection, user), pool, event.expires_at_ms, now_ms)
        connection.executemany(
            "UPDATE lots SET expires_at_ms = ? WHERE user = ? AND lot = ?",
            [(event.expires_at_ms, user, lot) for lot in lots],
        )


def _loaded(connection: sqlite3.Connection, user: str) -> Account:
    account = accounts.load(connection, user)
    if account is None:
        raise InvariantBrokenError(f"user {user} vanished inside a transaction")
    return account


def _apply_row(
    connection: sqlite3.Connection, row: Transaction, parts: Sequence[LotAmount], event: Event
) -> None:
    signed = _signed(row, parts)
    rows.insert(connection, [replace(row, lots=signed)])
    for part in signed:
        _move(connection, row.user, part, event)
    connection.execute(
        """UPDATE pools SET balance_pico = balance_pico + ?1, seen_pico = seen_pico + ?1
           WHERE user = ?2 AND pool = ?3""",
        (row.amount_pico, row.user, row.pool),
    )
    if row.type.startswith("earned_"):
        _count_earned(connection, row, event)


def _move(connection: sqlite3.Connection, user: str, part: LotAmount, event: Event) -> None:
    changed = connection.execute(
        "UPDATE lots SET left_pico = left_pico + ? WHERE user = ? AND lot = ? AND pool = ?",
        (part.amount_pico, user, part.lot, part.pool),
    )
    if changed.rowcount == 0:
        connection.execute(
            "INSERT INTO lots (user, lot, pool, left_pico, expires_at_ms, source) VALUES (?, ?, ?, ?, ?, ?)",
            (user, part.lot, part.pool, part.amount_pico, event.expires_at_ms, event.source),
        )


def _count_earned(connection: sqlite3.Connection, row: Transaction, event: Event) -> None:
    connection.execute(
        "UPDATE users SET total_earned_pico = total_earned_pico + ? WHERE user = ?",
        (row.amount_pico, row.user),
    )
    columns = _VALIDITY.get(row.pool)
    if columns is not None and row.type != "earned_referral":
        connection.execute(
            f"UPDATE users SET {columns[0]} = ?, {columns[1]} = ? WHERE user = ?",  # noqa: S608 - names of our own
            (row.created_ms, event.expires_at_ms, row.user),
        )
