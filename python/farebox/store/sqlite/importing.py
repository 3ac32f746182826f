"""An import into SQLite: accounts with opening balances, their keys and their old request logs, a page at a
time.

Promises: a page is one transaction; doing it again changes nothing; a new account's rows, lots and balances
are written from the same amounts, an existing account gets them as an ordinary event.
"""

import sqlite3
from collections.abc import Iterable, Sequence

import orjson

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import POOLS, KeyRecord, Settlement
from farebox.store.base import Event, EventResult
from farebox.store.openings import OPENING_COUNTERS, PARKED_BY_IMPORT, OldLog, Opening, OpeningResult
from farebox.store.rollups import IMPORTED, usage_of
from farebox.store.sqlite import accounts, events, feed, rows, statistics
from farebox.store.sqlite import logs as request_logs
from farebox.store.sqlite.connection import savepoint

_COUNTER_COLUMNS = (
    "credits_used_pico",
    "credits_new_used_pico",
    "tokens_user_new",
    "total_input_tokens",
    "total_output_tokens",
    "total_earned_pico",
    "total_spent_pico",
)
_NEW_USER = f"""
    INSERT INTO users (user, role, is_active, parked, created_ms, purchased_at_ms, expires_at_ms,
    purchased_at_new_ms, expires_at_new_ms, {", ".join(_COUNTER_COLUMNS)})
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""  # noqa: S608 - names of our own
_ADD_COUNTERS = (
    f"UPDATE users SET {', '.join(f'{name} = {name} + ?' for name in _COUNTER_COLUMNS)} WHERE user = ?"  # noqa: S608
)


class _DryRunError(Exception):
    """Undo the page: it was only tried."""


def open_accounts(
    connection: sqlite3.Connection, openings: Sequence[Opening], now_ms: int, dry_run: bool
) -> list[OpeningResult]:
    """Book a page of openings; see `Store.open_accounts`."""
    results: list[OpeningResult] = []
    try:
        with savepoint(connection):
            results += _open_page(connection, openings, now_ms)
            if dry_run:
                raise _DryRunError
    except _DryRunError:
        pass
    return results


def _open_page(
    connection: sqlite3.Connection, openings: Sequence[Opening], now_ms: int
) -> Iterable[OpeningResult]:
    """New accounts are gathered and written together; who is there already is looked at alone."""
    names = [opening.user for opening in openings]
    found = connection.execute(
        "SELECT user FROM users WHERE user IN (SELECT value FROM json_each(?))",
        (orjson.dumps(names).decode(),),
    )
    known = {name for (name,) in found}
    fresh = [opening for opening in openings if opening.user not in known]
    if len({opening.user for opening in fresh}) != len(fresh):
        raise InvariantBrokenError("a page of openings names no user twice")
    _create(connection, fresh)
    for opening in openings:
        if opening.user in known:
            yield _open_known(connection, opening, now_ms)
        else:
            yield OpeningResult.PARKED if opening.parked else OpeningResult.CREATED


def _create(connection: sqlite3.Connection, openings: Sequence[Opening]) -> None:
    connection.executemany(_NEW_USER, [_user_values(opening) for opening in openings])
    balances = {(opening.user, row.pool): row.amount_pico for opening in openings for row in opening.rows}
    connection.executemany(
        "INSERT INTO pools (user, pool, balance_pico, seen_pico) VALUES (?1, ?2, ?3, ?3)",
        [
            (opening.user, pool, balances.get((opening.user, pool), 0))
            for opening in openings
            for pool in POOLS
        ],
    )
    connection.executemany(
        """INSERT INTO lots (user, lot, pool, left_pico, expires_at_ms, source)
           VALUES (?, ?, ?, ?, ?, 'opening')""",
        [
            (opening.user, part.lot, part.pool, part.amount_pico, opening.ends_ms.get(part.pool))
            for opening in openings
            for row in opening.rows
            for part in row.lots
        ],
    )
    rows.insert(connection, [row for opening in openings for row in opening.rows])


def _user_values(opening: Opening) -> tuple[object, ...]:
    return (
        opening.user,
        opening.role,
        int(opening.is_active),
        opening.parked or None,
        opening.created_ms,
        opening.bought_ms.get("credits"),
        opening.ends_ms.get("credits"),
        opening.bought_ms.get("creditsNew"),
        opening.ends_ms.get("creditsNew"),
        *_counters(opening),
    )


def _counters(opening: Opening) -> tuple[int, ...]:
    return tuple(opening.counters.get(name, 0) for name in OPENING_COUNTERS)


def _open_known(connection: sqlite3.Connection, opening: Opening, now_ms: int) -> OpeningResult:
    """An account that is there: imported before, made here, or parked."""
    if opening.parked:
        return OpeningResult.PARKED
    stored = dict(
        connection.execute(
            """SELECT pool, amount_pico FROM credit_transactions
               WHERE user = ? AND type = 'opening' AND reference = ?""",
            (opening.user, opening.rows[0].reference),
        )
    )
    if stored:
        same = stored == {row.pool: row.amount_pico for row in opening.rows}
        return OpeningResult.UNCHANGED if same else OpeningResult.DIFFERENT
    freed = connection.execute(
        "UPDATE users SET parked = NULL WHERE user = ? AND parked LIKE ?",
        (opening.user, f"{PARKED_BY_IMPORT}%"),
    )
    if freed.rowcount:
        feed.append(connection, "user", opening.user)
    for row in opening.rows:
        event = Event((row,), expires_at_ms=opening.ends_ms.get(row.pool), source="opening")
        if events.apply_event(connection, event, now_ms) is not EventResult.DONE:
            return OpeningResult.PARKED
    connection.execute(_ADD_COUNTERS, (*_counters(opening), opening.user))
    return OpeningResult.ADDED


def import_keys(connection: sqlite3.Connection, keys: Sequence[tuple[KeyRecord, int]]) -> int:
    """Insert keys with their dates of creation; one that is there stays as it is. How many are new."""
    added = connection.executemany(
        """INSERT OR IGNORE INTO api_keys
           SELECT ?, user, ?, ?, ?, ?, ?, ?, ? FROM users WHERE user = ?""",
        [
            (
                key.digest,
                key.prefix,
                key.label,
                int(key.key_active),
                key.requests_per_minute,
                accounts.models_text(key.allowed_models),
                key.expires_at_ms,
                created_ms,
                key.user,
            )
            for key, created_ms in keys
        ],
    )
    return added.rowcount


def import_logs(connection: sqlite3.Connection, logs: Sequence[OldLog]) -> set[str]:
    """Insert old request logs by id; the ids that were there already."""
    ids = orjson.dumps([log.exchange for log in logs]).decode()
    found = connection.execute(
        "SELECT exchange FROM request_log_records WHERE exchange IN (SELECT value FROM json_each(?))", (ids,)
    )
    known = {exchange for (exchange,) in found}
    fresh = {log.exchange: _settlement(log) for log in logs if log.exchange not in known}
    request_logs.insert(connection, fresh.values(), {})
    statistics.add(connection, IMPORTED, map(usage_of, fresh.values()))
    return known


def _settlement(log: OldLog) -> Settlement:
    """An old row in the shape all rows have here: no price, no evidence, only what it counted and cost."""
    counts = {
        "input": log.input_tokens,
        "output": log.output_tokens,
        "cache_write_5m": log.cache_write_tokens,
        "cache_read": log.cache_hit_tokens,
    }
    return Settlement(
        exchange=log.exchange,
        user=log.user,
        wallet=log.credit_type,
        key=log.key,
        model=log.model,
        wire_format="",
        price_version=0,
        multiplier="",
        evidence="",
        flags=(),
        counts={kind: count for kind, count in counts.items() if count},
        others={},
        input_total=log.tokens_used - log.output_tokens,
        variant="",
        amount_pico=log.charge_pico,
        takes=(),
        quarantine="",
        outcome="imported",
        status=log.status,
        upstream=log.upstream,
        upstream_model="",
        upstream_request="",
        stream=False,
        started_ms=log.created_ms - log.latency_ms,
        first_byte_ms=0,
        ended_ms=log.created_ms,
    )
