"""Sums of exchanges over time: what is added up, in which cells, and which cells make up a span. Pure.

A cell holds the sums of one *series* for a quarter of an hour or a UTC day, by name and wallet. A quarter of
an hour, because every time zone's midnight falls on one. Days, so that months and years are read from few
cells; `ever`, so that the users of all time are. All cells of an exchange change in one transaction, so every
series has the same total at every moment (`verify` compares them).

| series | names | cells |
|---|---|---|
| `models/quarter`, `models/day` | models | what all users did |
| `total/quarter` | none | the same together, for curves |
| `users/quarter`, `users/day`, `users/ever` | users | what each user did, for lists of users |
| `user:NAME` | models | what one user did, by quarter |

The charge in a cell is the full charge, as the ledger's `spent` rows show it. Input is what the request log
calls `inputTokens`: without cached tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from operator import add
from typing import Final, NamedTuple

from farebox._meter import add_up
from farebox.base.records import Settlement
from farebox.store.booking_rules import output_tokens

_new = tuple.__new__

QUARTER_MS: Final = 900_000
DAY_MS: Final = 86_400_000
END_MS: Final = 2**62
"""Later than everything."""

MODELS: Final = "models"
USERS: Final = "users"
TOTAL: Final = "total"
IMPORTED: Final = "import"
"""Stands for the journal in cells of imported logs."""


class Sums(NamedTuple):
    """What is added up. Milliseconds, tokens, pico-USD; `first_bytes` counts the summands of `first_byte_ms`.

    `failures` have another status than 2xx; of `cut` the answer did not come to its end; `partial` and
    `estimated` say how sure the usage is; `quarantined` wait for an operator and charge nothing.
    """

    requests: int = 0
    failures: int = 0
    cut: int = 0
    partial: int = 0
    estimated: int = 0
    quarantined: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    tokens_used: int = 0
    charge_pico: int = 0
    latency_ms: int = 0
    first_byte_ms: int = 0
    first_bytes: int = 0

    def plus(self, other: "Sums") -> "Sums":
        """Both together."""
        return _new(Sums, map(add, self, other))


NOTHING: Final = Sums()
CUT: Final = frozenset({"cut", "client_gone_cut", "upstream_broke"})
"""Outcomes of exchanges whose answer did not come to its end."""


class Cell(NamedTuple):
    """Where sums are kept, the journal apart."""

    series: str
    start_ms: int
    name: str
    wallet: str


class Tally(NamedTuple):
    """Sums that were read: by name, or by the step their cells begin in (then `name` is empty)."""

    name: str
    start_ms: int
    wallet: str
    sums: Sums


class Usage(NamedTuple):
    """Whose, which model's and which wallet's an exchange is, and what it adds."""

    user: str
    model: str
    wallet: str
    ended_ms: int
    sums: Sums


def usage_of(record: Settlement) -> Usage:
    """What a settlement adds to the sums."""
    counts, output, first_byte_ms = record.counts, output_tokens(record), record.first_byte_ms
    count = counts.get
    sums = (
        1,
        not 200 <= record.status < 300,
        record.outcome in CUT,
        record.evidence == "partial",
        record.evidence == "estimated",
        record.quarantine != "",
        count("input", 0),
        output,
        count("cache_write_5m", 0) + count("cache_write_1h", 0),
        count("cache_read", 0),
        record.input_total + output,
        0 if record.quarantine else record.amount_pico,
        max(0, record.ended_ms - record.started_ms),
        max(0, first_byte_ms - record.started_ms) if first_byte_ms else 0,
        first_byte_ms != 0,
    )
    return _new(Usage, (record.user, record.model, record.wallet, record.ended_ms, _new(Sums, sums)))


def usages_of(records: Sequence[Settlement]) -> Iterator[Usage]:
    """What settlements add to the sums; plain ones are added up already as far as they fall together."""
    plain = [record.usage for record in records if record.usage is not None]
    for user, model, wallet, quarter_ms, sums in add_up(plain, QUARTER_MS):
        yield Usage(user, model, wallet, quarter_ms, Sums._make(sums))
    yield from (usage_of(record) for record in records if record.usage is None)


def together(usages: Iterable[Usage]) -> list[Usage]:
    """Usages of the same user, model and wallet added up; of their moments the first stays."""
    sums: dict[tuple[str, str, str], tuple[int, Iterable[int]]] = {}
    for user, model, wallet, ended_ms, own in usages:
        where = user, model, wallet
        known = sums.get(where)
        sums[where] = (ended_ms, own) if known is None else (known[0], list(map(add, known[1], own)))
    return [
        Usage(user, model, wallet, ended_ms, _new(Sums, own))
        for (user, model, wallet), (ended_ms, own) in sums.items()
    ]


def cells(usages: Iterable[Usage]) -> dict[Cell, Sums]:
    """Every cell that exchanges add to.

    They are added up finely first: a batch falls into few fine cells, and the coarse ones are made of those.
    """
    fine: dict[tuple[str, str, str, int], Iterable[int]] = {}
    for user, model, wallet, ended_ms, sums in usages:
        where = user, model, wallet, ended_ms - ended_ms % QUARTER_MS
        known = fine.get(where)
        fine[where] = sums if known is None else list(map(add, known, sums))
    made: dict[Cell, Sums] = {}
    for (user, model, wallet, quarter_ms), numbers in fine.items():
        sums = _new(Sums, numbers)
        for cell in _cells_of(user, model, wallet, quarter_ms):
            before = made.get(cell)
            made[cell] = sums if before is None else before.plus(sums)
    return made


def _cells_of(user: str, model: str, wallet: str, quarter_ms: int) -> Iterator[Cell]:
    day_ms = quarter_ms - quarter_ms % DAY_MS
    yield _new(Cell, ("models/quarter", quarter_ms, model, wallet))
    yield _new(Cell, ("models/day", day_ms, model, wallet))
    yield _new(Cell, ("total/quarter", quarter_ms, "", wallet))
    yield _new(Cell, ("users/quarter", quarter_ms, user, wallet))
    yield _new(Cell, ("users/day", day_ms, user, wallet))
    yield _new(Cell, ("users/ever", 0, user, wallet))
    yield _new(Cell, (of_user(user), quarter_ms, model, wallet))


def of_user(user: str) -> str:
    """The series of one user."""
    return f"user:{user}"


class Part(NamedTuple):
    """Cells of a series that start from `from_ms` to before `to_ms`."""

    series: str
    from_ms: int
    to_ms: int


def first_quarter(moment_ms: int) -> int:
    """The first start of a quarter at or after a moment; before it, only single rows can tell."""
    return -(-moment_ms // QUARTER_MS) * QUARTER_MS


def parts(of: str, from_ms: int, to_ms: int | None) -> list[Part]:
    """The cells of `models` or `users` that make up the whole quarters from `from_ms` to before `to_ms`, days
    where they fit whole. None as `to_ms`: without an end.
    """
    begin = first_quarter(from_ms)
    end = END_MS if to_ms is None else to_ms - to_ms % QUARTER_MS
    if begin <= 0 and to_ms is None and of == USERS:
        return [Part(f"{of}/ever", 0, END_MS)]
    first_day = -(-begin // DAY_MS) * DAY_MS
    last_day = END_MS if to_ms is None else end - end % DAY_MS
    if first_day >= last_day:
        return [Part(f"{of}/quarter", begin, end)] if begin < end else []
    found = [Part(f"{of}/quarter", begin, first_day), Part(f"{of}/day", first_day, last_day)]
    if to_ms is not None:
        found.append(Part(f"{of}/quarter", last_day, end))
    return [part for part in found if part.from_ms < part.to_ms]
