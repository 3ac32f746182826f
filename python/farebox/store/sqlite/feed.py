"""The change feed, the audit log and the price books: rows that are only ever appended.

Promises: change numbers rise and are never reused; the feed keeps a bounded tail (a reader further behind
than that starts with an empty memory anyway).
"""

import sqlite3
from collections.abc import Mapping

import orjson

from farebox.base import limits
from farebox.store.base import Change


def append(connection: sqlite3.Connection, kind: str, subject: str, journal: str = "") -> None:
    """Tell every worker on every host that its memory of `subject` is old."""
    added = connection.execute(
        "INSERT INTO changes (kind, subject, journal) VALUES (?, ?, ?) RETURNING number",
        (kind, subject, journal),
    )
    oldest = added.fetchone()[0] - limits.changes_kept_max
    connection.execute("DELETE FROM changes WHERE number <= ?", (oldest,))


def after(connection: sqlite3.Connection, number: int, limit: int) -> list[Change]:
    """Entries above `number`, ascending."""
    rows = connection.execute(
        "SELECT number, kind, subject, journal FROM changes WHERE number > ? ORDER BY number LIMIT ?",
        (number, limit),
    )
    return [Change(*row) for row in rows]


def audit(
    connection: sqlite3.Connection,
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, object],
    now_ms: int,
) -> None:
    """Append to the audit log."""
    connection.execute(
        "INSERT INTO audit_log (actor, action, subject, details, created_ms) VALUES (?, ?, ?, ?, ?)",
        (actor, action, subject, orjson.dumps(details).decode(), now_ms),
    )


def put_price_book(
    connection: sqlite3.Connection, book: Mapping[str, object], content_hash: str, now_ms: int
) -> int:
    """The version of the book with this content: the one it has, or the next."""
    connection.execute(
        """INSERT OR IGNORE INTO price_books (version, content_hash, effective_ms, book)
           SELECT coalesce(max(version), 0) + 1, ?, ?, ? FROM price_books""",
        (content_hash, now_ms, orjson.dumps(book).decode()),
    )
    found = connection.execute("SELECT version FROM price_books WHERE content_hash = ?", (content_hash,))
    version: int = found.fetchone()[0]
    return version


def price_book(connection: sqlite3.Connection, version: int) -> Mapping[str, object] | None:
    """A stored price book, with the version, hash and time it was stored under."""
    row = connection.execute(
        "SELECT content_hash, effective_ms, book FROM price_books WHERE version = ?", (version,)
    ).fetchone()
    if row is None:
        return None
    return {**orjson.loads(row[2]), "version": version, "content_hash": row[0], "effective_ms": row[1]}


def price_versions(connection: sqlite3.Connection) -> list[tuple[int, str, int]]:
    """(version, content hash, effective_ms), ascending."""
    rows = connection.execute("SELECT version, content_hash, effective_ms FROM price_books ORDER BY version")
    return rows.fetchall()
