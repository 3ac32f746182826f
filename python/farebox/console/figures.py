"""Counts that only the store knows, read at most every few seconds however often somebody scrapes.

Promises: a store that is slow or away delays a scrape by a bounded time and leaves the last figures standing.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from farebox.base import limits
from farebox.base.clock import monotonic_s
from farebox.base.errors import FaultError
from farebox.store.base import Store


@dataclass(frozen=True, slots=True)
class Known:
    """What waits for somebody; `reviews` counts up to `limits.records_page_max`."""

    reviews: int
    parked: int
    journals: Mapping[str, int]


class Figures:
    """The last figures, and when to read them anew."""

    def __init__(self, store: Store, now_s: Callable[[], float] = monotonic_s) -> None:
        self.known: Known | None = None
        self._store = store
        self._now_s = now_s
        self._asked_s: float | None = None

    async def refresh(self) -> None:
        """Read them, unless somebody did a moment ago."""
        if self._asked_s is not None and self._now_s() - self._asked_s < limits.console_figures_kept_s:
            return
        self._asked_s = self._now_s()
        try:
            async with asyncio.timeout(limits.console_figures_wait_s):
                self.known = await self._read()
        except (FaultError, TimeoutError):
            return

    async def _read(self) -> Known:
        waiting = await self._store.records("payment", status="review", limit=limits.records_page_max)
        states = await self._store.journal_states()
        return Known(len(waiting), len(await self._store.parked()), Counter(one.state for one in states))
