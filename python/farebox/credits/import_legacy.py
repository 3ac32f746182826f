"""Bringing the replaced system's users, keys, balances and logs over, page by page.

Promises: a page is one transaction of the store and carries ids of its own, so an import that was interrupted
is finished by running it again, and one that is repeated changes nothing; a document that cannot be used is
named and the import goes on; the sums of the report are exact. Order: balances, keys, logs, payments: what a
key needs is there before the key works.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from farebox.base import limits
from farebox.base.errors import UsageError
from farebox.base.records import KeyRecord
from farebox.credits import legacy, legacy_records
from farebox.credits.import_report import ImportReport, Sums
from farebox.credits.legacy import Balances, UnusableError
from farebox.store.base import Event, EventResult, Record, RecordChange, Store
from farebox.store.legacy.source import Document, LegacySource, Unreadable
from farebox.store.openings import OldLog, OpeningResult

OnProgress = Callable[[str, int, int], None]
"""Called with the collection, how far its reading has come, and its size, in the source's unit."""

NOT_IMPORTED: Final = {
    "credits_transactions": "old rows without a ledger behind them: their sum is in the opening balances",
    "migration_logs": "history of the old rate migrations",
    "creditsResetLogs": "history of old expiries",
}
"""Collections that are counted and left, with the reason."""


@dataclass(slots=True)
class Import:
    """One run. Without a store (a dry run before there is one) every user is new."""

    store: Store | None
    source: LegacySource
    report: ImportReport
    now_ms: int
    admins: frozenset[str] = frozenset()
    usd_per_credit: Decimal | None = None
    on_progress: OnProgress = lambda _collection, _done, _size: None
    _current_keys: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Everything, in order. Raises UsageError when the source holds nothing that can be imported."""
        sizes = [self.source.size(name) for name in (legacy.USERS, legacy.TWO_POOL_USERS, "request_logs")]
        if not any(sizes):
            raise UsageError(f"{self.source.name} holds neither {legacy.USERS} nor {legacy.TWO_POOL_USERS}")
        for name in (legacy.TWO_POOL_USERS, legacy_records.SUBSCRIPTIONS):
            if self.source.size(name) and self.usd_per_credit is None:
                raise UsageError(f"{name} counts credits: say what one is worth, --usd-per-credit")
        await self._import_users()
        await self._import_two_pool_users()
        await self._import_other_keys()
        await self._import_logs()
        await self._import_friend_keys()
        await self._import_records(legacy_records.PAYMENTS, legacy_records.old_payment)
        await self._import_records(legacy_records.TWO_POOL_PAYMENTS, legacy_records.old_payment_record)
        await self._import_subscriptions()
        for name, reason in NOT_IMPORTED.items():
            if self.source.size(name):
                self.report.notes.append(f"{name} is not imported: {reason}")

    # -- users and balances ----------------------------------------------------------------------------------

    async def _import_users(self) -> None:
        page: list[Balances] = []
        keys: list[tuple[KeyRecord, int]] = []
        for document in self._documents(legacy.USERS):
            balances = self._usable(
                legacy.USERS, document, lambda d: legacy.user_balances(d, self.admins, self.now_ms)
            )
            if balances is None:
                continue
            page.append(balances)
            self._count_role(document)
            key = legacy.own_key(document, self.now_ms)
            if key is not None:
                keys.append(key)
                self._current_keys[key[0].user] = key[0].digest
            if len(page) >= limits.import_users_page:
                await self._open(page, legacy.USERS)
                await self._add_keys(keys)
                page, keys = [], []
        await self._open(page, legacy.USERS)
        await self._add_keys(keys)

    async def _import_two_pool_users(self) -> None:
        rate = self.usd_per_credit
        if rate is None:
            return
        page: list[Balances] = []
        for document in self._documents(legacy.TWO_POOL_USERS):
            balances = self._usable(
                legacy.TWO_POOL_USERS, document, lambda d: legacy.two_pool_balances(d, rate, self.now_ms)
            )
            if balances is not None:
                page.append(balances)
            if len(page) >= limits.import_users_page:
                await self._open(page, legacy.TWO_POOL_USERS)
                page = []
        await self._open(page, legacy.TWO_POOL_USERS)

    async def _open(self, page: list[Balances], collection: str) -> None:
        """Book a page of openings, and count what became of each."""
        unique = self._unique(page, collection)
        results = await self._opened(unique)
        for balances, result in zip(unique, results, strict=True):
            self.report.count(f"users {result.value}")
            for pool, pico in balances.pico.items():
                if pico or balances.rest[pool]:
                    sums = self.report.pools.setdefault(pool, Sums())
                    sums.add(pico, balances.rest[pool], result)
            self._name(balances, result)

    def _unique(self, page: list[Balances], collection: str) -> list[Balances]:
        """The page with each user once: the first that the source has of him."""
        unique: dict[str, Balances] = {}
        for balances in page:
            user = balances.opening.user
            if unique.setdefault(user, balances) is not balances:
                self.report.problem(f"{collection} {user}: skipped: the source names this user twice")
        return list(unique.values())

    async def _opened(self, page: list[Balances]) -> list[OpeningResult]:
        openings = [balances.opening for balances in page]
        if self.store is not None and openings:
            return await self.store.open_accounts(openings, self.now_ms, dry_run=self.report.dry_run)
        return [OpeningResult.PARKED if opening.parked else OpeningResult.CREATED for opening in openings]

    def _name(self, balances: Balances, result: OpeningResult) -> None:
        user, parked = balances.opening.user, balances.opening.parked
        if parked:
            self.report.problem(f"user {user}: parked: {parked}")
        elif result is OpeningResult.PARKED:
            self.report.problem(f"user {user}: his account is parked; `farebox verify` says why")
        elif result is OpeningResult.DIFFERENT:
            self.report.problem(
                f"user {user}: imported before with another balance, which stays; see `farebox wallet adjust`"
            )

    def _count_role(self, document: Document) -> None:
        if document.get("role") not in {None, "user"} and document["_id"] not in self.admins:
            self.report.count("administrators imported as users")

    # -- keys ------------------------------------------------------------------------------------------------

    async def _import_other_keys(self) -> None:
        await self._import_keys("user_keys", lambda d: legacy.other_key(d, self._current_keys, self.now_ms))

    async def _import_friend_keys(self) -> None:
        await self._import_keys("friend_keys", lambda d: legacy.friend_key(d, self.now_ms))
        if self.source.size("friend_keys"):
            self.report.notes.append(
                "friend_keys are imported as revoked: they had a limit in USD, see the docs"
            )

    async def _import_keys(self, collection: str, make: Callable[[Document], tuple[KeyRecord, int]]) -> None:
        keys: list[tuple[KeyRecord, int]] = []
        for document in self._documents(collection):
            key = self._usable(collection, document, make)
            if key is not None:
                keys.append(key)
            if len(keys) >= limits.import_rows_page:
                await self._add_keys(keys)
                keys = []
        await self._add_keys(keys)

    async def _add_keys(self, keys: list[tuple[KeyRecord, int]]) -> None:
        self.report.count("keys read", len(keys))
        if self.store is not None and keys and not self.report.dry_run:
            self.report.count("keys new", await self.store.import_keys(keys))

    # -- logs ------------------------------------------------------------------------------------------------

    async def _import_logs(self) -> None:
        page: list[tuple[OldLog, Fraction]] = []
        for document in self._documents("request_logs"):
            row = self._usable("request_logs", document, legacy.old_log)
            if row is not None:
                page.append(row)
            if len(page) >= limits.import_rows_page:
                await self._add_logs(page)
                page = []
        await self._add_logs(page)

    async def _add_logs(self, page: list[tuple[OldLog, Fraction]]) -> None:
        known: set[str] = set()
        if self.store is not None and page and not self.report.dry_run:
            known = await self.store.import_logs([row for row, _ in page])
        for row, rest in page:
            result = OpeningResult.UNCHANGED if row.exchange in known else OpeningResult.CREATED
            self.report.logs.add(row.charge_pico, rest, result)

    # -- payments, subscriptions -----------------------------------------------------------------------------

    async def _import_subscriptions(self) -> None:
        rate = self.usd_per_credit
        if rate is not None:
            await self._import_records(
                legacy_records.SUBSCRIPTIONS, lambda d: legacy_records.old_subscription(d, rate)
            )

    async def _import_records(self, collection: str, make: Callable[[Document], Record]) -> None:
        page: list[Record] = []
        for document in self._documents(collection):
            record = self._usable(collection, document, make)
            if record is not None:
                page.append(record)
            if len(page) >= limits.import_records_page:
                await self._add_records(page, collection)
                page = []
        await self._add_records(page, collection)

    async def _add_records(self, page: list[Record], collection: str) -> None:
        if not page:
            return
        self.report.count(f"{collection} read", len(page))
        if self.store is None or self.report.dry_run:
            return
        if await self._inserted(self.store, page):
            self.report.count(f"{collection} new", len(page))
            return
        for record in page:
            self.report.count(f"{collection} new", await self._inserted(self.store, [record]))

    async def _inserted(self, store: Store, records: list[Record]) -> bool:
        """Whether all of these are new, and in the store now; else none of them was written."""
        changes = tuple(RecordChange.insert(record) for record in records)
        return await store.apply_event(Event((), records=changes), self.now_ms) is EventResult.DONE

    # -- reading ---------------------------------------------------------------------------------------------

    def _documents(self, collection: str) -> Iterator[Document]:
        """What can be read of a collection; the rest is named."""
        size = self.source.size(collection)
        for found, done in self.source.documents(collection):
            self.on_progress(collection, done, size)
            if isinstance(found, Unreadable):
                self.report.problem(f"{collection}: {found.place} cannot be read: {found.reason}")
            else:
                yield found

    def _usable(self, collection: str, document: Document, make: Callable[[Document], Any]) -> Any:
        """What `make` makes of a document; None where it cannot, which is named."""
        try:
            return make(document)
        except UnusableError as error:
            named = "" if collection.endswith("_keys") else f" {str(document.get('_id'))[:80]}"
            self.report.problem(f"{collection}{named}: skipped: {error}")
            return None
