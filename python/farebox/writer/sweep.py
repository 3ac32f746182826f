"""What the writer tidies between bookings: claims, expired lots, old request logs and sessions.

Promises: only unleased money of a lot past its expiry is taken, once (`ledger` names the rows, the store
books them as an event); an account that changed meanwhile is left for the next sweep. Nothing here is needed
for correct balances: grants and purchases look at expiry themselves. A claim outlives whoever made it: every
host's writer goes on collecting what is there (hole 51).
"""

import logging

from farebox.base import limits
from farebox.base.errors import InvariantBrokenError
from farebox.ledger.settlement import expiry_rows
from farebox.store.base import SESSION_STATUSES, Event, EventResult, Store

_log = logging.getLogger(__name__)
_DAY_MS = 86_400_000


async def sweep_expired_lots(store: Store, now_ms: int) -> int:
    """Take what has expired from every account; how many lots went.

    Whatever an event does, everything that is due of its user goes first: so one lot asks for all. Rows that
    another host booked a moment ago, by a clock of its own, may be some of these: they are no contradiction.
    """
    swept = 0
    async for account in store.accounts():
        rows = expiry_rows(account, now_ms)
        if not rows or account.parked is not None:
            continue
        result = await store.apply_event(Event(rows=rows[:1], source="expiry"), now_ms)
        if result is EventResult.DONE:
            swept += len(rows)
            _log.info("%s: %d expired lots swept", account.user, len(rows))
    return swept


class Claims:
    """All claims, a page a round, again and again: those that stand for long keep nobody from his turn."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._after = ("", "")

    async def collect_some(self, now_ms: int) -> int:
        """Take what the next claims can reach now, and end those that are over; how many ended.

        One at which something is wrong is logged and left; raises FaultError.
        """
        found = await self._store.claims(limits.claims_per_round_max, self._after)
        ended = 0
        for user, claim in found:
            self._after = (user, claim.reference)
            try:
                left_pico = await self._store.collect(user, claim.reference, now_ms)
            except InvariantBrokenError:
                _log.exception("%s: claim %s cannot be collected", user, claim.reference)
                continue
            if left_pico is None:
                ended += 1
                _log.info("%s: claim %s has ended", user, claim.reference)
        if len(found) < limits.claims_per_round_max:
            self._after = ("", "")
        return ended


async def expire_request_logs(store: Store, now_ms: int) -> int:
    """Delete request-log rows older than their TTL; how many went."""
    before_ms = now_ms - limits.request_log_ttl_days * _DAY_MS
    total = 0
    while True:
        deleted = await store.expire_logs(before_ms, limits.records_per_batch_max)
        total += deleted
        if deleted < limits.records_per_batch_max:
            return total


async def expire_sessions(store: Store, now_ms: int) -> int:
    """Delete browsers' sessions whose time is over, ended or not; how many went."""
    total = 0
    for status in SESSION_STATUSES:
        while deleted := await store.expire_records("session", status, now_ms, limits.records_page_max):
            total += deleted
    return total


async def adopt_request_logs(store: Store) -> None:
    """Bring rows the replaced system left in this store into the rollups, before they expire."""
    while await store.adopt_logs(limits.import_logs_per_transaction_max):
        pass
