"""What the writer tidies between bookings: claims, expired lots, old request logs and sessions.

Promises: only unleased money of a lot past its expiry is taken, once (`ledger` names the rows, the store
books them as an event); an account that changed meanwhile is left for the next sweep. Nothing here is needed
for correct balances: grants and purchases look at expiry themselves. A claim outlives whoever made it: every
host's writer goes on collecting what is there (hole 51).
"""

import logging

from farebox.base import limits
from farebox.ledger.settlement import expiry_rows
from farebox.store.base import SESSION_STATUSES, Event, EventResult, Store

_log = logging.getLogger(__name__)
_DAY_MS = 86_400_000


async def sweep_expired_lots(store: Store, now_ms: int) -> int:
    """Take what has expired from every account; how many lots went."""
    swept = 0
    async for account in store.accounts():
        rows = expiry_rows(account, now_ms)
        if not rows or account.parked is not None:
            continue
        result = await store.apply_event(Event(rows=rows, source="expiry"), now_ms)
        if result is EventResult.DONE:
            swept += len(rows)
            _log.info("%s: %d expired lots swept", account.user, len(rows))
    return swept


async def collect_claims(store: Store, now_ms: int) -> int:
    """Take what claims can reach now, and end those that are over; how many ended."""
    ended = 0
    for user, claim in await store.claims(limits.claims_per_round_max):
        if await store.collect(user, claim.reference, now_ms) is None:
            ended += 1
            _log.info("%s: claim %s has ended", user, claim.reference)
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
