"""Leases in SQLite: grant, return, fence (MONEY section 6), each read, decided and written in one
transaction.

Promises: the sum of leases and reserved amounts of a lot is its `leased` and never above what is left (M2); a
call of an older operation or epoch changes nothing, however late it lands (holes 10, 52).
"""

import sqlite3
from collections.abc import Sequence

from farebox.base.errors import StoreRefusedError
from farebox.base.records import Account, Fenced, Grant, LotAmount
from farebox.ledger.lots import choose_slices
from farebox.store.lease_rules import (
    FOREIGN_WRITE,
    answer,
    covers,
    is_damaged,
    is_stale,
    why_no_grant,
    why_nothing_left,
)
from farebox.store.sqlite import accounts, feed, journals, rows


def grant(
    connection: sqlite3.Connection,
    user: str,
    wallet: str,
    journal: str,
    epoch: int,
    op: int,
    need_pico: int,
    want_pico: int,
    now_ms: int,
) -> Grant:
    """Lease between need and want of a wallet; nothing below the need."""
    account = accounts.load(connection, user)
    if account is None:
        return Grant("unknown", 0, (), 0, 0)
    entry = account.leases.get(journal)
    entry_op = entry.op if entry is not None else 0
    reason = _obstacle(connection, account, journal, epoch, op)
    slices = () if reason else choose_slices(account, wallet, need_pico, want_pico, now_ms)
    if not reason and not slices:
        reason = why_nothing_left(account, wallet, now_ms)
    if reason:
        return answer(account, wallet, now_ms, reason, entry_op)
    connection.execute(
        """INSERT INTO leases (user, journal, owner_epoch, op) VALUES (?, ?, ?, 1)
           ON CONFLICT (user, journal) DO UPDATE SET op = op + 1""",
        (user, journal, epoch),
    )
    add(connection, user, journal, slices)
    connection.execute("UPDATE users SET rev = rev + 1 WHERE user = ?", (user,))
    return answer(account, wallet, now_ms, "", entry_op + 1, slices)


def _obstacle(connection: sqlite3.Connection, account: Account, journal: str, epoch: int, op: int) -> str:
    """Why this journal may be granted nothing at all: "", or a reason of `Grant`."""
    if not journals.is_current(connection, journal, epoch):
        return "stale"
    if is_stale(account.leases.get(journal), epoch, op):
        return "stale"
    if account.parked is None and is_damaged(account):
        accounts.park(connection, account.user, FOREIGN_WRITE)
        return "parked"
    return why_no_grant(account)


def add(connection: sqlite3.Connection, user: str, journal: str, parts: Sequence[LotAmount]) -> None:
    """Move unleased money of lots into a lease."""
    connection.executemany(
        """INSERT INTO lease_lots (user, journal, lot, amount_pico) VALUES (?, ?, ?, ?)
           ON CONFLICT (user, journal, lot) DO UPDATE SET amount_pico = amount_pico + excluded.amount_pico""",
        [(user, journal, part.lot, part.amount_pico) for part in parts],
    )
    connection.executemany(
        "UPDATE lots SET leased_pico = leased_pico + ? WHERE user = ? AND lot = ?",
        [(part.amount_pico, user, part.lot) for part in parts],
    )


def give_back(
    connection: sqlite3.Connection,
    user: str,
    journal: str,
    epoch: int,
    op: int,
    amounts: Sequence[LotAmount],
    now_ms: int,  # noqa: ARG001 - the protocol's argument; a return does not depend on the time
) -> int | None:
    """Move leased money back to its lots; the new op, or None when owner, op or amounts do not match."""
    if not journals.is_current(connection, journal, epoch):
        return None
    entry = connection.execute(
        "SELECT 1 FROM leases WHERE user = ? AND journal = ? AND owner_epoch = ? AND op = ? AND dead = 0",
        (user, journal, epoch, op),
    ).fetchone()
    if entry is None or not covers(lease_lots(connection, user, journal), amounts):
        return None
    take(connection, user, journal, amounts)
    connection.executemany(
        "UPDATE lots SET leased_pico = leased_pico - ? WHERE user = ? AND lot = ?",
        [(part.amount_pico, user, part.lot) for part in amounts],
    )
    connection.execute("UPDATE leases SET op = op + 1 WHERE user = ? AND journal = ?", (user, journal))
    connection.execute("UPDATE users SET rev = rev + 1 WHERE user = ?", (user,))
    return op + 1


def lease_lots(connection: sqlite3.Connection, user: str, journal: str) -> dict[str, int]:
    """What a journal's lease of a user holds, by lot."""
    rows = connection.execute(
        "SELECT lot, amount_pico FROM lease_lots WHERE user = ? AND journal = ?", (user, journal)
    )
    return dict(rows.fetchall())


def take(connection: sqlite3.Connection, user: str, journal: str, parts: Sequence[LotAmount]) -> None:
    """Lower a lease; what becomes of the money is the caller's to write."""
    connection.executemany(
        "UPDATE lease_lots SET amount_pico = amount_pico - ? WHERE user = ? AND journal = ? AND lot = ?",
        [(part.amount_pico, user, journal, part.lot) for part in parts],
    )


def fence(
    connection: sqlite3.Connection,
    user: str,
    journal: str,
    epoch: int,
    exchanges: Sequence[str],
    now_ms: int,  # noqa: ARG001 - the protocol's argument; a fence does not depend on the time
) -> Fenced | None:
    """Take the entry for this epoch, raise its op, and read it with what of `exchanges` is booked."""
    if not journals.is_current(connection, journal, epoch):
        raise StoreRefusedError(
            f"journal {journal}: epoch {epoch} is over; another process has claimed or ended it"
        )
    known = connection.execute("UPDATE users SET rev = rev + 1 WHERE user = ?", (user,))
    if known.rowcount != 1:
        return None
    op, dead = connection.execute(
        """INSERT INTO leases (user, journal, owner_epoch, op) VALUES (?1, ?2, ?3, 1)
           ON CONFLICT (user, journal) DO UPDATE SET owner_epoch = ?3, op = op + 1 RETURNING op, dead""",
        (user, journal, epoch),
    ).fetchone()
    (parked,) = connection.execute("SELECT parked IS NOT NULL FROM users WHERE user = ?", (user,)).fetchone()
    lots = connection.execute(
        """SELECT lots.lot, lots.pool, lease_lots.amount_pico, lots.expires_at_ms
           FROM lease_lots JOIN lots USING (user, lot)
           WHERE user = ? AND journal = ? AND amount_pico > 0 ORDER BY lots.lot""",
        (user, journal),
    )
    return Fenced(
        op=op,
        dead=bool(dead),
        lots=tuple((LotAmount(lot, pool, amount), expires) for lot, pool, amount, expires in lots),
        booked=frozenset(rows.booked(connection, ((user, exchange) for exchange in exchanges))),
        parked=bool(parked),
    )


def want(connection: sqlite3.Connection, user: str, journal: str, wanted: bool) -> None:
    """Ask other journals for this user's free money, or stop asking."""
    if not wanted:
        connection.execute("DELETE FROM wants WHERE user = ? AND journal = ?", (user, journal))
        return
    connection.execute(
        "INSERT OR IGNORE INTO wants SELECT user, ? FROM users WHERE user = ?", (journal, user)
    )
    if connection.execute("SELECT 1 FROM wants WHERE user = ? AND journal = ?", (user, journal)).fetchone():
        feed.append(connection, "want", user, journal)


def leases_of(connection: sqlite3.Connection, journal: str) -> list[str]:
    """Users of whom this journal leases money: those recovery must fence."""
    rows = connection.execute(
        """SELECT DISTINCT user FROM leases JOIN lease_lots USING (user, journal)
           WHERE journal = ? AND amount_pico > 0 ORDER BY user""",
        (journal,),
    )
    return [row[0] for row in rows]
