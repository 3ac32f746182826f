"""What statistics ask of a store: sums by cells, single rows where a span begins between cells, balances, and
the search in the request log.

Promises: every question has a bound of its own (cells of a span, rows of a quarter of an hour, rows looked at
per page), and both stores give the same answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from farebox.store.rollups import Part, Tally, Usage


@dataclass(frozen=True, slots=True)
class Wealth:
    """All users' balances now, in pico-USD by pool, and how many users there are."""

    users: int
    pools: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user in a list: `amounts` in pico-USD (his pools, his lifetime counters) and `counts`, both under the
    replaced system's names.
    """

    user: str
    is_active: bool
    parked: str | None
    created_ms: int
    amounts: Mapping[str, int]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PoolUse:
    """What ledger rows of one type did to one pool, all users together."""

    pool: str
    type: str
    amount_pico: int
    rows: int
    users: int
    """How many different ones."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which request-log rows are meant; empty members ask for nothing. `failed`: only those, or only others.

    `before` is the place where the page before this one ended: (created_ms, sequence).
    """

    user: str = ""
    model: str = ""
    wallet: str = ""
    outcome: str = ""
    failed: bool | None = None
    from_ms: int = 0
    to_ms: int | None = None
    before: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class LogPage:
    """Rows, newest first, and where to go on; None: there is nothing older.

    A page may be short, even empty, with more behind it: only so many rows are looked at for one page.
    """

    rows: Sequence[Mapping[str, object]]
    next: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change somebody made; `number` rises."""

    number: int
    actor: str
    action: str
    subject: str
    details: Mapping[str, object]
    created_ms: int


class StatisticsStore(Protocol):
    """The part of a store that only statistics and lists use. Errors as in `Store`."""

    async def tallies(self, parts: Sequence[Part], names: Sequence[str] | None = None) -> list[Tally]:
        """Sums of the cells of all parts, by name and wallet (`start_ms` is 0); only of these names."""

    async def tallies_by_step(self, parts: Sequence[Part], width_ms: int) -> list[Tally]:
        """Sums of the cells of all parts, by wallet and step (`name` is empty): the first step of a part
        begins with it, each is so wide.
        """

    async def spending(self, parts: Sequence[Part]) -> Mapping[str, int]:
        """Name -> charges in pico-USD, of the cells of all parts."""

    async def tallied_names(self, parts: Sequence[Part]) -> set[str]:
        """The names that have cells in these parts."""

    async def usages(self, from_ms: int, to_ms: int, user: str = "") -> list[Usage]:
        """What request-log rows from `from_ms` to before `to_ms`, within one quarter of an hour, add to sums:
        together by user, model and wallet; `ended_ms` is some moment of that quarter.
        """

    async def users(self, after: str, limit: int) -> list[UserRow]:
        """Users with names above `after`, ascending."""

    async def wealth(self) -> Wealth:
        """All balances now."""

    async def pool_use(self, from_ms: int, to_ms: int) -> list[PoolUse]:
        """What ledger rows from `from_ms` to before `to_ms` did to each pool; reads the whole ledger."""

    async def search_logs(self, query: LogQuery, limit: int) -> LogPage:
        """Request-log rows that fit, newest first."""

    async def audit_entries(
        self, before: int | None, limit: int, actor: str = "", subject: str = ""
    ) -> list[AuditEntry]:
        """The audit log, newest first, older than the entry `before`."""

    async def series_totals(self) -> Mapping[str, Mapping[str, tuple[int, int]]]:
        """Series (`user:…` together as `user`) -> wallet -> requests and pico-USD, for `verify`."""
