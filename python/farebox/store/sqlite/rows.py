"""What booking writes: ledger rows, and their effect on pools, lots, leases and lifetime counters.

Promises: the only place where a charge changes money. `Effects` gathers any number of charges, adds up what
falls on one pool, lot or user, and writes each sum once; the number of rows met is checked, so a missing row
can never swallow money.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple

import orjson

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import LotAmount, Settlement, Transaction
from farebox.ledger.settlement import charge_block, rows_of
from farebox.store.booking_rules import Counters

_INSERT = """
    INSERT INTO credit_transactions
    (id, user, type, reference, pool, amount_pico, lots, cause, created_ms, charge)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_COUNT = """
    UPDATE users SET rev = rev + 1, total_spent_pico = total_spent_pico + ?,
    written_off_pico = written_off_pico + ?, credits_used_pico = credits_used_pico + ?,
    credits_new_used_pico = credits_new_used_pico + ?, tokens_user_new = tokens_user_new + ?,
    total_input_tokens = total_input_tokens + ?, total_output_tokens = total_output_tokens + ? WHERE user = ?
"""

Parts = Sequence[LotAmount]
Sums = defaultdict[tuple[str, str], int]


def insert(connection: sqlite3.Connection, rows: Iterable[Transaction]) -> None:
    """Write ledger rows; an id that is there already raises sqlite3.IntegrityError."""
    connection.executemany(_INSERT, [_values(row) for row in rows])


def _values(row: Transaction) -> tuple[object, ...]:
    return (
        f"{row.user}:{row.type}:{row.reference}:{row.pool}",
        row.user,
        row.type,
        row.reference,
        row.pool,
        row.amount_pico,
        orjson.dumps([list(part) for part in row.lots]).decode(),
        row.cause,
        row.created_ms,
        orjson.dumps(row.charge).decode() if row.charge else "",
    )


class Effects:
    """Charges of one journal, gathered and then written in one go."""

    __slots__ = ("_counters", "_journal", "_lease", "_leased", "_left", "_pools", "_rows")

    def __init__(self, journal: str) -> None:
        self._journal = journal
        self._rows: list[Transaction] = []
        self._pools: Sums = defaultdict(int)
        self._left: Sums = defaultdict(int)
        self._leased: Sums = defaultdict(int)
        self._lease: Sums = defaultdict(int)
        self._counters: dict[str, Counters] = {}

    def charge(
        self, settlement: Settlement, split: Parts, from_lease: Parts, written_off_pico: int, now_ms: int
    ) -> None:
        """Add one charge: `split` leaves the pools, `from_lease` of it leaves the journal's lease."""
        self._rows += rows_of(settlement, split, written_off_pico, now_ms)
        self._take(settlement.user, split, from_lease, written_off_pico)
        self._counters_of(settlement.user).count_tokens((settlement,))

    def charge_leased(self, user: str, settlements: Sequence[Settlement], now_ms: int) -> None:
        """Add charges of one user that his lease pays in full: sums are made before they are looked up."""
        taken: Sums = defaultdict(int)
        for settlement in settlements:
            self._rows += rows_of(settlement, settlement.takes, 0, now_ms)
            for lot, pool, amount in settlement.takes:
                taken[lot, pool] += amount
        parts = [LotAmount(lot, pool, amount) for (lot, pool), amount in taken.items()]
        self._take(user, parts, parts, 0)
        self._counters_of(user).count_tokens(settlements)

    def _take(self, user: str, split: Parts, from_lease: Parts, written_off_pico: int) -> None:
        self._counters_of(user).take(split, written_off_pico)
        for lot, pool, amount in split:
            self._pools[user, pool] += amount
            self._left[user, lot] += amount
        for lot, _, amount in from_lease:
            self._lease[user, lot] += amount
            self._leased[user, lot] += amount

    def _counters_of(self, user: str) -> Counters:
        counters = self._counters.get(user)
        if counters is None:
            counters = self._counters[user] = Counters()
        return counters

    def unlease(self, user: str, parts: Parts) -> None:
        """Add money that stops being set aside without leaving a lease: what a quarantine had reserved."""
        for lot, _, amount in parts:
            self._leased[user, lot] += amount

    def write(self, connection: sqlite3.Connection) -> None:
        """Write everything gathered. Raises InvariantBrokenError when a pool, lot, lease or user is not
        there.
        """
        insert(connection, self._rows)
        lots = {
            where: (self._left.get(where, 0), self._leased.get(where, 0))
            for where in (self._left | self._leased)
        }
        _update(
            connection,
            "UPDATE lease_lots SET amount_pico = amount_pico - ? WHERE journal = ? AND user = ? AND lot = ?",
            [(amount, self._journal, *where) for where, amount in self._lease.items()],
        )
        _update(
            connection,
            """UPDATE lots SET left_pico = left_pico - ?, leased_pico = leased_pico - ?
               WHERE user = ? AND lot = ?""",
            [(*amounts, *where) for where, amounts in lots.items()],
        )
        _update(
            connection,
            """UPDATE pools SET balance_pico = balance_pico - ?1, seen_pico = seen_pico - ?1
               WHERE user = ?2 AND pool = ?3""",
            [(amount, *where) for where, amount in self._pools.items()],
        )
        _update(connection, _COUNT, [(*astuple(counters), user) for user, counters in self._counters.items()])


def _update(connection: sqlite3.Connection, statement: str, values: list[tuple[object, ...]]) -> None:
    if values and connection.executemany(statement, values).rowcount != len(values):
        raise InvariantBrokenError(f"a row to be charged is missing: {statement.partition(' SET ')[0]}")


def booked(connection: sqlite3.Connection, exchanges: Iterable[tuple[str, str]]) -> set[str]:
    """Of (user, exchange) pairs, the exchanges with a ledger row or a place among the parked."""
    exchange_of = {f"{user}:spent:{exchange}:": exchange for user, exchange in exchanges}
    if not exchange_of:
        return set()
    rows = connection.execute(
        """SELECT asked.value FROM json_each(?) AS asked WHERE EXISTS (
               SELECT 1 FROM credit_transactions AS row WHERE row.id > asked.value
               AND row.id < substr(asked.value, 1, length(asked.value) - 1) || ';')""",
        (orjson.dumps(list(exchange_of)).decode(),),
    )
    parked = connection.execute(
        """SELECT asked.value FROM json_each(?) AS asked
           JOIN parked_settlements AS parked ON parked.id = asked.value""",
        (orjson.dumps(list(exchange_of.values())).decode(),),
    )
    return {exchange_of[row[0]] for row in rows} | {row[0] for row in parked}


def is_same_charge(connection: sqlite3.Connection, settlement: Settlement) -> bool | None:
    """Whether the rows of this exchange say what the settlement says; None when there are no rows."""
    prefix = f"{settlement.user}:spent:{settlement.exchange}"
    found = connection.execute(
        "SELECT charge FROM credit_transactions WHERE id > ? AND id < ? ORDER BY sequence",
        (prefix + ":", prefix + ";"),
    ).fetchall()
    if not found:
        return None
    stored: object = next((orjson.loads(charge) for (charge,) in found if charge), {})
    return bool(stored == orjson.loads(orjson.dumps(charge_block(settlement))))
