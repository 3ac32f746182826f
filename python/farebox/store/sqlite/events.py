"""Money events in SQLite: top-ups, transfers, adjustments, refunds, expiry (MONEY section 5).

Promises: all rows of an event and all its effects are one transaction; a redelivery changes nothing; the same
ids with other content are an alarm, never taken for success (hole 9); expired money is taken out first, so
that nothing revives it (hole 17).
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

import orjson

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import Account, LotAmount, Transaction
from farebox.ledger.claims import ASKED, claim_of, collected, first_part_row
from farebox.ledger.lots import lots_to_renew
from farebox.ledger.settlement import plan_event
from farebox.store import event_rules
from farebox.store.base import Event, EventResult, RecordChange
from farebox.store.event_rules import ShortError, StoredRow, adopted_rows
from farebox.store.lease_rules import FOREIGN_WRITE, is_damaged
from farebox.store.record_rules import audit_entry, event_name, with_balances
from farebox.store.sqlite import accounts, claims, feed, moves, records
from farebox.store.sqlite.connection import is_row_error, savepoint
from farebox.store.sqlite.rows import charge_from


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
        "SELECT amount_pico, lots, charge FROM credit_transactions"
        " WHERE reference = ? AND type = ? AND user = ? AND pool = ?",
        (row.reference, row.type, row.user, row.pool),
    ).fetchone()
    if found is None:
        return None
    amount_pico, lots, charge = found
    asked_pico = charge_from(charge).get(ASKED)
    parts = tuple(LotAmount(*part) for part in orjson.loads(lots))
    return StoredRow(amount_pico, parts, asked_pico if isinstance(asked_pico, int) else None)


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
    done = moves.expire_due(connection, moves.loaded(connection, user), now_ms)
    for row in event.rows:
        if row.user == user and row.id not in done:
            _apply(connection, row, event, now_ms)
    _renew(connection, user, event, now_ms)
    connection.execute("UPDATE users SET rev = rev + 1 WHERE user = ?", (user,))
    feed.append(connection, "user", user)


def _changes(connection: sqlite3.Connection, event: Event) -> tuple[RecordChange, ...]:
    """The event's record changes, with the balances it says to keep."""
    if not event.balance_of:
        return event.records
    account = moves.loaded(connection, event.rows[0].user)
    return with_balances(event, account.balances.get(event.balance_of, 0))


def _apply(connection: sqlite3.Connection, row: Transaction, event: Event, now_ms: int) -> None:
    account = moves.loaded(connection, row.user)
    if event.claims and row.amount_pico < 0:
        _take_or_claim(connection, account, row, now_ms)
        return
    parts = plan_event(account, row, now_ms)
    if parts is None:
        raise ShortError
    moves.apply_row(connection, row, parts, event.expiry_ms(row.pool), event.source)
    if row.amount_pico < 0:
        claims.drop(connection, row.user, row.reference)


def _take_or_claim(connection: sqlite3.Connection, account: Account, row: Transaction, now_ms: int) -> None:
    """Book what a debit can take now; the rest becomes its claim."""
    claim = claim_of(row, now_ms)
    taken = collected(account, claim, now_ms)
    booked = first_part_row(row, taken)
    moves.apply_row(connection, booked, booked.lots)
    if taken.asked_pico:
        claims.set_claim(connection, row.user, replace(claim, amount_pico=taken.asked_pico))


def _renew(connection: sqlite3.Connection, user: str, event: Event, now_ms: int) -> None:
    """Let the unexpired lots of pools this event credits last as long as what it brings."""
    credited = {row.pool for row in event.rows if row.user == user and row.amount_pico > 0}
    for pool in credited.intersection(event.renews):
        expires_ms = event.expiry_ms(pool)
        lots = lots_to_renew(moves.loaded(connection, user), pool, expires_ms, now_ms)
        connection.executemany(
            "UPDATE lots SET expires_at_ms = ? WHERE user = ? AND lot = ?",
            [(expires_ms, user, lot) for lot in lots],
        )
