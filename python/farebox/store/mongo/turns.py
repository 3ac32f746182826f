"""Turns of one process: calls about the same user wait for each other, so that only other hosts conflict.

"Own-host grants for a user wait for his transaction" (MONEY section 4). Promises: names are taken in one
order, so nobody waits in a circle; a wait is bounded; nothing is kept of a user nobody works on.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from farebox.base import limits
from farebox.base.errors import StoreDownError


class Turns:
    """One lock for each user who is being worked on."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def of(self, users: Iterable[str]) -> AsyncIterator[None]:
        """Wait until these users are free. Raises StoreDownError when that takes too long."""
        names = sorted(set(users))
        for name in names:
            self._users[name] = self._users.get(name, 0) + 1
            self._locks.setdefault(name, asyncio.Lock())
        held: list[str] = []
        try:
            async with asyncio.timeout(limits.store_timeout_s):
                for name in names:
                    await self._locks[name].acquire()
                    held.append(name)
        except TimeoutError:
            self._let_go(names, held)
            raise StoreDownError("calls for the same user wait for the store; try again") from None
        except BaseException:
            self._let_go(names, held)
            raise
        try:
            yield
        finally:
            self._let_go(names, held)

    def _let_go(self, names: Iterable[str], held: Iterable[str]) -> None:
        for name in held:
            self._locks[name].release()
        for name in names:
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name], self._locks[name]
