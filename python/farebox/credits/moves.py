"""Moves of credit: what is asked for, its ledger rows, and the rows that take it back. Pure.

Promises: `transfer_out` and `transfer_in` of a move add up to zero; what a rate takes or gives beyond that
stands in a row of its own; the lots that are given are named, so that what arrives ends when the first of
them would have.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

from farebox.base.records import Account, LotAmount, Transaction
from farebox.base.units import usd_from_pico
from farebox.ledger.lots import pool_parts, take_in_order

_EXACT: Final = Context(prec=60)
_ONE: Final = Decimal(1)


@dataclass(frozen=True, slots=True)
class Move:
    """What is to be moved, and who says so and why.

    A transfer or allocation goes from `user`'s `pool` to `to_user`'s `to_pool`; a grant or correction has no
    other side, a correction may be negative. `rate`: what one USD taken becomes on the other side.
    """

    kind: str
    key: str
    user: str
    pool: str
    amount_pico: int
    reason: str
    actor: str
    to_user: str = ""
    to_pool: str = ""
    rate: Decimal = _ONE
    expires_at_ms: int | None = None

    @property
    def is_debit(self) -> bool:
        """Whether its user gives something."""
        return self.kind in {"transfer", "allocation"} or self.amount_pico < 0

    @property
    def received_pico(self) -> int:
        """What arrives on the other side, rounded once, half to even."""
        exact = _EXACT.multiply(Decimal(self.amount_pico), self.rate)
        return int(exact.to_integral_value(rounding=ROUND_HALF_EVEN))


def move_rows(account: Account, move: Move, now_ms: int) -> tuple[tuple[Transaction, ...], int | None] | None:
    """(rows, when what arrives ends); None where the giver has too little unleased money."""
    if move.kind == "grant":
        row = _credit(move.user, "earned_bonus", move, move.pool, move.amount_pico, move.reason, now_ms)
        return (row,), move.expires_at_ms
    if move.kind == "correction" and move.amount_pico > 0:
        row = _credit(move.user, "adjustment", move, move.pool, move.amount_pico, move.reason, now_ms)
        return (row,), move.expires_at_ms
    asked_pico = abs(move.amount_pico)
    parts = take_in_order(pool_parts(account, move.pool, now_ms, move.key), asked_pico)
    if sum(part.amount_pico for part in parts) != asked_pico:
        return None
    if move.kind == "correction":
        return (_debit(move.user, "adjustment", move, parts, move.reason, now_ms),), None
    return _paired(move, parts, now_ms), _first_end(account, parts)


def _paired(move: Move, parts: Sequence[LotAmount], now_ms: int) -> tuple[Transaction, ...]:
    """What both sides have in common goes over; what the rate takes or adds has a row of its own."""
    received_pico = move.received_pico
    common_pico = min(move.amount_pico, received_pico)
    over = take_in_order(parts, common_pico)
    cause = (
        f"{move.reason}: {usd_from_pico(move.amount_pico)} USD from {move.user} {move.pool} "
        f"to {move.to_user} {move.to_pool}"
    )
    rows = [
        _debit(move.user, "transfer_out", move, over, cause, now_ms),
        _credit(move.to_user, "transfer_in", move, move.to_pool, common_pico, cause, now_ms),
    ]
    if received_pico < move.amount_pico:
        rest = _rest(parts, over)
        rows.append(_debit(move.user, "adjustment", move, rest, f"{cause}, rate {move.rate}", now_ms))
    elif received_pico > move.amount_pico:
        extra_pico = received_pico - move.amount_pico
        cause = f"{cause}, rate {move.rate}"
        rows.append(_credit(move.to_user, "earned_bonus", move, move.to_pool, extra_pico, cause, now_ms))
    return tuple(rows)


def counter_rows(
    rows: Sequence[Transaction],
    accounts: Mapping[str, Account],
    reference: str,
    reason: str,
    now_ms: int,
) -> tuple[Transaction, ...] | None:
    """Rows that take these back, debits first; None where what was credited is not there any more.

    What was taken goes back into the lots it came from, with the life they have; what was given is taken out
    of the lot it made first, then of the pool.
    """
    credited = [row for row in rows if row.amount_pico > 0]
    debited = [row for row in rows if row.amount_pico < 0]
    taken: dict[tuple[str, str], int] = {}
    made: list[Transaction] = []
    for row in credited:
        account = accounts.get(row.user)
        parts = _given_back(account, row, taken, now_ms) if account is not None else ()
        if sum(part.amount_pico for part in parts) != row.amount_pico:
            return None
        for part in parts:
            taken[row.user, part.lot] = taken.get((row.user, part.lot), 0) + part.amount_pico
        negative = tuple(part._replace(amount_pico=-part.amount_pico) for part in parts)
        kind = "transfer_out" if row.type == "transfer_in" else "adjustment"
        made.append(_counter(row, kind, negative, reference, reason, now_ms))
    for row in debited:
        positive = tuple(part._replace(amount_pico=-part.amount_pico) for part in row.lots)
        kind = "transfer_in" if row.type == "transfer_out" else "adjustment"
        made.append(_counter(row, kind, positive, reference, reason, now_ms))
    return tuple(made)


def _given_back(
    account: Account, row: Transaction, taken: Mapping[tuple[str, str], int], now_ms: int
) -> tuple[LotAmount, ...]:
    free = [
        part._replace(amount_pico=part.amount_pico - taken.get((row.user, part.lot), 0))
        for part in pool_parts(account, row.pool, now_ms)
    ]
    own = {part.lot for part in row.lots}
    free.sort(key=lambda part: part.lot not in own)
    return take_in_order([part for part in free if part.amount_pico > 0], row.amount_pico)


def _counter(
    row: Transaction,
    kind: str,
    lots: tuple[LotAmount, ...],
    reference: str,
    reason: str,
    now_ms: int,
) -> Transaction:
    cause = f"{reason}: undoes {row.reference}"
    return replace(
        row,
        type=kind,
        reference=reference,
        amount_pico=-row.amount_pico,
        lots=lots,
        cause=cause,
        created_ms=now_ms,
        charge={},
    )


def _credit(
    user: str, kind: str, move: Move, pool: str, amount_pico: int, cause: str, now_ms: int
) -> Transaction:
    lot = hashlib.sha256(f"{user}:{kind}:{move.key}:{pool}".encode()).hexdigest()[:24]
    lots = (LotAmount(lot, pool, amount_pico),)
    return Transaction(user, kind, move.key, pool, amount_pico, lots, cause, now_ms)


def _debit(
    user: str, kind: str, move: Move, parts: Sequence[LotAmount], cause: str, now_ms: int
) -> Transaction:
    lots = tuple(part._replace(amount_pico=-part.amount_pico) for part in parts)
    amount_pico = sum(part.amount_pico for part in lots)
    return Transaction(user, kind, move.key, move.pool, amount_pico, lots, cause, now_ms)


def _rest(parts: Sequence[LotAmount], taken: Sequence[LotAmount]) -> tuple[LotAmount, ...]:
    """What of `parts` is left after `taken`, which begins with them."""
    gone = {part.lot: part.amount_pico for part in taken}
    rest = [part._replace(amount_pico=part.amount_pico - gone.get(part.lot, 0)) for part in parts]
    return tuple(part for part in rest if part.amount_pico)


def _first_end(account: Account, parts: Sequence[LotAmount]) -> int | None:
    given = {part.lot for part in parts}
    ends = [lot.expires_at_ms for lot in account.lots if lot.lot in given and lot.expires_at_ms is not None]
    return min(ends, default=None)
