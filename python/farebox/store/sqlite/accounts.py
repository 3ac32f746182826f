"""Users and API keys in SQLite: rows to records and back.

Promises: `load` gives one user's money as one snapshot (it runs inside the caller's transaction), and only
digests of keys are ever seen here (M11).
"""

import sqlite3
from collections.abc import Iterable, Mapping

import orjson

from farebox.base.records import POOLS, Account, Claim, KeyRecord, LeaseEntry, Lot
from farebox.store.sqlite import feed

_KEY = """
    SELECT api_keys.digest, users.user, api_keys.prefix, api_keys.label, api_keys.is_active, users.is_active,
           users.role, api_keys.requests_per_minute, api_keys.allowed_models, api_keys.expires_at_ms
    FROM api_keys JOIN users ON users.user = api_keys.user
"""
_BEHIND_KEY = """ AND (-api_keys.created_ms, api_keys.digest) >
    (SELECT -created_ms, digest FROM api_keys WHERE digest = ?)"""


def load(connection: sqlite3.Connection, user: str) -> Account | None:
    """One user's money; None when there is no such user."""
    head = connection.execute(
        "SELECT rev, is_active, parked, written_off_pico FROM users WHERE user = ?", (user,)
    ).fetchone()
    if head is None:
        return None
    pools = connection.execute(
        "SELECT pool, balance_pico, seen_pico FROM pools WHERE user = ?", (user,)
    ).fetchall()
    lots = connection.execute(
        "SELECT lot, pool, left_pico, leased_pico, expires_at_ms, source FROM lots WHERE user = ?", (user,)
    )
    claims = connection.execute(
        """SELECT reference, pool, lot, amount_pico, type, cause, since_ms, ends_ms FROM claims
           WHERE user = ? ORDER BY since_ms, reference""",
        (user,),
    )
    wants = connection.execute("SELECT journal FROM wants WHERE user = ?", (user,))
    return Account(
        user=user,
        rev=head[0],
        is_active=bool(head[1]),
        parked=head[2],
        balances={pool: balance for pool, balance, _ in pools},
        seen={pool: seen for pool, _, seen in pools},
        lots=tuple(Lot(*row) for row in lots),
        leases=_leases(connection, user),
        reserved=_nested(
            connection.execute("SELECT exchange, lot, amount_pico FROM reserved WHERE user = ?", (user,))
        ),
        claims=tuple(Claim(*row) for row in claims),
        wants=frozenset(row[0] for row in wants),
        written_off_pico=head[3],
    )


def _leases(connection: sqlite3.Connection, user: str) -> dict[str, LeaseEntry]:
    lots = _nested(
        connection.execute("SELECT journal, lot, amount_pico FROM lease_lots WHERE user = ?", (user,))
    )
    entries = connection.execute("SELECT journal, owner_epoch, op, dead FROM leases WHERE user = ?", (user,))
    return {
        journal: LeaseEntry(journal, owner_epoch, op, bool(dead), lots.get(journal, {}))
        for journal, owner_epoch, op, dead in entries
    }


def _nested(rows: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    result: dict[str, dict[str, int]] = {}
    for outer, inner, amount in rows:
        result.setdefault(outer, {})[inner] = amount
    return result


def park(connection: sqlite3.Connection, user: str, reason: str) -> None:
    """Stop all money work of a user until an operator has looked, and tell the workers."""
    connection.execute("UPDATE users SET parked = ?, rev = rev + 1 WHERE user = ?", (reason, user))
    feed.append(connection, "user", user)


def create_user(connection: sqlite3.Connection, user: str, role: str, actor: str, now_ms: int) -> bool:
    """An account with empty pools; False when the name is taken."""
    added = connection.execute(
        "INSERT OR IGNORE INTO users (user, role, created_ms) VALUES (?, ?, ?)", (user, role, now_ms)
    )
    if added.rowcount != 1:
        return False
    connection.executemany("INSERT INTO pools (user, pool) VALUES (?, ?)", [(user, pool) for pool in POOLS])
    feed.append(connection, "user", user)
    feed.audit(connection, actor, "user.create", user, {"role": role}, now_ms)
    return True


def set_user_active(connection: sqlite3.Connection, user: str, active: bool, actor: str, now_ms: int) -> bool:
    """Enable or disable; binds grants only, a disabled user can still be credited and refunded."""
    changed = connection.execute(
        "UPDATE users SET is_active = ?, rev = rev + 1 WHERE user = ?", (int(active), user)
    )
    if changed.rowcount != 1:
        return False
    feed.append(connection, "user", user)
    feed.audit(connection, actor, "user.enable" if active else "user.disable", user, {}, now_ms)
    return True


def page(connection: sqlite3.Connection, after: str, limit: int) -> list[Account]:
    """Up to `limit` accounts with names above `after`, ascending, in one snapshot."""
    names = connection.execute("SELECT user FROM users WHERE user > ? ORDER BY user LIMIT ?", (after, limit))
    return [account for (name,) in names.fetchall() if (account := load(connection, name)) is not None]


def lifetime(connection: sqlite3.Connection, user: str) -> Mapping[str, int] | None:
    """A user's lifetime counters under the replaced system's names; money in pico-USD."""
    row = connection.execute(
        """SELECT credits_used_pico, credits_new_used_pico, tokens_user_new, total_input_tokens,
                  total_output_tokens, total_earned_pico, total_spent_pico FROM users WHERE user = ?""",
        (user,),
    ).fetchone()
    if row is None:
        return None
    names = (
        "creditsUsed_pico",
        "creditsNewUsed_pico",
        "tokensUserNew",
        "totalInputTokens",
        "totalOutputTokens",
        "total_earned_pico",
        "total_spent_pico",
    )
    return dict(zip(names, row, strict=True))


def models_text(models: tuple[str, ...] | None) -> str | None:
    """The models a key may ask for, as they are stored; None: all."""
    return None if models is None else orjson.dumps(models).decode()


def create_key(connection: sqlite3.Connection, key: KeyRecord, actor: str, now_ms: int) -> bool:
    """Insert a key by its digest; False when the digest is taken or no such user exists."""
    models = models_text(key.allowed_models)
    added = connection.execute(
        """INSERT OR IGNORE INTO api_keys
           SELECT ?, user, ?, ?, ?, ?, ?, ?, ? FROM users WHERE user = ?""",
        (
            key.digest,
            key.prefix,
            key.label,
            int(key.key_active),
            key.requests_per_minute,
            models,
            key.expires_at_ms,
            now_ms,
            key.user,
        ),
    )
    if added.rowcount != 1:
        return False
    feed.append(connection, "key", key.digest)
    feed.audit(connection, actor, "key.create", key.digest, {"user": key.user, "label": key.label}, now_ms)
    return True


def key(connection: sqlite3.Connection, digest: str) -> KeyRecord | None:
    """A key by digest, joined with its owner."""
    row = connection.execute(_KEY + " WHERE api_keys.digest = ?", (digest,)).fetchone()
    return None if row is None else _key_record(row)


def keys_of(connection: sqlite3.Connection, user: str, before: str, limit: int | None) -> list[KeyRecord]:
    """A user's keys, newest first, up to `limit` behind the one whose digest is `before`."""
    where, values = " WHERE api_keys.user = ?", [user]
    if before:
        where, values = where + _BEHIND_KEY, [user, before]
    order = " ORDER BY api_keys.created_ms DESC, api_keys.digest LIMIT ?"
    rows = connection.execute(_KEY + where + order, (*values, -1 if limit is None else limit))
    return [_key_record(row) for row in rows]


def set_key_active(
    connection: sqlite3.Connection, digest: str, active: bool, actor: str, now_ms: int
) -> bool:
    """Revoke or restore a key; False when it is unknown."""
    changed = connection.execute("UPDATE api_keys SET is_active = ? WHERE digest = ?", (int(active), digest))
    if changed.rowcount != 1:
        return False
    feed.append(connection, "key", digest)
    feed.audit(connection, actor, "key.restore" if active else "key.revoke", digest, {}, now_ms)
    return True


def set_key_limits(
    connection: sqlite3.Connection,
    digest: str,
    requests_per_minute: int | None,
    allowed_models: tuple[str, ...] | None,
    actor: str,
    now_ms: int,
) -> bool:
    """Change what a key may do; False when it is unknown."""
    models = models_text(allowed_models)
    changed = connection.execute(
        "UPDATE api_keys SET requests_per_minute = ?, allowed_models = ? WHERE digest = ?",
        (requests_per_minute, models, digest),
    )
    if changed.rowcount != 1:
        return False
    feed.append(connection, "key", digest)
    details = {"requests_per_minute": requests_per_minute, "allowed_models": allowed_models}
    feed.audit(connection, actor, "key.limit", digest, details, now_ms)
    return True


def _key_record(
    row: tuple[str, str, str, str, int, int, str, int | None, str | None, int | None],
) -> KeyRecord:
    digest, user, prefix, label, key_active, user_active, role, per_minute, models, expires_at_ms = row
    return KeyRecord(
        digest=digest,
        user=user,
        prefix=prefix,
        label=label,
        key_active=bool(key_active),
        user_active=bool(user_active),
        role=role,
        requests_per_minute=per_minute,
        allowed_models=None if models is None else tuple(orjson.loads(models)),
        expires_at_ms=expires_at_ms,
    )
