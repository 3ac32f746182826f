"""How long commands show that they are getting on: a bar on a terminal, a line now and then elsewhere.

All of it goes to standard error, so that what a command answers can be piped.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

OnProgress = Callable[[str, int, int], None]

_LINES: Final = 4
"""Without a terminal: so many lines for each thing that is read, and one at its start."""


@contextmanager
def progress() -> Iterator[OnProgress]:
    """A function of (what, done, total) that shows it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        yield _Bars(bars)


class _Bars:
    """One bar for each thing; told very often, it draws when it likes."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        task = self._tasks.get(what)
        if task is None:
            task = self._tasks[what] = self._bars.add_task(what, total=total or None)
        self._bars.update(task, completed=done, total=total or None)


class _Lines:
    """A line at each quarter of each thing."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        part = _LINES * done // total if total else 0
        if part > self._said.get(what, -1):
            self._said[what] = part
            self._console.print(f"{what}: {100 * part // _LINES} %", markup=False, highlight=False)
