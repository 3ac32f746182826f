"""Claims in SQLite: money kept for debits that fell short (MONEY section 5).

Promises: setting a claim tells every worker to give the user's free money back; each part collected is a
ledger row and a lower claim in one transaction, so whoever collects, and however often, takes it once.
"""

import sqlite3

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import Account, Claim
from farebox.ledger.claims import collected, part_row
from farebox.store.lease_rules import is_damaged
from farebox.store.sqlite import accounts, feed, moves

_COLUMNS = "reference, pool, lot, amount_pico, type, cause, since_ms, ends_ms"


def set_claim(connection: sqlite3.Connection, user: str, claim: Claim) -> bool:
    """Keep money for a debit; see `Store.set_claim`."""
    if claim.amount_pico <= 0:
        raise InvariantBrokenError(f"claim {claim.reference}: it asks for nothing")
    known = connection.execute("UPDATE users SET rev = rev + 1 WHERE user = ?", (user,))
    if known.rowcount != 1:
        return False
    connection.execute(
        f"INSERT OR IGNORE INTO claims (user, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - names of our own
        (user, *(getattr(claim, name) for name in Claim.__slots__)),
    )
    there = _claim_of(accounts.load(connection, user), claim.reference)
    if there is None or (there.pool, there.lot, there.type) != (claim.pool, claim.lot, claim.type):
        raise InvariantBrokenError(f"claim {claim.reference}: another debit of {user} waits under this name")
    recall(connection, user)
    return True


def recall(connection: sqlite3.Connection, user: str) -> None:
    """Ask every journal for this user's free money, for none of them."""
    feed.append(connection, "want", user)


def drop(connection: sqlite3.Connection, user: str, reference: str) -> None:
    """End a claim; workers may ask for money again."""
    dropped = connection.execute("DELETE FROM claims WHERE user = ? AND reference = ?", (user, reference))
    if dropped.rowcount:
        connection.execute("UPDATE users SET rev = rev + 1 WHERE user = ?", (user,))
        feed.append(connection, "user", user)


def collect(connection: sqlite3.Connection, user: str, reference: str, now_ms: int) -> int | None:
    """One transaction towards a claim's end; see `Store.collect`."""
    account = accounts.load(connection, user)
    claim = _claim_of(account, reference)
    if account is None or claim is None:
        return None
    if claim.ends_ms is not None and claim.ends_ms <= now_ms:
        drop(connection, user, reference)
        return None
    if account.parked is not None or is_damaged(account):
        return claim.amount_pico
    if moves.expire_due(connection, account, now_ms):
        connection.execute("UPDATE users SET rev = rev + 1 WHERE user = ?", (user,))
    account = moves.loaded(connection, user)
    taken = collected(account, claim, now_ms)
    if taken.is_leased:
        recall(connection, user)
    if not claim.type or (not taken.parts and taken.asked_pico):
        return claim.amount_pico
    if taken.parts:
        row = part_row(user, account.rev, claim, taken, now_ms)
        moves.apply_row(connection, row, row.lots)
        connection.execute("UPDATE users SET rev = rev + 1 WHERE user = ?", (user,))
    if not taken.asked_pico:
        drop(connection, user, reference)
        return None
    connection.execute(
        "UPDATE claims SET amount_pico = ? WHERE user = ? AND reference = ?",
        (taken.asked_pico, user, reference),
    )
    return taken.asked_pico


def _claim_of(account: Account | None, reference: str) -> Claim | None:
    claims = () if account is None else account.claims
    return next((claim for claim in claims if claim.reference == reference), None)


def page(
    connection: sqlite3.Connection, limit: int, after_user: str, after_reference: str
) -> list[tuple[str, Claim]]:
    """Claims of all users, by user and reference, from behind one on."""
    rows = connection.execute(
        f"SELECT user, {_COLUMNS} FROM claims WHERE (user, reference) > (?, ?)"  # noqa: S608 - names of our own
        " ORDER BY user, reference LIMIT ?",
        (after_user, after_reference, limit),
    )
    return [(user, Claim(*rest)) for user, *rest in rows]
