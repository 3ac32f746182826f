"""Pages of lists: how long one is, and where it begins, as the answer before it said (`next`)."""

from typing import TypeVar

from farebox.base import limits
from farebox.console.answers import Declined
from farebox.console.routes import Call, whole_number
from farebox.store.base import Record

Item = TypeVar("Item")
_NUMBER_END = 2**63
"""Of numbers a store can hold."""


def page_of(found: list[Item], limit: int) -> tuple[list[Item], Item | None]:
    """A page of what may be longer, and its last item where there is more."""
    page = found[:limit]
    return page, page[-1] if len(found) > limit else None


def limit_of(call: Call) -> int:
    """How many records a page has at most."""
    return max(1, call.number("limit", 50, limits.console_page_max))


def before_of(call: Call) -> tuple[int, str] | None:
    """The place a page begins after, as `next` gave it. Raises Declined."""
    return place_of(call.query.get("before"))


def place_of(text: str | None) -> tuple[int, str] | None:
    """What `place_after` wrote. Raises Declined on anything else."""
    if text is None:
        return None
    created, _, id_ = text.partition(",")
    created_ms = whole_number(created, 16)
    if created_ms is None:
        raise Declined(400, "invalid", "before must be what `next` said")
    return created_ms, id_


def number_of(text: str) -> int | None:
    """The number a page begins before, as `next` gave it; None for the first page. Raises Declined."""
    if not text:
        return None
    found = whole_number(text, 19)
    if found is None or found >= _NUMBER_END:
        raise Declined(400, "invalid", "before must be what `next` said")
    return found


def place_after(record: Record) -> str:
    """The place behind a record, newest first."""
    return f"{record.created_ms},{record.id}"


def next_of(found: list[Record]) -> dict[str, object]:
    """Where the next page begins; null where nothing was found."""
    return {"next": place_after(found[-1]) if found else None}
