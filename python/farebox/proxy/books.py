"""The price versions a worker knows: the current book of each service, and older ones that exchanges still
use.

An exchange finishes on the version it started with. Before a version is first used its book is written to the
journal, so that recovery never needs the store to price what was cut off (hole 31).
"""

from collections.abc import Callable, Mapping

import orjson

from farebox.base import frames
from farebox.journal.payloads import prices_payload
from farebox.meter import ModelPrice, PriceBook, to_plain

_BOOKS_MAX = 64


class Books:
    """Compiled price books by version."""

    def __init__(self, append: Callable[[int, bytes, None], None]) -> None:
        self._append = append
        self._books: dict[int, PriceBook] = {}
        self._recorded: set[int] = set()
        self._names: dict[int, Mapping[str, str]] = {}

    def add(self, book: PriceBook, names: Mapping[str, str]) -> None:
        """Make a version usable. `names`: every other name of a model (alias, upstream id) -> its id in the
        book.
        """
        self._books[book.version] = book
        self._names[book.version] = names
        while len(self._books) > _BOOKS_MAX:
            oldest = next(iter(self._books))
            del self._books[oldest], self._names[oldest]

    def record(self, version: int) -> None:
        """Write a version to the journal before its first use. Raises the journal's errors."""
        if version not in self._recorded:
            self._append(
                frames.PRICES, prices_payload(version, orjson.dumps(to_plain(self._books[version]))), None
            )
            self._recorded.add(version)

    def find(self, version: int, name: str) -> tuple[str, ModelPrice] | None:
        """A model's id and prices in a version, by id, alias or upstream id."""
        book = self._books.get(version)
        if book is None:
            return None
        model = name if name in book.models else self._names[version].get(name, "")
        price = book.models.get(model)
        return None if price is None else (model, price)
