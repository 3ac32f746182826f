"""What every source of the replaced system's data offers."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

Document = dict[str, Any]
"""Field -> str, bool, int, float, Decimal, aware datetime, list, dict or None."""


class Unreadable(NamedTuple):
    """A document that is damaged: where it lies and what is wrong with it."""

    place: str
    reason: str


class LegacySource(Protocol):
    """Collections of documents. `size` and the progress beside each document have the same unit."""

    name: str
    """For people; it holds no credential."""

    def size(self, collection: str) -> int:
        """How much there is to read; 0: no such collection."""

    def documents(self, collection: str) -> Iterator[tuple[Document | Unreadable, int]]:
        """Every document, with how far the reading has come. Raises UsageError where it cannot go on."""

    def close(self) -> None:
        """Release everything."""
