"""What one worker remembers of one user's money: his lease, who waits for it, what is not booked yet.

Plain state of `Leases`, which alone changes it. Amounts are pico-USD, times are the event loop's seconds.
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

    wallet: str
    amount_pico: int
    deadline_s: float
    future: asyncio.Future[Hold | Shortage]


@dataclass(slots=True, eq=False)
class Unbooked:
    """A settlement that left the lease and that the store has not booked, as far as known."""

    exchange: str
    wallet: str
    takes: tuple[LotAmount, ...]
    uncovered_pico: int
    charge_pico: int
    """What the wallet loses when it is booked: takes and uncovered part."""


class UserMoney:
    """One user's money in this worker.

    `known`: the lease in memory is what the store has, less `unbooked`; else it must be fenced before use.
    `distrusted` counts the doubts raised, so that one raised during a fence outlives it. `doubtful`: the
    fence may have counted too little as free. `settled_meanwhile` gathers what is settled while a fence runs.
    `unwritten_count` settlements and voids are not in the journal yet, the others are up to `freed_pos`.
    `ahead_holds` is how many holds to lease ahead; it grows while `refilled_s`, the last time, is not long
    ago. `remaining_pico` is each wallet's balance, `available_pico` what nobody had leased when last seen.
    """

    __slots__ = (
        "ahead_holds",
        "available_pico",
        "barred",
        "changed",
        "distrusted",
        "doubtful",
        "freed_pos",
        "known",
        "lease",
        "lock",
        "pump",
        "recalled_until_s",
        "refill",
        "refilled_s",
        "remaining_pico",
        "returning",
        "settled_meanwhile",
        "short_until_s",
        "unbooked",
        "unwritten_count",
        "used_s",
        "user",
        "waiters",
        "wanted",
    )

    def __init__(self, user: str, now_s: float) -> None:
        self.user = user
        self.lease = UserLease()
        self.known = True
        self.barred = ""
        self.distrusted = 0
        self.doubtful = False
        self.lock = asyncio.Lock()
        self.waiters: deque[Waiter] = deque()
        self.changed = asyncio.Event()
        self.pump: asyncio.Task[None] | None = None
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
        self.short_until_s = 0.0
        self.recalled_until_s = 0.0
        self.wanted = False
