"""What an import hands to a store: accounts with opening balances, and old request logs.

An opening is booked once: its rows carry the name of where they come from as reference, so that a second
import finds them, and a source that has changed since is told apart from one that has not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from farebox.base.records import Transaction

PARKED_BY_IMPORT: Final = "import: "
"""What the reason begins with where an import parked an account: a later import may end it."""

OPENING_COUNTERS: Final = (
    "creditsUsed_pico",
    "creditsNewUsed_pico",
    "tokensUserNew",
    "totalInputTokens",
    "totalOutputTokens",
    "total_earned_pico",
    "total_spent_pico",
)
"""Lifetime counters, as `lifetime` names them."""


@dataclass(frozen=True, slots=True)
class Opening:
    """One user of the replaced system.

    `rows` are `opening` rows of one reference, at least one unless `parked` says why there is none. `ends_ms`
    has the expiry of a pool's lot, `bought_ms` the date of its last purchase. `counters` go on top of those
    an account has.
    """

    user: str
    role: str
    is_active: bool
    created_ms: int
    rows: tuple[Transaction, ...]
    ends_ms: Mapping[str, int | None] = field(default_factory=dict)
    bought_ms: Mapping[str, int | None] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    parked: str = ""


class OpeningResult(Enum):
    """What became of an opening."""

    CREATED = "created"
    ADDED = "added"
    """The account was there; it has the opening balances on top now."""
    UNCHANGED = "unchanged"
    """Imported before, with the same content."""
    DIFFERENT = "different"
    """Imported before with other amounts: nothing was changed."""
    PARKED = "parked"
    """The account is parked, newly or since before; no money was booked."""


class OldLog(NamedTuple):
    """One request-log row of the replaced system; `key` is a digest, money is pico-USD."""

    exchange: str
    user: str
    key: str
    model: str
    upstream: str
    input_tokens: int
    output_tokens: int
    cache_write_tokens: int
    cache_hit_tokens: int
    tokens_used: int
    charge_pico: int
    credit_type: str
    status: int
    latency_ms: int
    created_ms: int
