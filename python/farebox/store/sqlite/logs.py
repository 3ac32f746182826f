"""Request logs in SQLite, and what raises the rollups: what readers of the replaced system look at.

Promises: a row is written once per exchange, a bad row never delays the others, and nothing here touches
money. Rollups are added once per journal position (hole 27).
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from farebox.base.records import Settlement
from farebox.store import log_rows
from farebox.store.rollups import usages_of
from farebox.store.sqlite import journals, statistics
from farebox.store.sqlite.connection import is_row_error, savepoint

_INSERT = """
    INSERT INTO request_log_records (exchange, user, created_ms, charge_pico, charged_pico, record)
    VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (exchange) DO NOTHING
"""
_SELECT = "SELECT charge_pico, charged_pico, record FROM request_log_records"


def log(
    connection: sqlite3.Connection, records: Sequence[Settlement], charged: Mapping[str, int]
) -> list[str]:
    """Insert request-log rows; the ids of those that cannot be stored."""
    try:
        with savepoint(connection):
            insert(connection, records, charged)
    except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
        if not is_row_error(error):
            raise
        return [record.exchange for record in records if not _log_one(connection, record, charged)]
    return []


def insert(connection: sqlite3.Connection, records: Iterable[Settlement], charged: Mapping[str, int]) -> None:
    """Write rows; those that are there already stay as they are."""
    connection.executemany(_INSERT, [_values(record, charged) for record in records])


def _log_one(connection: sqlite3.Connection, record: Settlement, charged: Mapping[str, int]) -> bool:
    try:
        with savepoint(connection):
            connection.execute(_INSERT, _values(record, charged))
    except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
        if not is_row_error(error):
            raise
        return False
    return True


def _values(record: Settlement, charged: Mapping[str, int]) -> tuple[object, ...]:
    if record.log_cells is not None and not charged:
        return record.log_cells
    exchange, amount_pico = record.exchange, 0 if record.quarantine else record.amount_pico
    return (
        exchange,
        record.user,
        record.ended_ms,
        amount_pico,
        charged.get(exchange, amount_pico) if charged else amount_pico,
        record.encode().decode(),
    )


def request_log(connection: sqlite3.Connection, exchange: str) -> Mapping[str, object] | None:
    """One request-log row."""
    row = connection.execute(_SELECT + " WHERE exchange = ?", (exchange,)).fetchone()
    return None if row is None else _described(*row)


def request_logs(
    connection: sqlite3.Connection, user: str, limit: int, before_ms: int | None
) -> list[Mapping[str, object]]:
    """A user's request-log rows, newest first."""
    until = before_ms if before_ms is not None else 2**63 - 1
    found = connection.execute(
        _SELECT + " WHERE user = ? AND created_ms < ? ORDER BY created_ms DESC, sequence DESC LIMIT ?",
        (user, until, limit),
    )
    return [_described(*row) for row in found]


def logs_after(connection: sqlite3.Connection, exchange: str, limit: int) -> list[Mapping[str, object]]:
    """Rows of all users by exchange id, from behind `exchange` on."""
    found = connection.execute(_SELECT + " WHERE exchange > ? ORDER BY exchange LIMIT ?", (exchange, limit))
    return [_described(*row) for row in found]


def _described(charge_pico: int, charged_pico: int, wire: str) -> Mapping[str, object]:
    return log_rows.described(charge_pico, charged_pico, Settlement.decode(wire.encode()))


def expire_logs(connection: sqlite3.Connection, before_ms: int, limit: int) -> int:
    """Delete up to `limit` of the oldest rows if created before `before_ms`; how many went.

    Rows are stored in the order in which exchanges end, so the oldest stand first.
    """
    deleted = connection.execute(
        """DELETE FROM request_log_records WHERE created_ms < ?
           AND sequence IN (SELECT sequence FROM request_log_records ORDER BY sequence LIMIT ?)""",
        (before_ms, limit),
    )
    return deleted.rowcount


def roll_up(
    connection: sqlite3.Connection,
    journal: str,
    epoch: int,
    records: Sequence[Settlement],
    rolled_from: int,
    pos: int,
) -> bool:
    """Add records to the rollups and raise `rolled` from `rolled_from` to `pos`; see `Store.roll_up`."""
    raised = connection.execute(
        "UPDATE journals SET rolled = ?1 WHERE journal = ?2 AND epoch = ?3 AND rolled = ?4 AND rolled < ?1",
        (pos, journal, epoch, rolled_from),
    )
    if raised.rowcount == 1:
        statistics.add(connection, journal, usages_of(records))
        return True
    return journals.rolled(connection, journal) >= pos


def finish(
    connection: sqlite3.Connection,
    journal: str,
    epoch: int,
    to_log: Sequence[Settlement],
    charged: Mapping[str, int],
    to_roll_up: Sequence[Settlement],
    rolled_from: int,
    rolled_pos: int,
    applied_pos: int,
) -> list[str]:
    """What follows a booking, in the caller's one transaction; the ids of log rows that cannot be stored."""
    failed = log(connection, to_log, charged)
    if roll_up(connection, journal, epoch, to_roll_up, rolled_from, rolled_pos):
        journals.advance_applied(connection, journal, epoch, applied_pos)
    return failed
