"""A flame graph of folded stacks as one SVG file: no script, no address of anybody else. Pure.

Folded stacks are lines of `outermost;...;innermost COUNT`, as py-spy and perf's tools write them. The width
of a box is its share of all samples, boxes stand on their callers, and each tells its name and share when
pointed at. What is narrower than a pixel is left out.
"""

from dataclasses import dataclass, field
from html import escape
from zlib import crc32

WIDTH = 1600
_ROW = 17
_TOP = 34
_LETTER = 6.6
_HUES = {"": (20, 45), "_meter": (200, 40), "libc": (260, 25), "[kernel": (0, 0)}
"""By a mark in the name: hue and saturation; Python and everything else first."""


@dataclass(slots=True)
class Frame:
    """One function under one chain of callers."""

    name: str
    count: int = 0
    callees: "dict[str, Frame]" = field(default_factory=dict)


def tree(folded: str) -> Frame:
    """All stacks as one tree. Lines that end in no number are skipped."""
    root = Frame("all")
    for line in folded.splitlines():
        stack, _, number = line.rpartition(" ")
        if not stack or not number.isdigit():
            continue
        root.count += int(number)
        frame = root
        for name in stack.split(";"):
            frame = frame.callees.setdefault(name, Frame(name))
            frame.count += int(number)
    return root


def draw(root: Frame, title: str) -> str:
    """The whole document."""
    boxes: list[str] = []
    deepest = _boxes(root, 0.0, 0, WIDTH / root.count if root.count else 0.0, root.count, boxes)
    height = _TOP + (deepest + 1) * _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' font-family="monospace" font-size="11">\n<title>{escape(title)}</title>\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        f'<text x="8" y="20" font-size="14">{escape(title)}: {root.count:,} samples</text>\n'
        + "\n".join(boxes)
        + "\n</svg>\n"
    )


def _boxes(frame: Frame, x: float, depth: int, each: float, total: int, boxes: list[str]) -> int:
    """Add the box of a frame and those above it; the depth they reach."""
    width = frame.count * each
    if width < 1:
        return depth
    y = _TOP + depth * _ROW
    letters = int((width - 6) / _LETTER)
    shown = frame.name if len(frame.name) <= letters else frame.name[: max(0, letters - 1)] + "…"
    label = f'<text x="{x + 3:.1f}" y="{y + 12}">{escape(shown)}</text>' if letters > 2 else ""
    boxes.append(
        f"<g><title>{escape(frame.name)}: {frame.count:,} samples, {frame.count / total:.1%}</title>"
        f'<rect x="{x:.1f}" y="{y}" width="{max(0.5, width - 0.5):.1f}" height="{_ROW - 1}"'
        f' fill="{_colour(frame.name)}"/>{label}</g>'
    )
    deepest = depth
    for callee in sorted(frame.callees.values(), key=lambda one: -one.count):
        deepest = max(deepest, _boxes(callee, x, depth + 1, each, total, boxes))
        x += callee.count * each
    return deepest


def _colour(name: str) -> str:
    hue, saturation = next((_HUES[mark] for mark in _HUES if mark and mark in name), _HUES[""])
    lightness = 62 + crc32(name.encode()) % 18
    return f"hsl({hue},{saturation + 20}%,{lightness}%)"
