"""Tables in Markdown, and the part of a page that is made and not typed."""

from collections.abc import Sequence


def table_lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table, line by line."""
    return [_line(head), "|" + "---|" * len(head), *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def between_markers(page: str, begin: str, end: str, generated: str) -> str:
    """The page with what stands between two markers replaced. Raises ValueError where one is missing."""
    before, found, rest = page.partition(begin)
    _, found_too, after = rest.partition(end)
    if not found or not found_too:
        raise ValueError(f"no {begin} ... {end}")
    return f"{before}{begin}\n{generated}\n{end}{after}"
