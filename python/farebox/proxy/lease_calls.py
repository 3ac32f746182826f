"""What is asked of the store for one user's lease: grant, return, fence (MONEY section 6).

Calls of one user never overlap (`UserMoney.lock`). After any answer but a plain success the lease is fenced
before it is used again: its operation number is raised, so that nothing lost can land later, and its memory
is read anew.
"""

import asyncio
import logging
from collections.abc import Callable

from farebox.base import limits
from farebox.base.errors import FaultError, StoreDownError, StoreRefusedError
from farebox.base.records import Fenced, Grant
from farebox.proxy.user_money import AHEAD_HOLDS, Queue, Shortage, Unbooked, UserMoney
from farebox.store.base import WorkerStore

_log = logging.getLogger("farebox.leases")

_AHEAD_HOLDS_MAX = 65_536
_AHEAD_S = 300.0
"""How long what is leased ahead comes to last, as far as half of what the store has allows: the quarter that
is always there then lasts through an outage of a minute.
"""
_SCARCE_SHARE = 2
_BARRING_REASONS = frozenset(("parked", "inactive", "unknown", "quarantined"))
"""Refusals that are about the account: money leased already may not be used for new exchanges either."""
_AFTER_FAULT_S = 0.02
_AHEAD_AGAIN_S = 0.5
_REFUSED_AGAIN_S = 0.05
_FENCE_ATTEMPTS = 3
_WANT_AGAIN_S = 0.5


def next_ahead_holds(ahead_holds: int, lasted_s: float) -> int:
    """How many holds to lease ahead, the last so many having lasted so long: at most twice as many."""
    wanted = 2 * ahead_holds if 2 * lasted_s <= _AHEAD_S else int(ahead_holds * _AHEAD_S / lasted_s)
    return max(AHEAD_HOLDS, min(wanted, _AHEAD_HOLDS_MAX))


class LeaseCalls:
    """One journal's calls to the store. Belongs to one event loop."""

    def __init__(
        self,
        store: WorkerStore,
        journal: str,
        epoch: int,
        *,
        synced_pos: Callable[[], int],
        wall_ms: Callable[[], int],
        now_s: Callable[[], float],
        written_off_pico_max: int,
        count: Callable[[str], None],
    ) -> None:
        self._store = store
        self._journal = journal
        self._epoch = epoch
        self._synced_pos = synced_pos
        self._wall_ms = wall_ms
        self._now_s = now_s
        self._written_off_pico_max = written_off_pico_max
        self._count = count

    # -- money in --------------------------------------------------------------------------------------------
    async def obtain(self, money: UserMoney, queue: Queue, amount_pico: int) -> Shortage | None:
        """One attempt to lease what the first of a queue lacks; None: look again."""
        try:
            async with money.lock:
                return await self._obtain(money, queue, amount_pico)
        except StoreDownError:
            return Shortage("down")
        except StoreRefusedError as error:
            _log.error("lease of %s: %s", money.user, error)
            return Shortage("down")
        except FaultError as error:
            _log.warning("lease of %s: %s", money.user, error)
            money.in_doubt = True
        except BaseException:
            money.in_doubt = True
            raise
        await asyncio.sleep(_AFTER_FAULT_S)
        return None

    async def _obtain(self, money: UserMoney, queue: Queue, amount_pico: int) -> Shortage | None:
        wallet = queue.wallet
        if money.in_doubt:
            return None if await self.fence(money) else Shortage("down")
        need_pico = amount_pico - money.lease.free_pico(wallet, self._wall_ms())
        if need_pico <= 0 and not money.barred:
            return None
        now_s = self._now_s()
        if queue.short_until_s > now_s:
            return money.shortage(wallet, money.barred or "short")
        need_pico = want_pico = max(1, need_pico)
        if money.recalled_until_s <= now_s:
            ahead_pico = need_pico + queue.queued_pico() + money.ahead_holds * amount_pico
            share_pico = money.available_pico.get(wallet, 0) // _SCARCE_SHARE
            want_pico = max(need_pico, min(ahead_pico, share_pico))
        grant = await self._grant(money, wallet, need_pico, want_pico)
        if grant.reason == "stale":
            return None
        if grant.reason or money.barred:
            queue.short_until_s = self._now_s() + _REFUSED_AGAIN_S
            return money.shortage(wallet, money.barred or grant.reason)
        return None

    async def lease_ahead(self, money: UserMoney, wallet: str, amount_pico: int) -> None:
        """Lease for holds to come, so that the hot path does not wait."""
        try:
            async with money.lock:
                if money.in_doubt:
                    await self.fence(money)
                elif not money.queues:
                    await self._lease_ahead(money, wallet, amount_pico)
        except FaultError as error:
            _log.debug("lease ahead of %s: %s", money.user, error)
            money.in_doubt = True
            await asyncio.sleep(_AHEAD_AGAIN_S)
        except BaseException:
            money.in_doubt = True
            raise

    async def _lease_ahead(self, money: UserMoney, wallet: str, amount_pico: int) -> None:
        share_pico = money.available_pico.get(wallet, 0) // _SCARCE_SHARE
        now_s = self._now_s()
        money.ahead_holds = next_ahead_holds(money.ahead_holds, now_s - money.refilled_s)
        money.refilled_s = now_s
        want_pico = min(money.ahead_holds * amount_pico, share_pico)
        if want_pico < amount_pico:
            money.available_pico[wallet] = 0
            return
        await self._grant(money, wallet, 1, want_pico)

    async def _grant(self, money: UserMoney, wallet: str, need_pico: int, want_pico: int) -> Grant:
        self._count("lease_grants_total")
        grant = await self._store.grant(
            money.user,
            wallet,
            self._journal,
            self._epoch,
            money.lease.op,
            need_pico,
            want_pico,
            self._wall_ms(),
        )
        if grant.reason == "stale":
            money.mistrust()
            return grant
        self._note_balance(money, wallet, grant)
        if not grant.reason:
            money.lease.op = grant.op
            money.lease.add(grant.added)
        return grant

    def _note_balance(self, money: UserMoney, wallet: str, grant: Grant) -> None:
        """What the store said, less what is settled here and not booked there, as far as known."""
        remaining_pico = grant.remaining_pico
        for record in money.unbooked:
            if record.wallet == wallet:
                remaining_pico -= record.charge_pico
        money.available_pico[wallet] = grant.available_pico
        money.remaining_pico[wallet] = remaining_pico
        if grant.reason in _BARRING_REASONS:
            money.barred = grant.reason
        else:
            money.barred = "written_off" if grant.written_off_pico >= self._written_off_pico_max else ""

    # -- money out -------------------------------------------------------------------------------------------
    async def give_back(self, money: UserMoney, *, giving_way: bool = False) -> None:
        """Return free money; only what durable records freed, and out of memory before the call leaves.

        While somebody waits here it is kept, unless this journal is `giving_way` to another.
        """
        try:
            if not self._is_durable(money):
                await asyncio.sleep(2 * limits.sync_interval_s)
            async with money.lock:
                if money.in_doubt and not await self.fence(money):
                    return
                if (giving_way or not money.queues) and money.known and self._is_durable(money):
                    await self._return_free(money)
        except FaultError as error:
            _log.debug("return of %s: %s", money.user, error)
            money.in_doubt = True
        except BaseException:
            money.in_doubt = True
            raise

    async def _return_free(self, money: UserMoney) -> None:
        now_ms = self._wall_ms()
        parts = money.lease.returnable({}, now_ms)
        if not parts:
            return
        money.lease.subtract(parts)
        self._count("lease_returns_total")
        op = await self._store.give_back(
            money.user, self._journal, self._epoch, money.lease.op, parts, now_ms
        )
        if op is None:
            money.mistrust()
            return
        money.lease.op = op
        money.available_pico.clear()

    def _is_durable(self, money: UserMoney) -> bool:
        """Whether everything that freed this user's money is on disk (hole 24)."""
        return not money.unwritten_count and money.freed_pos <= self._synced_pos()

    # -- certainty -------------------------------------------------------------------------------------------
    async def fence(self, money: UserMoney) -> bool:
        """Read the lease anew (caller holds the lock); False: it was abandoned and may not be used.

        What was asked about counts as unbooked unless the same snapshot shows its rows, even if the writer
        has told since that it is booked; so does what was settled meanwhile. The second may be too careful:
        then the lease is read once more, now or when the user is idle.
        """
        distrusted = money.distrusted
        for _ in range(_FENCE_ATTEMPTS):
            asked, distrusted = tuple(money.unbooked), money.distrusted
            meanwhile: list[Unbooked] = []
            money.settled_meanwhile = meanwhile
            self._count("lease_fences_total")
            try:
                fenced = await self._store.fence(
                    money.user,
                    self._journal,
                    self._epoch,
                    [record.exchange for record in asked],
                    self._wall_ms(),
                )
            finally:
                money.settled_meanwhile = None
            if fenced is None:
                fenced = Fenced(0, False, (), frozenset())
            money.lease.replace(
                () if fenced.dead else fenced.lots,
                fenced.op,
                [
                    (record.wallet, record.takes, record.uncovered_pico)
                    for record in (*asked, *meanwhile)
                    if record.exchange not in fenced.booked
                ],
            )
            money.doubtful = bool(meanwhile)
            if fenced.parked:
                money.barred = "parked"
            if fenced.dead:
                return False
            if not meanwhile:
                break
        money.known = money.distrusted == distrusted
        money.in_doubt = not money.known
        money.serve(self._wall_ms())
        return True

    # -- asking others ---------------------------------------------------------------------------------------
    async def want(self, money: UserMoney, wanted: bool) -> None:
        """Ask other journals for this user's free money, or stop asking; a fault costs the wait, no money.

        Asked again while it lasts: what others were asked for ends with one wait.
        """
        now_s = self._now_s()
        if now_s < money.wanted_s + _WANT_AGAIN_S if wanted else not money.wanted_s:
            return
        money.wanted_s = now_s if wanted else 0.0
        try:
            await self._store.want(money.user, self._journal, wanted)
        except FaultError as error:
            _log.debug("want of %s: %s", money.user, error)
