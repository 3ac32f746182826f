"""Rows of journals in SQLite: epochs by compare-and-set, beats, low-water marks, the end of a journal.

Promises: an epoch is claimed once (a copy of a directory, a clone or a restored store is refused, hole 2 and
fault row S17), and the money a journal leased is free again in the transaction that ends the journal.
"""

import sqlite3

from farebox.base.errors import StoreRefusedError
from farebox.store.base import JournalState
from farebox.store.journal_rules import check_end, is_as_seen, wrong_epoch
from farebox.store.sqlite import feed

_STATE = "SELECT journal, epoch, applied, rolled, state, host, beat_ms FROM journals"


def claim_epoch(
    connection: sqlite3.Connection, journal: str, epoch: int, host: str, now_ms: int
) -> JournalState:
    """Raise the epoch from `epoch - 1`; the same call again (same host, same moment) is answered alike."""
    row = connection.execute(
        "SELECT epoch, host, claimed_ms FROM journals WHERE journal = ?", (journal,)
    ).fetchone()
    stored = 0 if row is None else row[0]
    if row is not None and row == (epoch, host, now_ms):
        return state(connection, journal)
    if stored != epoch - 1:
        raise StoreRefusedError(wrong_epoch(journal, epoch, stored))
    connection.execute(
        """INSERT INTO journals (journal, epoch, state, host, beat_ms, claimed_ms)
           VALUES (?1, ?2, 'live', ?3, ?4, ?4)
           ON CONFLICT (journal) DO UPDATE SET
           epoch = ?2, state = 'live', host = ?3, beat_ms = ?4, claimed_ms = ?4""",
        (journal, epoch, host, now_ms),
    )
    connection.execute(
        """UPDATE users SET rev = rev + 1
           WHERE user IN (SELECT user FROM leases WHERE journal = ? AND dead = 1)""",
        (journal,),
    )
    connection.execute(
        "UPDATE leases SET dead = 0, owner_epoch = ?, op = op + 1 WHERE journal = ? AND dead = 1",
        (epoch, journal),
    )
    return state(connection, journal)


def state(connection: sqlite3.Connection, journal: str) -> JournalState:
    """One journal's row, which must exist."""
    return JournalState(*connection.execute(_STATE + " WHERE journal = ?", (journal,)).fetchone())


def states(connection: sqlite3.Connection) -> list[JournalState]:
    """All journals known."""
    return [JournalState(*row) for row in connection.execute(_STATE + " ORDER BY journal")]


def is_current(connection: sqlite3.Connection, journal: str, epoch: int) -> bool:
    """Whether `epoch` is the live epoch of the journal: an earlier owner's calls change nothing (hole 52)."""
    row = connection.execute(
        "SELECT 1 FROM journals WHERE journal = ? AND epoch = ? AND state = 'live'", (journal, epoch)
    ).fetchone()
    return row is not None


def beat(connection: sqlite3.Connection, journal: str, epoch: int, now_ms: int) -> bool:
    """Record a sign of life; False when the epoch is over."""
    changed = connection.execute(
        "UPDATE journals SET beat_ms = ? WHERE journal = ? AND epoch = ? AND state = 'live'",
        (now_ms, journal, epoch),
    )
    return changed.rowcount == 1


def advance_applied(connection: sqlite3.Connection, journal: str, epoch: int, pos: int) -> None:
    """Raise the low-water mark; an older position or another epoch changes nothing."""
    connection.execute(
        "UPDATE journals SET applied = ? WHERE journal = ? AND epoch = ? AND applied < ?",
        (pos, journal, epoch, pos),
    )


def rolled(connection: sqlite3.Connection, journal: str) -> int:
    """How far a journal is in the rollups; 0 when it is unknown."""
    found = connection.execute("SELECT rolled FROM journals WHERE journal = ?", (journal,)).fetchone()
    return 0 if found is None else int(found[0])


def end_journal(
    connection: sqlite3.Connection, journal: str, ended: str, seen: JournalState | None = None
) -> bool:
    """Retire a journal, or mark it lost, and return what it leased to the lots it came from.

    A retired journal's entries go; a lost one's stay, dead, until its next epoch: its charges may still come.
    """
    check_end(ended)
    if seen is not None and not is_as_seen(state(connection, journal), seen):
        return False
    connection.execute("UPDATE journals SET state = ? WHERE journal = ?", (ended, journal))
    connection.execute(
        """UPDATE lots SET leased_pico = leased_pico - lease_lots.amount_pico FROM lease_lots
           WHERE lease_lots.journal = ? AND lease_lots.user = lots.user AND lease_lots.lot = lots.lot""",
        (journal,),
    )
    connection.execute("DELETE FROM lease_lots WHERE journal = ?", (journal,))
    connection.execute("DELETE FROM wants WHERE journal = ?", (journal,))
    users = connection.execute("SELECT user FROM leases WHERE journal = ?", (journal,)).fetchall()
    connection.executemany("UPDATE users SET rev = rev + 1 WHERE user = ?", users)
    if ended == "retired":
        connection.execute("DELETE FROM leases WHERE journal = ?", (journal,))
    else:
        connection.execute(
            "UPDATE leases SET dead = 1, op = op + 1 WHERE journal = ? AND dead = 0", (journal,)
        )
    for (user,) in users:
        feed.append(connection, "fence", user, journal)
    return True
