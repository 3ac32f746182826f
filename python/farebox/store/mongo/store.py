"""`MongoStore`: the production implementation of `Store`, one method per operation of the protocol.

What each operation does stands in the files beside this one; here it is said how it runs: as a read, as one
guarded write, or as a transaction, and whose turn it waits for.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pymongo
from pymongo.errors import PyMongoError
from pymongo.monitoring import CommandListener

from farebox.base import clock, limits
from farebox.base.records import Account, Claim, Fenced, Grant, KeyRecord, LotAmount, Settlement, Transaction
from farebox.store.base import Booked, Change, Event, EventResult, JournalState, Record
from farebox.store.mongo import (
    accounts,
    booking,
    claims,
    events,
    faults,
    feed,
    importing,
    journals,
    leases,
    logs,
    parking,
    reading,
    records,
    rows,
    schema,
    statistics,
)
from farebox.store.mongo.connection import Connection
from farebox.store.mongo.turns import Turns
from farebox.store.openings import OldLog, Opening, OpeningResult
from farebox.store.rollups import Part, Tally, Usage
from farebox.store.statistics import AuditEntry, LogPage, LogQuery, PoolUse, UserRow, Wealth


class MongoStore:
    """A store in one MongoDB database, which any number of processes may open. Errors as in `Store`."""

    def __init__(
        self,
        url: str,
        *,
        listeners: Sequence[CommandListener] = (),
        log_ttl_days: int = limits.request_log_ttl_days,
        sessions: Path | None = None,
    ) -> None:
        """`url`: mongodb:// or mongodb+srv://, its path names the database; `sessions`: a file of this
        process alone, by which its successor ends what it left open. Raises StoreRefusedError.
        """
        self._connection = Connection(url, tuple(listeners), sessions)
        self._log_ttl_days = log_ttl_days
        self._turns = Turns()

    # -- life ------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        await self._connection.open()
        try:
            with pymongo.timeout(limits.store_open_timeout_s):
                await schema.prepare(self._connection.database, self._connection.where, self._log_ttl_days)
        except PyMongoError as error:
            raise faults.fault(error, self._connection.where, may_have_happened=False) from error

    async def close(self) -> None:
        await self._connection.close()

    # -- journals --------------------------------------------------------------------------------------------
    async def claim_epoch(self, journal: str, epoch: int, host: str, now_ms: int) -> JournalState:
        return await self._connection.transact(
            lambda place: journals.claim_epoch(place, journal, epoch, host, now_ms)
        )

    async def journal_states(self) -> list[JournalState]:
        return await self._connection.read(journals.states)

    async def beat(self, journal: str, epoch: int, now_ms: int) -> bool:
        return await self._connection.write(lambda place: journals.beat(place, journal, epoch, now_ms))

    async def advance_applied(self, journal: str, epoch: int, pos: int) -> None:
        await self._connection.write(lambda place: journals.advance_applied(place, journal, epoch, pos))

    async def end_journal(self, journal: str, state: str, seen: JournalState | None = None) -> bool:
        return await journals.end_journal(self._connection, journal, state, seen)

    # -- booking ---------------------------------------------------------------------------------------------
    async def book(
        self, journal: str, epoch: int, records: Sequence[Settlement], now_ms: int
    ) -> list[Booked]:
        async with self._turns.of(record.user for record in records):
            return await booking.book(self._connection, journal, epoch, records, now_ms)

    async def log(self, records: Sequence[Settlement], charged: Mapping[str, int]) -> list[str]:
        return await logs.log(self._connection, records, charged)

    async def roll_up(
        self, journal: str, epoch: int, records: Sequence[Settlement], rolled_from: int, pos: int
    ) -> bool:
        return await self._connection.transact(
            lambda place: logs.roll_up(place, journal, epoch, records, rolled_from, pos)
        )

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
        return await logs.finish(
            self._connection,
            journal,
            epoch,
            to_log,
            charged,
            to_roll_up,
            rolled_from,
            rolled_pos,
            applied_pos,
        )

    async def expire_logs(self, before_ms: int, limit: int) -> int:
        return await logs.expire_logs(self._connection, before_ms, limit)

    # -- leases ----------------------------------------------------------------------------------------------
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
        async with self._turns.of((user,)):
            return await leases.grant(
                self._connection, user, wallet, journal, epoch, op, need_pico, want_pico, now_ms
            )

    async def give_back(
        self,
        user: str,
        journal: str,
        epoch: int,
        op: int,
        amounts: Sequence[LotAmount],
        now_ms: int,  # noqa: ARG002 - the protocol's argument; a return does not depend on the time
    ) -> int | None:
        async with self._turns.of((user,)):
            return await self._connection.write(
                lambda place: leases.give_back(place, user, journal, epoch, op, amounts)
            )

    async def fence(
        self,
        user: str,
        journal: str,
        epoch: int,
        exchanges: Sequence[str],
        now_ms: int,  # noqa: ARG002 - the protocol's argument; a fence does not depend on the time
    ) -> Fenced | None:
        async with self._turns.of((user,)):
            return await self._connection.transact(
                lambda place: leases.fence(place, user, journal, epoch, exchanges)
            )

    async def want(self, user: str, journal: str, wanted: bool) -> None:
        async with self._turns.of((user,)):
            await self._connection.transact(lambda place: leases.want(place, user, journal, wanted))

    async def leases_of(self, journal: str) -> list[str]:
        return await self._connection.read(lambda place: leases.leases_of(place, journal))

    # -- accounts and keys -----------------------------------------------------------------------------------
    async def create_user(self, user: str, role: str, actor: str, now_ms: int) -> bool:
        return await self._connection.transact(
            lambda place: accounts.create_user(place, user, role, actor, now_ms)
        )

    async def set_user_active(self, user: str, active: bool, actor: str, now_ms: int) -> bool:
        async with self._turns.of((user,)):
            return await self._connection.transact(
                lambda place: accounts.set_user_active(place, user, active, actor, now_ms)
            )

    async def account(self, user: str) -> Account | None:
        """One user's money; balances of the replaced system are opened on the way (MONEY section 5)."""
        found = await self._connection.read(lambda place: accounts.find(place, user))
        if found is None:
            return None
        if found.unopened() and found.parked is None:
            async with self._turns.of((user,)):
                return await self._connection.transact(
                    lambda place: events.open_account(place, user, clock.wall_ms())
                )
        return found.account()

    async def accounts(self, after: str = "") -> AsyncIterator[Account]:
        while page := await self._page(after):
            for account in page:
                yield account
            after = page[-1].user

    async def _page(self, after: str) -> list[Account]:
        return await self._connection.read(
            lambda place: accounts.page(place, after, limits.accounts_page_max)
        )

    async def lifetime(self, user: str) -> Mapping[str, int] | None:
        """A user's lifetime counters under the replaced system's names, money as pico-USD; None: no such
        user.
        """
        return await self._connection.read(lambda place: accounts.lifetime(place, user))

    async def create_key(self, key: KeyRecord, actor: str, now_ms: int) -> bool:
        return await self._connection.transact(lambda place: accounts.create_key(place, key, actor, now_ms))

    async def key(self, digest: str) -> KeyRecord | None:
        return await self._connection.read(lambda place: accounts.key(place, digest))

    async def keys_of(self, user: str, before: str = "", limit: int | None = None) -> list[KeyRecord]:
        return await self._connection.read(lambda place: accounts.keys_of(place, user, before, limit))

    async def set_key_active(self, digest: str, active: bool, actor: str, now_ms: int) -> bool:
        return await self._connection.transact(
            lambda place: accounts.set_key_active(place, digest, active, actor, now_ms)
        )

    async def set_key_limits(
        self,
        digest: str,
        requests_per_minute: int | None,
        allowed_models: tuple[str, ...] | None,
        actor: str,
        now_ms: int,
    ) -> bool:
        return await self._connection.transact(
            lambda place: accounts.set_key_limits(
                place, digest, requests_per_minute, allowed_models, actor, now_ms
            )
        )

    # -- events ----------------------------------------------------------------------------------------------
    async def apply_event(self, event: Event, now_ms: int) -> EventResult:
        async with self._turns.of(row.user for row in event.rows):
            return await events.apply_event(self._connection, event, now_ms)

    async def adopt_balances(self, user: str, actor: str, now_ms: int) -> EventResult:
        async with self._turns.of((user,)):
            return await self._connection.transact(
                lambda place: events.adopt_balances(place, user, actor, now_ms)
            )

    # -- claims ----------------------------------------------------------------------------------------------
    async def set_claim(self, user: str, claim: Claim) -> bool:
        async with self._turns.of((user,)):
            return await self._connection.transact(lambda place: claims.set_claim(place, user, claim))

    async def collect(self, user: str, reference: str, now_ms: int) -> int | None:
        async with self._turns.of((user,)):
            return await self._connection.transact(
                lambda place: claims.collect(place, user, reference, now_ms)
            )

    async def drop_claim(self, user: str, reference: str) -> None:
        async with self._turns.of((user,)):
            await self._connection.transact(lambda place: claims.drop(place, user, reference))

    async def claims(self, limit: int, after: tuple[str, str] = ("", "")) -> list[tuple[str, Claim]]:
        return await self._connection.read(lambda place: claims.page(place, limit, after))

    # -- records ---------------------------------------------------------------------------------------------
    async def record(self, kind: str, id_: str) -> Record | None:
        return await self._connection.read(lambda place: records.record(place, kind, id_))

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
        return await self._connection.read(
            lambda place: records.records(place, kind, user, status, reference, due_before_ms, before, limit)
        )

    async def expire_records(self, kind: str, status: str, before_ms: int, limit: int) -> int:
        return await records.expire(self._connection, kind, status, before_ms, limit)

    # -- import ----------------------------------------------------------------------------------------------
    async def open_accounts(
        self, openings: Sequence[Opening], now_ms: int, *, dry_run: bool = False
    ) -> list[OpeningResult]:
        async with self._turns.of(opening.user for opening in openings):
            return await importing.open_accounts(self._connection, openings, now_ms, dry_run=dry_run)

    async def import_keys(self, keys: Sequence[tuple[KeyRecord, int]]) -> int:
        return await self._connection.write(lambda place: importing.import_keys(place, keys))

    async def import_logs(self, logs: Sequence[OldLog]) -> set[str]:
        known: set[str] = set()
        for start in range(0, len(logs), limits.import_logs_per_transaction_max):
            page = logs[start : start + limits.import_logs_per_transaction_max]
            known |= await self._connection.transact(
                lambda place, page=page: importing.import_logs(place, page)  # type: ignore[misc]
            )
        return known

    async def adopt_logs(self, limit: int) -> bool:
        return await self._connection.transact(lambda place: statistics.adopt_logs(place, limit))

    # -- reading ---------------------------------------------------------------------------------------------
    async def transactions(
        self, user: str, limit: int, before: str = "", kind: str = ""
    ) -> list[Transaction]:
        return await self._connection.read(
            lambda place: reading.transactions(place, user, limit, before, kind)
        )

    async def account_with_rows(self, user: str) -> tuple[Account, list[Transaction]] | None:
        return await self._connection.transact(lambda place: reading.account_with_rows(place, user))

    async def account_with_sums(self, user: str) -> tuple[Account, Mapping[str, int], int] | None:
        return await self._connection.transact(lambda place: reading.account_with_sums(place, user))

    async def row_ids(self, exchanges: Sequence[tuple[str, str]]) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(exchanges), limits.exchanges_asked_at_once_max):
            page = exchanges[start : start + limits.exchanges_asked_at_once_max]
            found |= await self._connection.read(lambda place, page=page: rows.booked(place, page))  # type: ignore[misc]
        return found

    async def request_log(self, exchange: str) -> Mapping[str, object] | None:
        return await self._connection.read(lambda place: logs.request_log(place, exchange))

    async def request_logs(
        self, user: str, limit: int, before_ms: int | None = None
    ) -> list[Mapping[str, object]]:
        return await self._connection.read(lambda place: logs.request_logs(place, user, limit, before_ms))

    async def logs_after(self, exchange: str, limit: int) -> list[Mapping[str, object]]:
        return await self._connection.read(lambda place: logs.logs_after(place, exchange, limit))

    # -- statistics ------------------------------------------------------------------------------------------
    async def tallies(self, parts: Sequence[Part], names: Sequence[str] | None = None) -> list[Tally]:
        return await self._connection.read(lambda place: statistics.tallies(place, parts, names))

    async def tallies_by_step(self, parts: Sequence[Part], width_ms: int) -> list[Tally]:
        return await self._connection.read(lambda place: statistics.tallies_by_step(place, parts, width_ms))

    async def spending(self, parts: Sequence[Part]) -> Mapping[str, int]:
        return await self._connection.read(lambda place: statistics.spending(place, parts))

    async def users(self, after: str, limit: int) -> list[UserRow]:
        return await self._connection.read(lambda place: statistics.users(place, after, limit))

    async def tallied_names(self, parts: Sequence[Part]) -> set[str]:
        return await self._connection.read(lambda place: statistics.tallied_names(place, parts))

    async def usages(self, from_ms: int, to_ms: int, user: str = "") -> list[Usage]:
        return await self._connection.read(lambda place: statistics.usages(place, from_ms, to_ms, user))

    async def wealth(self) -> Wealth:
        return await self._connection.read(statistics.wealth)

    async def pool_use(self, from_ms: int, to_ms: int) -> list[PoolUse]:
        return await self._connection.read(lambda place: statistics.pool_use(place, from_ms, to_ms))

    async def search_logs(self, query: LogQuery, limit: int) -> LogPage:
        return await self._connection.read(lambda place: statistics.search_logs(place, query, limit))

    async def audit_entries(
        self, before: int | None, limit: int, actor: str = "", subject: str = ""
    ) -> list[AuditEntry]:
        return await self._connection.read(
            lambda place: statistics.audit_entries(place, before, limit, actor, subject)
        )

    async def series_totals(self) -> Mapping[str, Mapping[str, tuple[int, int]]]:
        return await self._connection.transact(statistics.series_totals)

    # -- prices, quarantine, changes -------------------------------------------------------------------------
    async def put_price_book(self, book: Mapping[str, object], content_hash: str, now_ms: int) -> int:
        return await self._connection.transact(
            lambda place: feed.put_price_book(place, book, content_hash, now_ms)
        )

    async def price_book(self, version: int) -> Mapping[str, object] | None:
        return await self._connection.read(lambda place: feed.price_book(place, version))

    async def price_versions(self) -> list[tuple[int, str, int]]:
        return await self._connection.read(feed.price_versions)

    async def parked(self) -> list[Mapping[str, object]]:
        return await self._connection.read(parking.waiting)

    async def resolve_parked(
        self, exchange: str, amount_pico: int | None, actor: str, now_ms: int
    ) -> Booked | None:
        return await self._connection.transact(
            lambda place: parking.resolve(place, exchange, amount_pico, actor, now_ms)
        )

    async def changes_after(self, number: int, limit: int) -> list[Change]:
        return await feed.after(self._connection, number, limit)

    async def append_change(self, kind: str, subject: str, journal: str = "") -> None:
        await self._connection.write(lambda place: feed.append(place, feed.change(kind, subject, journal)))

    async def audit(
        self, actor: str, action: str, subject: str, details: Mapping[str, object], now_ms: int
    ) -> None:
        await self._connection.write(lambda place: feed.audit(place, actor, action, subject, details, now_ms))
