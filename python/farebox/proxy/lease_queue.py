"""Waiting for money: requests of one wallet wait in order while money is granted, given back by others, or
freed by exchanges that end, at most `lease_wait_s` (MONEY section 6).

Each wallet of a user that somebody waits for has a queue with one task that serves it, so that a dry wallet
holds up no other. A request that asks for more than the wallet has is refused at once.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from farebox.base import limits
from farebox.ledger.user_lease import Hold
from farebox.proxy.lease_calls import LeaseCalls
from farebox.proxy.user_money import Queue, Shortage, UserMoney, Waiter

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]

_RECHECK_S = 0.1
_STORE_SILENT_S = 1.0
"""How much longer than `lease_wait_s` a request waits where the store says nothing."""


class LeaseQueues:
    """The queues of one journal. Belongs to one event loop."""

    def __init__(
        self,
        calls: LeaseCalls,
        loop: asyncio.AbstractEventLoop,
        spawn: Spawn,
        *,
        wait_s: float,
        wall_ms: Callable[[], int],
        count: Callable[[str], None],
    ) -> None:
        self._calls = calls
        self._loop = loop
        self._spawn = spawn
        self._wait_s = wait_s
        self._wall_ms = wall_ms
        self._count = count
        self._closing = False

    def close(self) -> None:
        """Nobody may wait any more."""
        self._closing = True

    async def join(self, money: UserMoney, wallet: str, amount_pico: int) -> Hold | Shortage:
        """Wait for a hold; a caller that stops waiting loses nothing."""
        queue = money.queues.get(wallet)
        if queue is None:
            queue = money.queues[wallet] = Queue(wallet)
        elif len(queue.waiters) >= limits.lease_waiters_per_user_max:
            return Shortage("crowded")
        future: asyncio.Future[Hold | Shortage] = self._loop.create_future()
        waiter = Waiter(amount_pico, self._loop.time() + self._wait_s, future)
        queue.waiters.append(waiter)
        if queue.pump is None:
            queue.pump = self._spawn(self._pump(money, queue))
        silent_at_s = waiter.deadline_s + _STORE_SILENT_S
        silence = self._loop.call_at(silent_at_s, queue.refuse, waiter, Shortage("down"))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and isinstance(future.result(), Hold):
                money.lease.void(future.result())  # type: ignore[arg-type]
                money.serve(self._wall_ms())
                money.wake()
            raise
        finally:
            silence.cancel()

    async def _pump(self, money: UserMoney, queue: Queue) -> None:
        """Serve one queue until it is empty."""
        try:
            while queue.waiters and not self._closing:
                queue.changed.clear()
                money.serve(self._wall_ms())
                if queue.waiters:
                    await self._attend(money, queue, queue.waiters[0])
        finally:
            queue.refuse_all(Shortage("down"))
            del money.queues[queue.wallet]
        if not money.queues:
            await self._calls.want(money, False)

    async def _attend(self, money: UserMoney, queue: Queue, head: Waiter) -> None:
        """One attempt for the first that waits: money, a refusal, or a wait for something to change."""
        shortage = await self._calls.obtain(money, queue, head.amount_pico)
        is_late = head.deadline_s <= self._loop.time()
        if shortage is None:
            money.serve(self._wall_ms())
            if is_late:
                queue.refuse(head, Shortage("down"))
        elif shortage.reason != "short" or is_late or shortage.remaining_pico < head.amount_pico:
            queue.refuse(head, shortage)
        else:
            await self._wait_for_change(money, queue, head)

    async def _wait_for_change(self, money: UserMoney, queue: Queue, head: Waiter) -> None:
        self._count("lease_waits_total")
        await self._calls.want(money, True)
        wait_s = min(_RECHECK_S, max(0.0, head.deadline_s - self._loop.time()))
        try:
            async with asyncio.timeout(wait_s):
                await queue.changed.wait()
        except TimeoutError:
            return
