"""What an import found and did: sums that must add up, and every name an operator has to look at.

For every pool: source = booked + booked before + held back + rounding, exactly. The source side is summed
from the documents, the other side from what the store answered.
"""

from dataclasses import dataclass, field
from fractions import Fraction

from farebox.base import limits
from farebox.base.units import usd_from_pico
from farebox.ledger.opening import fine_usd
from farebox.store.openings import OpeningResult

_BOOKED = frozenset({OpeningResult.CREATED, OpeningResult.ADDED})


@dataclass(slots=True)
class Sums:
    """Money of one pool, or of the request logs, in pico-USD."""

    count: int = 0
    source: Fraction = Fraction(0)
    booked: int = 0
    before: int = 0
    held_back: int = 0
    rounding: Fraction = Fraction(0)

    def add(self, pico: int, rest: Fraction, result: OpeningResult) -> None:
        """One amount: what the source says is `pico + rest`."""
        self.count += 1
        self.source += pico + rest
        self.rounding += rest
        if result in _BOOKED:
            self.booked += pico
        elif result is OpeningResult.UNCHANGED:
            self.before += pico
        else:
            self.held_back += pico

    def adds_up(self) -> bool:
        """Whether nothing is lost or invented."""
        return self.source == self.booked + self.before + self.held_back + self.rounding

    def columns(self) -> tuple[str, ...]:
        """For people: count, source, booked, booked before, held back, rounding, verdict."""
        exact = self.source - self.rounding
        return (
            str(self.count),
            usd_from_pico(int(exact)),
            usd_from_pico(self.booked),
            usd_from_pico(self.before),
            usd_from_pico(self.held_back),
            fine_usd(self.rounding),
            "yes" if self.adds_up() else "NO",
        )


@dataclass(slots=True)
class ImportReport:
    """The result of an import, or of its dry run."""

    dry_run: bool
    pools: dict[str, Sums] = field(default_factory=dict)
    logs: Sums = field(default_factory=Sums)
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    problems_total: int = 0
    notes: list[str] = field(default_factory=list)

    def count(self, what: str, number: int = 1) -> None:
        """Count something that happened."""
        self.counts[what] = self.counts.get(what, 0) + number

    def problem(self, named: str) -> None:
        """Note what an operator has to look at; the list is bounded, the count is not."""
        self.problems_total += 1
        if len(self.problems) < limits.import_named_max:
            self.problems.append(named)

    def adds_up(self) -> bool:
        """Whether every sum does."""
        return all(sums.adds_up() for sums in (*self.pools.values(), self.logs))

    def rows(self) -> list[tuple[str, ...]]:
        """The reconciliation table, a row for each pool and one for the request logs."""
        named = {**self.pools, "request logs": self.logs}
        return [(name, *sums.columns()) for name, sums in named.items() if sums.count]

    def to_plain(self) -> dict[str, object]:
        """The report, JSON-ready; amounts are decimal strings of USD."""
        columns = ("count", "source", "booked", "booked_before", "held_back", "rounding", "adds_up")
        return {
            "dry_run": self.dry_run,
            "adds_up": self.adds_up(),
            "sums": {row[0]: dict(zip(columns, row[1:], strict=True)) for row in self.rows()},
            "counts": self.counts,
            "problems": self.problems,
            "problems_total": self.problems_total,
            "notes": self.notes,
        }
