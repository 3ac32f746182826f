"""Request logs and hourly rollups in SQLite: what readers of the replaced system look at.

Promises: a row is written once per exchange, a bad row never delays the others, and nothing here touches
money. Rollups are added once per journal position (hole 27).
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from farebox.base.records import Settlement
from farebox.base.units import usd_from_pico
from farebox.store import log_rows
from farebox.store.booking_rules import output_tokens
from farebox.store.sqlite.connection import is_row_error, savepoint

_COLUMNS = (
    "exchange, user, key, model, upstream, upstream_model, upstream_request, wire_format, input_tokens,"
    " output_tokens, cache_write_tokens, cache_hit_tokens, tokens_used, charge_pico, charged_pico,"
    " credit_type, status, latency_ms, first_byte_ms, created_ms, outcome, stream, evidence, price_version,"
    " multiplier, counts, detail, raw_usage"
)
_INSERT = f"INSERT OR IGNORE INTO request_logs ({_COLUMNS}) VALUES ({', '.join('?' * 28)})"  # noqa: S608
_SELECT = f"SELECT {_COLUMNS} FROM request_logs"  # noqa: S608


def log(
    connection: sqlite3.Connection, records: Sequence[Settlement], charged: Mapping[str, int]
) -> list[str]:
    """Insert request-log rows; the ids of those that cannot be stored."""
    try:
        with savepoint(connection):
            connection.executemany(_INSERT, [_values(record, charged) for record in records])
    except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
        if not is_row_error(error):
            raise
        return [record.exchange for record in records if not _log_one(connection, record, charged)]
    return []


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
    counts = record.counts
    output = output_tokens(record)
    return (
        record.exchange,
        record.user,
        record.key,
        record.model,
        record.upstream,
        record.upstream_model,
        record.upstream_request,
        record.wire_format,
        counts.get("input", 0),
        output,
        counts.get("cache_write_5m", 0) + counts.get("cache_write_1h", 0),
        counts.get("cache_read", 0),
        record.input_total + output,
        record.amount_pico,
        charged.get(record.exchange, record.amount_pico),
        record.wallet,
        record.status,
        record.ended_ms - record.started_ms,
        record.first_byte_ms,
        record.ended_ms,
        record.outcome,
        record.stream,
        record.evidence,
        record.price_version,
        record.multiplier,
        orjson.dumps(counts).decode(),
        _detail(record),
        record.raw_usage,
    )


def _detail(record: Settlement) -> str:
    """The rare members; an ordinary exchange has none but its start."""
    if not (record.flags or record.others or record.variant or record.quarantine or record.free):
        return f'{{"startedMs":{record.started_ms}}}' if record.started_ms else "{}"
    return orjson.dumps(log_rows.detail(record)).decode()


def request_log(connection: sqlite3.Connection, exchange: str) -> Mapping[str, object] | None:
    """One request-log row."""
    row = connection.execute(_SELECT + " WHERE exchange = ?", (exchange,)).fetchone()
    return None if row is None else _described(row)


def request_logs(
    connection: sqlite3.Connection, user: str, limit: int, before_ms: int | None
) -> list[Mapping[str, object]]:
    """A user's request-log rows, newest first."""
    until = before_ms if before_ms is not None else 2**63 - 1
    found = connection.execute(
        _SELECT + " WHERE user = ? AND created_ms < ? ORDER BY created_ms DESC, sequence DESC LIMIT ?",
        (user, until, limit),
    )
    return [_described(row) for row in found]


def logs_after(connection: sqlite3.Connection, exchange: str, limit: int) -> list[Mapping[str, object]]:
    """Rows of all users by exchange id, from behind `exchange` on."""
    found = connection.execute(_SELECT + " WHERE exchange > ? ORDER BY exchange LIMIT ?", (exchange, limit))
    return [_described(row) for row in found]


def _described(row: tuple[Any, ...]) -> Mapping[str, object]:
    """The replaced system's names first, then ours; money as exact USD strings, dates in UTC."""
    detail = orjson.loads(row[26])
    return {
        "_id": row[0],
        "userId": row[1],
        "userKeyId": row[2],
        "model": row[3],
        "upstream": row[4],
        "inputTokens": row[8],
        "outputTokens": row[9],
        "cacheWriteTokens": row[10],
        "cacheHitTokens": row[11],
        "tokensUsed": row[12],
        "creditsCost": usd_from_pico(row[14]),
        "creditType": row[15],
        "statusCode": row[16],
        "latencyMs": row[17],
        "isSuccess": 200 <= row[16] < 300,
        "createdAt": log_rows.date(row[19]),
        "upstreamModel": row[5],
        "upstreamRequestId": row[6],
        "wireFormat": row[7],
        "charge": usd_from_pico(row[13]),
        "ttftMs": row[18] - detail.get("startedMs", row[18]) if row[18] else None,
        "outcome": row[20],
        "stream": bool(row[21]),
        "evidence": row[22],
        "priceVersion": row[23],
        "multiplier": row[24],
        "counts": orjson.loads(row[25]),
        "flags": detail.get("flags", []),
        "others": detail.get("others", {}),
        "variant": detail.get("variant", ""),
        "quarantine": detail.get("quarantine", ""),
        "free": detail.get("free", False),
        "rawUsage": row[27],
    }


def expire_logs(connection: sqlite3.Connection, before_ms: int, limit: int) -> int:
    """Delete up to `limit` of the oldest rows if created before `before_ms`; how many went.

    Rows are stored in the order in which exchanges end, so the oldest stand first.
    """
    deleted = connection.execute(
        """DELETE FROM request_logs WHERE created_ms < ?
           AND sequence IN (SELECT sequence FROM request_logs ORDER BY sequence LIMIT ?)""",
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
