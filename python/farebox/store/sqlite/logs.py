"""Request logs and hourly rollups in SQLite: what readers of the replaced system look at.

Promises: a row is written once per exchange, a bad row never delays the others, and nothing here touches
money. Rollups are added once per journal position (hole 27).
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from farebox.base.records import Settlement
from farebox.base.units import usd_from_pico
from farebox.store import log_rows
from farebox.store.booking_rules import output_tokens
from farebox.store.sqlite import journals
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
    """The replaced system's names first, then ours; money as exact USD strings, dates in UTC."""
    record = Settlement.decode(wire.encode())
    counts, output = record.counts, output_tokens(record)
    return {
        "_id": record.exchange,
        "userId": record.user,
        "userKeyId": record.key,
        "model": record.model,
        "upstream": record.upstream,
        "inputTokens": counts.get("input", 0),
        "outputTokens": output,
        "cacheWriteTokens": counts.get("cache_write_5m", 0) + counts.get("cache_write_1h", 0),
        "cacheHitTokens": counts.get("cache_read", 0),
        "tokensUsed": record.input_total + output,
        "creditsCost": usd_from_pico(charged_pico),
        "creditType": record.wallet,
        "statusCode": record.status,
        "latencyMs": record.ended_ms - record.started_ms,
        "isSuccess": 200 <= record.status < 300,
        "createdAt": log_rows.date(record.ended_ms),
        "upstreamModel": record.upstream_model,
        "upstreamRequestId": record.upstream_request,
        "wireFormat": record.wire_format,
        "charge": usd_from_pico(charge_pico),
        "ttftMs": record.first_byte_ms - record.started_ms if record.first_byte_ms else None,
        "outcome": record.outcome,
        "stream": record.stream,
        "evidence": record.evidence,
        "priceVersion": record.price_version,
        "multiplier": record.multiplier,
        "counts": counts,
        "flags": list(record.flags),
        "others": record.others,
        "variant": record.variant,
        "quarantine": record.quarantine,
        "free": record.free,
        "rawUsage": record.raw_usage,
    }


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
    connection: sqlite3.Connection, journal: str, epoch: int, records: Sequence[Settlement], pos: int
) -> None:
    """Add records to the hourly rollups and raise `rolled` to `pos`; nothing when that is done already."""
    raised = connection.execute(
        "UPDATE journals SET rolled = ? WHERE journal = ? AND epoch = ? AND rolled < ?",
        (pos, journal, epoch, pos),
    )
    if raised.rowcount != 1:
        return
    connection.executemany(
        """INSERT INTO rollups VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
           requests = requests + excluded.requests, failures = failures + excluded.failures,
           input_tokens = input_tokens + excluded.input_tokens,
           output_tokens = output_tokens + excluded.output_tokens,
           charge_pico = charge_pico + excluded.charge_pico""",
        [(journal, *where, *cell) for where, cell in log_rows.cells(records).items()],
    )


def finish(
    connection: sqlite3.Connection,
    journal: str,
    epoch: int,
    to_log: Sequence[Settlement],
    charged: Mapping[str, int],
    to_roll_up: Sequence[Settlement],
    rolled_pos: int,
    applied_pos: int,
) -> list[str]:
    """What follows a booking, in the caller's one transaction; the ids of log rows that cannot be stored."""
    failed = log(connection, to_log, charged)
    roll_up(connection, journal, epoch, to_roll_up, rolled_pos)
    journals.advance_applied(connection, journal, epoch, applied_pos)
    return failed
