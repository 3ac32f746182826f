"""Booking one record that is out of the ordinary: already there, late, quarantined, or of a parked account.

Promises: it always ends in a result. What cannot be booked is parked for an operator with the reason, in the
same transaction, and blocks nobody (MONEY section 4, step 3; fault rows S09, S10).
"""

import sqlite3

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import Account, Settlement
from farebox.ledger.settlement import late_split
from farebox.store.base import Booked
from farebox.store.booking_rules import ACCOUNT, CONFLICT, POISON, QUARANTINE, pays_as_recorded
from farebox.store.lease_rules import FOREIGN_WRITE, is_damaged
from farebox.store.sqlite import accounts, feed, leases, parking, rows
from farebox.store.sqlite.connection import is_row_error, savepoint


def book(connection: sqlite3.Connection, journal: str, epoch: int, record: Settlement, now_ms: int) -> Booked:
    """Book one record, or park it."""
    try:
        with savepoint(connection):
            result, kind, reason = _book(connection, journal, record, now_ms)
    except (sqlite3.Error, OverflowError, UnicodeEncodeError, InvariantBrokenError) as error:
        if not isinstance(error, InvariantBrokenError) and not is_row_error(error):
            raise
        result, kind, reason = Booked.PARKED, POISON, f"cannot be stored: {error}"
    if result is Booked.PARKED:
        parking.park(connection, record, kind, reason, journal, epoch, now_ms)
    if result in {Booked.LATE, Booked.PARKED}:
        feed.append(connection, "fence", record.user, journal)
    return result


def _book(
    connection: sqlite3.Connection, journal: str, record: Settlement, now_ms: int
) -> tuple[Booked, str, str]:
    """(result, kind and reason of parking)."""
    same = parking.is_same(connection, record)
    if same is None:
        same = rows.is_same_charge(connection, record)
    if same is not None:
        return _again(same)
    account = accounts.load(connection, record.user)
    if account is None:
        return Booked.PARKED, ACCOUNT, "no such user"
    if account.parked is None and is_damaged(account):
        accounts.park(connection, record.user, FOREIGN_WRITE)
        return Booked.PARKED, ACCOUNT, FOREIGN_WRITE
    if account.parked is not None:
        return Booked.PARKED, ACCOUNT, account.parked
    if record.quarantine:
        _reserve(connection, account, journal, record, now_ms)
        return Booked.PARKED, QUARANTINE, record.quarantine
    return _charge(connection, account, journal, record, now_ms), "", ""


def _again(same: bool) -> tuple[Booked, str, str]:
    if same:
        return Booked.DUPLICATE, "", ""
    return Booked.PARKED, CONFLICT, "this exchange is booked or parked already with other content"


def _charge(
    connection: sqlite3.Connection, account: Account, journal: str, record: Settlement, now_ms: int
) -> Booked:
    effects = rows.Effects(journal)
    if pays_as_recorded(account, journal, record):
        effects.charge(record, record.takes, record.takes, 0, now_ms)
        effects.write(connection)
        return Booked.BOOKED
    late = late_split(account, journal, record, now_ms)
    effects.charge(record, late.split, late.from_lease, late.written_off_pico, now_ms)
    effects.write(connection)
    connection.execute("UPDATE leases SET op = op + 1 WHERE user = ? AND journal = ?", (record.user, journal))
    return Booked.LATE


def _reserve(
    connection: sqlite3.Connection, account: Account, journal: str, record: Settlement, now_ms: int
) -> None:
    """Set the hold of a quarantined exchange aside: out of the lease, or of free money where the lease is
    short.
    """
    hold = late_split(account, journal, record, now_ms)
    leases.take(connection, record.user, journal, hold.from_lease)
    connection.executemany(
        "UPDATE lots SET leased_pico = leased_pico + ? WHERE user = ? AND lot = ?",
        [(amount, record.user, lot) for lot, _, amount in hold.from_available],
    )
    connection.executemany(
        "INSERT INTO reserved (user, exchange, lot, amount_pico) VALUES (?, ?, ?, ?)",
        [(record.user, record.exchange, lot, amount) for lot, _, amount in hold.split],
    )
    connection.execute("UPDATE users SET rev = rev + 1 WHERE user = ?", (record.user,))
