"""What booking writes: ledger rows, and their effect on pools, lots, leases and lifetime counters.

Promises: the only place where a charge changes money. `Effects` gathers any number of charges, adds up what
falls on one pool, lot or user, and writes each sum once; the number of rows met is checked, so a missing row
can never swallow money.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Final, TypeAlias

import orjson

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import WALLETS, LotAmount, Settlement, Transaction
from farebox.ledger.settlement import charge_block, rows_of
from farebox.store.booking_rules import Counters

Parts: TypeAlias = Sequence[LotAmount]
Sums: TypeAlias = defaultdict[tuple[str, str], int]
Lease: TypeAlias = Mapping[str, tuple[str, int]]
"""Lot -> (pool, amount) of one user's live lease."""
Row: TypeAlias = tuple[str, str, str, str, int, str, str, int, str]
"""A ledger row as its table has it, without the sequence."""
PlainRow: TypeAlias = tuple[str, str, str, int, str, str, int]
"""`Settlement.ledger_cells`, and when the row was made."""

CHARGE_MEMBERS: Final = (
    "model",
    "wire_format",
    "variant",
    "price_version",
    "multiplier",
    "evidence",
    "flags",
    "counts",
    "others",
    "input_total",
    "amount_pico",
    "free",
)
"""The order of a charge block in its column, a JSON array: on disk for ever."""
_CHARGE_KEYS: Final = frozenset(CHARGE_MEMBERS)


_INSERT = """
    INSERT INTO credit_transactions
    (user, type, reference, pool, amount_pico, lots, cause, created_ms, charge)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_PLAIN = """
    INSERT INTO credit_transactions
    (user, type, reference, pool, amount_pico, lots, cause, created_ms, charge)
    VALUES (?1, 'spent', ?2, ?3, ?4, ?5, 'exchange', ?7, ?6)
"""
_COUNT = """
    UPDATE users SET rev = rev + 1, total_spent_pico = total_spent_pico + ?,
    written_off_pico = written_off_pico + ?, credits_used_pico = credits_used_pico + ?,
    credits_new_used_pico = credits_new_used_pico + ?, tokens_user_new = tokens_user_new + ?,
    total_input_tokens = total_input_tokens + ?, total_output_tokens = total_output_tokens + ? WHERE user = ?
"""


def insert(connection: sqlite3.Connection, rows: Iterable[Transaction]) -> None:
    """Write ledger rows; an id that is there already raises sqlite3.IntegrityError."""
    connection.executemany(_INSERT, [_values(row) for row in rows])


def _values(row: Transaction) -> Row:
    return (
        row.user,
        row.type,
        row.reference,
        row.pool,
        row.amount_pico,
        orjson.dumps(list(map(tuple, row.lots))).decode(),
        row.cause,
        row.created_ms,
        _charge_text(row.charge) if row.charge else "",
    )


def _charge_text(charge: Mapping[str, object]) -> str:
    """An exchange's charge block as an array of its members, what an event keeps there as an object."""
    is_block = charge.keys() == _CHARGE_KEYS
    return orjson.dumps([charge[name] for name in CHARGE_MEMBERS] if is_block else charge).decode()


def charge_from(stored: str) -> Mapping[str, object]:
    """A charge block back from its row; empty where the row has none."""
    if not stored:
        return {}
    members = orjson.loads(stored)
    return dict(zip(CHARGE_MEMBERS, members, strict=True)) if type(members) is list else members


def _rows(settlement: Settlement, split: Parts, written_off_pico: int, now_ms: int) -> Iterable[Row]:
    return map(_values, rows_of(settlement, split, written_off_pico, now_ms))


class Effects:
    """Charges of one journal, gathered and then written in one go."""

    __slots__ = ("_counters", "_journal", "_lease", "_leased", "_left", "_plain_rows", "_pools", "_rows")

    def __init__(self, journal: str) -> None:
        self._journal = journal
        self._plain_rows: list[PlainRow] = []
        self._rows: list[Row] = []
        self._pools: Sums = defaultdict(int)
        self._left: Sums = defaultdict(int)
        self._leased: Sums = defaultdict(int)
        self._lease: Sums = defaultdict(int)
        self._counters: dict[str, Counters] = {}

    def charge(
        self, settlement: Settlement, split: Parts, from_lease: Parts, written_off_pico: int, now_ms: int
    ) -> None:
        """Add one charge: `split` leaves the pools, `from_lease` of it leaves the journal's lease."""
        self._rows += _rows(settlement, split, written_off_pico, now_ms)
        self._take(settlement.user, split, from_lease, written_off_pico)
        self._counters_of(settlement.user).count_tokens((settlement,))

    def charge_leased(self, user: str, settlements: Sequence[Settlement], lease: Lease, now_ms: int) -> bool:
        """Add all charges of one user if his lease pays each of them in full; whether it does.

        Sums are made before they are looked up. What is out of the ordinary is the caller's to book alone.
        """
        taken: dict[str, int] = {}
        for settlement in settlements:
            if settlement.quarantine or not _is_paid(settlement, lease):
                return False
            for lot, _, amount in settlement.takes:
                taken[lot] = taken.get(lot, 0) + amount
        parts = [LotAmount(lot, lease[lot][0], amount) for lot, amount in taken.items()]
        if any(amount > lease[lot][1] for lot, _, amount in parts):
            return False
        self._add_rows(settlements, now_ms)
        self._take(user, parts, parts, 0)
        self._counters_of(user).count_tokens(settlements)
        return True

    def _add_rows(self, settlements: Sequence[Settlement], now_ms: int) -> None:
        """Ledger rows of charges that their takes pay, in order: all from ready cells, or all made here."""
        cells = [one.ledger_cells for one in settlements if one.ledger_cells is not None]
        if len(cells) == len(settlements):
            made = (now_ms,)
            self._plain_rows += [row + made for row in cells]
        else:
            for settlement in settlements:
                self._rows += _rows(settlement, settlement.takes, 0, now_ms)

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
        connection.executemany(_INSERT_PLAIN, self._plain_rows)
        connection.executemany(_INSERT, self._rows)
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


def _is_paid(settlement: Settlement, lease: Lease) -> bool:
    """Whether the takes are of leased lots in the wallet's pools and add up to the charge."""
    pools = WALLETS[settlement.wallet]
    paid_pico = 0
    for lot, pool, amount in settlement.takes:
        held = lease.get(lot)
        if amount <= 0 or held is None or held[0] != pool or pool not in pools:
            return False
        paid_pico += amount
    return paid_pico == settlement.amount_pico


def booked(connection: sqlite3.Connection, exchanges: Iterable[tuple[str, str]]) -> set[str]:
    """Of (user, exchange) pairs, the exchanges with a ledger row or a place among the parked."""
    pairs = set(exchanges)
    asked = orjson.dumps([exchange for _, exchange in pairs]).decode()
    # CROSS JOIN keeps the order of the tables: what is asked about comes first, then look-ups by key.
    rows = connection.execute(
        """SELECT row.user, row.reference FROM json_each(?) AS asked
           CROSS JOIN credit_transactions AS row ON row.reference = asked.value AND row.type = 'spent'""",
        (asked,),
    )
    parked = connection.execute(
        """SELECT asked.value FROM json_each(?) AS asked
           CROSS JOIN parked_settlements AS parked ON parked.id = asked.value""",
        (asked,),
    )
    return {pair[1] for pair in rows if pair in pairs} | {row[0] for row in parked}


def is_same_charge(connection: sqlite3.Connection, settlement: Settlement) -> bool | None:
    """Whether the rows of this exchange say what the settlement says; None when there are no rows."""
    # Left to choose, SQLite walks over all rows of the user, which stand in the order that is asked for.
    found = connection.execute(
        "SELECT charge FROM credit_transactions INDEXED BY credit_transactions_by_id"
        " WHERE reference = ? AND type = 'spent' AND user = ? ORDER BY sequence",
        (settlement.exchange, settlement.user),
    ).fetchall()
    if not found:
        return None
    stored = next((charge_from(charge) for (charge,) in found if charge), {})
    return bool(stored == orjson.loads(orjson.dumps(charge_block(settlement))))
