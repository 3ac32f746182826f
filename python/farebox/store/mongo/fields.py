"""The parts of a user's document (MONEY section 2) between their stored form and Farebox's records.

Promises: what Farebox never writes is no part of the protocol: reading it raises `DamagedError`, which names
the field, and nothing is guessed in its place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from bson import DatetimeMS

from farebox.base.records import POOLS, Claim
from farebox.store.mongo.values import UnstorableError, date, milliseconds, pico, usd

T = TypeVar("T")
Raw: TypeAlias = Mapping[str, Any]

_WRONG: Final = (UnstorableError, KeyError, TypeError, AttributeError)
"""What reading a value of another kind or shape raises."""


class DamagedError(ValueError):
    """A field of the money protocol holds what Farebox never writes; the message names it."""


@dataclass(slots=True)
class StoredLot:
    """A lot's entry in the document."""

    pool: str
    left_pico: int
    expires_at_ms: int | None
    source: str

    def encode(self) -> dict[str, object]:
        """The entry as it is stored."""
        return {
            "pool": self.pool,
            "left": usd(self.left_pico),
            "expires_at": date(self.expires_at_ms),
            "source": self.source,
        }


@dataclass(slots=True)
class Lease:
    """A journal's entry in the document."""

    owner: int
    op: int
    dead: bool = False
    lots: dict[str, int] = field(default_factory=dict)

    def encode(self) -> dict[str, object]:
        """The entry as it is stored."""
        lots = {lot: usd(amount) for lot, amount in self.lots.items() if amount}
        return {"owner": self.owner, "op": self.op, "dead": self.dead, "lots": lots}


# -- reading -------------------------------------------------------------------------------------------------
def entries_of(raw: Raw, name: str, read: Callable[[Any], T]) -> dict[str, T]:
    """A map of the document by key, in their order; absent is empty. Raises DamagedError."""
    stored = raw.get(name)
    if stored is not None and not isinstance(stored, Mapping):
        raise DamagedError(f"`{name}` is no document but {type(stored).__name__}")
    found = {}
    for key, value in sorted((stored or {}).items()):
        try:
            found[key] = read(value)
        except KeyError as error:
            raise DamagedError(f"`{name}.{key}` has no {error}") from None
        except _WRONG as error:
            raise DamagedError(f"`{name}.{key}`: {error}") from None
    return found


def whole_number(raw: Raw, name: str) -> int:
    """A counter of the protocol; absent is 0. Raises DamagedError."""
    value = raw.get(name)
    if value is None:
        return 0
    if not _is_count(value):
        raise DamagedError(f"`{name}` is no whole number: {str(value)[:40]!r}")
    return int(value)


def money(raw: Raw, name: str) -> int:
    """An amount of the protocol; absent is 0. Raises DamagedError."""
    try:
        return pico(raw.get(name))
    except UnstorableError as error:
        raise DamagedError(f"`{name}`: {error}") from None


def lot(stored: Raw) -> StoredLot:
    """A lot. Raises one of the errors that `entries_of` names the field of."""
    if stored["pool"] not in POOLS:
        raise UnstorableError(f"no pool is called {stored['pool']!r}")
    expires_at_ms = _moment(stored["expires_at"])
    return StoredLot(stored["pool"], pico(stored["left"]), expires_at_ms, str(stored["source"]))


def lease(stored: Raw) -> Lease:
    """A journal's lease."""
    for name in ("owner", "op"):
        if not _is_count(stored[name]):
            raise UnstorableError(f"`{name}` is no whole number: {str(stored[name])[:40]!r}")
    return Lease(stored["owner"], stored["op"], bool(stored.get("dead")), amounts(stored["lots"]))


def amounts(stored: Raw) -> dict[str, int]:
    """Amounts by lot."""
    return {name: pico(amount) for name, amount in sorted(stored.items())}


def claim(stored: Raw) -> Claim:
    """A claim."""
    return Claim(
        str(stored["reference"]),
        stored["pool"],
        stored.get("lot"),
        pico(stored["amount"]),
        stored.get("type", ""),
        stored.get("cause", ""),
        _moment(stored.get("since")) or 0,
        _moment(stored.get("ends")),
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _moment(stored: object) -> int | None:
    """A date that is there, in milliseconds; anything else would be taken for "never"."""
    if stored is not None and not isinstance(stored, DatetimeMS):
        raise UnstorableError(f"no date but {type(stored).__name__}")
    return milliseconds(stored)


# -- writing -------------------------------------------------------------------------------------------------
def encoded_claim(claim: Claim | None) -> dict[str, object] | None:
    """A claim as it is stored; None: it goes."""
    if claim is None:
        return None
    return {
        "reference": claim.reference,
        "pool": claim.pool,
        "lot": claim.lot,
        "amount": usd(claim.amount_pico),
        "type": claim.type,
        "cause": claim.cause,
        "since": date(claim.since_ms),
        "ends": date(claim.ends_ms),
    }


def encoded_lease(entry: Lease | None) -> dict[str, object] | None:
    """A lease as it is stored; None: it goes."""
    return None if entry is None else entry.encode()


def encoded_lots(lots: Mapping[str, int] | None) -> dict[str, object] | None:
    """Amounts by lot as they are stored; None: they go."""
    return None if lots is None else {lot: usd(amount) for lot, amount in lots.items()}
