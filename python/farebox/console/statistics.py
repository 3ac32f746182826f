"""Statistics over a period: the numbers behind every card, table and curve, in integers.

What is asked comes from cells of sums, whole quarters of an hour and days; where a rolling period begins
between two quarters, single rows of the request log fill the gap. So `all` outlives the log, and no answer
depends on how many exchanges there were. Balances are always those of now.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

from farebox.console.periods import ALL, HOUR_MS, Period, days_of
from farebox.store.rollups import (
    DAY_MS,
    END_MS,
    MODELS,
    NOTHING,
    TOTAL,
    USERS,
    Part,
    Sums,
    Tally,
    Usage,
    first_quarter,
    of_user,
    parts,
)
from farebox.store.statistics import StatisticsStore

OHMYGPT, OPENHANDS, SUBSCRIPTION = "ohmygpt", "openhands", "subscription"
_HOURLY_UP_TO_MS: Final = 2 * DAY_MS
_DAILY_UP_TO_MS: Final = 31 * DAY_MS


@dataclass(frozen=True, slots=True)
class Burned:
    """What was spent, pico-USD by wallet; the three never overlap."""

    ohmygpt_pico: int
    openhands_pico: int
    subscription_pico: int

    @property
    def total_pico(self) -> int:
        """All of it."""
        return self.ohmygpt_pico + self.openhands_pico + self.subscription_pico


@dataclass(frozen=True, slots=True)
class Overview:
    """The cards. `pools`: balances of all users now, pico-USD; everything else is of the period."""

    pools: Mapping[str, int]
    users: int
    active_users: int
    burned: Burned
    sums: Sums


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """What was done with one model."""

    model: str
    burned: Burned
    sums: Sums

    @property
    def total_tokens(self) -> int:
        """Input, output, cache writes and cache hits."""
        return total_tokens(self.sums)


@dataclass(frozen=True, slots=True)
class UserUsage:
    """What one user did."""

    user: str
    burned: Burned
    sums: Sums


@dataclass(frozen=True, slots=True)
class Point:
    """One step of a curve, from `start_ms` on."""

    start_ms: int
    burned: Burned
    sums: Sums


def total_tokens(sums: Sums) -> int:
    """Input, output, cache writes and cache hits."""
    return sums.input_tokens + sums.output_tokens + sums.cache_write_tokens + sums.cache_read_tokens


async def overview(store: StatisticsStore, period: Period) -> Overview:
    """The cards of all users."""
    wealth = await store.wealth()
    edge = await _edge(store, period)
    tallies = [*await store.tallies(_parts(MODELS, period)), *_tallied(edge)]
    names = await store.tallied_names(parts(USERS, period.from_ms, period.to_ms))
    return Overview(
        pools=wealth.pools,
        users=wealth.users,
        active_users=len(names | {usage.user for usage in edge}),
        burned=_burned(tallies),
        sums=_total(tallies),
    )


async def totals(store: StatisticsStore, period: Period, user: str = "") -> tuple[Burned, Sums]:
    """Everything together, of one user or of all."""
    tallies = await _tallies(store, of_user(user) if user else MODELS, period)
    return _burned(tallies), _total(tallies)


async def model_usage(store: StatisticsStore, period: Period, user: str = "") -> list[ModelUsage]:
    """Every model that was used, most tokens first."""
    tallies = await _tallies(store, of_user(user) if user else MODELS, period)
    found = [ModelUsage(model, _burned(own), _total(own)) for model, own in _by_name(tallies).items()]
    return sorted(found, key=lambda usage: (-usage.total_tokens, usage.model))


async def spenders(store: StatisticsStore, period: Period, limit: int) -> list[UserUsage]:
    """Users by what they spent, most first."""
    spans = parts(USERS, period.from_ms, period.to_ms)
    edge = list(_tallied(await _edge(store, period), by_user=True))
    spent = dict(await store.spending(spans))
    for tally in edge:
        spent[tally.name] = spent.get(tally.name, 0) + tally.sums.charge_pico
    ranked = sorted(spent, key=lambda user: (-spent[user], user))[:limit]
    tallies = _by_name([*await store.tallies(spans, ranked), *edge])
    return [UserUsage(user, _burned(tallies[user]), _total(tallies[user])) for user in ranked]


async def active_users(store: StatisticsStore, period: Period) -> set[str]:
    """Users with at least one request that was logged."""
    found = await store.tallied_names(parts(USERS, period.from_ms, period.to_ms))
    return found | {usage.user for usage in await _edge(store, period)}


async def time_series(
    store: StatisticsStore, period: Period, now_ms: int, zone: tzinfo, user: str = ""
) -> list[Point]:
    """The period in steps: hours up to two days, the zone's days up to 31, UTC's days beyond; steps without a
    request are there, with zeros, from the first one that has any.
    """
    end_ms = now_ms + 1 if period.to_ms is None else period.to_ms
    edge = list(_tallied(await _edge(store, period, user), by_start=True))
    if end_ms - period.from_ms > _DAILY_UP_TO_MS:
        spans = _days(user, period)
        found = [*edge, *await store.tallies_by_step(spans, DAY_MS)]
        first_ms = min((tally.start_ms for tally in found), default=end_ms)
        starts = list(range(first_ms - first_ms % DAY_MS, end_ms, DAY_MS))
    else:
        starts = _steps(period.from_ms, end_ms, zone)
        ends = [*starts[1:], period.to_ms or END_MS]
        series = of_user(user) if user else f"{TOTAL}/quarter"
        begin_ms = first_quarter(period.from_ms)
        spans = [Part(series, max(begin_ms, start), end) for start, end in zip(starts, ends, strict=True)]
        found = [*edge, *await store.tallies_by_step(spans, END_MS)]
    points = _points(starts, found)
    first = next((number for number, point in enumerate(points) if point.sums.requests), len(points))
    return points[first:]


def _days(user: str, period: Period) -> list[Part]:
    """Cells in parts that begin with a UTC day, or lie within one."""
    if not user:
        return parts(MODELS, period.from_ms, period.to_ms)
    begin_ms, end_ms = first_quarter(period.from_ms), period.to_ms or END_MS
    day_ms = -(-begin_ms // DAY_MS) * DAY_MS
    found = [Part(of_user(user), begin_ms, day_ms), Part(of_user(user), day_ms, end_ms)]
    return [part for part in found if part.from_ms < part.to_ms]


def _steps(from_ms: int, to_ms: int, zone: tzinfo) -> list[int]:
    if to_ms - from_ms > _HOURLY_UP_TO_MS:
        return days_of(from_ms, to_ms, zone)
    midnight_ms = days_of(from_ms, from_ms + 1, zone)[0]
    return list(range(from_ms - (from_ms - midnight_ms) % HOUR_MS, to_ms, HOUR_MS))


def _points(starts: list[int], tallies: list[Tally]) -> list[Point]:
    """Each sum in the step it began in."""
    if not starts:
        return []
    within: list[list[Tally]] = [[] for _ in starts]
    step = 0
    for tally in sorted(tallies, key=lambda tally: tally.start_ms):
        while step + 1 < len(starts) and starts[step + 1] <= tally.start_ms:
            step += 1
        within[step].append(tally)
    return [Point(start, _burned(own), _total(own)) for start, own in zip(starts, within, strict=True)]


async def _tallies(store: StatisticsStore, series: str, period: Period) -> list[Tally]:
    """Sums of a period by name and wallet."""
    found = await store.tallies(_parts(series, period))
    user = series.removeprefix(of_user("")) if series.startswith(of_user("")) else ""
    return [*found, *_tallied(await _edge(store, period, user), by_user=series == USERS)]


def _parts(series: str, period: Period) -> list[Part]:
    if series in {MODELS, USERS}:
        return parts(series, period.from_ms, period.to_ms)
    return [Part(series, first_quarter(period.from_ms), END_MS if period.to_ms is None else period.to_ms)]


async def _edge(store: StatisticsStore, period: Period, user: str = "") -> list[Usage]:
    """Single exchanges between the period's beginning and the next quarter of an hour."""
    quarter_ms = first_quarter(period.from_ms)
    if period.name == ALL or quarter_ms == period.from_ms:
        return []
    return await store.usages(period.from_ms, quarter_ms, user)


def _tallied(usages: Iterable[Usage], *, by_user: bool = False, by_start: bool = False) -> Iterable[Tally]:
    for user, model, wallet, ended_ms, sums in usages:
        yield Tally(user if by_user else model, ended_ms if by_start else 0, wallet, sums)


def _by_name(tallies: Iterable[Tally]) -> dict[str, list[Tally]]:
    found: dict[str, list[Tally]] = {}
    for tally in tallies:
        found.setdefault(tally.name, []).append(tally)
    return found


def _total(tallies: Iterable[Tally]) -> Sums:
    total = NOTHING
    for tally in tallies:
        total = total.plus(tally.sums)
    return total


def _burned(tallies: Iterable[Tally]) -> Burned:
    spent = {OHMYGPT: 0, OPENHANDS: 0, SUBSCRIPTION: 0}
    for tally in tallies:
        spent[tally.wallet if tally.wallet in spent else OHMYGPT] += tally.sums.charge_pico
    return Burned(spent[OHMYGPT], spent[OPENHANDS], spent[SUBSCRIPTION])
