"""Charts as inline SVG: bars side by side, and lines. Pure; every number also stands in a table of the page.

Colours come from the page's style sheet by the number of the series (`.s0`, `.s1`, ...), and each bar and
line carries its text, so nothing is told by colour alone.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH = 720
_LABEL = 190
_BAR = 16
_GAP = 14
_PLOT_HEIGHT = 220
_LEFT, _BOTTOM = 70, 28


def figure(title: str, drawing: str, names: Sequence[str]) -> str:
    """A drawing with its title and the names of its series."""
    legend = "".join(
        f'<span class="key"><i class="s{number}"></i>{escape(name)}</span>'
        for number, name in enumerate(names)
    )
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawing}<p>{legend}</p></figure>"


def bars(title: str, unit: str, groups: Mapping[str, Sequence[float | None]], names: Sequence[str]) -> str:
    """Horizontal bars, one for each name in each group; a value that is missing leaves its row empty."""
    most = max((value for values in groups.values() for value in values if value is not None), default=0.0)
    parts = []
    y = 4
    for label, values in groups.items():
        middle = y + len(values) * _BAR / 2 + 4
        parts.append(f'<text x="{_LABEL - 8}" y="{middle:.0f}" text-anchor="end">{escape(label)}</text>')
        for number, value in enumerate(values):
            if value is not None:
                parts.append(_bar(y, value, most, f"{number_text(value)} {unit}", names[number], number))
            y += _BAR
        y += _GAP
    return figure(title, _svg(y, parts), names)


def _bar(y: int, value: float, most: float, says: str, name: str, number: int) -> str:
    width = max(1.0, value / most * (WIDTH - _LABEL - 110)) if most else 1.0
    return (
        f'<rect class="s{number}" x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR - 3}">'
        f"<title>{escape(name)}: {escape(says)}</title></rect>"
        f'<text x="{_LABEL + width + 5:.1f}" y="{y + _BAR - 5}">{escape(says)}</text>'
    )


def lines(
    title: str,
    unit: str,
    steps: Sequence[str],
    values: Mapping[str, Sequence[float]],
    *,
    logarithmic: bool = False,
) -> str:
    """A line for each name over the same steps; from zero, or with a logarithmic scale."""
    every = [value for line in values.values() for value in line if value > 0]
    if not every or len(steps) < 2:
        return ""
    scale = _Scale(min(every), max(every), logarithmic=logarithmic)
    parts = [_grid(share, f"{number_text(value)} {unit}") for share, value in scale.marks]
    for number, (name, line) in enumerate(values.items()):
        points = [
            (_LEFT + (WIDTH - _LEFT - 20) * at / (len(steps) - 1), _down(scale.share(value)))
            for at, value in enumerate(line)
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="s{number}" points="{path}"><title>{escape(name)}</title></polyline>')
    parts += _step_labels(steps)
    return figure(title, _svg(_PLOT_HEIGHT + _BOTTOM, parts), list(values))


class _Scale:
    """Where a value stands between the bottom (0) and the top (1), and some marks."""

    def __init__(self, low: float, high: float, *, logarithmic: bool) -> None:
        self._low, self._high, self._is_logarithmic = low, max(high, 1.01 * low), logarithmic
        self.marks = [(share, self._value(share)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]

    def share(self, value: float) -> float:
        if not self._is_logarithmic:
            return value / self._high
        return math.log(max(value, self._low) / self._low) / math.log(self._high / self._low)

    def _value(self, share: float) -> float:
        if not self._is_logarithmic:
            return share * self._high
        return float(self._low * (self._high / self._low) ** share)


def _down(share: float) -> float:
    return 10 + (_PLOT_HEIGHT - 20) * (1 - share)


def _grid(share: float, says: str) -> str:
    y = _down(share)
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(says)}</text>'
    )


def _step_labels(steps: Sequence[str]) -> list[str]:
    """The first, the last, and a few between."""
    shown = sorted({round(part * (len(steps) - 1) / 5) for part in range(6)})
    return [
        f'<text x="{_LEFT + (WIDTH - _LEFT - 20) * at / (len(steps) - 1):.0f}" y="{_PLOT_HEIGHT + 16}"'
        f' text-anchor="middle">{escape(steps[at])}</text>'
        for at in shown
    ]


def _svg(height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">{"".join(parts)}</svg>'


def number_text(value: float) -> str:
    """A number short enough for a label: three figures, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
