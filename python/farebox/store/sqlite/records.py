"""The records of money events in SQLite: payments, subscriptions, transfers and the like, one table for all.

Promises: written only inside the transaction of their event; a revision is met exactly or nothing changes.
"""

import sqlite3
from collections.abc import Sequence

import orjson

from farebox.base import limits
from farebox.store.base import EventResult, Record, RecordChange
from farebox.store.record_rules import check_expiring, document_text, standing

_SELECT = "SELECT * FROM records WHERE kind = ?"
_WRITE = "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


def record(connection: sqlite3.Connection, kind: str, id_: str) -> Record | None:
    """One record."""
    found = connection.execute(_SELECT + " AND id = ?", (kind, id_)).fetchone()
    return None if found is None else _record(*found)


def records(
    connection: sqlite3.Connection,
    kind: str,
    user: str | None,
    status: str | None,
    reference: str | None,
    due_before_ms: int | None,
    before: tuple[int, str] | None,
    limit: int,
) -> list[Record]:
    """Newest first; see `Store.records`."""
    conditions = {
        " AND user = ?": user,
        " AND status = ?": status,
        " AND reference = ?": reference,
        " AND due_ms <= ?": due_before_ms,
    }
    given = {text: value for text, value in conditions.items() if value is not None}
    where = "".join(given) + (" AND (created_ms, id) < (?, ?)" if before is not None else "")
    values = (kind, *given.values(), *(before or ()), min(limit, limits.records_page_max))
    found = connection.execute(_SELECT + where + " ORDER BY created_ms DESC, id DESC LIMIT ?", values)
    return [_record(*row) for row in found]


def expire(connection: sqlite3.Connection, kind: str, status: str, before_ms: int, limit: int) -> int:
    """Delete records that were due by then, up to `limit`; how many went."""
    check_expiring(kind)
    done = connection.execute(
        """DELETE FROM records WHERE kind = ?1 AND id IN
           (SELECT id FROM records WHERE kind = ?1 AND status = ? AND due_ms <= ? LIMIT ?)""",
        (kind, status, before_ms, limit),
    )
    return done.rowcount


def obstacle(connection: sqlite3.Connection, changes: Sequence[RecordChange]) -> EventResult | None:
    """Why changes may not be made: DUPLICATE or STALE; None when they may."""
    found = [record(connection, change.record.kind, change.record.id) for change in changes]
    return standing(changes, found)


def write(connection: sqlite3.Connection, changes: Sequence[RecordChange]) -> None:
    """Make the changes; `obstacle` was None in the same transaction."""
    connection.executemany(
        _WRITE,
        [
            (
                change.record.kind,
                change.record.id,
                change.record.revision,
                change.record.user,
                change.record.status,
                change.record.reference,
                change.record.created_ms,
                change.record.due_ms,
                document_text(change.record),
            )
            for change in changes
        ],
    )


def _record(
    kind: str,
    id_: str,
    revision: int,
    user: str,
    status: str,
    reference: str,
    created_ms: int,
    due_ms: int | None,
    document: str,
) -> Record:
    return Record(kind, id_, revision, orjson.loads(document), user, status, reference, created_ms, due_ms)
