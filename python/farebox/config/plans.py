"""Plans and allocations, judged: exact amounts, each id once. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from farebox.base.units import MILLION, PICO_PER_USD
from farebox.config.plans_document import AllocationEntry, PlanEntry
from farebox.config.problems import Problems


@dataclass(frozen=True, slots=True)
class Plan:
    """What an invoice grants: `grant_pico` is the credits' worth in USD."""

    id: str
    name: str
    credits: Decimal
    usd_per_credit: Decimal
    grant_pico: int
    resets: bool
    price_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Allocation:
    """A way between two pools of one user, with its bounds in pico-USD of what is taken."""

    from_pool: str
    to_pool: str
    rate: Decimal
    min_pico: int
    max_pico: int
    max_per_day_pico: int


def plans(entries: Sequence[PlanEntry], problems: Problems) -> tuple[Plan, ...]:
    """The plans; faults are reported."""
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        for name in (entry.id, *entry.price_ids):
            if name in seen:
                problems.error(f"credits.plans[{index}]", f"{name!r} stands for another plan already")
            seen.add(name)
    return tuple(_plan(entry, f"credits.plans[{index}]", problems) for index, entry in enumerate(entries))


def allocations(entries: Sequence[AllocationEntry], problems: Problems) -> tuple[Allocation, ...]:
    """The allowed ways; faults are reported."""
    found: dict[tuple[str, str], Allocation] = {}
    for index, entry in enumerate(entries):
        path = f"credits.allocations[{index}]"
        way = entry.from_pool, entry.to_pool
        if entry.from_pool == entry.to_pool or way in found:
            problems.error(path, "name two different pools, each way once")
        if not 0 < Decimal(entry.rate) <= MILLION:
            problems.error(f"{path}.rate", "must be above 0")
        amounts = [problems.pico(text, path) for text in (entry.min, entry.max, entry.max_per_day)]
        if not 0 < amounts[0] <= amounts[1] <= amounts[2]:
            problems.error(path, "must be 0 < min <= max <= max_per_day")
        found[way] = Allocation(*way, Decimal(entry.rate), *amounts)
    return tuple(found.values())


def _plan(entry: PlanEntry, path: str, problems: Problems) -> Plan:
    credit, worth = Decimal(entry.credits_monthly), Decimal(entry.usd_per_credit)
    grant = credit * worth * PICO_PER_USD
    if not grant or grant != grant.to_integral_value() or grant >= 2**63:
        problems.error(path, "credits_monthly x usd_per_credit must be above 0 and have at most 12 decimals")
    return Plan(
        id=entry.id,
        name=entry.name,
        credits=credit,
        usd_per_credit=worth,
        grant_pico=int(grant),
        resets=entry.renewal == "reset",
        price_ids=tuple(entry.price_ids),
    )
