"""Records that rooms hand to each other: accounts, leases, settlements, ledger rows.

Plain values, no behaviour beyond their wire form. Amounts are integer pico-USD. A `Settlement` is what a
journal's settle frame holds and what the writer books; it carries everything, so that booking never prices
and never asks.

Nobody changes a record once it is made. The three that are made for every exchange (`Opened`, `Settlement`,
`Transaction`) are not declared frozen all the same: that costs 5 µs instead of 0.3 µs for each settlement.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from farebox._meter import PlainUsage

WALLETS: Final[Mapping[str, tuple[str, ...]]] = {
    "ohmygpt": ("credits", "refCredits"),
    "openhands": ("creditsNew",),
    "subscription": ("credits_permanent", "credits_monthly"),
}
"""Wallet -> its pools in spending order. The names say nothing about the provider."""

POOLS: Final = ("credits", "refCredits", "creditsNew", "credits_permanent", "credits_monthly")

_new_tuple = tuple.__new__


class LotAmount(NamedTuple):
    """An amount of one lot of one pool."""

    lot: str
    pool: str
    amount_pico: int


class Debit(NamedTuple):
    """What a recorded settlement takes from a wallet: all that those who hold its money need to know of it.

    `pos` is its place in the journal; what `takes` do not cover of `amount_pico` has no lot yet.
    """

    pos: int
    exchange: str
    user: str
    wallet: str
    amount_pico: int
    takes: tuple[LotAmount, ...]

    @classmethod
    def of(cls, pos: int, one: "Settlement") -> "Debit":
        """What a settlement takes that stands at `pos`."""
        return cls(pos, one.exchange, one.user, one.wallet, one.amount_pico, one.takes)


@dataclass(frozen=True, slots=True)
class Lot:
    """Credit bought or granted at one time; `left_pico` is unspent, `leased_pico` is set aside of it."""

    lot: str
    pool: str
    left_pico: int
    leased_pico: int
    expires_at_ms: int | None
    source: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Money a debit waits for: while it stands nobody is granted it (MONEY section 5).

    A claim without a lot covers its whole pool, one with a lot that lot only. `type` is the type of the
    ledger rows with which it is collected part by part; empty: one event of this reference takes all of it
    at once. Of two claims on the same money the older (`since_ms`, then reference) goes first. At `ends_ms`
    it is dropped, met or not, in case its collector died; None: it stands until it is met.
    """

    reference: str
    pool: str
    lot: str | None
    amount_pico: int
    type: str = ""
    cause: str = ""
    since_ms: int = 0
    ends_ms: int | None = None


@dataclass(frozen=True, slots=True)
class LeaseEntry:
    """One journal's slice of a user's lots as the store holds it (MONEY section 2)."""

    journal: str
    owner_epoch: int
    op: int
    dead: bool
    lots: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Account:
    """One user's money in one snapshot of the store."""

    user: str
    rev: int
    is_active: bool
    parked: str | None
    balances: Mapping[str, int]
    seen: Mapping[str, int]
    lots: tuple[Lot, ...]
    leases: Mapping[str, LeaseEntry]
    reserved: Mapping[str, Mapping[str, int]]
    claims: tuple[Claim, ...]
    wants: frozenset[str]
    written_off_pico: int


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key's row joined with what admission needs of its owner; `digest` is the key's SHA-256."""

    digest: str
    user: str
    prefix: str
    label: str
    key_active: bool
    user_active: bool
    role: str
    requests_per_minute: int | None
    allowed_models: tuple[str, ...] | None
    expires_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """Answer to a lease grant. `added` is new money; on a refusal it is empty and `reason` says why.

    reason: "" (granted), "short" (not enough free money now), "stale" (owner or op differ: fence),
    "inactive", "parked", "quarantined" (too many charges await an operator), "unknown" (no such user),
    "expired" (only expired money is left). `remaining_pico` is the wallet's balance over unexpired lots,
    `available_pico` what nobody leases or claims.
    """

    reason: str
    op: int
    added: tuple[tuple[LotAmount, int | None], ...]
    remaining_pico: int
    available_pico: int
    written_off_pico: int = 0


@dataclass(frozen=True, slots=True)
class Fenced:
    """A fence's one snapshot: the lease entry after its op was raised, and which exchanges asked about are
    booked. `parked`: the account is on hold, the lease may back no new exchange.
    """

    op: int
    dead: bool
    lots: tuple[tuple[LotAmount, int | None], ...]
    booked: frozenset[str]
    parked: bool = False


@dataclass(slots=True)
class Opened:
    """An `open` frame: what recovery needs to end an exchange that was cut off by a crash.

    `hold_pico` is set aside from the wallet, not from single lots: the lots are chosen at settlement.
    """

    exchange: str
    user: str
    wallet: str
    key: str
    model: str
    wire_format: str
    price_version: int
    upstream: str
    stream: bool
    started_ms: int
    input_estimate_tokens: int
    hold_pico: int

    def encode(self) -> bytes:
        """Wire form: a JSON array in field order."""
        return opened_payload(*(getattr(self, name) for name in Opened.__slots__))

    @classmethod
    def decode(cls, payload: bytes) -> "Opened":
        """Inverse of `encode`. Raises ValueError on anything else."""
        return cls(*_array(payload, 12))


def opened_payload(
    exchange: str,
    user: str,
    wallet: str,
    key: str,
    model: str,
    wire_format: str,
    price_version: int,
    upstream: str,
    stream: bool,
    started_ms: int,
    input_estimate_tokens: int,
    hold_pico: int,
) -> bytes:
    """An `Opened`'s wire form, without making one: a JSON array in field order."""
    return orjson.dumps(
        (
            exchange,
            user,
            wallet,
            key,
            model,
            wire_format,
            price_version,
            upstream,
            stream,
            started_ms,
            input_estimate_tokens,
            hold_pico,
        )
    )


@dataclass(slots=True)
class Settlement:
    """The one end of an exchange that reached an upstream (or of a refusal worth a log row: amount 0, no
    takes).

    `amount_pico` is the full charge; `takes` say which lots of the journal's own lease pay for it; what they
    do not cover is for the writer's late path. `quarantine` is empty, or why an operator must decide: then
    nothing is charged and the hold moves to `reserved`: `takes`, or `amount_pico` of no known lots after a
    crash. `counts` are the normal form; `others`
    (model -> counts) were charged at those models' own prices. `evidence`: exact, partial, estimated, none.
    """

    exchange: str
    user: str
    wallet: str
    key: str
    model: str
    wire_format: str
    price_version: int
    multiplier: str
    evidence: str
    flags: tuple[str, ...]
    counts: Mapping[str, int]
    others: Mapping[str, Mapping[str, int]]
    input_total: int
    variant: str
    amount_pico: int
    takes: tuple[LotAmount, ...]
    quarantine: str
    outcome: str
    status: int
    upstream: str
    upstream_model: str
    upstream_request: str
    stream: bool
    started_ms: int
    first_byte_ms: int
    ended_ms: int
    raw_usage: str = ""
    free: bool = False
    wire: bytes = field(default=b"", init=False, repr=False, compare=False)
    """The bytes it was read from, so that they need not be made again; empty for one made here."""
    output_total: int = field(default=-1, init=False, repr=False, compare=False)
    """All output tokens, where they are counted already; else below zero."""
    ledger_cells: tuple[str, str, str, int, str, str] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    """Of a plain record that one lot pays for: user, exchange, pool, signed amount, lots and charge block as
    SQLite keeps them. None: to be made from the fields.
    """
    log_cells: tuple[str, str, int, int, int, str] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    """Of a plain record: exchange, user, end, charge twice, and `wire` as text. None: likewise."""
    usage: PlainUsage | None = field(default=None, init=False, repr=False, compare=False)
    """Of a plain record: what it adds to the rollups. None: likewise."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            """Fill in what the compiled reader left out, when a field is first asked for that booking needs
            not; it has checked that `wire` holds them all.
            """
            if name not in _SETTLEMENT_FIELDS:
                raise AttributeError(f"a settlement has no {name}")
            wire = self.wire
            self.__init__(*_settlement_fields(wire))
            self.wire = wire
            return getattr(self, name)

    def encode(self) -> bytes:
        """Wire form: a JSON array in field order."""
        return self.wire or settlement_payload(*[getattr(self, name) for name in _SETTLEMENT_FIELDS])

    @classmethod
    def decode(cls, payload: bytes) -> "Settlement":
        """Inverse of `encode`. Raises ValueError on anything else."""
        settlement = cls(*_settlement_fields(payload))
        settlement.wire = payload
        return settlement


_SETTLEMENT_FIELDS: Final = tuple(one.name for one in fields(Settlement) if one.init)


def _settlement_fields(payload: bytes) -> list[Any]:
    members = orjson.loads(payload)
    if type(members) is not list or len(members) != len(_SETTLEMENT_FIELDS):
        raise ValueError(f"a record of {len(_SETTLEMENT_FIELDS)} fields was expected")
    members[9] = tuple(members[9])
    members[15] = _lot_amounts(members[15])
    return members


def settlement_payload(
    exchange: str,
    user: str,
    wallet: str,
    key: str,
    model: str,
    wire_format: str,
    price_version: int,
    multiplier: str,
    evidence: str,
    flags: tuple[str, ...],
    counts: Mapping[str, int],
    others: Mapping[str, Mapping[str, int]],
    input_total: int,
    variant: str,
    amount_pico: int,
    takes: tuple[LotAmount, ...],
    quarantine: str,
    outcome: str,
    status: int,
    upstream: str,
    upstream_model: str,
    upstream_request: str,
    stream: bool,
    started_ms: int,
    first_byte_ms: int,
    ended_ms: int,
    raw_usage: str,
    free: bool,
) -> bytes:
    """A `Settlement`'s wire form, without making one: a JSON array in field order."""
    return orjson.dumps(
        (
            exchange,
            user,
            wallet,
            key,
            model,
            wire_format,
            price_version,
            multiplier,
            evidence,
            flags,
            counts,
            others,
            input_total,
            variant,
            amount_pico,
            list(map(tuple, takes)),
            quarantine,
            outcome,
            status,
            upstream,
            upstream_model,
            upstream_request,
            stream,
            started_ms,
            first_byte_ms,
            ended_ms,
            raw_usage,
            free,
        )
    )


@dataclass(frozen=True, slots=True)
class Void:
    """The other end: the upstream was never reached, nothing is charged, the hold is free again."""

    exchange: str
    user: str
    reason: str

    def encode(self) -> bytes:
        """Wire form: a JSON array in field order."""
        return orjson.dumps((self.exchange, self.user, self.reason))

    @classmethod
    def decode(cls, payload: bytes) -> "Void":
        """Inverse of `encode`. Raises ValueError on anything else."""
        return cls(*_array(payload, 3))


@dataclass(slots=True)
class Transaction:
    """One immutable ledger row. `_id` is `{user}:{type}:{reference}:{pool}`; the amount is signed."""

    user: str
    type: str
    reference: str
    pool: str
    amount_pico: int
    lots: tuple[LotAmount, ...]
    cause: str
    created_ms: int
    charge: Mapping[str, object] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The row's unique id."""
        return f"{self.user}:{self.type}:{self.reference}:{self.pool}"


TRANSACTION_TYPES: Final = (
    "earned_purchase",
    "earned_bonus",
    "earned_subscription",
    "earned_referral",
    "spent",
    "written_off",
    "transfer_out",
    "transfer_in",
    "adjustment",
    "refund",
    "expired",
    "opening",
)


def _array(payload: bytes, length: int) -> list:  # type: ignore[type-arg]
    fields = orjson.loads(payload)
    if not isinstance(fields, list) or len(fields) != length:
        raise ValueError(f"a record of {length} fields was expected")
    return fields


def _lot_amounts(rows: list[Any]) -> tuple[LotAmount, ...]:
    if len(rows) == 1:
        lot, pool, amount_pico = rows[0]
        return (_new_tuple(LotAmount, (lot, pool, amount_pico)),)
    return tuple(map(LotAmount._make, rows))
