"""What a world of the model is made of: journals, workers, exchanges and the errors they meet."""

from dataclasses import dataclass, field
from typing import Any

from farebox.base.records import LotAmount, Settlement, Transaction
from farebox.ledger.user_lease import Hold, UserLease

WALLET = "ohmygpt"


class BrokenError(Exception):
    """A promise does not hold."""


class UnknownError(Exception):
    """A reply did not come."""


@dataclass
class Record:
    pos: int
    kind: str
    exchange: str
    settlement: Settlement | None = None


@dataclass
class Exchange:
    """What happened in truth: asked of whom, sent or not, what the client was told."""

    id: str
    user: str
    hold_pico: int
    journal: str
    hold: Hold | None = None
    started: int = 0
    sent: bool = False
    told_pico: int | None = None
    excused: bool = False


@dataclass
class Journal:
    id: str
    host: int
    records: list[Record] = field(default_factory=list)
    synced: int = 0
    epoch: int = 0
    number: int = 0

    def append(self, kind: str, exchange: str, settlement: Settlement | None = None) -> None:
        self.number += 1
        self.records.append(Record(self.epoch << 40 | self.number, kind, exchange, settlement))


@dataclass
class Worker:
    journal: Journal
    epoch: int
    leases: dict[str, UserLease] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    unbooked: dict[str, list[Settlement]] = field(default_factory=dict)
    freed: dict[str, int] = field(default_factory=dict)
    open: dict[str, Exchange] = field(default_factory=dict)
    returning: tuple[str, list[LotAmount]] | None = None
    half_fence: tuple[str, Any] | None = None
    dead: bool = False


def uncovered_pico(settlement: Settlement) -> int:
    if settlement.quarantine:
        return 0
    return settlement.amount_pico - sum(take.amount_pico for take in settlement.takes)


def row_of(
    user: str, kind: str, reference: str, amount: int, part: LotAmount | None, now: int
) -> Transaction:
    return Transaction(user, kind, reference, "credits", amount, (part,) if part else (), "model", now)


def settlement_of(
    exchange: str, user: str, charge: int, takes: tuple[LotAmount, ...], quarantine: str, now: int
) -> Settlement:
    return Settlement(
        exchange, user, WALLET, "", "m", "chat", 1, "1", "exact", (), {}, {}, 0, "", charge, takes,
        quarantine, "ok", 200, "u", "m", "", False, now, now, now,
    )  # fmt: skip
