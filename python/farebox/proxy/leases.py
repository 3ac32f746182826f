"""Leases: the one place where the ledger's memory meets the store on the hot path.

Each user with running exchanges has a `UserLease` here: money the store has set aside for this worker's
journal. A hold that fits is opened at once, without the store. One that does not waits in the user's queue
while money is granted, given back by others, or freed by exchanges that end, at most `lease_wait_s` (MONEY
section 6).

Store calls of one user never overlap. After any answer but a plain success the user's lease is fenced before
it is used again: its operation number is raised, so that nothing lost can land later, and its memory is read
anew.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from farebox.base import limits
from farebox.base.errors import FareboxError, FaultError, StoreDownError, StoreRefusedError
from farebox.base.records import WALLETS, Fenced, Grant, Settlement
from farebox.ledger.user_lease import Hold, Settled
from farebox.proxy.user_money import AHEAD_HOLDS, Shortage, Unbooked, UserMoney, Waiter
from farebox.store.base import WorkerStore

_log = logging.getLogger("farebox.leases")

_AHEAD_HOLDS_MAX = 512
_BUSY_S = 1.0
_SCARCE_SHARE = 2
_BARRING_REASONS = frozenset(("parked", "inactive", "unknown", "quarantined"))
"""Refusals that are about the account: money leased already may not be used for new exchanges either."""
_LOW_WATER_SHARE = 4
_RECHECK_S = 0.1
_AFTER_FAULT_S = 0.02
_REFUSED_AGAIN_S = 0.05
_STORE_SILENT_S = 1.0
_SWEEP_INTERVAL_S = 0.5
_FORGET_AFTER_S = 60.0
_FENCE_ATTEMPTS = 3
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
        self._store = store
        self._journal = journal
        self._epoch = epoch
        self._synced_pos = synced_pos
        self._wall_ms = wall_ms
        self._loop = loop
        self._lease_wait_s = lease_wait_s
        self._written_off_pico_max = written_off_pico_max
        self._count = count
        self._users: dict[str, UserMoney] = {}
        self._unapplied: deque[tuple[int, UserMoney, Unbooked]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._sweeper = self._spawn(self._sweep())

    # -- holds -----------------------------------------------------------------------------------------------
    def hold_now(self, user: str, wallet: str, amount_pico: int, now_ms: int) -> Hold | None:
        """The hot path: a hold from money leased already; None means `hold` must be awaited."""
        money = self._users.get(user)
        if money is None or money.waiters or not money.known or money.barred:
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
        if len(money.waiters) >= limits.lease_waiters_per_user_max:
            return Shortage("crowded")
        future: asyncio.Future[Hold | Shortage] = self._loop.create_future()
        waiter = Waiter(wallet, amount_pico, self._loop.time() + self._lease_wait_s, future)
        money.waiters.append(waiter)
        if money.pump is None:
            money.pump = self._spawn(self._pump(money))
        silent_at_s = waiter.deadline_s + _STORE_SILENT_S
        silence = self._loop.call_at(silent_at_s, self._refuse, money, waiter, Shortage("down"))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and isinstance(future.result(), Hold):
                self.void(user, future.result())  # type: ignore[arg-type]
            raise
        finally:
            silence.cancel()

    def extend(self, user: str, hold: Hold, more_pico: int, now_ms: int) -> bool:
        """Raise a hold from money leased already."""
        money = self._users[user]
        return not money.waiters and money.known and money.lease.extend(hold, more_pico, now_ms)

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
        if hold.wallet in money.remaining_pico:
            money.remaining_pico[hold.wallet] -= charge_pico
        return self._left(money, exchange, hold, money.lease.settle(hold, charge_pico, now_ms), charge_pico)

    def reserve(self, user: str, exchange: str, hold: Hold, now_ms: int) -> Unbooked:
        """End a hold whose money must wait for an operator. Otherwise like `settle`."""
        money = self._users[user]
        return self._left(money, exchange, hold, money.lease.reserve(hold, now_ms), hold.amount_pico)

    def _left(
        self, money: UserMoney, exchange: str, hold: Hold, settled: Settled, charge_pico: int
    ) -> Unbooked:
        record = Unbooked(exchange, hold.wallet, settled.takes, settled.uncovered_pico, charge_pico)
        money.unbooked.append(record)
        if money.settled_meanwhile is not None:
            money.settled_meanwhile.append(record)
        money.unwritten_count += 1
        return record

    def written(self, user: str, record: Unbooked, pos: int) -> int | None:
        """The settlement is in the journal, at or before `pos`; what it freed may serve others now.

        Returns the wallet's balance as far as this worker knows; for people, never for decisions.
        """
        money = self._users[user]
        self._unapplied.append((pos, money, record))
        money.unwritten_count -= 1
        money.freed_pos = max(money.freed_pos, pos)
        if money.waiters or money.recalled_until_s:
            self._money_moved(money)
        return money.remaining_pico.get(record.wallet)

    def unwritten(self, user: str) -> None:
        """The settlement could not be recorded: its money stays unused until recovery ends the exchange."""
        self._mistrust(self._users[user])

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
    def remember_unbooked(self, records: Iterable[tuple[int, Settlement]]) -> None:
        """After recovery: this journal's settlements that are recorded but perhaps not booked, in order."""
        for pos, record in records:
            money = self._users.get(record.user) or self._new(record.user)
            self._mistrust(money)
            uncovered_pico = record.amount_pico - sum(take.amount_pico for take in record.takes)
            if record.quarantine:
                uncovered_pico = 0
            uncovered_pico = max(0, uncovered_pico)
            charge_pico = uncovered_pico + sum(take.amount_pico for take in record.takes)
            unbooked = Unbooked(record.exchange, record.wallet, record.takes, uncovered_pico, charge_pico)
            money.unbooked.append(unbooked)
            self._unapplied.append((pos, money, unbooked))

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
            self._mistrust(money)
            money.changed.set()

    def distrust_all(self) -> None:
        """Pushes may have been missed: every lease is read anew before its next use."""
        for money in self._users.values():
            self._mistrust(money)
            money.short_until_s = 0.0
            money.changed.set()

    def user_changed(self, user: str) -> None:
        """A top-up or another change of the account: those who wait should ask again now.

        The lease stays good without the store: where it does not, the writer says so (`distrust`).
        """
        money = self._users.get(user)
        if money is not None:
            money.short_until_s = 0.0
            money.available_pico.clear()
            money.changed.set()

    def recall(self, user: str, journal: str) -> None:
        """Another journal is short of this user's money: give back what is free, now and while it waits.

        Where requests wait here as well, the journal with the greater id gives way: otherwise each would
        sit on a part that is of no use to anybody (hole 35).
        """
        money = self._users.get(user)
        if money is None or (money.waiters and journal > self._journal):
            return
        money.recalled_until_s = self._loop.time() + self._lease_wait_s
        self._give_back_soon(money, giving_way=True)

    # -- life ------------------------------------------------------------------------------------------------
    async def close(self) -> None:
        """Give back everything that is free; call when no exchange is open and the journal is synced."""
        self._closing = True
        self._sweeper.cancel()
        await asyncio.gather(self._sweeper, return_exceptions=True)
        for money in list(self._users.values()):
            self._refuse_all(money)
            for _ in range(_RETURN_ATTEMPTS):
                await self._give_back(money)
                if money.known:
                    break
        for task in list(self._tasks):
            task.cancel()

    # -- waiting ---------------------------------------------------------------------------------------------
    def _new(self, user: str) -> UserMoney:
        money = self._users[user] = UserMoney(user, self._loop.time())
        return money

    def _mistrust(self, money: UserMoney) -> None:
        money.distrusted += 1
        money.known = False

    def _money_moved(self, money: UserMoney) -> None:
        if money.waiters:
            self._serve(money)
            money.changed.set()
        elif money.recalled_until_s > self._loop.time():
            self._give_back_soon(money)

    def _give_back_soon(self, money: UserMoney, *, giving_way: bool = False) -> None:
        if money.returning is None:
            money.returning = self._spawn(self._give_back(money, giving_way=giving_way))

    def _serve(self, money: UserMoney) -> None:
        """Give holds to those who wait, in order, while the first one's fits."""
        if not money.known or money.barred:
            return
        now_ms = self._wall_ms()
        while money.waiters:
            waiter = money.waiters[0]
            if not waiter.future.done():
                hold = money.lease.hold(waiter.wallet, waiter.amount_pico, now_ms)
                if hold is None:
                    return
                waiter.future.set_result(hold)
            money.waiters.popleft()

    async def _pump(self, money: UserMoney) -> None:
        """Serve one user's queue until it is empty."""
        try:
            while money.waiters and not self._closing:
                money.changed.clear()
                self._serve(money)
                if money.waiters:
                    await self._attend(money, money.waiters[0])
        except Exception:
            self._refuse_all(money)
            raise
        finally:
            money.pump = None
            if money.wanted and not money.waiters:
                money.wanted = False
                self._spawn(self._unwant(money))
            if money.waiters and not self._closing:
                money.pump = self._spawn(self._pump(money))

    async def _attend(self, money: UserMoney, head: Waiter) -> None:
        """One attempt for the first that waits: money, a refusal, or a wait for something to change."""
        shortage = await self._obtain(money, head)
        late = head.deadline_s <= self._loop.time()
        if shortage is None:
            self._serve(money)
            if late:
                self._refuse(money, head, Shortage("down"))
        elif shortage.reason != "short" or late or shortage.remaining_pico < head.amount_pico:
            self._refuse(money, head, shortage)
        else:
            await self._wait_for_change(money, head)

    def _refuse(self, money: UserMoney, waiter: Waiter, shortage: Shortage) -> None:
        if waiter in money.waiters:
            money.waiters.remove(waiter)
        if not waiter.future.done():
            waiter.future.set_result(shortage)

    def _refuse_all(self, money: UserMoney) -> None:
        for waiter in list(money.waiters):
            self._refuse(money, waiter, Shortage("down"))

    async def _wait_for_change(self, money: UserMoney, head: Waiter) -> None:
        self._count("lease_waits_total")
        if not money.wanted:
            money.wanted = True
            try:
                await self._store.want(money.user, self._journal, True)
            except FaultError as error:
                _log.debug("want of %s: %s", money.user, error)
        wait_s = min(_RECHECK_S, max(0.0, head.deadline_s - self._loop.time()))
        try:
            async with asyncio.timeout(wait_s):
                await money.changed.wait()
        except TimeoutError:
            return

    async def _unwant(self, money: UserMoney) -> None:
        try:
            await self._store.want(money.user, self._journal, False)
        except FaultError as error:
            _log.debug("want of %s: %s", money.user, error)

    # -- the store -------------------------------------------------------------------------------------------
    async def _obtain(self, money: UserMoney, waiter: Waiter) -> Shortage | None:
        """One attempt to lease what `waiter` lacks; None: look again."""
        try:
            async with money.lock:
                return await self._grant(money, waiter.wallet, waiter.amount_pico)
        except StoreDownError:
            return Shortage("down")
        except StoreRefusedError as error:
            _log.error("lease of %s: %s", money.user, error)
            return Shortage("down")
        except FaultError as error:
            _log.warning("lease of %s: %s", money.user, error)
            self._mistrust(money)
        except BaseException:
            self._mistrust(money)
            raise
        await asyncio.sleep(_AFTER_FAULT_S)
        return None

    async def _grant(self, money: UserMoney, wallet: str, amount_pico: int) -> Shortage | None:
        if not money.known:
            return None if await self._fence(money) else Shortage("down")
        now_ms = self._wall_ms()
        need_pico = amount_pico - money.lease.free_pico(wallet, now_ms)
        if need_pico <= 0 and not money.barred:
            return None
        if money.short_until_s > self._loop.time():
            return self._shortage(money, wallet, money.barred or "short")
        need_pico = max(1, need_pico)
        queued_pico = sum(waiter.amount_pico for waiter in money.waiters if waiter.wallet == wallet)
        ahead_pico = need_pico + queued_pico + money.ahead_holds * amount_pico
        share_pico = money.available_pico.get(wallet, 0) // _SCARCE_SHARE
        want_pico = max(need_pico, min(ahead_pico, share_pico))
        self._count("lease_grants_total")
        grant = await self._store.grant(
            money.user, wallet, self._journal, self._epoch, money.lease.op, need_pico, want_pico, now_ms
        )
        if grant.reason == "stale":
            self._mistrust(money)
            return None
        self._note_balance(money, wallet, grant)
        if not grant.reason:
            money.lease.op = grant.op
            money.lease.add(grant.added)
        if grant.reason or money.barred:
            money.short_until_s = self._loop.time() + _REFUSED_AGAIN_S
            return self._shortage(money, wallet, money.barred or grant.reason)
        return None

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

    def _shortage(self, money: UserMoney, wallet: str, reason: str) -> Shortage:
        return Shortage(reason, money.remaining_pico.get(wallet, 0), money.lease.held_pico(wallet))

    async def _refill(self, money: UserMoney, wallet: str, amount_pico: int) -> None:
        """Lease ahead, so that the hot path does not wait; twice as much each time while it is busy."""
        try:
            async with money.lock:
                if money.known and not money.waiters:
                    await self._grant_ahead(money, wallet, amount_pico)
        except FaultError as error:
            _log.debug("lease ahead of %s: %s", money.user, error)
            self._mistrust(money)
        except BaseException:
            self._mistrust(money)
            raise
        finally:
            money.refill = None
            self._money_moved(money)

    async def _grant_ahead(self, money: UserMoney, wallet: str, amount_pico: int) -> None:
        now_ms = self._wall_ms()
        share_pico = money.available_pico.get(wallet, 0) // _SCARCE_SHARE
        now_s = self._loop.time()
        is_busy = now_s < money.refilled_s + _BUSY_S
        money.ahead_holds = min(2 * money.ahead_holds, _AHEAD_HOLDS_MAX) if is_busy else AHEAD_HOLDS
        money.refilled_s = now_s
        want_pico = min(money.ahead_holds * amount_pico, share_pico)
        if want_pico < amount_pico:
            money.available_pico[wallet] = 0
            return
        self._count("lease_grants_total")
        grant = await self._store.grant(
            money.user, wallet, self._journal, self._epoch, money.lease.op, 1, want_pico, now_ms
        )
        if grant.reason == "stale":
            self._mistrust(money)
            return
        self._note_balance(money, wallet, grant)
        if not grant.reason:
            money.lease.op = grant.op
            money.lease.add(grant.added)

    async def _fence(self, money: UserMoney) -> bool:
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
        self._serve(money)
        return True

    async def _give_back(self, money: UserMoney, *, giving_way: bool = False) -> None:
        """Return free money; only what durable records freed, and out of memory before the call leaves."""
        try:
            if not self._durable(money):
                await asyncio.sleep(2 * limits.sync_interval_s)
            async with money.lock:
                if not money.known and not await self._fence(money):
                    return
                if (giving_way or not money.waiters) and money.known and self._durable(money):
                    await self._return_free(money)
        except FaultError as error:
            _log.debug("return of %s: %s", money.user, error)
            self._mistrust(money)
        except BaseException:
            self._mistrust(money)
            raise
        finally:
            money.returning = None
            money.changed.set()

    async def _return_free(self, money: UserMoney) -> None:
        parts = money.lease.returnable({}, self._wall_ms())
        if not parts:
            return
        money.lease.subtract(parts)
        self._count("lease_returns_total")
        op = await self._store.give_back(
            money.user, self._journal, self._epoch, money.lease.op, parts, self._wall_ms()
        )
        if op is None:
            self._mistrust(money)
            return
        money.lease.op = op
        money.available_pico.clear()

    def _durable(self, money: UserMoney) -> bool:
        """Whether everything that freed this user's money is on disk (hole 24)."""
        return not money.unwritten_count and money.freed_pos <= self._synced_pos()

    async def _sweep(self) -> None:
        """Give idle money back and forget idle users."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_S)
            for money in list(self._users.values()):
                if money.waiters or money.lock.locked():
                    continue
                idle_s = self._loop.time() - money.used_s
                if idle_s >= limits.lease_idle_return_s:
                    await self._tidy(money, idle_s)

    async def _tidy(self, money: UserMoney, idle_s: float) -> None:
        if money.doubtful:
            self._mistrust(money)
        if money.known and money.lease.is_empty():
            if idle_s > _FORGET_AFTER_S and not money.unbooked:
                del self._users[money.user]
            return
        now_ms = self._wall_ms()
        if not money.known or any(money.lease.free_pico(wallet, now_ms) > 0 for wallet in WALLETS):
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
