"""What every store decides alike about settled exchanges (MONEY sections 4 and 9): which records leave no
row, which the lease covers, what raises which lifetime counter, how a parked one is shown and resolved.

Pure: a store reads, asks here, and writes the outcome in one transaction.
"""

import dataclasses
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from farebox.base.errors import UsageError
from farebox.base.records import POOLS, Account, LeaseEntry, LotAmount, Settlement
from farebox.ledger.lots import spend_order
from farebox.ledger.settlement import LateSplit, late_split

QUARANTINE: Final = "quarantine"
"""Cannot be priced or trusted; its hold is reserved."""
ACCOUNT: Final = "account"
"""The account is parked, damaged or unknown."""
POISON: Final = "poison"
"""A value of the record cannot be stored."""
CONFLICT: Final = "conflict"
"""Other content under the id of an exchange that is booked: an alarm; nothing may be overwritten."""

_RESERVED: Final = "reserved"
"""Stands for the journal where reserved money takes the place of a lease."""
_LEGACY_POOLS: Final = frozenset({"credits", "refCredits"})
_NEW_POOL: Final = "creditsNew"
_NEW_WALLET: Final = "openhands"


def is_refusal(settlement: Settlement) -> bool:
    """Whether nothing was sent and nothing is owed: a log row without a ledger row."""
    return (
        not settlement.amount_pico
        and settlement.outcome == "refused"
        and settlement.evidence == "none"
        and settlement.status >= 400
        and not settlement.takes
        and not settlement.quarantine
    )


def output_tokens(settlement: Settlement) -> int:
    """All output tokens of an exchange, those of other models it used included."""
    if settlement.output_total >= 0:
        return settlement.output_total
    output = settlement.counts.get("output", 0)
    if settlement.others:
        output += sum(counts.get("output", 0) for counts in settlement.others.values())
    return output


@dataclass(slots=True)
class Counters:
    """What charges add to a user's lifetime counters; money in pico-USD."""

    spent_pico: int = 0
    written_off_pico: int = 0
    credits_used_pico: int = 0
    credits_new_used_pico: int = 0
    tokens_new: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def take(self, parts: Iterable[LotAmount], written_off_pico: int) -> None:
        """Count money that left the pools, and what no pool could cover."""
        self.written_off_pico += written_off_pico
        for _, pool, amount in parts:
            self.spent_pico += amount
            if pool in _LEGACY_POOLS:
                self.credits_used_pico += amount
            elif pool == _NEW_POOL:
                self.credits_new_used_pico += amount

    def count_tokens(self, settlements: Iterable[Settlement]) -> None:
        """Count the tokens of exchanges."""
        for settlement in settlements:
            output = output_tokens(settlement)
            if settlement.wallet == _NEW_WALLET:
                self.tokens_new += settlement.input_total + output
            self.input_tokens += settlement.input_total
            self.output_tokens += output


def live_lots(account: Account, journal: str) -> dict[str, int]:
    """What a journal leases of a user by lot; nothing where its entry is dead."""
    entry = account.leases.get(journal)
    return {} if entry is None or entry.dead else dict(entry.lots)


def pays_as_recorded(account: Account, journal: str, record: Settlement) -> bool:
    """Whether the lots a record names pay for its whole charge out of the journal's own lease."""
    if sum(part.amount_pico for part in record.takes) != record.amount_pico:
        return False
    lots = live_lots(account, journal)
    pools = {lot.lot: lot.pool for lot in account.lots}
    for lot, pool, amount in record.takes:
        lots[lot] = lots.get(lot, 0) - amount
        if amount <= 0 or lots[lot] < 0 or pools.get(lot) != pool:
            return False
    return True


def parked_name(record: Settlement, kind: str) -> str:
    """The id a parked record is kept under: its exchange's, or where that is taken, one with its digest."""
    return record.exchange if kind != CONFLICT else f"{record.exchange}-{zlib.crc32(record.encode()):08x}"


def described(
    name: str, kind: str, reason: str, record: Settlement, journal: str, parked_ms: int, reserved_pico: int
) -> Mapping[str, object]:
    """A parked record as an operator sees it; `id` is what resolving takes."""
    return {
        "id": name,
        "exchange": record.exchange,
        "user": record.user,
        "kind": kind,
        "reason": reason,
        "journal": journal,
        "parked_ms": parked_ms,
        "wallet": record.wallet,
        "model": record.model,
        "evidence": record.evidence,
        "counts": dict(record.counts),
        "amount_pico": record.amount_pico,
        "reserved_pico": reserved_pico,
        "settlement": record,
    }


def check_resolution(
    name: str, kind: str, record: Settlement, amount_pico: int | None, account: Account | None
) -> None:
    """Raises UsageError with the reason where a parked record cannot be settled at this amount."""
    if amount_pico is None:
        return
    if amount_pico < 0:
        raise UsageError(f"{name}: a charge cannot be negative; credit the user with an adjustment instead")
    if kind == CONFLICT:
        raise UsageError(
            f"{name}: the exchange is booked already; void this copy, and correct the balance with an "
            "adjustment"
        )
    if account is None:
        raise UsageError(f"{name}: no such user: {record.user}; create the account, or void the exchange")


def final_settlement(record: Settlement, kind: str, amount_pico: int) -> Settlement:
    """The settlement the operator decided on; counts that could not be stored are left out."""
    unstorable = kind == POISON
    return dataclasses.replace(
        record,
        amount_pico=amount_pico,
        takes=(),
        quarantine="",
        flags=(*record.flags, "resolved"),
        counts={} if unstorable else record.counts,
        others={} if unstorable else record.others,
        input_total=0 if unstorable else record.input_total,
    )


def resolved_split(account: Account, final: Settlement, now_ms: int) -> LateSplit:
    """Who pays for a resolved exchange: what was reserved for it first, then what is available."""
    reserved = reserved_parts(account, final.exchange)
    lots = {part.lot: part.amount_pico for part in reserved}
    as_lease = dataclasses.replace(account, leases={_RESERVED: LeaseEntry(_RESERVED, 0, 0, False, lots)})
    return late_split(as_lease, _RESERVED, dataclasses.replace(final, takes=reserved), now_ms)


def reserved_parts(account: Account, exchange: str) -> tuple[LotAmount, ...]:
    """What is set aside for a quarantined exchange, in spending order."""
    reserved = account.reserved.get(exchange, {})
    return tuple(
        LotAmount(lot.lot, pool, reserved[lot.lot])
        for pool in POOLS
        for lot in spend_order(account.lots)
        if lot.pool == pool and lot.lot in reserved
    )
