"""Claims: debits that meet leased money, collected part by part (MONEY section 5).

The one place that decides what a claim can take now and when it is over. Pure: a store reads the account,
asks here, and writes the outcome in the same transaction. Promises: a claim with a lot touches no other lot
(hole 51); parts taken never add up to more than was asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import Account, Claim, LotAmount, Transaction
from farebox.ledger.lots import lot_parts, pool_parts, take_in_order

ASKED = "asked_pico"
"""In the charge of a row that books part of a debit: what the debit asked for."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What a claim takes now, and what it asks for afterwards (0: it is over)."""

    parts: tuple[LotAmount, ...]
    asked_pico: int
    is_leased: bool
    """Whether money it still asks for is leased, and so worth recalling."""


def collected(account: Account, claim: Claim, now_ms: int) -> Collected:
    """What a claim can reach now. One with a lot is over once nobody leases the lot: with what there was.

    A freeze keeps its lot from grants and from what the pool owes, not from a debit of that very lot: a
    refund of a disputed payment would find nothing there, and be over.
    """
    if claim.lot is None:
        free = pool_parts(account, claim.pool, now_ms, claim.reference)
        leased_pico = sum(lot.leased_pico for lot in account.lots if lot.pool == claim.pool)
    else:
        free = lot_parts(_thawed(account, claim.lot), claim.pool, claim.lot, now_ms, claim.reference)
        leased_pico = sum(lot.leased_pico for lot in account.lots if lot.lot == claim.lot)
    parts = take_in_order(free, claim.amount_pico)
    asked_pico = claim.amount_pico - sum(part.amount_pico for part in parts)
    if claim.lot is not None and not leased_pico:
        asked_pico = 0
    return Collected(parts, asked_pico, is_leased=bool(asked_pico and leased_pico))


def claim_of(row: Transaction, now_ms: int) -> Claim:
    """The claim with which a debit's row takes what is there and waits for the rest.

    Raises InvariantBrokenError on a row that is no debit, or names more than one lot.
    """
    if row.amount_pico >= 0 or len(row.lots) > 1:
        raise InvariantBrokenError(f"row {row.id}: a claim is a debit of one lot, or of its pool")
    lot = row.lots[0].lot if row.lots else None
    return Claim(row.reference, row.pool, lot, -row.amount_pico, row.type, row.cause, now_ms)


def first_part_row(row: Transaction, taken: Collected) -> Transaction:
    """The row of a debit that claims: under its own id what it takes at once, with what it asked for."""
    return _taking(row, taken, {ASKED: -row.amount_pico})


def part_row(user: str, rev: int, claim: Claim, taken: Collected, now_ms: int) -> Transaction:
    """The row of a later part: reference `{reference}:{rev}`, so that each part is booked once."""
    row = Transaction(user, claim.type, f"{claim.reference}:{rev}", claim.pool, 0, (), claim.cause, now_ms)
    return _taking(row, taken, {ASKED: claim.amount_pico})


def _thawed(account: Account, lot: str) -> Account:
    """The account without the freezes of a lot: claims on it that no row collects."""
    return replace(account, claims=tuple(one for one in account.claims if one.lot != lot or one.type))


def _taking(row: Transaction, taken: Collected, charge: Mapping[str, object]) -> Transaction:
    lots = tuple(part._replace(amount_pico=-part.amount_pico) for part in taken.parts)
    return replace(row, amount_pico=sum(part.amount_pico for part in lots), lots=lots, charge=charge)
