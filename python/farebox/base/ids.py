"""Ids: made here, checked here, safe as field paths, file names and header values (lower-case hex only)."""

import os
import re

_JOURNAL_ID = re.compile(r"[0-9a-f]{16}")
_USER_NAME = re.compile(r"[a-z0-9_-]{3,50}")
_POSITION_BITS = 40
_LAST_DIGITS_BITS = 12
_LAST_DIGITS_MASK = (1 << _LAST_DIGITS_BITS) - 1
_LAST_DIGITS = [f"{number:03x}" for number in range(1 << _LAST_DIGITS_BITS)]
"""Made once: formatting numbers is dear, and an id is made for every request."""


def new_journal_id() -> str:
    """16 random hex digits: the name of a journal directory, never reused (MONEY section 1)."""
    return os.urandom(8).hex()


def is_journal_id(text: str) -> bool:
    """Whether `text` is a journal id."""
    return _JOURNAL_ID.fullmatch(text) is not None


def is_user_name(text: str) -> bool:
    """Whether `text` may name a user: 3 to 50 of a-z, 0-9, underscore and hyphen."""
    return _USER_NAME.fullmatch(text) is not None


def position(epoch: int, number: int) -> int:
    """Journal position: rises over the life of a journal and is never reused, also after power loss."""
    return (epoch << _POSITION_BITS) | number


def epoch_of(pos: int) -> int:
    """The epoch a position belongs to."""
    return pos >> _POSITION_BITS


class ExchangeIds:
    """Source of exchange ids of one process: 12 hex of milliseconds, 10 of process, 10 of a counter.

    Sortable by time, unique without coordination: the process part is random, the counter never wraps in
    practice.
    """

    __slots__ = ("_beginning", "_begun_ms", "_next", "_process")

    def __init__(self) -> None:
        self._process = os.urandom(5).hex()
        self._next = 0
        self._begun_ms = -1
        self._beginning = ""
        """All but the last digits of ids of that millisecond."""

    def new(self, now_ms: int) -> str:
        """A fresh id, 32 hex digits."""
        self._next += 1
        last = self._next & _LAST_DIGITS_MASK
        if now_ms != self._begun_ms or not last:
            self._begun_ms = now_ms
            number = self._next >> _LAST_DIGITS_BITS
            self._beginning = "%012x%s%07x" % (now_ms, self._process, number)  # noqa: UP031 - compiled, the faster
        return self._beginning + _LAST_DIGITS[last]


def new_lot_id() -> str:
    """A fresh lot id, 24 hex digits."""
    return os.urandom(12).hex()
