"""Every charge, recomputed from its own ledger row and the price book it names (M7).

Promises: a charge that does not come out to the pico is named; a charge an operator decided, or that was cut
at its hold after a crash, is counted apart and still checked as far as it can be. Reads page by page, changes
nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from farebox._meter import PriceError
from farebox.base import limits
from farebox.base.errors import FareboxError
from farebox.base.records import Transaction
from farebox.base.units import usd_from_pico
from farebox.meter.price_book import TOKEN_INPUT_KINDS, PriceBook, charge_of, from_plain
from farebox.store.base import Store
from farebox.writer.flags import CAPPED, RESOLVED

OnProgress = Callable[[str, int], None]
"""Called with the last user and the number of charges done so far."""


@dataclass(slots=True)
class AuditReport:
    """What an audit found; clean when `mismatches` is empty."""

    mismatches: list[str] = field(default_factory=list)
    mismatches_total: int = 0
    users: int = 0
    charges: int = 0
    resolved: int = 0
    """Amounts an operator decided: explained by the audit log, not by counts."""
    capped: int = 0
    """Estimates after a crash, cut at the hold: checked to be at most what the counts cost."""
    charged_pico: int = 0

    def add(self, mismatch: str) -> None:
        """Note a mismatch; the list is bounded, the count is not."""
        self.mismatches_total += 1
        if len(self.mismatches) < limits.findings_max:
            self.mismatches.append(mismatch)

    def lines(self) -> list[str]:
        """The report as text rows."""
        total = usd_from_pico(self.charged_pico)
        head = f"{self.charges} charges of {self.users} users recomputed, {total} USD in all"
        apart = f"{self.resolved} decided by an operator, {self.capped} estimates cut at their hold"
        verdict = (
            "every charge is explained"
            if not self.mismatches_total
            else f"MISMATCHES: {self.mismatches_total}"
        )
        return [head, apart, *self.mismatches, verdict]

    def to_plain(self) -> dict[str, object]:
        """The report, JSON-ready; money as USD strings."""
        return {
            "clean": not self.mismatches_total,
            "mismatches": self.mismatches,
            "mismatches_total": self.mismatches_total,
            "users": self.users,
            "charges": self.charges,
            "resolved": self.resolved,
            "capped": self.capped,
            "charged": usd_from_pico(self.charged_pico),
        }


async def audit(store: Store, on_progress: OnProgress | None = None) -> AuditReport:
    """Recompute every charge in the store."""
    report = AuditReport()
    books = _Books(store)
    async for account in store.accounts():
        report.users += 1
        before = ""
        while page := await store.transactions(account.user, limits.audit_page_rows, before):
            for row in page:
                if row.type == "spent" and row.charge:
                    await _check(row, books, report)
            before = page[-1].id
        if on_progress is not None:
            on_progress(account.user, report.charges)
    return report


async def _check(row: Transaction, books: "_Books", report: AuditReport) -> None:
    charge: Mapping[str, Any] = row.charge
    amount_pico: int = charge["amount_pico"]
    report.charges += 1
    report.charged_pico += amount_pico
    if RESOLVED in charge["flags"]:
        report.resolved += 1
        return
    try:
        expected_pico = recomputed_pico(charge, await books.get(charge["price_version"]))
    except (FareboxError, PriceError, LookupError) as error:
        report.add(f"M7 {row.id}: cannot be recomputed: {error}")
        return
    if CAPPED in charge["flags"]:
        report.capped += 1
        is_right = amount_pico <= expected_pico
    else:
        is_right = amount_pico == expected_pico
    if not is_right:
        report.add(f"M7 {row.id}: charged {amount_pico} pico, recomputed {expected_pico} pico")


def recomputed_pico(charge: Mapping[str, Any], book: PriceBook | None) -> int:
    """What a charge block costs at the prices of its book, in pico-USD. Raises LookupError where a price is
    missing.

    Models that served parts of the exchange are charged at their own prices, each part rounded once.
    """
    parts = (
        {charge["model"]: charge["counts"], **charge["others"]}
        if charge["counts"]
        else dict(charge["others"])
    )
    if charge["free"] or not parts:
        return 0
    if book is None:
        raise LookupError(f"price book {charge['price_version']} is not in the store")
    total_pico = 0
    for model, counts in parts.items():
        entry = book.models[model]
        is_main = model == charge["model"]
        if is_main and entry.multiplier != charge["multiplier"]:
            raise LookupError(f"multiplier {charge['multiplier']}, the price book has {entry.multiplier}")
        input_total = charge["input_total"] if is_main else input_tokens(counts)
        priced = charge_of(entry, counts, input_total, charge["variant"] or None)
        if priced.missing:
            raise LookupError(f"{model} has no price for {', '.join(priced.missing)}")
        total_pico += priced.amount_pico
    return total_pico


def input_tokens(counts: Mapping[str, int]) -> int:
    """Prompt tokens among normal-form counts: what chooses the context tier where no total was reported."""
    return sum(counts.get(kind, 0) for kind in TOKEN_INPUT_KINDS)


class _Books:
    """Price books by version, each read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[int, PriceBook | None] = {}

    async def get(self, version: int) -> PriceBook | None:
        """The book of a version; None when the store has none. Raises PriceError when it was changed."""
        if version not in self._known:
            document = await self._store.price_book(version)
            self._known[version] = None if document is None else from_plain(document)
        return self._known[version]
