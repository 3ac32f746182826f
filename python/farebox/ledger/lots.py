"""Lots: what of a user's money is there to be leased or taken, and in which order (MONEY section 2).

The one place that decides spending order, expiry and how claims lower what is available. Promises: nothing is
chosen from an expired lot, from leased money, or from what a claim covers; the sum chosen never exceeds
`available_pico`.
"""

from collections.abc import Iterable

from farebox.base.records import WALLETS, Account, Claim, Lot, LotAmount

_NEVER_MS = 1 << 62


def is_expired(expires_at_ms: int | None, now_ms: int) -> bool:
    """Whether an expiry has come: a lot is good strictly before its expiry; None never expires."""
    return expires_at_ms is not None and expires_at_ms <= now_ms


def spend_order(lots: Iterable[Lot]) -> list[Lot]:
    """Lots earliest expiry first, those without expiry last; ties by lot id, so that every host agrees."""
    return sorted(lots, key=lambda lot: (_expiry_ms(lot), lot.lot))


def remaining_pico(account: Account, wallet: str, now_ms: int) -> int:
    """The wallet's balance over unexpired lots, leased money included."""
    return sum(lot.left_pico for lot in _unexpired(account, wallet, now_ms))


def available_pico(account: Account, wallet: str, now_ms: int) -> int:
    """What nobody leases or claims of the wallet's unexpired lots; negative when claims exceed it."""
    return sum(
        sum(capacity for _, capacity in _capacities(account, pool, now_ms)) - _pool_claims_pico(account, pool)
        for pool in WALLETS[wallet]
    )


def choose_slices(
    account: Account, wallet: str, need_pico: int, want_pico: int, now_ms: int
) -> tuple[LotAmount, ...]:
    """Slices for a grant: in spending order, as much as there is up to `want_pico`; empty below
    `need_pico`.
    """
    limit_pico = available_pico(account, wallet, now_ms)
    if limit_pico < need_pico:
        return ()
    return take_in_order(free_parts(account, wallet, now_ms), min(limit_pico, want_pico))


def free_parts(account: Account, wallet: str, now_ms: int) -> list[LotAmount]:
    """Every lot's free money in spending order, after claims."""
    return [part for pool in WALLETS[wallet] for part in pool_parts(account, pool, now_ms)]


def pool_parts(account: Account, pool: str, now_ms: int, ignore_claim: str = "") -> list[LotAmount]:
    """One pool's share of `free_parts`; the claim `ignore_claim` and those after it do not bind its
    collector. A claim on the whole pool takes the latest expiry first.
    """
    claimed_pico = _pool_claims_pico(account, pool, ignore_claim)
    parts: list[LotAmount] = []
    for lot, capacity in reversed(_capacities(account, pool, now_ms, ignore_claim)):
        covered_pico = min(claimed_pico, capacity)
        claimed_pico -= covered_pico
        if capacity > covered_pico:
            parts.append(LotAmount(lot.lot, pool, capacity - covered_pico))
    parts.reverse()
    return parts


def lot_parts(account: Account, pool: str, lot: str, now_ms: int, ignore_claim: str = "") -> list[LotAmount]:
    """One lot's free money after claims on that lot; empty when it has expired."""
    return [
        LotAmount(lot, pool, capacity)
        for one, capacity in _capacities(account, pool, now_ms, ignore_claim)
        if one.lot == lot and capacity
    ]


def covers(account: Account, pool: str, named: Iterable[LotAmount], now_ms: int, ignore_claim: str) -> bool:
    """Whether these amounts of a pool's lots are unleased, and what claims ask for is left; expired money is
    claimed by nobody.
    """
    unleased = {lot.lot: lot.left_pico - lot.leased_pico for lot in account.lots if lot.pool == pool}
    capacities = {lot.lot: capacity for lot, capacity in _capacities(account, pool, now_ms, ignore_claim)}
    unexpired_pico = sum(part.amount_pico for part in named if part.lot in capacities)
    limit_pico = sum(capacities.values()) - _pool_claims_pico(account, pool, ignore_claim)
    return unexpired_pico <= max(0, limit_pico) and all(
        part.amount_pico <= capacities.get(part.lot, unleased.get(part.lot, 0)) for part in named
    )


def take_in_order(parts: Iterable[LotAmount], amount_pico: int) -> tuple[LotAmount, ...]:
    """The first `amount_pico` of `parts`; all of them when there is less."""
    taken: list[LotAmount] = []
    for part in parts:
        if amount_pico <= 0:
            break
        share_pico = min(part.amount_pico, amount_pico)
        taken.append(part._replace(amount_pico=share_pico))
        amount_pico -= share_pico
    return tuple(taken)


def lots_to_renew(account: Account, pool: str, expires_at_ms: int | None, now_ms: int) -> tuple[str, ...]:
    """The pool's lots that last longer when its whole date is set to `expires_at_ms`: unexpired, not empty,
    and ending before it. Nothing is ever shortened, and what has expired stays expired (hole 17).
    """
    return tuple(
        lot.lot
        for lot in account.lots
        if lot.pool == pool
        and lot.left_pico > 0
        and not is_expired(lot.expires_at_ms, now_ms)
        and _expiry_ms(lot) < (_NEVER_MS if expires_at_ms is None else expires_at_ms)
    )


def _expiry_ms(lot: Lot) -> int:
    return _NEVER_MS if lot.expires_at_ms is None else lot.expires_at_ms


def _unexpired(account: Account, wallet: str, now_ms: int) -> list[Lot]:
    pools = WALLETS[wallet]
    return [lot for lot in account.lots if lot.pool in pools and not is_expired(lot.expires_at_ms, now_ms)]


def _capacities(account: Account, pool: str, now_ms: int, ignore_claim: str = "") -> list[tuple[Lot, int]]:
    """Unexpired lots of a pool in spending order, each with its unleased money less the claims on that lot.

    A claim on a lot binds that lot only: it never takes more than the lot's own unleased money (hole 51).
    """
    claimed: dict[str, int] = {}
    for claim in _binding(account.claims, pool, ignore_claim):
        if claim.lot is not None:
            claimed[claim.lot] = claimed.get(claim.lot, 0) + claim.amount_pico
    return [
        (lot, max(0, lot.left_pico - lot.leased_pico - claimed.get(lot.lot, 0)))
        for lot in spend_order(account.lots)
        if lot.pool == pool and not is_expired(lot.expires_at_ms, now_ms)
    ]


def _pool_claims_pico(account: Account, pool: str, ignore_claim: str = "") -> int:
    return sum(c.amount_pico for c in _binding(account.claims, pool, ignore_claim) if c.lot is None)


def _binding(claims: Iterable[Claim], pool: str, ignore_claim: str) -> list[Claim]:
    """Claims on a pool that somebody must leave alone: all, or for a claim's own collector the older ones.

    Were two collectors bound by each other's claims, neither would ever take anything.
    """
    mine = [claim for claim in claims if claim.pool == pool]
    own = next((_age(claim) for claim in mine if claim.reference == ignore_claim), None)
    return mine if own is None else [claim for claim in mine if _age(claim) < own]


def _age(claim: Claim) -> tuple[int, str]:
    return (claim.since_ms, claim.reference)
