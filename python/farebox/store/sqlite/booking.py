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
    results = [Booked.BOOKED] * len(records)
    by_user: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        if not is_refusal(record):
            by_user.setdefault(record.user, []).append(index)
    steady = _steady_users(connection, journal, records, by_user)
    covered = {user: [records[index] for index in by_user[user]] for user in steady}
    if not _book_steady(connection, journal, covered, now_ms):
        steady = set()
    rest = sorted(index for user, indexes in by_user.items() if user not in steady for index in indexes)
    for index in rest:
        results[index] = single.book(connection, journal, epoch, records[index], now_ms)
    return results


def _book_steady(
    connection: sqlite3.Connection, journal: str, covered: Mapping[str, Sequence[Settlement]], now_ms: int
) -> bool:
    """Book each user's records, which his lease covers; False, with nothing changed, when a value among them
    cannot be stored.
    """
    effects = rows.Effects(journal)
    try:
        with savepoint(connection):
            for user, records in covered.items():
                effects.charge_leased(user, records, now_ms)
            effects.write(connection)
    except (sqlite3.Error, OverflowError, UnicodeEncodeError, InvariantBrokenError) as error:
        if isinstance(error, InvariantBrokenError) or is_row_error(error):
            return False
        raise
    return True


def _steady_users(
    connection: sqlite3.Connection, journal: str, records: Sequence[Settlement], by_user: dict[str, list[int]]
) -> set[str]:
    """Users all of whose records are new, ordinary and covered by their lease."""
    mine = [records[index] for indexes in by_user.values() for index in indexes]
    seen = Counter(record.exchange for record in mine)
    known = rows.booked(connection, ((record.user, record.exchange) for record in mine))
    known.update(exchange for exchange, times in seen.items() if times > 1)
    leases = _leases_in_order(connection, journal, by_user)
    return {
        user
        for user, indexes in by_user.items()
        if user in leases and _is_covered([records[index] for index in indexes], leases[user], known)
    }


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


def _is_covered(records: list[Settlement], lease: dict[str, tuple[str, int]], known: set[str]) -> bool:
    needed: dict[str, int] = {}
    for record in records:
        if record.quarantine or record.exchange in known:
            return False
        covered = 0
        for lot, pool, amount in record.takes:
            if amount <= 0 or lot not in lease or lease[lot][0] != pool:
                return False
            covered += amount
            needed[lot] = needed.get(lot, 0) + amount
        if covered != record.amount_pico:
            return False
    return all(lease[lot][1] >= amount for lot, amount in needed.items())
