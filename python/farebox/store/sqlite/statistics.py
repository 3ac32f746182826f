"""Statistics in SQLite: raising cells and reading them, balances of all, the search in the request log.

Promises: a span of a series is one run of the table; a page of the search looks at a bounded number of rows.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import orjson

from farebox.base import limits
from farebox.base.records import Settlement
from farebox.store.log_rows import described
from farebox.store.rollups import Part, Sums, Tally, Usage, cells, usage_of
from farebox.store.statistics import AuditEntry, LogPage, LogQuery, Wealth

_NAMES: Final = Sums._fields
_ADD: Final = f"""
    INSERT INTO rollups VALUES ({", ".join("?" * (5 + len(_NAMES)))}) ON CONFLICT DO UPDATE SET
    {", ".join(f"{name} = {name} + excluded.{name}" for name in _NAMES)}
"""  # noqa: S608 - names of our own
_TOTALS: Final = ", ".join(f"sum({name})" for name in _NAMES)
_IN_PART: Final = "FROM rollups WHERE series = ? AND start_ms >= ? AND start_ms < ?"
_BY_NAME: Final = f"SELECT name, credit_type, {_TOTALS} {_IN_PART} GROUP BY name, credit_type"
_BY_START: Final = f"SELECT start_ms, credit_type, {_TOTALS} {_IN_PART} GROUP BY start_ms, credit_type"


def add(connection: sqlite3.Connection, journal: str, usages: Iterable[Usage]) -> None:
    """Raise every cell that exchanges of a journal add to."""
    connection.executemany(
        _ADD,
        [
            (cell.series, cell.start_ms, cell.name, cell.wallet, journal, *sums)
            for cell, sums in cells(usages).items()
        ],
    )


def tallies(connection: sqlite3.Connection, parts: Sequence[Part]) -> list[Tally]:
    """Sums by name and wallet."""
    sums: dict[tuple[str, str], Sums] = {}
    for part in parts:
        for name, wallet, *numbers in connection.execute(_BY_NAME, part):
            found = Sums(*numbers)
            known = sums.get((name, wallet))
            sums[name, wallet] = found if known is None else known.plus(found)
    return [Tally(name, 0, wallet, found) for (name, wallet), found in sums.items()]


def tallies_by_start(connection: sqlite3.Connection, parts: Sequence[Part]) -> list[Tally]:
    """Sums by start and wallet."""
    return [
        Tally("", start_ms, wallet, Sums(*numbers))
        for part in parts
        for start_ms, wallet, *numbers in connection.execute(_BY_START, part)
    ]


def tallied_names(connection: sqlite3.Connection, parts: Sequence[Part]) -> set[str]:
    """The names that have cells."""
    return {
        name for part in parts for (name,) in connection.execute(f"SELECT DISTINCT name {_IN_PART}", part)
    }


def usages(connection: sqlite3.Connection, from_ms: int, to_ms: int, user: str) -> list[Usage]:
    """What single rows add."""
    condition = "created_ms >= ? AND created_ms < ?"
    values: tuple[object, ...] = (from_ms, to_ms)
    if user:
        condition, values = condition + " AND user = ?", (*values, user)
    found = connection.execute(
        f"SELECT record FROM request_log_records WHERE {condition}",  # noqa: S608 - one of the two above
        values,
    )
    return [usage_of(Settlement.decode(wire.encode())) for (wire,) in found]


def wealth(connection: sqlite3.Connection) -> Wealth:
    """All balances."""
    users = connection.execute("SELECT count(*) FROM users").fetchone()[0]
    pools = connection.execute("SELECT pool, sum(balance_pico) FROM pools GROUP BY pool")
    return Wealth(users, dict(pools.fetchall()))


def search_logs(connection: sqlite3.Connection, query: LogQuery, limit: int) -> LogPage:
    """Rows that fit, newest first, out of the next `log_rows_searched_max` of the time and user asked for."""
    conditions = ["created_ms >= ?"]
    values: list[object] = [query.from_ms]
    if query.user:
        conditions, values = [*conditions, "user = ?"], [*values, query.user]
    if query.to_ms is not None:
        conditions, values = [*conditions, "created_ms < ?"], [*values, query.to_ms]
    if query.before is not None:
        conditions.append("(created_ms, sequence) < (?, ?)")
        values += query.before
    found = connection.execute(
        f"""SELECT created_ms, sequence, charge_pico, charged_pico, record FROM request_log_records
            WHERE {" AND ".join(conditions)} ORDER BY created_ms DESC, sequence DESC LIMIT ?""",  # noqa: S608
        (*values, limits.log_rows_searched_max),
    )
    rows: list[Mapping[str, object]] = []
    place, seen = None, 0
    for created_ms, sequence, charge_pico, charged_pico, wire in found:
        if len(rows) == limit:
            return LogPage(rows, place)
        place, seen = (created_ms, sequence), seen + 1
        record = Settlement.decode(wire.encode())
        if _fits(record, query):
            rows.append(described(charge_pico, charged_pico, record))
    return LogPage(rows, place if seen == limits.log_rows_searched_max else None)


def _fits(record: Settlement, query: LogQuery) -> bool:
    return (
        query.model in {"", record.model}
        and query.wallet in {"", record.wallet}
        and query.outcome in {"", record.outcome}
        and query.failed in {None, not 200 <= record.status < 300}
    )


def audit_entries(
    connection: sqlite3.Connection, before: int | None, limit: int, actor: str, subject: str
) -> list[AuditEntry]:
    """The audit log, newest first."""
    found = connection.execute(
        """SELECT sequence, actor, action, subject, details, created_ms FROM audit_log
           WHERE sequence < ? AND (? = '' OR actor = ?) AND (? = '' OR subject = ?)
           ORDER BY sequence DESC LIMIT ?""",
        (2**63 - 1 if before is None else before, actor, actor, subject, subject, limit),
    )
    return [
        AuditEntry(number, who, action, about, orjson.loads(details), created_ms)
        for number, who, action, about, details, created_ms in found
    ]


def series_totals(connection: sqlite3.Connection) -> dict[str, dict[str, tuple[int, int]]]:
    """What every series adds up to."""
    found = connection.execute(
        """SELECT CASE WHEN series LIKE 'user:%' THEN 'user' ELSE series END AS of, credit_type,
                  sum(requests), sum(charge_pico) FROM rollups GROUP BY of, credit_type"""
    )
    totals: dict[str, dict[str, tuple[int, int]]] = {}
    for series, wallet, requests, charge_pico in found:
        totals.setdefault(series, {})[wallet] = (requests, charge_pico)
    return totals
