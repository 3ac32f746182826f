"""The SQLite schema: one statement per table, its version, and the checks made when a file is opened.

Promises: amounts are INTEGER pico-USD in STRICT tables, so a float or a text can never become money and an
overflow is an error; no lot and no lease goes below zero, whatever a caller asks; a file of a newer Farebox,
of another program, or a damaged one is refused by name (fault rows S15, S16, S19).
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from farebox.base import limits
from farebox.base.errors import StoreRefusedError
from farebox.store.rollups import Sums

VERSION: Final = 4
_OLDEST_LIBRARY: Final = (3, 37, 0)
"""First release of SQLite with STRICT tables."""

_RECORDS: Final = (
    """CREATE TABLE records (
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        revision INTEGER NOT NULL CHECK (revision > 0),
        user TEXT NOT NULL,
        status TEXT NOT NULL,
        reference TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        due_ms INTEGER,
        document TEXT NOT NULL,
        PRIMARY KEY (kind, id)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX records_by_age ON records (kind, created_ms, id)",
    "CREATE INDEX records_by_user ON records (kind, user, created_ms, id)",
    "CREATE INDEX records_by_status ON records (kind, status, created_ms, id)",
    "CREATE INDEX records_by_reference ON records (kind, reference) WHERE reference != ''",
    "CREATE INDEX records_by_due ON records (kind, status, due_ms) WHERE due_ms IS NOT NULL",
)

# A series' cells stand together, in the order of time: a period is one run of entries.
_ROLLUPS: Final = f"""CREATE TABLE rollups (
    series TEXT NOT NULL,
    start_ms INTEGER NOT NULL,
    name TEXT NOT NULL,
    credit_type TEXT NOT NULL,
    journal TEXT NOT NULL,
    {", ".join(f"{name} INTEGER NOT NULL" for name in Sums._fields)},
    PRIMARY KEY (series, start_ms, name, credit_type, journal)
) STRICT, WITHOUT ROWID"""
_AUDIT_INDEXES: Final = (
    "CREATE INDEX IF NOT EXISTS audit_log_by_actor ON audit_log (actor)",
    "CREATE INDEX IF NOT EXISTS audit_log_by_subject ON audit_log (subject)",
)
_LOGS_BY_TIME: Final = (
    "CREATE INDEX IF NOT EXISTS request_log_records_by_time ON request_log_records (created_ms)"
)

_TABLES: Final = (
    """CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID""",
    """CREATE TABLE users (
        user TEXT PRIMARY KEY,
        rev INTEGER NOT NULL DEFAULT 0,
        role TEXT NOT NULL,
        is_active INTEGER NOT NULL DEFAULT 1,
        parked TEXT,
        created_ms INTEGER NOT NULL,
        written_off_pico INTEGER NOT NULL DEFAULT 0,
        credits_used_pico INTEGER NOT NULL DEFAULT 0,
        credits_new_used_pico INTEGER NOT NULL DEFAULT 0,
        tokens_user_new INTEGER NOT NULL DEFAULT 0,
        total_input_tokens INTEGER NOT NULL DEFAULT 0,
        total_output_tokens INTEGER NOT NULL DEFAULT 0,
        total_earned_pico INTEGER NOT NULL DEFAULT 0,
        total_spent_pico INTEGER NOT NULL DEFAULT 0,
        purchased_at_ms INTEGER,
        expires_at_ms INTEGER,
        purchased_at_new_ms INTEGER,
        expires_at_new_ms INTEGER
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE pools (
        user TEXT NOT NULL,
        pool TEXT NOT NULL,
        balance_pico INTEGER NOT NULL DEFAULT 0 CHECK (balance_pico >= 0),
        seen_pico INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (user, pool)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE lots (
        user TEXT NOT NULL,
        lot TEXT NOT NULL,
        pool TEXT NOT NULL,
        left_pico INTEGER NOT NULL,
        leased_pico INTEGER NOT NULL DEFAULT 0 CHECK (leased_pico >= 0),
        expires_at_ms INTEGER,
        source TEXT NOT NULL,
        PRIMARY KEY (user, lot),
        CHECK (left_pico >= leased_pico)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE leases (
        user TEXT NOT NULL,
        journal TEXT NOT NULL,
        owner_epoch INTEGER NOT NULL,
        op INTEGER NOT NULL,
        dead INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (user, journal)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX leases_by_journal ON leases (journal)",
    """CREATE TABLE lease_lots (
        user TEXT NOT NULL,
        journal TEXT NOT NULL,
        lot TEXT NOT NULL,
        amount_pico INTEGER NOT NULL CHECK (amount_pico >= 0),
        PRIMARY KEY (user, journal, lot)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE reserved (
        user TEXT NOT NULL,
        exchange TEXT NOT NULL,
        lot TEXT NOT NULL,
        amount_pico INTEGER NOT NULL CHECK (amount_pico > 0),
        PRIMARY KEY (user, exchange, lot)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE claims (
        user TEXT NOT NULL,
        reference TEXT NOT NULL,
        pool TEXT NOT NULL,
        lot TEXT,
        amount_pico INTEGER NOT NULL CHECK (amount_pico > 0),
        type TEXT NOT NULL DEFAULT '',
        cause TEXT NOT NULL DEFAULT '',
        since_ms INTEGER NOT NULL DEFAULT 0,
        ends_ms INTEGER,
        PRIMARY KEY (user, reference)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE wants (
        user TEXT NOT NULL,
        journal TEXT NOT NULL,
        PRIMARY KEY (user, journal)
    ) STRICT, WITHOUT ROWID""",
    # An id is user:type:reference:pool. The reference comes first, because exchange ids rise with time: new
    # entries stand at the end of the index, not in a page of their own each.
    """CREATE TABLE credit_transactions (
        sequence INTEGER PRIMARY KEY,
        user TEXT NOT NULL,
        type TEXT NOT NULL,
        reference TEXT NOT NULL,
        pool TEXT NOT NULL,
        amount_pico INTEGER NOT NULL,
        lots TEXT NOT NULL,
        cause TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        charge TEXT NOT NULL
    ) STRICT""",
    "CREATE UNIQUE INDEX credit_transactions_by_id ON credit_transactions (reference, type, user, pool)",
    "CREATE INDEX credit_transactions_by_user ON credit_transactions (user)",
    # `record` is the settlement as the journal has it; the view below names its members.
    """CREATE TABLE request_log_records (
        sequence INTEGER PRIMARY KEY,
        exchange TEXT NOT NULL UNIQUE,
        user TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        charge_pico INTEGER NOT NULL,
        charged_pico INTEGER NOT NULL,
        record TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX request_log_records_by_user ON request_log_records (user, created_ms)",
    _LOGS_BY_TIME,
    """CREATE VIEW request_logs AS SELECT
        sequence, exchange, user, created_ms, charge_pico, charged_pico,
        json_extract(record, '$[2]') AS credit_type,
        json_extract(record, '$[3]') AS key,
        json_extract(record, '$[4]') AS model,
        json_extract(record, '$[5]') AS wire_format,
        json_extract(record, '$[6]') AS price_version,
        json_extract(record, '$[7]') AS multiplier,
        json_extract(record, '$[8]') AS evidence,
        json_extract(record, '$[9]') AS flags,
        json_extract(record, '$[10]') AS counts,
        json_extract(record, '$[11]') AS others,
        json_extract(record, '$[12]') AS input_total,
        json_extract(record, '$[13]') AS variant,
        json_extract(record, '$[16]') AS quarantine,
        json_extract(record, '$[17]') AS outcome,
        json_extract(record, '$[18]') AS status,
        json_extract(record, '$[19]') AS upstream,
        json_extract(record, '$[20]') AS upstream_model,
        json_extract(record, '$[21]') AS upstream_request,
        json_extract(record, '$[22]') AS stream,
        json_extract(record, '$[23]') AS started_ms,
        json_extract(record, '$[24]') AS first_byte_ms,
        json_extract(record, '$[26]') AS raw_usage,
        json_extract(record, '$[27]') AS free
    FROM request_log_records""",
    """CREATE TABLE api_keys (
        digest TEXT PRIMARY KEY,
        user TEXT NOT NULL,
        prefix TEXT NOT NULL,
        label TEXT NOT NULL,
        is_active INTEGER NOT NULL,
        requests_per_minute INTEGER,
        allowed_models TEXT,
        expires_at_ms INTEGER,
        created_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX api_keys_by_user ON api_keys (user, created_ms)",
    """CREATE TABLE journals (
        journal TEXT PRIMARY KEY,
        epoch INTEGER NOT NULL,
        applied INTEGER NOT NULL DEFAULT 0,
        rolled INTEGER NOT NULL DEFAULT 0,
        state TEXT NOT NULL,
        host TEXT NOT NULL,
        beat_ms INTEGER NOT NULL,
        claimed_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE parked_settlements (
        sequence INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        exchange TEXT NOT NULL,
        user TEXT NOT NULL,
        kind TEXT NOT NULL,
        reason TEXT NOT NULL,
        settlement BLOB NOT NULL,
        journal TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        parked_ms INTEGER NOT NULL,
        resolved_ms INTEGER,
        resolved_by TEXT,
        resolved_pico INTEGER
    ) STRICT""",
    "CREATE INDEX parked_settlements_open ON parked_settlements (sequence) WHERE resolved_ms IS NULL",
    """CREATE TABLE changes (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        journal TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE audit_log (
        sequence INTEGER PRIMARY KEY,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        subject TEXT NOT NULL,
        details TEXT NOT NULL,
        created_ms INTEGER NOT NULL
    ) STRICT""",
    *_AUDIT_INDEXES,
    _ROLLUPS,
    """CREATE TABLE price_books (
        version INTEGER PRIMARY KEY,
        content_hash TEXT NOT NULL UNIQUE,
        effective_ms INTEGER NOT NULL,
        book TEXT NOT NULL
    ) STRICT""",
    *_RECORDS,
)

_STEPS: Final[Mapping[int, tuple[str, ...]]] = {
    2: _RECORDS,
    3: (
        "ALTER TABLE claims ADD COLUMN type TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE claims ADD COLUMN cause TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE claims ADD COLUMN since_ms INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE claims ADD COLUMN ends_ms INTEGER",
    ),
    4: ("DROP TABLE IF EXISTS rollups", _ROLLUPS, _LOGS_BY_TIME, *_AUDIT_INDEXES),
}
"""Version -> the statements that make it of the version before; they only add, so that an older process may
still be running (4 begins the rollups anew: no release had the old ones)."""


def check_library(path: Path) -> None:
    """Refuse a SQLite library too old for STRICT tables."""
    if sqlite3.sqlite_version_info < _OLDEST_LIBRARY:
        raise StoreRefusedError(
            f"{path}: SQLite {sqlite3.sqlite_version} is too old, 3.37 is needed: use a newer one"
        )


def check_whole(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a damaged file; skipped above a size where reading it all would delay the start (S15)."""
    if path.stat().st_size > limits.sqlite_check_bytes_max:
        return
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise StoreRefusedError(
            f"{path}: the database is damaged ({verdict}); keep a copy, restore a backup or run `.recover` "
            "of the sqlite3 shell, then start again: journals still on disk are applied to it"
        )


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Create the schema, bring an older one up to date, or refuse. Runs inside one transaction: all of it or
    nothing.
    """
    found = _version(connection, path)
    if found is None:
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", (str(VERSION),))
    elif found > VERSION:
        raise StoreRefusedError(
            f"{path}: written by a newer Farebox (schema {found}, this one knows {VERSION}); "
            "start the newer version, or restore a backup made before the upgrade"
        )
    elif not _has_table(connection, "request_log_records"):
        raise StoreRefusedError(
            f"{path}: laid out by a Farebox older than the first release; name a new file"
        )
    elif found < VERSION:
        for version in range(found + 1, VERSION + 1):
            for statement in _STEPS[version]:
                connection.execute(statement)
        connection.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", (str(VERSION),))


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (name,))
    return found.fetchone() is not None


def _version(connection: sqlite3.Connection, path: Path) -> int | None:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not tables:
        return None
    row = None
    if "meta" in tables:
        row = connection.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
    if row is None:
        raise StoreRefusedError(f"{path}: a database of another program; name a file of its own for Farebox")
    return int(row[0])
