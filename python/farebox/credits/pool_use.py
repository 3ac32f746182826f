"""How the pools are used: what each holds, and what each kind of transaction did to it. Pure.

Promises: every pool is named, used or not; amounts are exact decimal strings of USD, signed as in the ledger;
`spent_share` is the pool's part of what its wallet spent, which shows the order pools are spent in.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from farebox.base.records import POOLS, WALLETS
from farebox.base.units import usd_from_pico
from farebox.store.statistics import PoolUse, Wealth


def pools_document(wealth: Wealth, uses: Iterable[PoolUse]) -> dict[str, dict[str, Any]]:
    """Pool -> balance now, share of its wallet's spending, and what each type of transaction did."""
    by_pool: dict[str, list[PoolUse]] = {pool: [] for pool in POOLS}
    for use in uses:
        if use.pool in by_pool:
            by_pool[use.pool].append(use)
    spent = {
        pool: -sum(use.amount_pico for use in found if use.type == "spent") for pool, found in by_pool.items()
    }
    return {
        pool: {
            "balance": usd_from_pico(wealth.pools.get(pool, 0)),
            "spent_share": _share(spent[pool], sum(spent[one] for one in _wallet_of(pool))),
            "types": {
                use.type: {
                    "amount": usd_from_pico(use.amount_pico),
                    "transactions": use.rows,
                    "users": use.users,
                }
                for use in sorted(found, key=lambda use: use.type)
            },
        }
        for pool, found in by_pool.items()
    }


def _wallet_of(pool: str) -> tuple[str, ...]:
    return next((tuple(pools) for pools in WALLETS.values() if pool in pools), (pool,))


def _share(part_pico: int, whole_pico: int) -> str:
    """A part in percent with one decimal; empty where there is no whole."""
    return f"{Decimal(100 * part_pico) / Decimal(whole_pico):.1f}" if whole_pico > 0 else ""
