"""Statistics in SQLite: raising cells and reading them, balances of all, the search in the request log.

Promises: a span of a series is one run of the table; a page of the search looks at a bounded number of rows.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import orjson

from farebox._meter import SettlementReader
from farebox.base import frames, limits
from farebox.base.records import LotAmount, Settlement
from farebox.base.units import PICO_PER_USD
from farebox.store.log_rows import described
from farebox.store.rollups import Part, Sums, Tally, Usage, cells, together, usages_of
from farebox.store.statistics import AuditEntry, LogPage, LogQuery, PoolUse, UserRow, Wealth

_NAMES: Final = Sums._fields
_ADD: Final = f"""
    INSERT INTO rollups VALUES ({", ".join("?" * (5 + len(_NAMES)))}) ON CONFLICT DO UPDATE SET
    {", ".join(f"{name} = {name} + excluded.{name}" for name in _NAMES)}
"""  # noqa: S608 - names of our own
_MONEY: Final = _NAMES.index("charge_pico")
_CHARGE: Final = f"sum(charge_pico % {PICO_PER_USD}), sum(charge_pico / {PICO_PER_USD})"
"""The rest and the whole USD apart: what all users spent may be more than 63 bits of pico-USD."""
_TOTALS: Final = (
    ", ".join(
        f"sum({name} % {PICO_PER_USD})" if number == _MONEY else f"sum({name})"
        for number, name in enumerate(_NAMES)
    )
    + f", sum(charge_pico / {PICO_PER_USD})"
)
_IN_PART: Final = "FROM rollups WHERE series = ? AND start_ms >= ? AND start_ms < ?"
_BY_NAME: Final = f"SELECT name, credit_type, {_TOTALS} {_IN_PART} GROUP BY name, credit_type"
_AMONG: Final = "AND name IN (SELECT value FROM json_each(?))"
_OF_NAMES: Final = f"SELECT name, credit_type, {_TOTALS} {_IN_PART} {_AMONG} GROUP BY 1, 2"
_SPENT: Final = f"SELECT name, {_CHARGE} {_IN_PART} GROUP BY name"
_BY_STEP: Final = f"SELECT (start_ms - ?) / ? AS step, credit_type, {_TOTALS} {_IN_PART} GROUP BY 1, 2"

_AMOUNTS: Final = ("creditsUsed", "creditsNewUsed", "total_earned", "total_spent", "written_off")
_COUNTS: Final = ("tokensUserNew", "totalInputTokens", "totalOutputTokens")
_USERS: Final = """
    SELECT user, is_active, parked, created_ms, credits_used_pico, credits_new_used_pico, total_earned_pico,
           total_spent_pico, written_off_pico, tokens_user_new, total_input_tokens, total_output_tokens
    FROM users WHERE user > ? ORDER BY user LIMIT ?
"""


class _Row(NamedTuple):
    """A row of the request log, as the compiled reader makes them."""

    sequence: int
    settlement: Settlement


_ROWS_AT_ONCE: Final = 250
_PLAIN: Final = SettlementReader(Settlement, LotAmount, _Row)


def add(connection: sqlite3.Connection, journal: str, usages: Iterable[Usage]) -> None:
    """Raise every cell that exchanges of a journal add to."""
    connection.executemany(
        _ADD,
        [
            (cell.series, cell.start_ms, cell.name, cell.wallet, journal, *sums)
            for cell, sums in cells(usages).items()
        ],
    )


def tallies(
    connection: sqlite3.Connection, parts: Sequence[Part], names: Sequence[str] | None
) -> list[Tally]:
    """Sums by name and wallet."""
    statement = _BY_NAME if names is None else _OF_NAMES
    values = () if names is None else (orjson.dumps(names).decode(),)
    sums: dict[tuple[str, str], Sums] = {}
    for part in parts:
        for name, wallet, *numbers in connection.execute(statement, (*part, *values)):
            found = _sums(numbers)
            known = sums.get((name, wallet))
            sums[name, wallet] = found if known is None else known.plus(found)
    return [Tally(name, 0, wallet, found) for (name, wallet), found in sums.items()]


def tallies_by_step(connection: sqlite3.Connection, parts: Sequence[Part], width_ms: int) -> list[Tally]:
    """Sums by step and wallet."""
    return [
        Tally("", part.from_ms + step * width_ms, wallet, _sums(numbers))
        for part in parts
        for step, wallet, *numbers in connection.execute(_BY_STEP, (part.from_ms, width_ms, *part))
    ]


def _sums(numbers: list[int]) -> Sums:
    """One row of totals; its last number is the whole USD of the charge."""
    *sums, whole_usd = numbers
    sums[_MONEY] += whole_usd * PICO_PER_USD
    return Sums(*sums)


def spending(connection: sqlite3.Connection, parts: Sequence[Part]) -> dict[str, int]:
    """Charges by name: one column only, because all names are asked for."""
    spent: dict[str, int] = {}
    for part in parts:
        for name, rest_pico, whole_usd in connection.execute(_SPENT, part):
            spent[name] = spent.get(name, 0) + rest_pico + whole_usd * PICO_PER_USD
    return spent


def tallied_names(connection: sqlite3.Connection, parts: Sequence[Part]) -> set[str]:
    """The names that have cells."""
    return {
        name for part in parts for (name,) in connection.execute(f"SELECT DISTINCT name {_IN_PART}", part)
    }


def usages(connection: sqlite3.Connection, from_ms: int, to_ms: int, user: str) -> list[Usage]:
    """What single rows add. The compiled reader takes the plain ones; only what is odd is decoded here."""
    condition = "created_ms >= ? AND created_ms < ?"
    values: tuple[object, ...] = (from_ms, to_ms)
    if user:
        condition, values = condition + " AND user = ?", (*values, user)
    found = connection.execute(
        f"""SELECT {frames.SETTLE}, sequence, CAST(record AS BLOB) FROM request_log_records
            WHERE {condition}""",  # noqa: S608 - one of the two above
        values,
    )
    return together(_usages(found))


def _usages(found: sqlite3.Cursor) -> Iterator[Usage]:
    """Some rows at a time: objects that are let go at once stay in the processor's cache."""
    while some := found.fetchmany(_ROWS_AT_ONCE):
        rows, odd = _PLAIN.read(some)
        for index in odd:
            _, sequence, wire = some[index]
            rows[index] = _Row(sequence, Settlement.decode(wire))
        yield from usages_of([row.settlement for row in rows])


def wealth(connection: sqlite3.Connection) -> Wealth:
    """All balances."""
    users = connection.execute("SELECT count(*) FROM users").fetchone()[0]
    pools = connection.execute(
        f"""SELECT pool, sum(balance_pico / {PICO_PER_USD}), sum(balance_pico % {PICO_PER_USD})
            FROM pools GROUP BY pool"""  # noqa: S608 - a number of our own
    )
    return Wealth(users, {pool: whole_usd * PICO_PER_USD + rest for pool, whole_usd, rest in pools})


def users(connection: sqlite3.Connection, after: str, limit: int) -> list[UserRow]:
    """Users by name."""
    found = connection.execute(_USERS, (after, limit)).fetchall()
    pools: dict[str, dict[str, int]] = {}
    if found:
        balances = connection.execute(
            "SELECT user, pool, balance_pico FROM pools WHERE user >= ? AND user <= ?",
            (found[0][0], found[-1][0]),
        )
        for user, pool, balance_pico in balances:
            pools.setdefault(user, {})[pool] = balance_pico
    return [
        UserRow(
            user,
            bool(is_active),
            parked,
            created_ms,
            {**pools.get(user, {}), **dict(zip(_AMOUNTS, numbers, strict=False))},
            dict(zip(_COUNTS, numbers[len(_AMOUNTS) :], strict=True)),
        )
        for user, is_active, parked, created_ms, *numbers in found
    ]


_POOL_USE: Final = f"""
    SELECT pool, type, sum(amount_pico / {PICO_PER_USD}), sum(amount_pico % {PICO_PER_USD}), count(*),
           count(DISTINCT user)
    FROM credit_transactions WHERE created_ms >= ? AND created_ms < ? GROUP BY pool, type
"""  # noqa: S608 - a number of our own; whole USD and the rest apart, for no sum may leave 63 bits


def pool_use(connection: sqlite3.Connection, from_ms: int, to_ms: int) -> list[PoolUse]:
    """Sums of the ledger by pool and type."""
    return [
        PoolUse(pool, kind, whole * PICO_PER_USD + rest, rows, users)
        for pool, kind, whole, rest, rows, users in connection.execute(_POOL_USE, (from_ms, to_ms))
    ]


def search_logs(connection: sqlite3.Connection, query: LogQuery, limit: int) -> LogPage:
    """Rows that fit, newest first, out of the next `log_rows_searched_max` of the time and user asked for."""
    span, values = _span(query)
    last = connection.execute(
        f"SELECT created_ms, sequence {span} LIMIT 1 OFFSET ?",
        (*values, limits.log_rows_searched_max - 1),
    ).fetchone()
    wanted, asked = _wanted(query)
    found = connection.execute(
        f"""SELECT created_ms, sequence, charge_pico, charged_pico, record
            FROM (SELECT created_ms, sequence, charge_pico, charged_pico, record {span} LIMIT ?)
            {wanted} LIMIT ?""",  # noqa: S608 - parts of our own
        (*values, limits.log_rows_searched_max, *asked, limit + 1),
    ).fetchall()
    rows = [
        described(charge_pico, charged_pico, Settlement.decode(wire.encode()))
        for _, _, charge_pico, charged_pico, wire in found[:limit]
    ]
    return LogPage(rows, found[limit - 1][:2] if len(found) > limit else last)


def _span(query: LogQuery) -> tuple[str, list[object]]:
    """The rows of a time and user, newest first, behind the place where the page before ended."""
    conditions = ["created_ms >= ?"]
    values: list[object] = [query.from_ms]
    if query.user:
        conditions, values = [*conditions, "user = ?"], [*values, query.user]
    if query.to_ms is not None:
        conditions, values = [*conditions, "created_ms < ?"], [*values, query.to_ms]
    if query.before is not None:
        conditions, values = [*conditions, "(created_ms, sequence) < (?, ?)"], [*values, *query.before]
    order = "ORDER BY created_ms DESC, sequence DESC"
    return f"FROM request_log_records WHERE {' AND '.join(conditions)} {order}", values


def _wanted(query: LogQuery) -> tuple[str, list[object]]:
    """What rows must say, by the settlement's place in its JSON (see the view `request_logs`)."""
    asked = {"$[4]": query.model, "$[2]": query.wallet, "$[17]": query.outcome}
    conditions = [f"json_extract(record, '{place}') = ?" for place, value in asked.items() if value]
    if query.failed is not None:
        within = "NOT BETWEEN" if query.failed else "BETWEEN"
        conditions.append(f"json_extract(record, '$[18]') {within} 200 AND 299")
    return "WHERE " + " AND ".join(conditions) if conditions else "", [one for one in asked.values() if one]


def audit_entries(
    connection: sqlite3.Connection, before: int | None, limit: int, actor: str, subject: str
) -> list[AuditEntry]:
    """The audit log, newest first."""
    asked = {"actor": actor, "subject": subject}
    conditions = ["sequence < ?", *(f"{name} = ?" for name, value in asked.items() if value)]
    found = connection.execute(
        f"""SELECT sequence, actor, action, subject, details, created_ms FROM audit_log
            WHERE {" AND ".join(conditions)} ORDER BY sequence DESC LIMIT ?""",  # noqa: S608 - names of our own
        (2**63 - 1 if before is None else before, *filter(None, asked.values()), limit),
    )
    return [
        AuditEntry(number, who, action, about, orjson.loads(details), created_ms)
        for number, who, action, about, details, created_ms in found
    ]


def series_totals(connection: sqlite3.Connection) -> dict[str, dict[str, tuple[int, int]]]:
    """What every series adds up to."""
    found = connection.execute(
        f"""SELECT CASE WHEN series LIKE 'user:%' THEN 'user' ELSE series END AS of, credit_type,
                   sum(requests), {_CHARGE} FROM rollups GROUP BY of, credit_type"""  # noqa: S608 - our own
    )
    totals: dict[str, dict[str, tuple[int, int]]] = {}
    for series, wallet, requests, rest_pico, whole_usd in found:
        totals.setdefault(series, {})[wallet] = (requests, rest_pico + whole_usd * PICO_PER_USD)
    return totals
