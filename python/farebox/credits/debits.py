"""Debits that meet leased money: they claim it, wait for workers to give it back, and give up in time.

Promises: the debit happens once, whole, or not at all; its claim ends with it, also when this process dies
(`ends_ms`, the writer's sweep); nobody is made to wait for money that is not there. Debits that may be taken
in parts (refunds, disputes) need none of this: `Event.claims` books what is there and leaves a claim.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from farebox.base import limits
from farebox.base.clock import monotonic_s, wall_ms
from farebox.base.records import Claim
from farebox.ledger.lots import is_expired
from farebox.store.base import EventResult, Store

_AGAIN_S: Final = 0.1
_OUTLIVES_S: Final = 10.0


async def debit(
    store: Store,
    user: str,
    claim: Claim,
    attempt: Callable[[], Awaitable[EventResult]],
    wait_s: float = limits.lease_wait_s,
) -> EventResult:
    """Try a debit; while the money is leased, claim it and try again for at most `wait_s`.

    `claim` has the reference of the debit's rows; its times are set here.
    """
    result = await attempt()
    if result is not EventResult.SHORT or not await _is_there(store, user, claim):
        return result
    now_ms = wall_ms()
    ends_ms = now_ms + int(1000 * (wait_s + _OUTLIVES_S))
    if not await store.set_claim(user, replace(claim, since_ms=now_ms, ends_ms=ends_ms)):
        return EventResult.UNKNOWN_USER
    deadline_s = monotonic_s() + wait_s
    try:
        while result is EventResult.SHORT and monotonic_s() < deadline_s:
            await asyncio.sleep(_AGAIN_S)
            result = await attempt()
    finally:
        if result is EventResult.SHORT:
            await store.drop_claim(user, claim.reference)
    return result


async def _is_there(store: Store, user: str, claim: Claim) -> bool:
    """Whether the pool has as much unexpired money, leased or not, as is asked for."""
    account = await store.account(user)
    if account is None:
        return False
    left = [lot for lot in account.lots if lot.pool == claim.pool]
    now_ms = wall_ms()
    return claim.amount_pico <= sum(
        lot.left_pico for lot in left if not is_expired(lot.expires_at_ms, now_ms)
    )
