"""The `Store` protocol: everything Farebox asks of a database, as operations with a meaning.

Each method that changes money is exactly one transaction of the store (MONEY, first rule) and is guarded so
that repeating it changes nothing. Implementations: `sqlite/` (embedded), `mongo` (production); one
contract suite holds them to the same results. Pure choices (which lots, how a late charge is split) come from
`ledger`; a store only reads, calls them, and writes the outcome in one transaction.

Errors (base/errors.py), the same for every method: StoreDownError (nothing happened), StoreConflictError
(nothing happened, try again), StoreUnknownError (may have happened: for leases fence, for bookings ask
again), StoreRefusedError (unusable as it is).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Protocol

from farebox.base.records import Account, Claim, Fenced, Grant, KeyRecord, LotAmount, Settlement, Transaction
from farebox.store.openings import OldLog, Opening, OpeningResult
from farebox.store.statistics import StatisticsStore


class Booked(Enum):
    """What became of one record of a booking transaction."""

    BOOKED = "booked"
    """Rows written, balance and lease moved."""
    LATE = "late"
    """Booked on the late path: the lease was dead or short; the worker must be fenced."""
    DUPLICATE = "duplicate"
    """Its rows are there already, with the same content: dropped."""
    PARKED = "parked"
    """Put aside for an operator: quarantined, account parked or damaged, or other content under the same id.
    Replayed, it is a DUPLICATE.
    """


@dataclass(frozen=True, slots=True)
class JournalState:
    """The store's row of a journal (MONEY section 1)."""

    journal: str
    epoch: int
    applied: int
    rolled: int
    state: str
    host: str
    beat_ms: int


RECORD_KINDS: Final[Mapping[str, str]] = {
    "order": "orders",
    "payment": "payments",
    "product": "products",
    "subscription": "subscriptions",
    "transfer": "transfers",
    "allowance": "allowances",
    "referral": "referrals",
    "import": "imports",
    "export": "exports",
    "admin": "admins",
    "request": "requests",
    "session": "sessions",
    "password": "passwords",
}
"""Kind of a record -> the collection it lies in."""
SESSION_ACTIVE, SESSION_ENDED = SESSION_STATUSES = ("active", "ended")
"""Of records of the kind session: the console makes and ends them, the writer removes them when due."""


@dataclass(frozen=True, slots=True)
class Record:
    """The state of one thing that money events belong to: a payment, a subscription, a transfer or the like.

    `id` is unique within its kind (a payment's is `provider:payment id`). The fields beside `document` are
    what it is looked up by; `reference` is the id something else knows it by. `document` holds plain JSON
    types, money as decimal strings, no floats. `revision` starts at 1 and rises by one with each change.
    """

    kind: str
    id: str
    revision: int
    document: Mapping[str, object]
    user: str = ""
    status: str = ""
    reference: str = ""
    created_ms: int = 0
    due_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RecordChange:
    """What a record is to be, where the store holds it at `expected`; 0: nothing has this id yet."""

    expected: int
    record: Record

    @staticmethod
    def insert(record: Record) -> "RecordChange":
        """A record nobody has made yet; its revision becomes 1."""
        return RecordChange(0, replace(record, revision=1))

    @staticmethod
    def update(record: Record) -> "RecordChange":
        """A changed copy of a record that was read; its revision rises by one."""
        return RecordChange(record.revision, replace(record, revision=record.revision + 1))


@dataclass(frozen=True, slots=True)
class Event:
    """A change of money that is not an exchange: all its rows, applied to all its users, in one transaction.

    A positive row creates or tops up the lots it names (`expires_at_ms` applies to new lots); a negative one
    takes from unleased money of its lots, or of the pool's lots earliest expiry first when it names none.

    `claims`: a debit never falls short. Its row books what is there now, with what it asked for in its charge
    (`asked_pico`); the rest becomes a claim of the row's reference, on the one lot the row names or else on
    its pool, which `Store.collect` takes as it comes free.

    `records` are changes of its own state (a payment's, a subscription's …), in the same transaction; an
    event may consist of them alone. `renews`: pools this event credits whose unexpired lots all last until
    `expires_at_ms` from now on, where they would end before (a purchase that resets the whole pool's date).
    `balance_of`: a pool whose balance before and after, as the first row's user has it inside the
    transaction, is kept in the first record's document as `creditsBefore` and `creditsAfter`.
    `expires_by_pool`: pools whose new lots end at another time than `expires_at_ms`.
    """

    rows: tuple[Transaction, ...]
    expires_at_ms: int | None = None
    source: str = ""
    actor: str = ""
    records: tuple[RecordChange, ...] = ()
    renews: tuple[str, ...] = ()
    balance_of: str = ""
    expires_by_pool: Mapping[str, int | None] = field(default_factory=dict)
    claims: bool = False

    def expiry_ms(self, pool: str) -> int | None:
        """When what this event brings to a pool ends."""
        return self.expires_by_pool.get(pool, self.expires_at_ms)


class EventResult(Enum):
    """What became of an event."""

    DONE = "done"
    DUPLICATE = "duplicate"
    SHORT = "short"
    """A debit met less unleased money than it needs; nothing was changed."""
    UNKNOWN_USER = "unknown_user"
    PARKED = "parked"
    STALE = "stale"
    """A record is not at the revision its change expects; nothing was changed: read it and decide again."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the feed that tells workers their memory of a user or key is old; `number` rises."""

    number: int
    kind: str
    """user, key, want (another journal, or with none a debit, is short of his money), fence (this journal's
    lease is stale); within one host also freed (money of his that was wanted is back in the store).
    """
    subject: str
    """User name, or key digest."""
    journal: str = ""


class WorkerStore(Protocol):
    """What a worker asks of the store: a `RemoteStore` over the writer's socket, or a whole `Store`."""

    async def claim_epoch(self, journal: str, epoch: int, host: str, now_ms: int) -> JournalState:
        """Raise the journal's epoch from `epoch - 1` to `epoch` by compare-and-set, creating its row at epoch
        1.

        A dead lease entry of this journal revives (amounts 0, owner the new epoch). Raises StoreRefusedError
        when the store's epoch is ahead or behind: a stale copy, a clone or a restored store.
        """

    async def journal_states(self) -> list[JournalState]:
        """All journals known to the store."""

    async def beat(self, journal: str, epoch: int, now_ms: int) -> bool:
        """Record a sign of life; False when the epoch is not this one any more."""

    async def grant(
        self,
        user: str,
        wallet: str,
        journal: str,
        epoch: int,
        op: int,
        need_pico: int,
        want_pico: int,
        now_ms: int,
    ) -> Grant:
        """Lease between `need_pico` and `want_pico` of a wallet to a journal; all or nothing below
        `need_pico`.

        `op` is the entry's expected operation number (0: no entry known).
        """

    async def give_back(
        self, user: str, journal: str, epoch: int, op: int, amounts: Sequence[LotAmount], now_ms: int
    ) -> int | None:
        """Return leased money; the new op, or None when owner, op or amounts do not match (fence)."""

    async def fence(
        self, user: str, journal: str, epoch: int, exchanges: Sequence[str], now_ms: int
    ) -> Fenced | None:
        """Raise the entry's op (creating it), then read in the same snapshot; None: no such user."""

    async def want(self, user: str, journal: str, wanted: bool) -> None:
        """Set or clear `wants.{journal}`; each time it is set others are told to give back free money."""

    async def leases_of(self, journal: str) -> list[str]:
        """Users with a lease entry of this journal, for recovery."""

    async def account(self, user: str) -> Account | None:
        """One user's money in one snapshot."""

    async def key(self, digest: str) -> KeyRecord | None:
        """Look a key up by digest, joined with its owner."""

    async def put_price_book(self, book: Mapping[str, object], content_hash: str, now_ms: int) -> int:
        """The version number of a price book with this content: the existing one, or a new one."""

    async def price_book(self, version: int) -> Mapping[str, object] | None:
        """A stored price book, with the `version`, `content_hash` and `effective_ms` it was stored under."""


class Store(WorkerStore, StatisticsStore, Protocol):
    """One database. All methods may be called concurrently from one event loop; `close` ends it."""

    # -- life ------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        """Connect, create or migrate the schema, check that it can be used. Raises StoreRefusedError."""

    async def close(self) -> None:
        """Release everything; pending calls fail with StoreDownError."""

    # -- journals --------------------------------------------------------------------------------------------
    async def advance_applied(self, journal: str, epoch: int, pos: int) -> None:
        """Raise `applied` (never lowers it). Everything up to `pos` is booked or parked."""

    async def end_journal(self, journal: str, state: str, seen: JournalState | None = None) -> bool:
        """Mark retired or lost: its lease entries are ended (amounts returned to their lots) in the same
        transaction. With `seen` only a live journal that still has that epoch and beat, for it may have come
        back meanwhile; False when it has.
        """

    # -- booking ---------------------------------------------------------------------------------------------
    async def book(
        self, journal: str, epoch: int, records: Sequence[Settlement], now_ms: int
    ) -> list[Booked]:
        """Book settled exchanges of one journal in one transaction, in order (MONEY section 4, steps 1 to 4).

        Writes ledger rows, balances, lots, leases, lifetime counters. One result per record.
        """

    async def log(self, records: Sequence[Settlement], charged: Mapping[str, int]) -> list[str]:
        """Insert request-log rows by exchange id, duplicates ignored; returns the ids that failed.

        `charged`: exchange -> pico-USD taken from pools, where it differs from the charge.
        """

    async def expire_logs(self, before_ms: int, limit: int) -> int:
        """Delete up to `limit` request-log rows created before `before_ms`; how many went."""

    async def roll_up(
        self, journal: str, epoch: int, records: Sequence[Settlement], rolled_from: int, pos: int
    ) -> bool:
        """Add the records between two positions to the rollups and raise `rolled`, in one transaction.

        Only where `rolled` is `rolled_from`: a call whose answer was lost may have its effect late. Whether
        the rollups are at `pos` now.
        """

    async def finish(
        self,
        journal: str,
        epoch: int,
        to_log: Sequence[Settlement],
        charged: Mapping[str, int],
        to_roll_up: Sequence[Settlement],
        rolled_from: int,
        rolled_pos: int,
        applied_pos: int,
    ) -> list[str]:
        """What follows a booking: `log`, `roll_up` to `rolled_pos`, `advance_applied` to `applied_pos`, in
        this order, in as few transactions as the store can; without the last where the rollups are not there.
        Returns what `log` does.
        """

    # -- accounts and keys -----------------------------------------------------------------------------------
    async def create_user(self, user: str, role: str, actor: str, now_ms: int) -> bool:
        """Create an account with empty pools; False when it exists."""

    async def set_user_active(self, user: str, active: bool, actor: str, now_ms: int) -> bool:
        """Enable or disable; False when there is no such user. Appends to the change feed."""

    def accounts(self, after: str = "") -> AsyncIterator[Account]:
        """All accounts, by name, each in a snapshot of its own."""

    async def create_key(self, key: KeyRecord, actor: str, now_ms: int) -> bool:
        """Insert a key by its digest; False when the digest or no such user exists."""

    async def keys_of(self, user: str, before: str = "", limit: int | None = None) -> list[KeyRecord]:
        """A user's keys, newest first: up to `limit` that stand behind the key whose digest is `before`."""

    async def set_key_active(self, digest: str, active: bool, actor: str, now_ms: int) -> bool:
        """Revoke or restore; False when unknown. Appends to the change feed."""

    async def set_key_limits(
        self,
        digest: str,
        requests_per_minute: int | None,
        allowed_models: tuple[str, ...] | None,
        actor: str,
        now_ms: int,
    ) -> bool:
        """Change what a key may do (None: the service's rate, every model); False when unknown. Appends to
        the change feed.
        """

    # -- events ----------------------------------------------------------------------------------------------
    async def apply_event(self, event: Event, now_ms: int) -> EventResult:
        """One money event (MONEY section 5), with the changes of its records.

        A redelivery is a DUPLICATE and changes nothing: its rows are booked, or, of an event without rows,
        its records are there as they are to be. Raises InvariantBrokenError on rows it cannot book and on
        records it cannot keep.
        """

    async def adopt_balances(self, user: str, actor: str, now_ms: int) -> EventResult:
        """Accept what someone outside wrote to a user's balances, as `adjustment` rows, and end his parking.

        DUPLICATE: there is nothing to accept. SHORT: less was left than leases hold: end or return them
        first.
        """

    # -- claims ----------------------------------------------------------------------------------------------
    async def set_claim(self, user: str, claim: Claim) -> bool:
        """Keep money for a debit that fell short: it is granted to nobody, and leases of it are recalled.

        The event of the claim's reference is not bound by it, and ends it. A claim of that reference that
        is there already stays as it is. False: no such user. Raises InvariantBrokenError when that is
        another debit's.
        """

    async def collect(self, user: str, reference: str, now_ms: int) -> int | None:
        """One transaction towards a claim's end; what it still asks for, or None: it is over.

        Takes what it can reach now, as a row `{reference}:{rev}` of its type (a claim without a type: only
        its event takes). Over: met, past its `ends_ms`, or its lot has neither free nor leased money left.
        Recalls again where what it asks for is leased. A parked account is left alone.
        """

    async def drop_claim(self, user: str, reference: str) -> None:
        """End a claim, met or not; nothing where there is none."""

    async def claims(self, limit: int, after: tuple[str, str] = ("", "")) -> list[tuple[str, Claim]]:
        """Claims with their users, by user and reference, from behind `after` on."""

    # -- records ---------------------------------------------------------------------------------------------
    async def record(self, kind: str, id_: str) -> Record | None:
        """One record."""

    async def records(
        self,
        kind: str,
        *,
        user: str | None = None,
        status: str | None = None,
        reference: str | None = None,
        due_before_ms: int | None = None,
        before: tuple[int, str] | None = None,
        limit: int,
    ) -> list[Record]:
        """Records that fit all that is given, newest first by (created_ms, id), `before` that place.

        `due_before_ms` leaves those whose `due_ms` has come. `limit` is capped at `limits.records_page_max`.
        """

    async def expire_records(self, kind: str, status: str, before_ms: int, limit: int) -> int:
        """Delete up to `limit` records that were due by `before_ms`; how many went. Raises
        InvariantBrokenError on a kind that is not of `record_rules.EXPIRING_KINDS`.
        """

    # -- import ----------------------------------------------------------------------------------------------
    async def open_accounts(
        self, openings: Sequence[Opening], now_ms: int, *, dry_run: bool = False
    ) -> list[OpeningResult]:
        """Make accounts with opening balances, or add those to accounts that are there, in one transaction.

        No user twice in one call. `dry_run` gives the same results and changes nothing.
        """

    async def import_keys(self, keys: Sequence[tuple[KeyRecord, int]]) -> int:
        """Insert keys with their dates of creation (ms); known digests and unknown users are left out. How
        many are new.
        """

    async def import_logs(self, logs: Sequence[OldLog]) -> set[str]:
        """Insert request logs of the replaced system by id, and raise the rollups by the new ones; the ids
        that were there already.
        """

    async def adopt_logs(self, limit: int) -> bool:
        """Raise the rollups by up to `limit` request-log rows that the replaced system left in this very
        store, each once; whether there may be more.
        """

    # -- reading ---------------------------------------------------------------------------------------------
    async def lifetime(self, user: str) -> Mapping[str, int] | None:
        """A user's lifetime counters under the replaced system's names, money as pico-USD; None: no such
        user.
        """

    async def logs_after(self, exchange: str, limit: int) -> list[Mapping[str, object]]:
        """Request-log rows of all users by exchange id, from behind `exchange` on."""

    async def transactions(
        self, user: str, limit: int, before: str = "", kind: str = ""
    ) -> list[Transaction]:
        """Ledger rows of a user, newest first, older than the row `before`; only of the type `kind`."""

    async def account_with_rows(self, user: str) -> tuple[Account, list[Transaction]] | None:
        """A user and all his rows in one snapshot; for those whose rows fit in memory."""

    async def account_with_sums(self, user: str) -> tuple[Account, Mapping[str, int], int] | None:
        """A user, his rows summed by pool, and how many they are, in one snapshot; for verify."""

    async def row_ids(self, exchanges: Sequence[tuple[str, str]]) -> set[str]:
        """Of (user, exchange) pairs, the exchanges that have at least one ledger row or are parked."""

    async def request_log(self, exchange: str) -> Mapping[str, object] | None:
        """One request-log row, field names of the replaced system."""

    async def request_logs(
        self, user: str, limit: int, before_ms: int | None = None
    ) -> list[Mapping[str, object]]:
        """A user's request-log rows, newest first."""

    # -- prices, quarantine, changes -------------------------------------------------------------------------
    async def price_versions(self) -> list[tuple[int, str, int]]:
        """(version, content hash, effective_ms), ascending."""

    async def parked(self) -> list[Mapping[str, object]]:
        """Quarantined and parked settlements that await an operator."""

    async def resolve_parked(
        self, exchange: str, amount_pico: int | None, actor: str, now_ms: int
    ) -> Booked | None:
        """Settle a quarantined or parked exchange at an amount (None: void, 0 charged). None: not found."""

    async def changes_after(self, number: int, limit: int) -> list[Change]:
        """The change feed."""

    async def append_change(self, kind: str, subject: str, journal: str = "") -> None:
        """Tell every worker on every host."""

    async def audit(
        self, actor: str, action: str, subject: str, details: Mapping[str, object], now_ms: int
    ) -> None:
        """Append to the audit log."""
