"""What one worker remembers of one user's money: his lease, who waits for it, what is not booked yet.

Plain state of `Leases` and its parts, which alone change it; nothing here asks or awaits. Amounts are
pico-USD, times are the event loop's seconds.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

from farebox.base.records import LotAmount
from farebox.ledger.user_lease import Hold, UserLease

AHEAD_HOLDS = 16
"""Holds leased ahead of a user who has just begun."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a hold could not be had.

    reason: short, expired, inactive, parked, quarantined, unknown, written_off, crowded, down.
    """

    reason: str
    remaining_pico: int = 0
    held_pico: int = 0


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that waits for its hold, at most until `deadline_s`."""

    amount_pico: int
    deadline_s: float
    future: asyncio.Future[Hold | Shortage]


class Queue:
    """Those who wait for money of one wallet of one user, first come first served. There while anybody waits.

    `short_until_s`: the store had too little just now and need not be asked again before. `changed`: look
    again.
    """

    __slots__ = ("changed", "pump", "short_until_s", "waiters", "wallet")

    def __init__(self, wallet: str) -> None:
        self.wallet = wallet
        self.waiters: deque[Waiter] = deque()
        self.changed = asyncio.Event()
        self.pump: asyncio.Task[None] | None = None
        self.short_until_s = 0.0

    def queued_pico(self) -> int:
        """What all who wait ask for."""
        return sum(waiter.amount_pico for waiter in self.waiters)

    def refuse(self, waiter: Waiter, shortage: Shortage) -> None:
        """End one wait without money."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)
        if not waiter.future.done():
            waiter.future.set_result(shortage)

    def refuse_all(self, shortage: Shortage) -> None:
        """End every wait without money."""
        for waiter in list(self.waiters):
            self.refuse(waiter, shortage)


class Unbooked:
    """A settlement that left the lease and that the store has not booked, as far as known.

    `charge_pico` is what the wallet loses when it is booked: takes and uncovered part. `remaining_pico` is
    the wallet's balance after it as far as this worker knows; for people, never for decisions.
    """

    __slots__ = ("charge_pico", "exchange", "remaining_pico", "takes", "uncovered_pico", "wallet")

    def __init__(
        self,
        exchange: str,
        wallet: str,
        takes: tuple[LotAmount, ...],
        uncovered_pico: int,
        charge_pico: int,
        remaining_pico: int | None = None,
    ) -> None:
        self.exchange = exchange
        self.wallet = wallet
        self.takes = takes
        self.uncovered_pico = uncovered_pico
        self.charge_pico = charge_pico
        self.remaining_pico = remaining_pico


class UserMoney:
    """One user's money in this worker.

    `known`: the lease in memory is what the store has, less `unbooked`; else it must be fenced before use.
    `in_doubt`: it must be fenced before the next call, because an answer is missing. Money in memory may be
    used all the same: a grant is added after its answer, a return subtracted before its call.
    `distrusted` counts the doubts raised, so that one raised during a fence outlives it. `doubtful`: the
    fence may have counted too little as free. `settled_meanwhile` gathers what is settled while a fence runs.
    `unwritten_count` settlements and voids are not in the journal yet, the others are up to `freed_pos`.
    `ahead_holds` is how many holds were leased ahead at `refilled_s`, the last time. `remaining_pico` is each
    wallet's balance, `available_pico` what nobody had leased when last seen. `queues` are there while
    somebody waits, by wallet: a dry wallet holds up no other. Others were last asked for this money at
    `wanted_s` (0: they need not give), and have asked for it until `recalled_until_s`.
    """

    __slots__ = (
        "ahead_holds",
        "available_pico",
        "barred",
        "distrusted",
        "doubtful",
        "freed_pos",
        "in_doubt",
        "known",
        "lease",
        "lock",
        "queues",
        "recalled_until_s",
        "refill",
        "refilled_s",
        "remaining_pico",
        "returning",
        "settled_meanwhile",
        "unbooked",
        "unwritten_count",
        "used_s",
        "user",
        "wanted_s",
    )

    def __init__(self, user: str, now_s: float) -> None:
        self.user = user
        self.lease = UserLease()
        self.known = True
        self.in_doubt = False
        self.barred = ""
        self.distrusted = 0
        self.doubtful = False
        self.lock = asyncio.Lock()
        self.queues: dict[str, Queue] = {}
        self.refill: asyncio.Task[None] | None = None
        self.returning: asyncio.Task[None] | None = None
        self.unbooked: deque[Unbooked] = deque()
        self.settled_meanwhile: list[Unbooked] | None = None
        self.used_s = now_s
        self.ahead_holds = AHEAD_HOLDS
        self.refilled_s = now_s
        self.freed_pos = 0
        self.unwritten_count = 0
        self.available_pico: dict[str, int] = {}
        self.remaining_pico: dict[str, int] = {}
        self.recalled_until_s = 0.0
        self.wanted_s = 0.0

    def left(self, record: Unbooked) -> None:
        """A settlement has left the lease; it is neither in the journal nor booked yet."""
        self.unbooked.append(record)
        self.unwritten_count += 1
        if self.settled_meanwhile is not None:
            self.settled_meanwhile.append(record)

    def mistrust(self) -> None:
        """The lease in memory may not be what the store has: fence before the next use."""
        self.distrusted += 1
        self.known = False
        self.in_doubt = True

    def serve(self, now_ms: int) -> None:
        """Give holds to those who wait, in order, while the first one's fits."""
        if not self.known or self.barred:
            return
        for queue in self.queues.values():
            self._serve(queue, now_ms)

    def _serve(self, queue: Queue, now_ms: int) -> None:
        waiters = queue.waiters
        while waiters:
            waiter = waiters[0]
            if not waiter.future.done():
                hold = self.lease.hold(queue.wallet, waiter.amount_pico, now_ms)
                if hold is None:
                    return
                waiter.future.set_result(hold)
            waiters.popleft()

    def wake(self) -> None:
        """Something has changed: those who wait look again."""
        for queue in self.queues.values():
            queue.changed.set()

    def ask_again(self) -> None:
        """Money may have come to the store: what it said last is old, those who wait ask now."""
        self.available_pico.clear()
        for queue in self.queues.values():
            queue.short_until_s = 0.0
            queue.changed.set()

    def shortage(self, wallet: str, reason: str) -> Shortage:
        """What to tell somebody who gets no hold."""
        return Shortage(reason, self.remaining_pico.get(wallet, 0), self.lease.held_pico(wallet))
