"""Money events an operator causes: grant, adjustment, transfer. Pure: they build the event, the store applies
it.

Ids follow from user, type, reference and pool, so that a repeated command attempts the same rows and changes
nothing (M4); a reference used again with another amount is an alarm of the store, never a second booking.
"""

import hashlib

from farebox.base.errors import UsageError
from farebox.base.records import POOLS, Account, LotAmount, Transaction
from farebox.base.units import usd_from_pico
from farebox.ledger.lots import pool_parts, take_in_order
from farebox.store.base import Event


def grant_event(
    user: str,
    pool: str,
    amount_pico: int,
    reference: str,
    cause: str,
    expires_at_ms: int | None,
    actor: str,
    now_ms: int,
) -> Event:
    """Credit as a lot of its own. Raises UsageError on a bad pool or amount."""
    _check(pool, amount_pico)
    row = _credit(user, "earned_bonus", pool, amount_pico, reference, cause, now_ms)
    return Event((row,), expires_at_ms=expires_at_ms, source="grant", actor=actor)


def adjustment_event(
    user: str, pool: str, amount_pico: int, reference: str, cause: str, actor: str, now_ms: int
) -> Event:
    """A correction, up or down. A debit takes the pool's lots earliest expiry first."""
    _check(pool, abs(amount_pico))
    if amount_pico > 0:
        row = _credit(user, "adjustment", pool, amount_pico, reference, cause, now_ms)
    else:
        row = Transaction(user, "adjustment", reference, pool, amount_pico, (), cause, now_ms)
    return Event((row,), source="adjustment", actor=actor)


def transfer_event(
    giver: Account,
    receiver: str,
    pool: str,
    to_pool: str,
    amount_pico: int,
    reference: str,
    actor: str,
    now_ms: int,
) -> Event | None:
    """Move credit between users or pools; None when the giver has less unleased money than that; his claim
    of this reference counts as free.

    The lots given are named, so that the receiver's lot can end when the first of them would have: a transfer
    never lengthens the life of credit.
    """
    _check(pool, amount_pico)
    _check(to_pool, amount_pico)
    if (giver.user, pool) == (receiver, to_pool):
        raise UsageError("a transfer needs another user or another pool to go to")
    taken = take_in_order(pool_parts(giver, pool, now_ms, reference), amount_pico)
    if sum(part.amount_pico for part in taken) != amount_pico:
        return None
    amounts = tuple(part._replace(amount_pico=-part.amount_pico) for part in taken)
    given = {part.lot for part in taken}
    ends = [lot.expires_at_ms for lot in giver.lots if lot.lot in given and lot.expires_at_ms is not None]
    cause = f"transfer of {usd_from_pico(amount_pico)} USD from {giver.user} {pool} to {receiver} {to_pool}"
    out = Transaction(giver.user, "transfer_out", reference, pool, -amount_pico, amounts, cause, now_ms)
    into = _credit(receiver, "transfer_in", to_pool, amount_pico, reference, cause, now_ms)
    return Event((out, into), expires_at_ms=min(ends, default=None), source="transfer", actor=actor)


def _credit(
    user: str, kind: str, pool: str, amount_pico: int, reference: str, cause: str, now_ms: int
) -> Transaction:
    lot = hashlib.sha256(f"{user}:{kind}:{reference}:{pool}".encode()).hexdigest()[:24]
    return Transaction(
        user, kind, reference, pool, amount_pico, (LotAmount(lot, pool, amount_pico),), cause, now_ms
    )


def _check(pool: str, amount_pico: int) -> None:
    if pool not in POOLS:
        raise UsageError(f"{pool!r} is no pool; choose one of {', '.join(POOLS)}")
    if amount_pico <= 0:
        raise UsageError("the amount must not be zero or negative")
