"""The comparison's tables: medians beside nginx's of the same turns, the money, who could not run and why.

Pure; rows begin with the gateway's name, so that a later run of one gateway replaces its rows alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from compare.money import Outcome, in_requests, told
from markdown import between_markers, table_lines
from ratio import FULL_CORE
from results import Cell, Result, Table

BASELINE = "nginx"
PLAIN, STREAMED = "plain", "streamed"

SPEED_HEAD = [
    "gateway",
    "version",
    "switched on",
    "requests/s on a full core",
    "of nginx",
    "CPU µs/request",
    "CPU µs/chunk",
    "chunk, x nginx",
    "memory MB",
]
MONEY_HEAD = [
    "gateway",
    "A: 5 paid for, 200 at once: answered",
    "B: 220 paid for, 2,000 sent: answered",
    "C: kill -9 after 500 answers: charged",
]
MISSING_HEAD = ["gateway", "why it was not measured"]
DETAIL_HEAD = [
    "gateway",
    "experiment",
    "sent",
    "answers by status",
    "reached the upstream",
    "charged",
    "balance",
]
SPEED, MONEY, MISSING = "Speed on one core", "Does the money survive", "Not measured, or not all of it"
DETAIL = "The experiments with money"
HEADS = {SPEED: SPEED_HEAD, MONEY: MONEY_HEAD, MISSING: MISSING_HEAD, DETAIL: DETAIL_HEAD}
NOT_MEASURED = "-"
REASON_CHARACTERS_MAX = 400
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
BEGIN, END = "<!-- bench-compare: begin -->", "<!-- bench-compare: end -->"


@dataclass(slots=True)
class Measured:
    """Everything one run found out about one gateway."""

    name: str
    version: str = ""
    switched_on: str = ""
    cells: list[Cell] = field(default_factory=list)
    """Of the gateway and of nginx in the same turns."""
    outcomes: list[Outcome] = field(default_factory=list)
    resident_bytes: int = 0
    missing: str = ""
    """Why there is nothing, or not all of it."""


def baseline_of(name: str) -> str:
    """The subject of nginx's turns beside a gateway."""
    return f"{BASELINE} beside {name}"


def tables(found: Sequence[Measured]) -> list[Table]:
    """Speed, money, who is missing, and the money in detail."""
    rows = {
        SPEED: [speed_row(one) for one in found if one.cells],
        MONEY: [money_row(one) for one in found if one.outcomes],
        MISSING: [[one.name, one.missing] for one in found if one.missing],
        DETAIL: [detail_row(one.name, outcome) for one in found for outcome in one.outcomes],
    }
    return [Table(title, HEADS[title], lines) for title, lines in rows.items()]


def speed_row(one: Measured) -> list[str]:
    """A gateway's medians, and how they compare with nginx's of the same turns."""
    is_baseline = one.name == BASELINE
    subjects = (one.name, one.name if is_baseline else baseline_of(one.name))
    per_s, nginx_per_s = (_full_core_per_s(one, subject) for subject in subjects)
    cpu_us = _median(one, one.name, PLAIN, "cpu_us")
    chunk_us, nginx_chunk_us = (_median(one, subject, STREAMED, "chunk_cpu_us") for subject in subjects)
    return [
        one.name,
        one.version,
        one.switched_on,
        f"{per_s:,.0f}" if per_s else NOT_MEASURED,
        "1" if is_baseline else share(per_s, nginx_per_s),
        f"{cpu_us:,.0f}" if cpu_us else NOT_MEASURED,
        f"{chunk_us:,.1f}" if chunk_us else NOT_MEASURED,
        "1" if is_baseline else times(chunk_us, nginx_chunk_us),
        f"{one.resident_bytes / 2**20:,.0f}" if one.resident_bytes else NOT_MEASURED,
    ]


def money_row(one: Measured) -> list[str]:
    """A gateway's three outcomes; a dash for one that was not made."""
    by_letter = {outcome.experiment.letter: told(outcome) for outcome in one.outcomes}
    return [one.name, *(by_letter.get(letter, NOT_MEASURED) for letter in "ABC")]


def detail_row(name: str, outcome: Outcome) -> list[str]:
    """Everything one experiment found."""
    asked, books = outcome.experiment, outcome.books
    statuses = ", ".join(
        f"{count} x {status or 'none'}" for status, count in sorted(outcome.statuses.items())
    )
    return [
        name,
        asked.letter,
        f"{asked.sent} ({asked.affordable} paid for)",
        statuses,
        str(outcome.served),
        str(books.billed),
        in_requests(books.balance),
    ]


def _cells(one: Measured, subject: str, load: str) -> list[Cell]:
    return [cell for cell in one.cells if (cell.subject, cell.load) == (subject, load)]


def _median(one: Measured, subject: str, load: str, figure: str) -> float | None:
    values = [getattr(cell, figure) for cell in _cells(one, subject, load)]
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _full_core_per_s(one: Measured, subject: str) -> float | None:
    """The median rate; where the core was not busy, something else was the limit, and it is scaled up."""
    rates = [
        cell.per_s / cell.busy if cell.busy < FULL_CORE else cell.per_s
        for cell in _cells(one, subject, PLAIN)
        if cell.per_s and cell.busy
    ]
    return median(rates) if rates else None


def share(value: float | None, of: float | None) -> str:
    """A ratio below one, to two significant digits."""
    return f"{value / of:.2g}" if value and of else NOT_MEASURED


def times(value: float | None, of: float | None) -> str:
    """A ratio above one."""
    return f"{value / of:,.1f}" if value and of else NOT_MEASURED


def reason(message: str) -> str:
    """What is said first and last of a failure, in one line: the failure itself, and the end of a log."""
    lines = [line.strip() for line in _COLOURS.sub("", message).splitlines() if line.strip()]
    return " ".join(dict.fromkeys([*lines[:1], *lines[-1:]])).removeprefix("bench: ")[:REASON_CHARACTERS_MAX]


def merged(old: Result, new: Result) -> Result:
    """`new` with what `old` says of gateways that it did not measure, in the order of `old`."""
    measured = {row[0] for table in new.tables for row in table.rows}
    before = {table.title: table.rows for table in old.tables}
    for table in new.tables:
        kept = [row for row in before.get(table.title, []) if row[0] not in measured]
        order = {name: place for place, name in enumerate(row[0] for row in before.get(table.title, []))}
        table.rows = sorted([*kept, *table.rows], key=lambda row: order.get(row[0], len(order)))
    again = measured | {baseline_of(name) for name in measured}
    new.cells = [cell for cell in old.cells if cell.subject not in again] + new.cells
    new.versions = {**old.versions, **new.versions}
    return new


def markdown(result: Result) -> str:
    """The tables for docs/BENCH.md, and where and when they come from."""
    machine = result.machine
    where = f"{machine.get('processor')}, {machine.get('cores')} cores, Linux {machine.get('kernel')}"
    lines = [f"Last measured {result.started[:10]} on {where}."]
    for table in result.tables:
        if table.rows and table.title != DETAIL:
            lines += ["", f"**{table.title}**", "", *table_lines(table.head, table.rows)]
    return "\n".join(lines)


def with_tables(page: str, result: Result) -> str:
    """docs/BENCH.md with its tables replaced. Raises ValueError where the markers are missing."""
    return between_markers(page, BEGIN, END, markdown(result))
