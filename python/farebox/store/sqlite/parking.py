"""Parked settlements in SQLite: records that wait for an operator, and what he decides (MONEY sections 4 and
9).

Promises: a parked record is kept for ever, resolved or not, so that its replay is recognised; resolving is
one transaction that frees what was reserved, writes the rows of the exchange and says who did it.
"""

import dataclasses
import sqlite3
import zlib
from collections.abc import Mapping
from typing import Final

from farebox.base.errors import UsageError
from farebox.base.records import Account, LeaseEntry, LotAmount, Settlement
from farebox.ledger.settlement import late_split
from farebox.store.base import Booked
from farebox.store.sqlite import accounts, feed, rows

QUARANTINE: Final = "quarantine"
"""Cannot be priced or trusted; its hold is reserved."""
ACCOUNT: Final = "account"
"""The account is parked, damaged or unknown."""
POISON: Final = "poison"
"""A value of the record cannot be stored."""
CONFLICT: Final = "conflict"
"""Other content under the id of an exchange that is booked: an alarm; nothing may be overwritten."""

_RESERVED: Final = "reserved"
"""Stands for the journal where reserved money takes the place of a lease."""


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
    name = record.exchange if kind != CONFLICT else f"{record.exchange}-{zlib.crc32(payload):08x}"
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
        """SELECT id, exchange, user, kind, reason, settlement, journal, parked_ms, (SELECT
        coalesce(sum(amount_pico), 0) FROM reserved WHERE reserved.user = parked_settlements.user AND
        reserved.exchange = parked_settlements.id) FROM parked_settlements WHERE resolved_ms IS NULL ORDER BY
        sequence
        """
    )
    return [_described(*row) for row in found]


def _described(
    name: str,
    exchange: str,
    user: str,
    kind: str,
    reason: str,
    payload: bytes,
    journal: str,
    parked_ms: int,
    reserved_pico: int,
) -> Mapping[str, object]:
    record = Settlement.decode(payload)
    return {
        "id": name,
        "exchange": exchange,
        "user": user,
        "kind": kind,
        "reason": reason,
        "journal": journal,
        "parked_ms": parked_ms,
        "wallet": record.wallet,
        "model": record.model,
        "evidence": record.evidence,
        "counts": dict(record.counts),
        "amount_pico": record.amount_pico,
        "reserved_pico": reserved_pico,
        "settlement": record,
    }


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
    if amount_pico is not None and (amount_pico < 0 or kind == CONFLICT):
        raise UsageError(_cannot(name, amount_pico))
    account = accounts.load(connection, record.user)
    if account is None and amount_pico is not None:
        raise UsageError(f"{name}: no such user: {record.user}; create the account, or void the exchange")
    if account is not None and kind != CONFLICT:
        if account.parked is not None or accounts.is_damaged(account):
            return Booked.PARKED
        _settle(connection, account, _final(record, kind, amount_pico or 0), now_ms)
    connection.execute(
        "UPDATE parked_settlements SET resolved_ms = ?, resolved_by = ?, resolved_pico = ? WHERE id = ?",
        (now_ms, actor, amount_pico, name),
    )
    action = "quarantine.void" if amount_pico is None else "quarantine.settle"
    feed.audit(connection, actor, action, name, {"amount_pico": amount_pico, "user": record.user}, now_ms)
    feed.append(connection, "user", record.user)
    return Booked.BOOKED


def _cannot(name: str, amount_pico: int) -> str:
    if amount_pico < 0:
        return f"{name}: a charge cannot be negative; credit the user with an adjustment instead"
    return (
        f"{name}: the exchange is booked already; void this copy, and correct the balance with an adjustment"
    )


def _final(record: Settlement, kind: str, amount_pico: int) -> Settlement:
    """The settlement the operator decided on; counts that could not be stored are left out."""
    unstorable = kind == POISON
    return dataclasses.replace(
        record,
        amount_pico=amount_pico,
        takes=(),
        quarantine="",
        flags=(*record.flags, "resolved"),
        counts={} if unstorable else record.counts,
        others={} if unstorable else record.others,
        input_total=0 if unstorable else record.input_total,
    )


def _settle(connection: sqlite3.Connection, account: Account, final: Settlement, now_ms: int) -> None:
    """Charge what was reserved first, then what is available; the rest is written off."""
    reserved = account.reserved.get(final.exchange, {})
    pools = {lot.lot: lot.pool for lot in account.lots}
    as_lease = dataclasses.replace(account, leases={_RESERVED: LeaseEntry(_RESERVED, 0, 0, False, reserved)})
    late = late_split(as_lease, _RESERVED, final, now_ms)
    connection.execute("DELETE FROM reserved WHERE user = ? AND exchange = ?", (account.user, final.exchange))
    effects = rows.Effects(_RESERVED)
    effects.unlease(account.user, [LotAmount(lot, pools[lot], amount) for lot, amount in reserved.items()])
    effects.charge(final, late.split, (), late.written_off_pico, now_ms)
    effects.write(connection)
    connection.execute(
        "UPDATE request_logs SET charge_pico = ?, charged_pico = ? WHERE exchange = ?",
        (final.amount_pico, final.amount_pico - late.written_off_pico, final.exchange),
    )
