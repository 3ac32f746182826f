"""The tables of an export, as BigQuery schema files say them, and the lines that fit them. Pure.

Source of the format: BigQuery's JSON schema files. Money is BIGNUMERIC, written as exact decimal strings;
names of the two-pool system's tables (user_id, transaction_id, reference_id …) are kept, the other columns
have the names of the store.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from farebox.base.records import POOLS, Account, Transaction
from farebox.base.units import usd_from_pico

Column = dict[str, Any]


def _columns(kind: str, names: str, mode: str = "REQUIRED") -> list[Column]:
    return [{"name": name, "type": kind, "mode": mode} for name in names.split()]


BALANCES: Final = [
    *_columns("STRING", "user_id"),
    *_columns("BIGNUMERIC", " ".join(POOLS)),
    *_columns("BIGNUMERIC", "total_earned total_spent creditsUsed creditsNewUsed written_off"),
    *_columns("INT64", "tokensUserNew totalInputTokens totalOutputTokens rev"),
    *_columns("BOOL", "is_active"),
    *_columns("STRING", "parked", "NULLABLE"),
    *_columns("TIMESTAMP", "last_updated", "NULLABLE"),
]
TRANSACTIONS: Final = [
    *_columns("STRING", "transaction_id user_id type"),
    *_columns("STRING", "pool", "NULLABLE"),
    *_columns("BIGNUMERIC", "amount"),
    *_columns("STRING", "description reference_id", "NULLABLE"),
    *_columns("TIMESTAMP", "created_at"),
    {
        "name": "lots",
        "type": "RECORD",
        "mode": "REPEATED",
        "fields": [*_columns("STRING", "lot"), *_columns("BIGNUMERIC", "amount")],
    },
    *_columns("JSON", "charge", "NULLABLE"),
]
REQUEST_LOGS: Final = [
    *_columns("STRING", "_id userId userKeyId model upstream"),
    *_columns("INT64", "inputTokens outputTokens cacheWriteTokens cacheHitTokens tokensUsed"),
    *_columns("BIGNUMERIC", "creditsCost"),
    *_columns("STRING", "creditType"),
    *_columns("INT64", "statusCode latencyMs"),
    *_columns("BOOL", "isSuccess"),
    *_columns("TIMESTAMP", "createdAt"),
    *_columns("STRING", "upstreamModel upstreamRequestId wireFormat"),
    *_columns("BIGNUMERIC", "charge"),
    *_columns("INT64", "ttftMs", "NULLABLE"),
    *_columns("STRING", "outcome"),
    *_columns("BOOL", "stream"),
    *_columns("STRING", "evidence"),
    *_columns("INT64", "priceVersion"),
    *_columns("STRING", "multiplier"),
    *_columns("JSON", "counts"),
    *_columns("STRING", "flags", "REPEATED"),
    *_columns("JSON", "others"),
    *_columns("STRING", "variant quarantine"),
    *_columns("BOOL", "free"),
    *_columns("STRING", "rawUsage"),
]
SCHEMAS: Final[Mapping[str, list[Column]]] = {
    "balances": BALANCES,
    "transactions": TRANSACTIONS,
    "request_logs": REQUEST_LOGS,
}
"""Table -> its columns; the file NAME.ndjson has a line for each of its rows."""


def balance_line(account: Account, lifetime: Mapping[str, int], rows: Sequence[Transaction]) -> bytes:
    """A user: pools as the sum of the rows exported with them; `rows` newest first."""
    totals = {
        name.removesuffix("_pico"): usd_from_pico(value) if name.endswith("_pico") else value
        for name, value in lifetime.items()
    }
    return _line(
        {
            "user_id": account.user,
            **{pool: usd_from_pico(account.balances.get(pool, 0)) for pool in POOLS},
            **totals,
            "written_off": usd_from_pico(account.written_off_pico),
            "rev": account.rev,
            "is_active": account.is_active,
            "parked": account.parked,
            "last_updated": timestamp(rows[0].created_ms) if rows else None,
        }
    )


def transaction_line(row: Transaction) -> bytes:
    """A ledger row."""
    return _line(
        {
            "transaction_id": row.id,
            "user_id": row.user,
            "type": row.type,
            "pool": row.pool,
            "amount": usd_from_pico(row.amount_pico),
            "description": row.cause,
            "reference_id": row.reference,
            "created_at": timestamp(row.created_ms),
            "lots": [{"lot": part.lot, "amount": usd_from_pico(part.amount_pico)} for part in row.lots],
            "charge": row.charge or None,
        }
    )


def log_line(row: Mapping[str, object]) -> bytes:
    """A request-log row as `Store.request_log` gives it."""
    return _line(row)


def timestamp(at_ms: int) -> str:
    """A stored time as BigQuery and people read it."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(row: Mapping[str, object]) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)
