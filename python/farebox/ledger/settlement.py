"""Settlements and events as ledger rows: which rows a charge leaves, and who pays when the lease does not
cover it.

The one place that decides the shape of charge rows (MONEY section 3), the split of the late path (section 4,
step 3) and which lots an event's debit takes (section 5). Pure: a store reads the account, asks here, and
writes the outcome in the same transaction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import WALLETS, Account, Lot, LotAmount, Settlement, Transaction
from farebox.ledger.lots import (
    available_pico,
    covers,
    free_parts,
    is_expired,
    pool_parts,
    spend_order,
    take_in_order,
)


@dataclass(frozen=True, slots=True)
class LateSplit:
    """Who pays for a charge on the late path; `split` is both sources merged per lot, `written_off_pico` the
    rest.
    """

    split: tuple[LotAmount, ...]
    from_lease: tuple[LotAmount, ...]
    from_available: tuple[LotAmount, ...]
    written_off_pico: int


def rows_of(
    settlement: Settlement, split: Iterable[LotAmount], written_off_pico: int, now_ms: int
) -> tuple[Transaction, ...]:
    """Ledger rows of a settlement of which `split` pays and the rest is written off.

    `spent` rows add up to minus the full charge. The written-off part is a positive row beside the spent row
    of the wallet's last touched (else first) pool. An exchange that touched no pool gets one zero row. The
    first row carries the charge block. A quarantined settlement has no rows until an operator resolves it.
    Lot amounts are signed like their row. Raises InvariantBrokenError when the parts do not add up to the
    charge.
    """
    if settlement.quarantine:
        return ()
    parts = tuple(split)
    if len(parts) == 1 and parts[0].amount_pico == settlement.amount_pico > 0 and not written_off_pico:
        return _one_lot_row(settlement, parts[0], now_ms)
    takes = _by_pool(settlement.wallet, parts)
    taken_pico = sum(part.amount_pico for parts in takes.values() for part in parts)
    if taken_pico + written_off_pico != settlement.amount_pico or written_off_pico < 0:
        raise InvariantBrokenError(
            f"M1: exchange {settlement.exchange} charges {settlement.amount_pico} pico, "
            f"but {taken_pico} is paid and {written_off_pico} written off"
        )
    last_pool = next(reversed(takes), WALLETS[settlement.wallet][0])
    takes.setdefault(last_pool, [])
    rows = [
        _charge_row(settlement, "spent", pool, parts, written_off_pico if pool == last_pool else 0, now_ms)
        for pool, parts in takes.items()
    ]
    rows[0] = _with_charge_block(rows[0], charge_block(settlement))
    if written_off_pico:
        rows.append(_charge_row(settlement, "written_off", last_pool, [], -written_off_pico, now_ms))
    return tuple(rows)


def charge_block(settlement: Settlement) -> Mapping[str, object]:
    """Everything that recomputes the charge from its own row, forever (M7)."""
    return {
        "amount_pico": settlement.amount_pico,
        "counts": settlement.counts,
        "others": settlement.others,
        "input_total": settlement.input_total,
        "wire_format": settlement.wire_format,
        "model": settlement.model,
        "variant": settlement.variant,
        "price_version": settlement.price_version,
        "multiplier": settlement.multiplier,
        "evidence": settlement.evidence,
        "flags": list(settlement.flags),
        "free": settlement.free,
    }


def late_split(account: Account, journal: str, settlement: Settlement, now_ms: int) -> LateSplit:
    """Who pays when the lease is dead or short: k = min(charge, own live lease + available).

    First the takes as recorded, as far as the lease still holds them; then money nobody leases; then the rest
    of the own lease, which open holds of the worker may rely on (its memory is fenced afterwards). A
    quarantined settlement asks for its hold and writes nothing off: what is not there cannot be set aside.
    """
    recorded_pico = sum(take.amount_pico for take in settlement.takes)
    charge_pico = settlement.amount_pico
    if settlement.quarantine:
        charge_pico = max(recorded_pico, charge_pico)
    lease = _own_lease(account, journal, settlement.wallet)
    as_recorded = take_in_order(_both(settlement.takes, lease), charge_pico)
    missing_pico = charge_pico - _sum(as_recorded)
    limit_pico = max(0, available_pico(account, settlement.wallet, now_ms))
    from_available = take_in_order(
        free_parts(account, settlement.wallet, now_ms), min(missing_pico, limit_pico)
    )
    missing_pico -= _sum(from_available)
    for take in as_recorded:
        lease[take.lot] = lease[take.lot]._replace(amount_pico=lease[take.lot].amount_pico - take.amount_pico)
    unspent = [part for part in lease.values() if part.amount_pico > 0]
    from_lease = merged((*as_recorded, *take_in_order(unspent, missing_pico)))
    return LateSplit(
        split=merged((*from_lease, *from_available)),
        from_lease=from_lease,
        from_available=from_available,
        written_off_pico=0
        if settlement.quarantine
        else charge_pico - _sum(from_lease) - _sum(from_available),
    )


def plan_event(account: Account, row: Transaction, now_ms: int) -> tuple[LotAmount, ...] | None:
    """The lots (positive amounts) an event's row moves; None: SHORT, too little unleased money.

    A credit names its lots. A debit takes the unleased money of the lots it names, expired or not, or of its
    pool earliest expiry first; older claims of others bind it, its own claim (by reference) does not. Raises
    InvariantBrokenError on a row whose lots do not add up to its amount or lie in another pool.
    """
    named = merged(part._replace(amount_pico=abs(part.amount_pico)) for part in row.lots)
    if any(part.pool != row.pool for part in named):
        raise InvariantBrokenError(f"M1: row {row.id} names lots of another pool")
    if (named or row.amount_pico > 0) and _sum(named) != abs(row.amount_pico):
        raise InvariantBrokenError(f"M1: the lots of row {row.id} do not add up to its amount")
    if row.amount_pico >= 0:
        return named
    if named:
        return named if covers(account, row.pool, named, now_ms, row.reference) else None
    taken = take_in_order(pool_parts(account, row.pool, now_ms, row.reference), -row.amount_pico)
    return taken if _sum(taken) == -row.amount_pico else None


def expired_parts(account: Account, now_ms: int) -> tuple[LotAmount, ...]:
    """What a sweep takes now: the unleased rest of every expired lot. The leased rest comes when it is
    returned.
    """
    return tuple(
        LotAmount(lot.lot, lot.pool, lot.left_pico - lot.leased_pico)
        for lot in spend_order(account.lots)
        if is_expired(lot.expires_at_ms, now_ms) and lot.left_pico > lot.leased_pico
    )


def expiry_rows(account: Account, now_ms: int) -> tuple[Transaction, ...]:
    """Rows of a sweep: reference `{lot}:{rev}`, so that a lot can be swept again when more of it comes
    back.
    """
    return tuple(
        Transaction(
            user=account.user,
            type="expired",
            reference=f"{part.lot}:{account.rev}",
            pool=part.pool,
            amount_pico=-part.amount_pico,
            lots=(part._replace(amount_pico=-part.amount_pico),),
            cause="expiry",
            created_ms=now_ms,
        )
        for part in expired_parts(account, now_ms)
    )


def merged(parts: Iterable[LotAmount]) -> tuple[LotAmount, ...]:
    """Amounts of the same lot added up, in order of first appearance; zeros dropped."""
    sums: dict[str, LotAmount] = {}
    for part in parts:
        known = sums.get(part.lot)
        sums[part.lot] = (
            part if known is None else known._replace(amount_pico=known.amount_pico + part.amount_pico)
        )
    return tuple(part for part in sums.values() if part.amount_pico)


def _by_pool(wallet: str, split: Iterable[LotAmount]) -> dict[str, list[LotAmount]]:
    """Non-zero parts by pool, pools in wallet order, those not touched left out."""
    parts = merged(split)
    by_pool = {pool: [part for part in parts if part.pool == pool] for pool in WALLETS[wallet]}
    return {pool: parts for pool, parts in by_pool.items() if parts}


def _one_lot_row(settlement: Settlement, part: LotAmount, now_ms: int) -> tuple[Transaction, ...]:
    """The usual case, one lot pays all: the same row as the general way at a third of its cost."""
    if part.pool not in WALLETS[settlement.wallet]:
        raise InvariantBrokenError(f"M1: {settlement.exchange} takes of {part.pool}, not of its wallet")
    taken_pico = -part.amount_pico
    row = Transaction(
        settlement.user,
        "spent",
        settlement.exchange,
        part.pool,
        taken_pico,
        (LotAmount(part.lot, part.pool, taken_pico),),
        "exchange",
        now_ms,
        charge_block(settlement),
    )
    return (row,)


def _charge_row(
    settlement: Settlement, kind: str, pool: str, parts: list[LotAmount], beyond_pico: int, now_ms: int
) -> Transaction:
    return Transaction(
        user=settlement.user,
        type=kind,
        reference=settlement.exchange,
        pool=pool,
        amount_pico=-_sum(parts) - beyond_pico,
        lots=tuple(part._replace(amount_pico=-part.amount_pico) for part in parts),
        cause="exchange",
        created_ms=now_ms,
    )


def _with_charge_block(row: Transaction, charge: Mapping[str, object]) -> Transaction:
    return Transaction(
        row.user,
        row.type,
        row.reference,
        row.pool,
        row.amount_pico,
        row.lots,
        row.cause,
        row.created_ms,
        charge,
    )


def _own_lease(account: Account, journal: str, wallet: str) -> dict[str, LotAmount]:
    """The journal's live lease on a wallet by lot, in spending order."""
    entry = account.leases.get(journal)
    if entry is None or entry.dead:
        return {}
    pools = WALLETS[wallet]
    lots: list[Lot] = [lot for pool in pools for lot in spend_order(account.lots) if lot.pool == pool]
    return {
        lot.lot: LotAmount(lot.lot, lot.pool, entry.lots[lot.lot]) for lot in lots if entry.lots.get(lot.lot)
    }


def _both(takes: Iterable[LotAmount], lease: Mapping[str, LotAmount]) -> list[LotAmount]:
    """Of each recorded take what the lease still holds."""
    return [
        take._replace(amount_pico=min(take.amount_pico, lease[take.lot].amount_pico))
        for take in merged(takes)
        if take.lot in lease
    ]


def _sum(parts: Iterable[LotAmount]) -> int:
    return sum(part.amount_pico for part in parts)
