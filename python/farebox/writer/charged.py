"""What an exchange really took from pools, read back from its ledger rows, for its request-log row.

Only asked for exchanges out of the ordinary: booked late, parked, or found booked after a crash of the
writer. Promises a bounded search (M10): a user's newest rows, as many as a batch may have written.
"""

from collections.abc import Sequence

from farebox.base import limits
from farebox.base.records import Settlement, Transaction
from farebox.store.base import Store

_PAGE_ROWS = 200


async def charged_of(store: Store, settlements: Sequence[Settlement]) -> dict[str, int]:
    """Exchange -> pico-USD taken from pools; 0 where there are no rows (parked, refused)."""
    charged = {settlement.exchange: 0 for settlement in settlements}
    wanted_of: dict[str, set[str]] = {}
    for settlement in settlements:
        wanted_of.setdefault(settlement.user, set()).add(settlement.exchange)
    for user, wanted in wanted_of.items():
        for row in await _newest_rows_of(store, user, wanted):
            charged[row.reference] -= row.amount_pico
    return charged


async def _newest_rows_of(store: Store, user: str, wanted: set[str]) -> list[Transaction]:
    """A user's rows that belong to the wanted exchanges; rows of one exchange stand together."""
    found: list[Transaction] = []
    missing = set(wanted)
    before = ""
    for _ in range(1 + limits.records_per_batch_max * 2 // _PAGE_ROWS):
        page = await store.transactions(user, _PAGE_ROWS, before)
        ours = [row for row in page if row.reference in wanted and row.type in {"spent", "written_off"}]
        found += ours
        missing -= {row.reference for row in page}
        if len(page) < _PAGE_ROWS or (not missing and not ours):
            break
        before = page[-1].id
    return found
