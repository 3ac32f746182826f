"""Rollups against each other: every series of sums counts the same exchanges, so all add up to the same.

Promises to be right while traffic runs: the cells an exchange adds to change in one transaction, and the
totals are read in one snapshot. What differs is no user's money; it is what statistics say.
"""

from collections.abc import Iterator, Mapping

from farebox.ledger.conservation import Finding
from farebox.store.base import Store
from farebox.store.rollups import USERS

_REFERENCE = f"{USERS}/ever"


async def rollup_findings(store: Store) -> list[Finding]:
    """Each series that does not add up to what users ever did."""
    return list(_different(await store.series_totals()))


def _different(totals: Mapping[str, Mapping[str, tuple[int, int]]]) -> Iterator[Finding]:
    expected = totals.get(_REFERENCE, {})
    for series, found in sorted(totals.items()):
        for wallet in sorted({*expected, *found}):
            has, should = found.get(wallet, (0, 0)), expected.get(wallet, (0, 0))
            if has != should:
                text = (
                    f"rollups {series} of {wallet}: {has[0]} requests and {has[1]} pico, "
                    f"{_REFERENCE} has {should[0]} and {should[1]}"
                )
                yield Finding("rollups", text, 0, {"series": series, "wallet": wallet})
