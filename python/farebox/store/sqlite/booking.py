"""Booking settled exchanges in SQLite (MONEY section 4): a whole batch at once while nothing is out of the
ordinary.

Promises: one result per record, in order; an exchange is booked once however often its record comes (M4); one
user's trouble never holds up another's records, it sends his to `single`.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import orjson

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import Settlement
from farebox.store.base import Booked
from farebox.store.booking_rules import is_refusal
from farebox.store.sqlite import rows, single
from farebox.store.sqlite.connection import is_row_error, savepoint

Leases: TypeAlias = dict[str, dict[str, tuple[str, int]]]
"""User -> lot -> (pool, amount) of one journal's live leases."""


def book(
    connection: sqlite3.Connection, journal: str, epoch: int, records: Sequence[Settlement], now_ms: int
) -> list[Booked]:
    """Book records of one journal in order; see `Store.book`."""
    by_user: dict[str, list[Settlement]] = {}
    for record in records:
        if not is_refusal(record):
            group = by_user.get(record.user)
            if group is None:
                by_user[record.user] = [record]
            else:
                group.append(record)
    steady = _book_steady(connection, journal, by_user, now_ms)
    if len(steady) == len(by_user):
        return [Booked.BOOKED] * len(records)
    return [
        Booked.BOOKED
        if record.user in steady or is_refusal(record)
        else single.book(connection, journal, epoch, record, now_ms)
        for record in records
    ]


def _book_steady(
    connection: sqlite3.Connection, journal: str, by_user: Mapping[str, Sequence[Settlement]], now_ms: int
) -> set[str]:
    """Book at once all records of those users whose records are all new, ordinary and covered by their
    lease; these users. None, with nothing changed, when a value among them cannot be stored.
    """
    known = _known(connection, by_user)
    leases = _leases_in_order(connection, journal, by_user)
    effects = rows.Effects(journal)
    try:
        with savepoint(connection):
            steady = {
                user
                for user, records in by_user.items()
                if user in leases
                and not (known and any(record.exchange in known for record in records))
                and effects.charge_leased(user, records, leases[user], now_ms)
            }
            effects.write(connection)
    except (sqlite3.Error, OverflowError, UnicodeEncodeError, InvariantBrokenError) as error:
        if isinstance(error, InvariantBrokenError) or is_row_error(error):
            return set()
        raise
    return steady


def _known(connection: sqlite3.Connection, by_user: Mapping[str, Sequence[Settlement]]) -> set[str]:
    """Exchanges that are booked or parked already, or that come twice."""
    known = rows.booked(
        connection, ((user, record.exchange) for user, records in by_user.items() for record in records)
    )
    exchanges = [record.exchange for records in by_user.values() for record in records]
    if len(set(exchanges)) != len(exchanges):
        known.update(exchange for exchange, count in Counter(exchanges).items() if count > 1)
    return known


def _leases_in_order(connection: sqlite3.Connection, journal: str, users: Iterable[str]) -> Leases:
    """Live leases of those users who are neither parked nor damaged."""
    asked = orjson.dumps(list(users)).decode()
    # CROSS JOIN keeps the order of the tables: the few users asked about come first, then look-ups by key.
    in_order = connection.execute(
        """SELECT users.user FROM json_each(?) AS asked CROSS JOIN users ON users.user = asked.value
           WHERE parked IS NULL AND NOT EXISTS (
               SELECT 1 FROM pools WHERE pools.user = users.user AND balance_pico <> seen_pico)""",
        (asked,),
    )
    leases: Leases = {row[0]: {} for row in in_order}
    held = connection.execute(
        """SELECT lease_lots.user, lease_lots.lot, lots.pool, lease_lots.amount_pico
           FROM json_each(?) AS asked
           CROSS JOIN leases ON leases.user = asked.value AND leases.journal = ? AND leases.dead = 0
           CROSS JOIN lease_lots ON lease_lots.user = leases.user AND lease_lots.journal = leases.journal
           CROSS JOIN lots ON lots.user = lease_lots.user AND lots.lot = lease_lots.lot""",
        (asked, journal),
    )
    for user, lot, pool, amount in held:
        if user in leases:
            leases[user][lot] = (pool, amount)
    return leases
