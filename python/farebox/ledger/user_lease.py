"""One user's leased money in one worker's memory: holds are opened and ended here, without the store.

The one place that decides whether a hold fits its lease (M2), which lots pay for a charge, and that a hold
ends once (M3). Synchronous and cheap: the hot path calls `hold` and `settle` once per request.

Free money of a wallet = lots left in memory - open holds - what earlier charges still owe. A lot past its
expiry backs only holds opened before, so it counts as free for nobody. Such holds use it before any other
money: otherwise they could take the unexpired money that a younger hold relies on. All else is spent in
wallet order, earliest expiry first.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import WALLETS, LotAmount

_new_tuple = tuple.__new__
_NEVER_MS = 1 << 62
_BEFORE_ALL_MS = -1
_WALLET_OF = {pool: wallet for wallet, pools in WALLETS.items() for pool in pools}
_POOL_RANK = {pool: rank for pools in WALLETS.values() for rank, pool in enumerate(pools)}


class Hold:
    """Money set aside for one exchange; ended exactly once by `settle`, `reserve` or `void` of its lease.

    `later_pico` of `amount_pico` were added at `later_ms`, after a lot had expired: they may not use that
    lot.
    """

    __slots__ = ("amount_pico", "later_ms", "later_pico", "opened_ms", "wallet")

    def __init__(self, wallet: str, amount_pico: int, opened_ms: int) -> None:
        self.wallet = wallet
        self.amount_pico = amount_pico
        self.opened_ms = opened_ms
        self.later_ms = opened_ms
        self.later_pico = 0


class Settled(NamedTuple):
    """How a hold ended: the lots that pay, and what no lot of this lease covers (for the writer's late
    path).
    """

    takes: tuple[LotAmount, ...]
    uncovered_pico: int


class _LotLeft:
    """What is left in memory of one leased lot."""

    __slots__ = ("expires_ms", "left_pico", "lot", "pool")

    def __init__(self, lot: str, pool: str, left_pico: int, expires_ms: int) -> None:
        self.lot = lot
        self.pool = pool
        self.left_pico = left_pico
        self.expires_ms = expires_ms

    def rank(self) -> tuple[int, int, str]:
        """Place in spending order."""
        return (_POOL_RANK[self.pool], self.expires_ms, self.lot)


class _Purse:
    """One wallet of the lease. `free_pico` is kept up to date; everything else explains it."""

    __slots__ = ("expired", "free_pico", "lots", "next_expiry_ms", "open", "owed_pico")

    def __init__(self) -> None:
        self.lots: list[_LotLeft] = []
        self.expired: list[_LotLeft] = []
        self.open: set[Hold] = set()
        self.owed_pico = 0
        self.free_pico = 0
        self.next_expiry_ms = _NEVER_MS

    def see_time(self, now_ms: int) -> None:
        """Set lots apart that have expired; called when `next_expiry_ms` has come."""
        self.expired += [lot for lot in self.lots if lot.expires_ms <= now_ms]
        self.lots = [lot for lot in self.lots if lot.expires_ms > now_ms]
        self.recount()

    def recount(self) -> None:
        """Everything derived, from the lots and holds."""
        self.lots = sorted((lot for lot in self.lots if lot.left_pico), key=_LotLeft.rank)
        self.expired = sorted(
            (lot for lot in self.expired if lot.left_pico), key=lambda lot: (lot.expires_ms, lot.rank())
        )
        self.next_expiry_ms = min((lot.expires_ms for lot in self.lots), default=_NEVER_MS)
        left_pico = sum(lot.left_pico for lot in self.lots)
        self.free_pico = left_pico - self.owed_pico - self.held_pico() + sum(self._expired_use())

    def held_pico(self) -> int:
        return sum(hold.amount_pico for hold in self.open)

    def _expired_use(self) -> list[int]:
        """Of each expired lot, as much as open holds from before its expiry can use; the most there is in
        all.

        The youngest holds may use the fewest lots, so they choose first. What is owed may use any: the late
        path takes it from the lease whatever has expired since, so it must not be returned.
        """
        unused = [lot.left_pico for lot in self.expired]
        if not unused:
            return []
        demands = [(hold.opened_ms, hold.amount_pico - hold.later_pico) for hold in self.open]
        demands += [(hold.later_ms, hold.later_pico) for hold in self.open if hold.later_pico]
        demands.append((_BEFORE_ALL_MS, self.owed_pico))
        for opened_ms, amount_pico in sorted(demands, reverse=True):
            wanted_pico = amount_pico
            for index, lot in enumerate(self.expired):
                if lot.expires_ms > opened_ms:
                    used_pico = min(unused[index], wanted_pico)
                    unused[index] -= used_pico
                    wanted_pico -= used_pico
        return [lot.left_pico - rest for lot, rest in zip(self.expired, unused, strict=True)]

    def unused_expired(self) -> list[LotAmount]:
        """Expired money that no open hold and no debt may still use."""
        parts = (
            LotAmount(lot.lot, lot.pool, lot.left_pico - used_pico)
            for lot, used_pico in zip(self.expired, self._expired_use(), strict=True)
        )
        return [part for part in parts if part.amount_pico]

    def take_expired(self, hold: Hold, amount_pico: int) -> list[LotAmount]:
        """Pay up to `amount_pico` of an ended hold from expired lots it may use, earliest expiry first."""
        takes: list[LotAmount] = []
        early_pico = min(amount_pico, hold.amount_pico - hold.later_pico)
        later_pico = min(amount_pico - early_pico, hold.later_pico)
        for opened_ms, share_pico in ((hold.opened_ms, early_pico), (hold.later_ms, later_pico)):
            usable = [lot for lot in self.expired if lot.expires_ms > opened_ms]
            takes += _take(usable, share_pico)
        return takes

    def find(self, lot: str) -> _LotLeft | None:
        """The lot in memory, expired or not."""
        return next((one for one in (*self.lots, *self.expired) if one.lot == lot), None)


class UserLease:
    """One user's lease. `op` is the entry's operation number as last answered by the store (0: no entry
    known).
    """

    __slots__ = ("_purses", "op")

    def __init__(self, op: int = 0) -> None:
        self.op = op
        self._purses = {wallet: _Purse() for wallet in WALLETS}

    # -- asking ----------------------------------------------------------------------------------------------
    def free_pico(self, wallet: str, now_ms: int) -> int:
        """What a new hold may use; negative after a charge above its hold, until a grant or fence covers
        it.
        """
        purse = self._purses[wallet]
        if now_ms >= purse.next_expiry_ms:
            purse.see_time(now_ms)
        return purse.free_pico

    def held_pico(self, wallet: str) -> int:
        """Sum of open holds."""
        return self._purses[wallet].held_pico()

    def is_empty(self) -> bool:
        """Whether there is no money, no open hold and no debt: the entry may be forgotten."""
        return not any(
            purse.lots or purse.expired or purse.open or purse.owed_pico for purse in self._purses.values()
        )

    # -- holds -----------------------------------------------------------------------------------------------
    def hold(self, wallet: str, amount_pico: int, now_ms: int) -> Hold | None:
        """Set money aside for one exchange; None when the lease is short."""
        purse = self._purses[wallet]
        if now_ms >= purse.next_expiry_ms:
            purse.see_time(now_ms)
        free_pico = purse.free_pico - amount_pico
        if free_pico < 0:
            return None
        purse.free_pico = free_pico
        hold = Hold(wallet, amount_pico, now_ms)
        purse.open.add(hold)
        return hold

    def extend(self, hold: Hold, more_pico: int, now_ms: int) -> bool:
        """Raise an open hold; False (and nothing changed) when the lease is short."""
        purse = self._purses[hold.wallet]
        if hold not in purse.open:
            raise InvariantBrokenError("M3: a hold that has ended cannot be extended")
        if now_ms >= purse.next_expiry_ms:
            purse.see_time(now_ms)
        if not purse.expired:
            if purse.free_pico < more_pico:
                return False
            hold.amount_pico += more_pico
            purse.free_pico -= more_pico
            return True
        return _extend_past_expiry(purse, hold, more_pico, now_ms)

    def settle(self, hold: Hold, charge_pico: int, now_ms: int) -> Settled:
        """Post: free the hold, take the charge from lots.

        A charge above the hold takes free money of the lease; the rest is uncovered and lowers free money
        until the writer has booked it and a fence has been made.
        """
        purse = self._purses[hold.wallet]
        _end(purse, hold)
        if now_ms >= purse.next_expiry_ms:
            purse.see_time(now_ms)
        if purse.expired or charge_pico > hold.amount_pico:
            return _settle_slowly(purse, hold, charge_pico)
        purse.free_pico += hold.amount_pico - charge_pico
        if not charge_pico:
            return Settled((), 0)
        lot = purse.lots[0] if purse.lots else None
        if lot is not None and lot.left_pico > charge_pico:
            lot.left_pico -= charge_pico
            take = _new_tuple(LotAmount, (lot.lot, lot.pool, charge_pico))
            return _new_tuple(Settled, ((take,), 0))
        return _settle_over_lots(purse, charge_pico)

    def reserve(self, hold: Hold, now_ms: int) -> Settled:
        """Quarantine: the whole hold leaves the lease, to wait for an operator (MONEY section 9)."""
        return self.settle(hold, hold.amount_pico, now_ms)

    def void(self, hold: Hold) -> None:
        """The upstream was never reached: the hold is free again."""
        purse = self._purses[hold.wallet]
        _end(purse, hold)
        if purse.expired:
            purse.recount()
        else:
            purse.free_pico += hold.amount_pico

    # -- the store's answers ---------------------------------------------------------------------------------
    def add(self, added: Iterable[tuple[LotAmount, int | None]]) -> None:
        """Money a grant added."""
        for part, expires_at_ms in added:
            purse = self._purses[_WALLET_OF[part.pool]]
            known = purse.find(part.lot)
            if known is not None:
                known.left_pico += part.amount_pico
            else:
                purse.lots.append(
                    _LotLeft(
                        part.lot,
                        part.pool,
                        part.amount_pico,
                        _NEVER_MS if expires_at_ms is None else expires_at_ms,
                    )
                )
        for purse in self._purses.values():
            purse.recount()

    def returnable(self, keep_pico: Mapping[str, int], now_ms: int) -> list[LotAmount]:
        """What may go back to the store: free money above `keep_pico` per wallet (absent: 0), last spent
        first.

        Of expired lots, all that no open hold from before may use.
        """
        parts: list[LotAmount] = []
        for wallet, purse in self._purses.items():
            surplus_pico = self.free_pico(wallet, now_ms) - keep_pico.get(wallet, 0)
            parts += purse.unused_expired()
            for lot in reversed(purse.lots):
                if surplus_pico <= 0:
                    break
                share_pico = min(lot.left_pico, surplus_pico)
                surplus_pico -= share_pico
                parts.append(LotAmount(lot.lot, lot.pool, share_pico))
        return parts

    def subtract(self, amounts: Iterable[LotAmount]) -> None:
        """Take amounts out of memory, before the call that returns them leaves (MONEY section 6)."""
        for part in amounts:
            purse = self._purses[_WALLET_OF[part.pool]]
            lot = purse.find(part.lot)
            if lot is None or lot.left_pico < part.amount_pico:
                raise InvariantBrokenError(f"M2: a return of {part} is more than this lease holds of the lot")
            lot.left_pico -= part.amount_pico
            purse.recount()

    def replace(
        self,
        lots: Iterable[tuple[LotAmount, int | None]],
        op: int,
        unbooked: Iterable[tuple[str, Iterable[LotAmount], int]],
    ) -> None:
        """Take over what a fence read: free = lease - debits recorded but not booked - open holds (may be
        negative).

        `unbooked`: per settlement that had no rows in the fence's snapshot its wallet, takes and uncovered
        amount.
        """
        self.op = op
        for purse in self._purses.values():
            purse.lots, purse.expired, purse.owed_pico = [], [], 0
        self.add(lots)
        for wallet, takes, uncovered_pico in unbooked:
            purse = self._purses[wallet]
            purse.owed_pico += uncovered_pico + _lower(purse, takes)
        for purse in self._purses.values():
            purse.recount()


def _end(purse: _Purse, hold: Hold) -> None:
    try:
        purse.open.remove(hold)
    except KeyError:
        raise InvariantBrokenError("M3: a hold ends exactly once, on its own lease") from None


def _lower(purse: _Purse, takes: Iterable[LotAmount]) -> int:
    """Lower lots by recorded debits; what the entry no longer holds for them is returned, to be owed."""
    missing_pico = 0
    for part in takes:
        lot = purse.find(part.lot)
        share_pico = 0 if lot is None else min(lot.left_pico, part.amount_pico)
        if lot is not None:
            lot.left_pico -= share_pico
        missing_pico += part.amount_pico - share_pico
    return missing_pico


def _take(lots: Iterable[_LotLeft], amount_pico: int) -> list[LotAmount]:
    takes: list[LotAmount] = []
    for lot in lots:
        if amount_pico <= 0:
            break
        share_pico = min(lot.left_pico, amount_pico)
        if share_pico:
            lot.left_pico -= share_pico
            amount_pico -= share_pico
            takes.append(LotAmount(lot.lot, lot.pool, share_pico))
    return takes


def _settle_over_lots(purse: _Purse, charge_pico: int) -> Settled:
    """A charge within its hold that empties a lot: the free money is accounted for already."""
    takes = _take(purse.lots, charge_pico)
    uncovered_pico = charge_pico - sum(part.amount_pico for part in takes)
    purse.owed_pico += uncovered_pico
    purse.recount()
    return Settled(tuple(takes), uncovered_pico)


def _settle_slowly(purse: _Purse, hold: Hold, charge_pico: int) -> Settled:
    """A charge that meets expired lots, or exceeds its hold: the excess may use free money only."""
    purse.recount()
    beyond_pico = max(0, charge_pico - hold.amount_pico)
    payable_pico = min(charge_pico, hold.amount_pico + min(beyond_pico, max(0, _spare(purse, hold))))
    takes = purse.take_expired(hold, payable_pico)
    takes += _take(purse.lots, payable_pico - sum(part.amount_pico for part in takes))
    uncovered_pico = charge_pico - sum(part.amount_pico for part in takes)
    purse.owed_pico += uncovered_pico
    purse.recount()
    return Settled(tuple(takes), uncovered_pico)


def _spare(purse: _Purse, hold: Hold) -> int:
    """Free money beside `hold`, which has just left the open holds."""
    purse.open.add(hold)
    purse.recount()
    spare_pico = purse.free_pico
    purse.open.remove(hold)
    purse.recount()
    return spare_pico


def _extend_past_expiry(purse: _Purse, hold: Hold, more_pico: int, now_ms: int) -> bool:
    before = (hold.amount_pico, hold.later_ms, hold.later_pico)
    hold.amount_pico += more_pico
    hold.later_pico += more_pico
    hold.later_ms = now_ms
    purse.recount()
    if purse.free_pico >= 0:
        return True
    hold.amount_pico, hold.later_ms, hold.later_pico = before
    purse.recount()
    return False
