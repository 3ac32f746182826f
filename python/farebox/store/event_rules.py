"""What every store decides alike about money events (MONEY section 5): which rows an event may have, when two
of them are the same, and how a foreign write is adopted.

Pure: values in, values out. A store reads, asks here, and writes the outcome in one transaction.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import POOLS, TRANSACTION_TYPES, Account, LotAmount, Transaction
from farebox.ledger.settlement import merged
from farebox.store.base import Event
from farebox.store.record_rules import check_changes

_OF_EXCHANGES: Final = frozenset({"spent", "written_off"})
_ONLY_CREDIT: Final = frozenset(
    {"earned_purchase", "earned_bonus", "earned_subscription", "earned_referral", "transfer_in", "opening"}
)
_ONLY_DEBIT: Final = frozenset({"transfer_out", "expired"})
_DATED_POOLS: Final = frozenset({"credits", "creditsNew"})


class ShortError(Exception):
    """A debit met too little unleased money: undo the event."""


def check_shape(event: Event) -> None:
    """Refuse rows no event may have. Raises InvariantBrokenError."""
    if not (event.rows or event.records) or len({row.id for row in event.rows}) != len(event.rows):
        raise InvariantBrokenError("an event has at least one row or record, and no row twice")
    check_changes(event.records)
    for row in event.rows:
        if row.type not in TRANSACTION_TYPES or row.type in _OF_EXCHANGES or row.pool not in POOLS:
            raise InvariantBrokenError(f"row {row.id}: no event has this type and pool")
        if (row.type in _ONLY_CREDIT and row.amount_pico < 0) or (
            row.type in _ONLY_DEBIT and row.amount_pico > 0
        ):
            raise InvariantBrokenError(f"row {row.id}: {row.amount_pico} has the wrong sign for its type")


class StoredRow(NamedTuple):
    """What is compared of a row that is booked already."""

    amount_pico: int
    lots: tuple[LotAmount, ...]
    asked_pico: int | None = None
    """What a debit that claims asked for: it took what was there then."""

    def says(self, row: Transaction) -> bool:
        """Whether it is this row."""
        if self.asked_pico is not None:
            return self.asked_pico == -row.amount_pico
        return self.amount_pico == row.amount_pico and (
            not row.lots or self.lots == signed(row, merged(row.lots))
        )


def is_booked(wanted: Sequence[Transaction], stored: Mapping[str, StoredRow]) -> bool:
    """Whether these rows are among the stored ones (by id): a redelivery.

    Raises InvariantBrokenError when only some are, or with other content: an alarm, never success (hole 9).
    """
    there = [(row, stored[row.id]) for row in wanted if row.id in stored]
    if not there:
        return False
    for row, found in there:
        if not found.says(row):
            raise InvariantBrokenError(
                f"M4: row {row.id} is booked already with other content; nothing was changed"
            )
    if len(there) != len(wanted):
        raise InvariantBrokenError(
            f"M4: only {len(there)} of {len(wanted)} rows beside {there[0][0].id} are booked"
        )
    return True


def signed(row: Transaction, parts: Sequence[LotAmount]) -> tuple[LotAmount, ...]:
    """Lot amounts with the sign of their row, as they are stored."""
    sign = -1 if row.amount_pico < 0 else 1
    return tuple(part._replace(amount_pico=sign * abs(part.amount_pico)) for part in parts)


def counts_as_earned(row: Transaction) -> bool:
    """Whether a row raises the lifetime counter of earned money."""
    return row.type.startswith("earned_")


def dates_its_pool(row: Transaction) -> bool:
    """Whether a row sets the dates of the last purchase, which readers of the replaced system show."""
    return counts_as_earned(row) and row.type != "earned_referral" and row.pool in _DATED_POOLS


def adopted_rows(account: Account, now_ms: int) -> tuple[Transaction, ...]:
    """An adjustment for every pool whose balance is not its shadow; what was added is a lot of its own."""
    user, reference = account.user, f"adopt:{account.rev}"
    adjustments: list[Transaction] = []
    for pool in sorted(account.balances):
        amount = account.balances[pool] - account.seen[pool]
        if not amount:
            continue
        lots = (LotAmount(_lot_of(user, reference, pool), pool, amount),) if amount > 0 else ()
        adjustments.append(Transaction(user, "adjustment", reference, pool, amount, lots, "adopted", now_ms))
    return tuple(adjustments)


def _lot_of(user: str, reference: str, pool: str) -> str:
    """A lot id that every host derives alike, so that a repetition meets the same lot."""
    return hashlib.sha256(f"{user}:{reference}:{pool}".encode()).hexdigest()[:24]
