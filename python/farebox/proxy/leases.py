"""Leases: the one place where the ledger's memory meets the store on the hot path.

Each user with running exchanges has a `UserMoney` here: money the store has set aside for this worker's
journal. A hold that fits is opened at once, without the store; one that does not waits (`lease_queue`) while
money is granted (`lease_calls`) or freed by exchanges that end. Here stands what happens without waiting:
holds and their ends, what the writer tells, and which money goes back when.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from farebox.base import limits
from farebox.base.errors import FareboxError
from farebox.base.records import Debit
from farebox.ledger.user_lease import Hold
from farebox.proxy.lease_calls import LeaseCalls
from farebox.proxy.lease_queue import LeaseQueues
from farebox.proxy.user_money import Shortage, Unbooked, UserMoney
from farebox.store.base import WorkerStore

_log = logging.getLogger("farebox.leases")

_LOW_WATER_SHARE = 4
_SWEEP_INTERVAL_S = 0.5
_FORGET_AFTER_S = 60.0
_RETURN_ATTEMPTS = 2


class Leases:
    """All leases of one worker's journal. Belongs to one event loop."""

    def __init__(
        self,
        store: WorkerStore,
        journal: str,
        epoch: int,
        *,
        synced_pos: Callable[[], int],
        wall_ms: Callable[[], int],
        loop: asyncio.AbstractEventLoop,
        lease_wait_s: float = limits.lease_wait_s,
        written_off_pico_max: int = limits.written_off_per_user_pico_max,
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._journal = journal
        self._wall_ms = wall_ms
        self._loop = loop
        self._lease_wait_s = lease_wait_s
        self._calls = LeaseCalls(
            store,
            journal,
            epoch,
            synced_pos=synced_pos,
            wall_ms=wall_ms,
            now_s=loop.time,
            written_off_pico_max=written_off_pico_max,
            count=count,
        )
        self._queues = LeaseQueues(
            self._calls, loop, self._spawn, wait_s=lease_wait_s, wall_ms=wall_ms, count=count
        )
        self._users: dict[str, UserMoney] = {}
        self._unapplied: deque[tuple[int, UserMoney, Unbooked]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._sweeper = self._spawn(self._sweep())

    # -- holds -----------------------------------------------------------------------------------------------
    def hold_now(self, user: str, wallet: str, amount_pico: int, now_ms: int) -> Hold | None:
        """The hot path: a hold from money leased already; None means `hold` must be awaited."""
        money = self._users.get(user)
        if money is None or not money.known or money.barred or wallet in money.queues:
            return None
        lease = money.lease
        hold = lease.hold(wallet, amount_pico, now_ms)
        if hold is None:
            return None
        money.used_s = self._loop.time()
        if (
            money.refill is None
            and money.available_pico.get(wallet, 0) > 0
            and lease.free_pico(wallet, now_ms) < money.ahead_holds // _LOW_WATER_SHARE * amount_pico
        ):
            money.refill = self._spawn(self._refill(money, wallet, amount_pico))
        return hold

    async def hold(self, user: str, wallet: str, amount_pico: int) -> Hold | Shortage:
        """A hold, waiting for money at most `lease_wait_s`, and a moment longer where the store says nothing.

        A caller that stops waiting loses nothing.
        """
        money = self._users.get(user) or self._new(user)
        money.used_s = self._loop.time()
        if self._closing:
            return Shortage("down")
        return await self._queues.join(money, wallet, amount_pico)

    def extend(self, user: str, hold: Hold, more_pico: int, now_ms: int) -> bool:
        """Raise a hold from money leased already."""
        money = self._users[user]
        return hold.wallet not in money.queues and money.known and money.lease.extend(hold, more_pico, now_ms)

    def merge(self, user: str, hold: Hold, more: Hold, now_ms: int) -> bool:
        """Add a hold just opened to another; nobody can take its money in between. False: it is free."""
        money = self._users[user]
        money.lease.void(more)
        merged = money.lease.extend(hold, more.amount_pico, now_ms)
        if not merged:
            self._money_moved(money)
        return merged

    def settle(self, user: str, exchange: str, hold: Hold, charge_pico: int, now_ms: int) -> Unbooked:
        """Post a hold: what the lots pay. Record the settlement, then tell `written` or `unwritten`."""
        money = self._users[user]
        remaining_pico = money.remaining_pico.get(hold.wallet)
        if remaining_pico is not None:
            money.remaining_pico[hold.wallet] = remaining_pico = remaining_pico - charge_pico
        takes, uncovered_pico = money.lease.settle(hold, charge_pico, now_ms)
        record = Unbooked(exchange, hold.wallet, takes, uncovered_pico, charge_pico, remaining_pico)
        money.left(record)
        return record

    def reserve(self, user: str, exchange: str, hold: Hold, now_ms: int) -> Unbooked:
        """End a hold whose money must wait for an operator. Otherwise like `settle`."""
        money = self._users[user]
        takes, uncovered_pico = money.lease.reserve(hold, now_ms)
        remaining_pico = money.remaining_pico.get(hold.wallet)
        record = Unbooked(exchange, hold.wallet, takes, uncovered_pico, hold.amount_pico, remaining_pico)
        money.left(record)
        return record

    def written(self, user: str, record: Unbooked, pos: int) -> None:
        """The settlement is in the journal, at or before `pos`; what it freed may serve others now."""
        money = self._users[user]
        self._unapplied.append((pos, money, record))
        money.unwritten_count -= 1
        money.freed_pos = max(money.freed_pos, pos)
        if money.queues or money.recalled_until_s:
            self._money_moved(money)

    def unwritten(self, user: str) -> None:
        """The settlement could not be recorded: its money stays unused until recovery ends the exchange."""
        self._users[user].mistrust()

    def void(self, user: str, hold: Hold, *, recorded: bool = False) -> None:
        """End a hold of an exchange that reached no upstream.

        `recorded`: the journal has its open, so a void record must follow; tell `void_written` when it has.
        """
        money = self._users[user]
        money.lease.void(hold)
        money.unwritten_count += recorded
        self._money_moved(money)

    def void_written(self, user: str, pos: int) -> None:
        """The void is in the journal, at or before `pos`."""
        money = self._users[user]
        money.unwritten_count -= 1
        money.freed_pos = max(money.freed_pos, pos)
        self._money_moved(money)

    # -- what the writer tells -------------------------------------------------------------------------------
    def remember(self, users: Iterable[str], debits: Iterable[Debit]) -> None:
        """After recovery: who has money in this journal's lease, and what its settlements take that are
        recorded but perhaps not booked, in order.

        Each lease is fenced before it is used. Whose is not used at once gives back what is free.
        """
        for user in users:
            money = self._new(user)
            money.mistrust()
            money.used_s -= limits.lease_idle_return_s
        for debit in debits:
            found = self._users.get(debit.user)
            if found is None:
                found = self._new(debit.user)
                found.mistrust()
            covered_pico = sum(take.amount_pico for take in debit.takes)
            uncovered_pico = max(0, debit.amount_pico - covered_pico)
            charge_pico = covered_pico + uncovered_pico
            unbooked = Unbooked(debit.exchange, debit.wallet, debit.takes, uncovered_pico, charge_pico)
            found.unbooked.append(unbooked)
            self._unapplied.append((debit.pos, found, unbooked))

    def applied(self, pos: int) -> None:
        """Everything of this journal up to `pos` is booked or parked."""
        unapplied = self._unapplied
        while unapplied and unapplied[0][0] <= pos:
            _, money, record = unapplied.popleft()
            money.unbooked.remove(record)

    def distrust(self, user: str) -> None:
        """This user's lease was changed behind our back: fence before the next use."""
        money = self._users.get(user)
        if money is not None:
            money.mistrust()
            money.wake()

    def distrust_all(self) -> None:
        """Pushes may have been missed: every lease is read anew before its next use."""
        for money in self._users.values():
            money.mistrust()
            money.ask_again()

    def user_changed(self, user: str) -> None:
        """A top-up, money given back, or another change of the account: those who wait should ask again now.

        The lease stays good without the store: where it does not, the writer says so (`distrust`).
        """
        money = self._users.get(user)
        if money is not None:
            money.ask_again()

    def recall(self, user: str, journal: str) -> None:
        """Another journal is short of this user's money: give back what is free, now and while it waits.

        Where requests wait here as well, the journal with the greater id gives way: otherwise each would
        sit on a part that is of no use to anybody (hole 35). Without a journal it is asked for a debit,
        which comes first.
        """
        money = self._users.get(user)
        if money is None or (money.queues and journal > self._journal):
            return
        money.recalled_until_s = self._loop.time() + self._lease_wait_s
        self._give_back_soon(money)

    # -- life ------------------------------------------------------------------------------------------------
    async def close(self) -> None:
        """Give back what is free, as far as the store lets us in a few seconds: recovery returns the rest.

        Call when no exchange is open and the journal is synced.
        """
        self._closing = True
        self._queues.close()
        self._sweeper.cancel()
        await asyncio.gather(self._sweeper, return_exceptions=True)
        for money in list(self._users.values()):
            for queue in money.queues.values():
                queue.refuse_all(Shortage("down"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.shutdown_return_s):
                for money in list(self._users.values()):
                    await self._give_all_back(money)
        for task in list(self._tasks):
            task.cancel()

    async def _give_all_back(self, money: UserMoney) -> None:
        for _ in range(_RETURN_ATTEMPTS):
            await self._give_back(money, giving_way=True)
            if not money.in_doubt:
                return

    def _new(self, user: str) -> UserMoney:
        money = self._users[user] = UserMoney(user, self._loop.time())
        return money

    # -- money that moves ------------------------------------------------------------------------------------
    def _money_moved(self, money: UserMoney) -> None:
        """Money has come free: for those who wait here first, then for those who wait elsewhere."""
        if money.queues:
            money.serve(self._wall_ms())
            money.wake()
        if money.recalled_until_s > self._loop.time():
            self._give_back_soon(money)

    def _give_back_soon(self, money: UserMoney) -> None:
        if money.returning is None:
            money.returning = self._spawn(self._give_back(money, giving_way=True))

    async def _give_back(self, money: UserMoney, *, giving_way: bool = False) -> None:
        try:
            await self._calls.give_back(money, giving_way=giving_way)
        finally:
            money.returning = None
            money.wake()

    async def _refill(self, money: UserMoney, wallet: str, amount_pico: int) -> None:
        try:
            await self._calls.lease_ahead(money, wallet, amount_pico)
        finally:
            money.refill = None
            self._money_moved(money)

    async def _sweep(self) -> None:
        """Give idle money back and forget idle users."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_S)
            for money in list(self._users.values()):
                if money.queues or money.lock.locked():
                    continue
                idle_s = self._loop.time() - money.used_s
                if idle_s >= limits.lease_idle_return_s:
                    await self._tidy(money, idle_s)

    async def _tidy(self, money: UserMoney, idle_s: float) -> None:
        if money.doubtful:
            money.mistrust()
        if not money.in_doubt and money.lease.is_empty():
            if idle_s > _FORGET_AFTER_S and not money.unbooked:
                del self._users[money.user]
            return
        now_ms = self._wall_ms()
        if money.in_doubt or money.lease.returnable({}, now_ms):
            try:
                await self._give_back(money)
            except FareboxError:
                _log.exception("return of %s", money.user)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("lease work failed", exc_info=task.exception())
