"""Bars over time as plain numbers for an inline SVG: integers in, integer coordinates out. Pure.

Every bar has its own text, and a page shows the same numbers as a table, so nothing is told by shape or by
colour alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 160
"""In units of the drawing, which a page stretches; texts stand beside it, so that they keep their size."""
_BAR_MAX: Final = 48
_GAP: Final = 2
_LABELS: Final = 6


@dataclass(frozen=True, slots=True)
class Bar:
    """One part of one step: `part` numbers its series, `says` is its text."""

    x: int
    y: int
    width: int
    height: int
    part: int
    says: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What a template draws: bars, what the highest stands for, some labels of steps, and all as a table."""

    title: str
    series: tuple[str, ...]
    bars: tuple[Bar, ...]
    labels: tuple[str, ...]
    highest: str
    rows: tuple[tuple[str, ...], ...]
    width: int = WIDTH
    height: int = HEIGHT


def bars(
    title: str,
    series: Sequence[str],
    steps: Sequence[tuple[str, Sequence[int]]],
    says: Callable[[int], str],
) -> Chart:
    """Stacked bars: each step is its label and one value a series, none below 0."""
    most = max((sum(values) for _, values in steps), default=0)
    found: list[Bar] = []
    for number, (label, values) in enumerate(steps):
        begin, end = WIDTH * number // len(steps), WIDTH * (number + 1) // len(steps)
        width = min(max(1, end - begin - _GAP), _BAR_MAX)
        floor = HEIGHT
        for part, value in enumerate(values):
            if not value:
                continue
            height = max(1, value * HEIGHT // most)
            found.append(
                Bar(begin, floor - height, width, height, part, f"{label}: {series[part]} {says(value)}")
            )
            floor -= height
    rows = tuple((label, *map(says, values)) for label, values in steps)
    return Chart(title, tuple(series), tuple(found), _labels(steps), says(most), rows)


def _labels(steps: Sequence[tuple[str, object]]) -> tuple[str, ...]:
    """The first label of each of at most six parts of the span, evenly apart."""
    parts = min(len(steps), _LABELS)
    return tuple(steps[len(steps) * part // parts][0] for part in range(parts))
