"""What every store decides alike about leases (MONEY section 6): who may be granted, what an answer says,
which return fits.

Pure: a store reads the account and the journal's row, asks here, and writes guarded by what it read.
"""

from collections.abc import Mapping, Sequence

from farebox.base import limits
from farebox.base.records import WALLETS, Account, Grant, LeaseEntry, LotAmount
from farebox.ledger.lots import available_pico, is_expired, remaining_pico

FOREIGN_WRITE = "a balance was written from outside Farebox; see `farebox verify` and `farebox wallet adopt`"
"""Why an account is parked whose balance differs from its shadow."""


def is_damaged(account: Account) -> bool:
    """Whether someone outside wrote a balance: it differs from its shadow (MONEY section 2)."""
    return account.balances != account.seen


def is_stale(entry: LeaseEntry | None, epoch: int, op: int) -> bool:
    """Whether a call of this epoch and operation is not the next one of the lease entry."""
    owner, stored_op, dead = (epoch, 0, False) if entry is None else (entry.owner_epoch, entry.op, entry.dead)
    return dead or owner != epoch or stored_op != op


def why_no_grant(account: Account) -> str:
    """Why an account may be granted nothing at all: "", or a reason of `Grant`."""
    if account.parked is not None:
        return "parked"
    if len(account.reserved) >= limits.quarantined_per_user_max:
        return "quarantined"
    return "" if account.is_active else "inactive"


def why_nothing_left(account: Account, wallet: str, now_ms: int) -> str:
    """Why no slice could be chosen: everything has expired, or there is too little."""
    left = [lot for lot in account.lots if lot.pool in WALLETS[wallet] and lot.left_pico > 0]
    if left and all(is_expired(lot.expires_at_ms, now_ms) for lot in left):
        return "expired"
    return "short"


def answer(
    account: Account, wallet: str, now_ms: int, reason: str, op: int, slices: Sequence[LotAmount] = ()
) -> Grant:
    """The answer to a grant; `account` is as it was before `slices` left it."""
    expiry = {lot.lot: lot.expires_at_ms for lot in account.lots}
    return Grant(
        reason=reason,
        op=op,
        added=tuple((part, expiry[part.lot]) for part in slices),
        remaining_pico=remaining_pico(account, wallet, now_ms),
        available_pico=available_pico(account, wallet, now_ms) - sum(part.amount_pico for part in slices),
        written_off_pico=account.written_off_pico,
    )


def by_lot(amounts: Sequence[LotAmount]) -> dict[str, int] | None:
    """Amounts added up per lot; None when one is negative: no return has such an amount."""
    asked: dict[str, int] = {}
    for part in amounts:
        if part.amount_pico < 0:
            return None
        asked[part.lot] = asked.get(part.lot, 0) + part.amount_pico
    return asked


def covers(lots: Mapping[str, int], amounts: Sequence[LotAmount]) -> bool:
    """Whether a lease holds what is to be returned."""
    asked = by_lot(amounts)
    return asked is not None and all(lots.get(lot, 0) >= amount for lot, amount in asked.items())
