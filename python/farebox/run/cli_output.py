"""How commands answer: one JSON line for programs, or text and tables for people. Nothing else is printed."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from farebox.base.units import usd_from_pico

_PIPED_WIDTH = 160


def console(width: int | None = None) -> Console:
    """Standard output; as wide as the terminal, or wide enough for any table where there is none."""
    found = Console(width=width, highlight=False, soft_wrap=False)
    return found if width or found.is_terminal else Console(width=_PIPED_WIDTH, highlight=False)


def answer(document: Mapping[str, Any] | Sequence[Any], as_json: bool, *people: Table | str) -> None:
    """Print `document` as one JSON line, or what was made of it for people."""
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(document, default=str) + b"\n")
        sys.stdout.buffer.flush()
        return
    out = console()
    for part in people:
        out.print(part, markup=False) if isinstance(part, str) else out.print(part)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()
) -> Table:
    """A plain table; columns named in `right` are numbers."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*("" if cell is None else str(cell) for cell in row))
    return made


def usd(amount_pico: int) -> str:
    """An exact amount for people."""
    return f"{usd_from_pico(amount_pico)} USD"
