"""Parked settlements in SQLite: records that wait for an operator, and what he decides (MONEY sections 4 and
9).

Promises: a parked record is kept for ever, resolved or not, so that its replay is recognised; resolving is
one transaction that frees what was reserved, writes the rows of the exchange and says who did it.
"""

import sqlite3
from collections.abc import Mapping

from farebox.base.records import Account, Settlement
from farebox.store.base import Booked
from farebox.store.booking_rules import (
    CONFLICT,
    check_resolution,
    described,
    final_settlement,
    parked_name,
    reserved_parts,
    resolved_split,
)
from farebox.store.lease_rules import is_damaged
from farebox.store.sqlite import accounts, feed, rows


def park(
    connection: sqlite3.Connection,
    record: Settlement,
    kind: str,
    reason: str,
    journal: str,
    epoch: int,
    now_ms: int,
) -> None:
    """Keep a record for an operator; the same one again changes nothing."""
    payload = record.encode()
    name = parked_name(record, kind)
    connection.execute(
        """INSERT OR IGNORE INTO parked_settlements
           (id, exchange, user, kind, reason, settlement, journal, epoch, parked_ms)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (name, record.exchange, record.user, kind, reason, payload, journal, epoch, now_ms),
    )


def is_same(connection: sqlite3.Connection, record: Settlement) -> bool | None:
    """Whether this very record is parked, or was; None when nothing is parked for its exchange under its own
    id.
    """
    row = connection.execute(
        "SELECT settlement FROM parked_settlements WHERE id = ?", (record.exchange,)
    ).fetchone()
    return None if row is None else row[0] == record.encode()


def waiting(connection: sqlite3.Connection) -> list[Mapping[str, object]]:
    """What awaits an operator, oldest first; `id` is what `resolve` takes."""
    found = connection.execute(
        """SELECT id, kind, reason, settlement, journal, parked_ms, (SELECT
        coalesce(sum(amount_pico), 0) FROM reserved WHERE reserved.user = parked_settlements.user AND
        reserved.exchange = parked_settlements.id) FROM parked_settlements WHERE resolved_ms IS NULL ORDER BY
        sequence
        """
    )
    return [_described(*row) for row in found]


def _described(
    name: str, kind: str, reason: str, payload: bytes, journal: str, parked_ms: int, reserved_pico: int
) -> Mapping[str, object]:
    record = Settlement.decode(payload)
    return described(name, kind, reason, record, journal, parked_ms, reserved_pico)


def resolve(
    connection: sqlite3.Connection, name: str, amount_pico: int | None, actor: str, now_ms: int
) -> Booked | None:
    """Settle a parked exchange at an amount, or void it; None when nothing of that name waits."""
    row = connection.execute(
        "SELECT kind, settlement FROM parked_settlements WHERE id = ? AND resolved_ms IS NULL", (name,)
    ).fetchone()
    if row is None:
        return None
    kind, record = row[0], Settlement.decode(row[1])
    account = accounts.load(connection, record.user)
    check_resolution(name, kind, record, amount_pico, account)
    if account is not None and kind != CONFLICT:
        if account.parked is not None or is_damaged(account):
            return Booked.PARKED
        _settle(connection, account, final_settlement(record, kind, amount_pico or 0), now_ms)
    connection.execute(
        "UPDATE parked_settlements SET resolved_ms = ?, resolved_by = ?, resolved_pico = ? WHERE id = ?",
        (now_ms, actor, amount_pico, name),
    )
    action = "quarantine.void" if amount_pico is None else "quarantine.settle"
    feed.audit(connection, actor, action, name, {"amount_pico": amount_pico, "user": record.user}, now_ms)
    feed.append(connection, "user", record.user)
    return Booked.BOOKED


def _settle(connection: sqlite3.Connection, account: Account, final: Settlement, now_ms: int) -> None:
    """Charge what was reserved first, then what is available; the rest is written off."""
    late = resolved_split(account, final, now_ms)
    connection.execute("DELETE FROM reserved WHERE user = ? AND exchange = ?", (account.user, final.exchange))
    effects = rows.Effects("")
    effects.unlease(account.user, reserved_parts(account, final.exchange))
    effects.charge(final, late.split, (), late.written_off_pico, now_ms)
    effects.write(connection)
    connection.execute(
        "UPDATE request_log_records SET charge_pico = ?, charged_pico = ? WHERE exchange = ?",
        (final.amount_pico, final.amount_pico - late.written_off_pico, final.exchange),
    )
