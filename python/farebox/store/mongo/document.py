"""One user's document (MONEY section 2): read into integers, changed in memory, written back as one update.

For use inside a transaction that has read the document: what is written are the new values of what changed,
under the `rev` that was read. Promises: every change of money touches a pool, its shadow and a lot together;
`rev` rises by one with every update; what other programs keep in the document is left alone.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from bson import Decimal128, Int64

from farebox.base.records import POOLS, Account, Claim, LeaseEntry, Lot, LotAmount
from farebox.store.booking_rules import Counters
from farebox.store.lease_rules import FOREIGN_WRITE
from farebox.store.mongo import fields
from farebox.store.mongo.fields import (
    DamagedError,
    Lease,
    Raw,
    StoredLot,
    encoded_claim,
    encoded_lease,
    encoded_lots,
)
from farebox.store.mongo.values import (
    UnstorableError,
    date,
    digest,
    key,
    legacy_pico,
    milliseconds,
    pico,
    usd,
)

UNREADABLE_PICO: Final = -1
"""Stands for a balance that is no amount of money: it differs from any shadow."""

_COUNTED_MAX: Final = 2**63 - 1
_MONEY_COUNTERS: Final[Mapping[str, str]] = {
    "total_spent": "spent_pico",
    "written_off": "written_off_pico",
    "creditsUsed": "credits_used_pico",
    "creditsNewUsed": "credits_new_used_pico",
}
_TOKEN_COUNTERS: Final[Mapping[str, str]] = {
    "tokensUserNew": "tokens_new",
    "totalInputTokens": "input_tokens",
    "totalOutputTokens": "output_tokens",
}
_DATES: Final[Mapping[str, tuple[str, str]]] = {
    "credits": ("purchasedAt", "expiresAt"),
    "creditsNew": ("purchasedAtNew", "expiresAtNew"),
}
"""Pool -> the fields with the dates of its last purchase."""
_BSON_TYPES: Final = {float: "double", int: "number", Int64: "number", Decimal128: "decimal"}


def counter_steps(counters: Counters) -> dict[str, object]:
    """What `$inc` adds to the lifetime counters. Raises UnstorableError beyond what a store can hold."""
    steps: dict[str, object] = {}
    for name, attribute in _MONEY_COUNTERS.items():
        amount = getattr(counters, attribute)
        if amount:
            steps[name] = usd(amount)
    for name, attribute in _TOKEN_COUNTERS.items():
        count = getattr(counters, attribute)
        if count:
            steps[name] = Int64(_counted(count))
    return steps


def _counted(count: int) -> int:
    if not 0 <= count <= _COUNTED_MAX:
        raise UnstorableError(f"{count} tokens are more than a store can hold")
    return count


def lifetime_of(raw: Raw) -> dict[str, int]:
    """A user's lifetime counters under the replaced system's names; money in pico-USD."""
    money = {f"{name}_pico": _counter_pico(raw.get(name)) for name in (*_MONEY_COUNTERS, "total_earned")}
    del money["written_off_pico"]
    return {**money, **{name: _counter(raw.get(name)) for name in _TOKEN_COUNTERS}}


def _counter(value: object) -> int:
    """A lifetime counter of tokens; what is no number, as the replaced system may have left it, is 0."""
    return int(value) if isinstance(value, int | float) and value == value // 1 else 0


def _counter_pico(value: object) -> int:
    try:
        return legacy_pico(value)
    except UnstorableError:
        return 0


class UserDocument:
    """One user, as one transaction sees and changes him."""

    def __init__(self, raw: Raw) -> None:
        """A document with a field of the money protocol that holds what Farebox never writes has no money:
        nothing is guessed, and `damage` says which field it is.
        """
        self.damage: str | None = None
        try:
            self._read(raw)
        except DamagedError as error:
            self._read(_without_money(raw))
            self._raw = raw
            self.damage = f"{error}: write the right value, then `farebox wallet adopt`"

    def _read(self, raw: Raw) -> None:
        self.name: str = raw["_id"]
        self.rev = fields.whole_number(raw, "rev")
        self.parked: str | None = None if raw.get("parked") is None else str(raw["parked"])
        self.is_active: bool = raw.get("isActive", True) is not False
        self.unresolved = fields.whole_number(raw, "unresolved")
        self._raw = raw
        shadows = fields.entries_of(raw, "seen", pico)
        self._shadowed: Raw = raw.get("seen") or {}
        self.seen = {pool: shadows.get(pool, 0) for pool in POOLS}
        self.balances = {pool: self._balance(pool) for pool in POOLS}
        self.lots = fields.entries_of(raw, "lots", fields.lot)
        self.leased = fields.entries_of(raw, "leased", pico)
        self.leases = fields.entries_of(raw, "leases", fields.lease)
        self.reserved = fields.entries_of(raw, "reserved", fields.amounts)
        claims = fields.entries_of(raw, "claims", fields.claim).values()
        self.claims = {one.reference: one for one in sorted(claims, key=lambda one: one.reference)}
        self.wants = frozenset(fields.entries_of(raw, "wants", bool))
        self._written_off_pico = fields.money(raw, "written_off")
        self._changed: dict[str, set[str]] = {
            part: set() for part in ("pools", "lots", "leased", "leases", "reserved", "claims")
        }
        self._set: dict[str, object] = {}
        self._unset: set[str] = set()
        self._counters = Counters()
        self._earned_pico = 0
        self._found: dict[str, object] = {}

    # -- reading ---------------------------------------------------------------------------------------------
    def _balance(self, pool: str) -> int:
        """A pool's balance; what the replaced system left and nobody opened yet is not Farebox's: 0."""
        if pool not in self._shadowed:
            return 0
        try:
            return legacy_pico(self._raw.get(pool))
        except UnstorableError:
            return UNREADABLE_PICO

    def unopened(self) -> list[str]:
        """Pools of the replaced system that no opening has converted (MONEY section 5)."""
        return [pool for pool in POOLS if pool not in self._shadowed]

    def opened(self) -> list[str]:
        """Pools that have a shadow."""
        return [pool for pool in POOLS if pool in self._shadowed]

    def claims_guard(self) -> object:
        """A condition on `claims`: they are as they were read."""
        return self._raw.get("claims") or {"$in": [None, {}]}

    def is_damaged(self) -> bool:
        """Whether someone outside wrote: a balance differs from its shadow, in value or type, or a field of
        the protocol is damaged.
        """
        return self.damage is not None or any(
            self.balances[pool] != self.seen[pool] or not isinstance(self._raw.get(pool), Decimal128)
            for pool in self._shadowed
            if pool in self.balances
        )

    def account(self) -> Account:
        """The user as the rest of Farebox knows him."""
        return Account(
            user=self.name,
            rev=self.rev,
            is_active=self.is_active,
            parked=self.parked or self.damage,
            balances=dict(self.balances),
            seen=dict(self.seen),
            lots=tuple(
                Lot(name, lot.pool, lot.left_pico, self.leased.get(name, 0), lot.expires_at_ms, lot.source)
                for name, lot in self.lots.items()
            ),
            leases={
                journal: LeaseEntry(journal, entry.owner, entry.op, entry.dead, dict(entry.lots))
                for journal, entry in self.leases.items()
            },
            reserved={exchange: dict(lots) for exchange, lots in self.reserved.items()},
            claims=tuple(self.claims.values()),
            wants=self.wants,
            written_off_pico=self._written_off_pico + self._counters.written_off_pico,
        )

    def forget_changes(self) -> None:
        """Be as the document was read."""
        self.__init__(self._raw)  # type: ignore[misc]

    # -- changing --------------------------------------------------------------------------------------------
    def why_damaged(self) -> str:
        """The reason to park a user who `is_damaged`."""
        return self.damage or FOREIGN_WRITE

    def park(self, reason: str | None) -> None:
        """Stop all money work of the user until an operator has looked; None: go on."""
        self.parked = reason
        if reason is None:
            self._unset.add("parked")
        else:
            self._set["parked"] = reason

    def move(self, part: LotAmount, expires_at_ms: int | None = None, source: str = "") -> None:
        """Add a signed amount to a lot, its pool and the pool's shadow; a lot not known yet is made."""
        lot = self.lots.get(part.lot)
        if lot is None:
            lot = self.lots[key(part.lot)] = StoredLot(part.pool, 0, expires_at_ms, source)
            self.lots = dict(sorted(self.lots.items()))
        elif lot.pool != part.pool:
            raise UnstorableError(f"lot {part.lot} belongs to {lot.pool}, not to {part.pool}")
        usd(self.balances[part.pool] + part.amount_pico)
        lot.left_pico += part.amount_pico
        self.balances[part.pool] += part.amount_pico
        self.seen[part.pool] += part.amount_pico
        self._changed["lots"].add(part.lot)
        self._changed["pools"].add(part.pool)

    def renew(self, lot: str, expires_at_ms: int | None) -> None:
        """Let a lot last until another time."""
        self.lots[lot].expires_at_ms = expires_at_ms
        self._changed["lots"].add(lot)

    def restore_shadow(self, pool: str) -> None:
        """Begin from the shadow again."""
        self.balances[pool] = self.seen[pool]
        self._changed["pools"].add(pool)

    def open_pool(self, pool: str) -> int:
        """Take over a balance of the replaced system: the pool begins at 0, and what was there is returned.

        The update is then guarded by the exact value that was read. Raises UnstorableError with the reason
        for an operator.
        """
        there = self._raw.get(pool)
        balance_pico = legacy_pico(there)
        if there is None:
            self._found[pool] = None
        else:
            self._found[pool] = {"$eq": there, "$type": _BSON_TYPES[type(there)]}
        self._found[f"seen.{pool}"] = {"$exists": False}
        self._shadowed = {**self._shadowed, pool: usd(0)}
        self._changed["pools"].add(pool)
        return balance_pico

    def legacy_expiry_ms(self, pool: str) -> int | None:
        """When the replaced system let a pool's balance end."""
        return milliseconds(self._raw.get(_DATES[pool][1])) if pool in _DATES else None

    def lease(self, journal: str, owner: int) -> Lease:
        """A journal's entry, made when it is absent; what is changed in it is written."""
        entry = self.leases.get(journal)
        if entry is None:
            entry = self.leases[key(journal)] = Lease(owner, 0)
        self._changed["leases"].add(journal)
        return entry

    def drop_lease(self, journal: str) -> None:
        """Remove a journal's entry."""
        del self.leases[journal]
        self._changed["leases"].add(journal)

    def take_lease(self, journal: str, parts: Iterable[LotAmount]) -> None:
        """Lower a journal's lease; what becomes of the money is the caller's to say."""
        parts = list(parts)
        if parts:
            entry = self.lease(journal, 0)
            for lot, _, amount in parts:
                entry.lots[lot] = entry.lots.get(lot, 0) - amount

    def add_leased(self, lot: str, amount_pico: int) -> None:
        """Raise (or lower) what of a lot is set aside."""
        self.leased[key(lot)] = self.leased.get(lot, 0) + amount_pico
        self._changed["leased"].add(lot)

    def reserve(self, exchange: str, parts: Iterable[LotAmount]) -> None:
        """Set money aside for a quarantined exchange; `leased` is the caller's to raise."""
        self.reserved[key(exchange)] = {part.lot: part.amount_pico for part in parts}
        self._changed["reserved"].add(exchange)

    def release(self, exchange: str) -> None:
        """End what is set aside for an exchange, in `leased` too."""
        for lot, amount in self.reserved.pop(exchange, {}).items():
            self.add_leased(lot, -amount)
        self._changed["reserved"].add(exchange)

    def claim(self, claim: Claim) -> None:
        """Keep money for a debit, or lower what is kept."""
        self.claims[claim.reference] = claim
        self.claims = dict(sorted(self.claims.items()))
        self._changed["claims"].add(claim.reference)

    def drop_claim(self, reference: str) -> bool:
        """End a claim; whether there was one."""
        if self.claims.pop(reference, None) is None:
            return False
        self._changed["claims"].add(reference)
        return True

    def count(self, counters: Counters) -> None:
        """Add to the lifetime counters. Raises UnstorableError, and then adds nothing."""
        names = (*_MONEY_COUNTERS.values(), *_TOKEN_COUNTERS.values())
        total = Counters(*(0 for _ in names))
        for name in names:
            setattr(total, name, getattr(self._counters, name) + getattr(counters, name))
        counter_steps(total)
        for stored, attribute in _TOKEN_COUNTERS.items():
            _counted(_counter(self._raw.get(stored)) + getattr(total, attribute))
        self._counters = total

    def earn(self, amount_pico: int) -> None:
        """Count money that came in."""
        self._earned_pico += amount_pico

    def set_dates(self, pool: str, purchased_ms: int, expires_at_ms: int | None) -> None:
        """The dates of a pool's last purchase."""
        purchased, expires = _DATES[pool]
        self._set[purchased] = date(purchased_ms)
        self._set[expires] = date(expires_at_ms)

    def set_unresolved(self, count: int) -> None:
        """How many records of the user are parked because of his account."""
        self.unresolved = count
        self._set["unresolved"] = count

    # -- writing ---------------------------------------------------------------------------------------------
    def guard(self) -> dict[str, object]:
        """The filter of the update: the document as it was read."""
        return {"_id": self.name, "rev": self._raw.get("rev"), **self._found}

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to write."""
        return bool(
            self._set
            or self._unset
            or self._earned_pico
            or self._counters != Counters()
            or any(self._changed.values())
        )

    def update(self) -> dict[str, object]:
        """Everything changed, as one update. Raises UnstorableError."""
        parts = self._parts()
        sets = {**self._set, **{path: value for path, value in parts.items() if value is not None}}
        unsets = self._unset.union(path for path, value in parts.items() if value is None)
        if self._changed["leases"]:
            sets["holders"] = sorted(self.leases)
        if self._changed["claims"]:
            sets["claiming"] = bool(self.claims)
        steps = {"rev": 1, **counter_steps(self._counters)}
        if self._earned_pico:
            steps["total_earned"] = usd(self._earned_pico)
        for name in [name for name in steps if not _can_be_raised(self._raw, name)]:
            step = steps.pop(name)
            if name != "rev":
                sets[name] = step
        update: dict[str, object] = {"$inc": steps} if steps else {}
        if sets:
            update["$set"] = sets
        if unsets:
            update["$unset"] = dict.fromkeys(sorted(unsets), "")
        return update

    def _parts(self) -> dict[str, object]:
        """Path -> new value of every part of the protocol's maps that changed; None: it goes."""
        changed = self._changed
        return {
            **{pool: usd(self.balances[pool]) for pool in changed["pools"]},
            **{f"seen.{pool}": usd(self.seen[pool]) for pool in changed["pools"]},
            **{f"lots.{lot}": self.lots[lot].encode() for lot in changed["lots"]},
            **{f"leased.{lot}": usd(self.leased[lot]) for lot in changed["leased"]},
            **{f"leases.{name}": encoded_lease(self.leases.get(name)) for name in changed["leases"]},
            **{f"reserved.{name}": encoded_lots(self.reserved.get(name)) for name in changed["reserved"]},
            **{f"claims.{digest(name)}": encoded_claim(self.claims.get(name)) for name in changed["claims"]},
        }


def _without_money(raw: Raw) -> Raw:
    """What is left of a damaged document: who it is, and that every pool is empty."""
    kept = {name: raw[name] for name in ("_id", "parked", "isActive") if name in raw}
    counted = {name: raw[name] for name in ("rev", "unresolved") if isinstance(raw.get(name), int)}
    zero = usd(0)
    return {**kept, **counted, **dict.fromkeys(POOLS, zero), "seen": dict.fromkeys(POOLS, zero)}


def _can_be_raised(raw: Raw, name: str) -> bool:
    """Whether `$inc` may be used on a field; the replaced system may have left null or text in a counter."""
    return name not in raw or isinstance(raw[name], int | float | Decimal128)
