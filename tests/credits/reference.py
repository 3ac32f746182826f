"""What users must have after money events, worked out the plain way: lots in a list, one event at a time.

Shares no code with Farebox. Expiry, spending order and the rules of transfers, renewals and refunds are those
of docs/CREDITS.md.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from fractions import Fraction

SPENT_FROM = {"ohmygpt": ["credits", "refCredits"], "subscription": ["credits_permanent", "credits_monthly"]}


@dataclass
class Part:
    """Some credit of one origin."""

    pool: str
    left: int
    ends: int | None
    origin: str


@dataclass
class World:
    """All users' credit; every method is one event, False when it cannot happen."""

    now: int
    users: dict[str, list[Part]] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    """When the newest period of each subscription ends."""

    def copy(self) -> "World":
        return deepcopy(self)

    def tick(self, now: int) -> None:
        self.now = now
        for user, parts in self.users.items():
            self.users[user] = [part for part in parts if part.ends is None or part.ends > now]

    def balances(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for user, parts in self.users.items():
            for part in parts:
                found[user, part.pool] = found.get((user, part.pool), 0) + part.left
        return {where: amount for where, amount in found.items() if amount}

    def put(self, user: str, pool: str, amount: int, ends: int | None, origin: str) -> bool:
        if ends is None or ends > self.now:
            self.users[user].append(Part(pool, amount, ends, origin))
        return True

    def take(self, user: str, pools: list[str], amount: int) -> list[Part] | None:
        """Pool by pool, what ends first first; all or nothing. The parts taken."""
        mine = [part for pool in pools for part in self._in_order(user, pool)]
        if sum(part.left for part in mine) < amount:
            return None
        taken = []
        for part in mine:
            share = min(part.left, amount)
            part.left -= share
            amount -= share
            if share:
                taken.append(Part(part.pool, share, part.ends, part.origin))
        return taken

    def spend(self, user: str, wallet: str, amount: int) -> bool:
        return self.take(user, SPENT_FROM[wallet], amount) is not None

    def transfer(self, user: str, pool: str, to: str, to_pool: str, amount: int, rate: Fraction) -> bool:
        taken = self.take(user, [pool], amount)
        if taken is None:
            return False
        ends = min((part.ends for part in taken if part.ends is not None), default=None)
        return self.put(to, to_pool, round(amount * rate), ends, "transfer")

    def renew(self, user: str, subscription: str, amount: int, resets: bool, ends: int) -> bool:
        is_late = ends < self.newest.get(subscription, ends)
        ends = self.newest[subscription] = max(ends, self.newest.get(subscription, ends))
        if resets and not is_late:
            for part in self.users[user]:
                ours = not part.origin.startswith("sub") or part.origin == subscription
                if part.pool == "credits_monthly" and ours:
                    part.left = 0
        return self.put(user, "credits_monthly", amount, ends if resets else None, subscription)

    def refund(self, user: str, origin: str) -> bool:
        for part in self.users[user]:
            if part.origin == origin:
                part.left = 0
        return True

    def _in_order(self, user: str, pool: str) -> list[Part]:
        mine = [part for part in self.users[user] if part.pool == pool]
        return sorted(mine, key=lambda part: (part.ends is None, part.ends or 0, part.origin))
