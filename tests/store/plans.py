"""How SQLite finds what a statement asks for: what is booked, leased or moved may not walk over what grows.

A statement that does is correct and fast in every test, and holds the store for minutes once a user has a
million rows.
"""

import re
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from farebox.store.sqlite import SQLiteStore

GROWS = (
    "credit_transactions",
    "lots",
    "leases",
    "users",
    "api_keys",
    "request_log_records",
    "parked_settlements",
    "records",
)
BOUNDED = (
    (
        "DELETE FROM request_log_records WHERE created_ms < ?"
        " AND sequence IN (SELECT sequence FROM request_log_records ORDER BY sequence LIMIT ?)"
    ),
)
"""Statements that walk in order and stop at a limit."""
PLANNED = re.compile(r"\s*(SELECT|UPDATE|DELETE|INSERT|WITH)\b")
VALUES = re.compile(r"'(?:[^']|'')*'|\b\d+\b|x'[0-9a-f]*'")


def traced(store: SQLiteStore) -> list[str]:
    """The statements of the store's writing connection from here on; the list grows."""
    asked: list[str] = []
    connection = store._writer._connection
    assert connection is not None
    connection.set_trace_callback(asked.append)
    return asked


def walks(path: Path, asked: Iterable[str]) -> list[tuple[str, str]]:
    """The statements that walk over a table that grows, or over a user's ledger, and what SQLite says."""
    different = {shape_of(statement): statement for statement in asked if PLANNED.match(statement)}
    for shape in BOUNDED:
        different.pop(shape, None)
    found = []
    with sqlite3.connect(path) as connection:
        for shape, statement in different.items():
            for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
                if is_walk(step):
                    found.append((shape, step))
    connection.close()
    return found


def shape_of(statement: str) -> str:
    """A statement without its values and line breaks."""
    return " ".join(VALUES.sub("?", statement).split())


def is_walk(step: str) -> bool:
    """Whether a step of a plan takes longer the more rows there are of a user or in all."""
    words = step.split()
    return (words[:1] == ["SCAN"] and words[1] in GROWS) or "credit_transactions_by_user (" in step
