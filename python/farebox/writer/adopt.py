"""A journal that no worker takes: recovered, applied to the end, retired and put out of the way.

Promises: nothing is retired before everything it holds is booked or parked; killed at any point, doing it
again does what is left; the directory is renamed, not deleted (an operator may look at it).
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from farebox.base import clock, limits
from farebox.journal import open_journal
from farebox.store.base import Store
from farebox.writer.recovery import recover

RETIRED_SUFFIX = ".retired"
"""Makes a directory's name no journal id, so that nobody takes or reads it any more."""


async def adopt(
    directory: Path, store: Store, host: str, *, wall_ms: Callable[[], int] = clock.wall_ms
) -> bool:
    """Bring an unlocked journal to its end; False when it was not applied in time (do it again later).

    This host's writer must run meanwhile. Raises JournalLockedError when somebody has taken it,
    JournalDamagedError and StoreRefusedError when an operator must look, other FaultErrors to be tried again.
    """
    journal = open_journal(directory)
    loop = asyncio.get_running_loop()
    try:
        recovered = await recover(
            journal,
            store,
            now_ms=wall_ms(),
            host=host,
            schedule=loop.call_soon,
            wake=loop.call_soon_threadsafe,
        )
        if not await _is_applied(journal.id, recovered.last_pos, store):
            return False
        await store.end_journal(journal.id, "retired")
        _put_away(directory)
        return True
    finally:
        journal.close()


def _put_away(directory: Path) -> None:
    directory.rename(directory.with_name(directory.name + RETIRED_SUFFIX))


async def _is_applied(journal: str, last_pos: int, store: Store) -> bool:
    """Wait until the store has everything the journal recorded; False after `adopt_wait_s`."""
    deadline_s = clock.monotonic_s() + limits.adopt_wait_s
    while clock.monotonic_s() < deadline_s:
        states = {state.journal: state for state in await store.journal_states()}
        if states[journal].applied >= last_pos:
            return True
        await asyncio.sleep(limits.apply_interval_s)
    return False
