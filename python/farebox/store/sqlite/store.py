"""`SQLiteStore`: the embedded implementation of `Store`, one method per operation of the protocol.

Three connections on three threads: one writes, one answers short questions, one reads long ones (verify,
audit), so that no reader ever holds up the writer. What each operation does stands in the files beside this
one.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from farebox.base import limits
from farebox.base.records import Account, Claim, Fenced, Grant, KeyRecord, LotAmount, Settlement, Transaction
from farebox.store.base import Booked, Change, Event, EventResult, JournalState, Record
from farebox.store.openings import OldLog, Opening, OpeningResult
from farebox.store.rollups import Part, Tally, Usage
from farebox.store.sqlite import (
    accounts,
    booking,
    claims,
    events,
    feed,
    importing,
    journals,
    leases,
    logs,
    parking,
    reading,
    records,
    rows,
    statistics,
)
from farebox.store.sqlite.connection import Lane
from farebox.store.statistics import AuditEntry, LogPage, LogQuery, PoolUse, UserRow, Wealth


class SQLiteStore:
    """A store in one SQLite file; several processes may open the same file. Errors as in `Store`."""

    def __init__(self, path: Path | str) -> None:
        """`path` is created when absent, its folder is not."""
        self.path = Path(path)
        self._writer = Lane(self.path, name="write", writes=True)
        self._reader = Lane(self.path, name="read", writes=False)
        self._scanner = Lane(self.path, name="scan", writes=False)

    # -- life ------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        await self._writer.open()
        await self._reader.open()
        await self._scanner.open()

    async def close(self) -> None:
        await self._scanner.close()
        await self._reader.close()
        await self._writer.close()

    # -- journals --------------------------------------------------------------------------------------------
    async def claim_epoch(self, journal: str, epoch: int, host: str, now_ms: int) -> JournalState:
        return await self._writer.run(journals.claim_epoch, journal, epoch, host, now_ms)

    async def journal_states(self) -> list[JournalState]:
        return await self._reader.run(journals.states)

    async def beat(self, journal: str, epoch: int, now_ms: int) -> bool:
        return await self._writer.run(journals.beat, journal, epoch, now_ms)

    async def advance_applied(self, journal: str, epoch: int, pos: int) -> None:
        await self._writer.run(journals.advance_applied, journal, epoch, pos)

    async def end_journal(self, journal: str, state: str, seen: JournalState | None = None) -> bool:
        return await self._writer.run(journals.end_journal, journal, state, seen)

    # -- booking ---------------------------------------------------------------------------------------------
    async def book(
        self, journal: str, epoch: int, records: Sequence[Settlement], now_ms: int
    ) -> list[Booked]:
        return await self._writer.run(booking.book, journal, epoch, records, now_ms)

    async def log(self, records: Sequence[Settlement], charged: Mapping[str, int]) -> list[str]:
        return await self._writer.run(logs.log, records, charged)

    async def roll_up(
        self, journal: str, epoch: int, records: Sequence[Settlement], rolled_from: int, pos: int
    ) -> bool:
        return await self._writer.run(logs.roll_up, journal, epoch, records, rolled_from, pos)

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
        """One transaction."""
        return await self._writer.run(
            logs.finish, journal, epoch, to_log, charged, to_roll_up, rolled_from, rolled_pos, applied_pos
        )

    async def expire_logs(self, before_ms: int, limit: int) -> int:
        """Delete up to `limit` request-log rows created before `before_ms`; how many went."""
        return await self._writer.run(logs.expire_logs, before_ms, limit)

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
        return await self._writer.run(
            leases.grant, user, wallet, journal, epoch, op, need_pico, want_pico, now_ms
        )

    async def give_back(
        self, user: str, journal: str, epoch: int, op: int, amounts: Sequence[LotAmount], now_ms: int
    ) -> int | None:
        return await self._writer.run(leases.give_back, user, journal, epoch, op, amounts, now_ms)

    async def fence(
        self, user: str, journal: str, epoch: int, exchanges: Sequence[str], now_ms: int
    ) -> Fenced | None:
        return await self._writer.run(leases.fence, user, journal, epoch, exchanges, now_ms)

    async def want(self, user: str, journal: str, wanted: bool) -> None:
        await self._writer.run(leases.want, user, journal, wanted)

    async def leases_of(self, journal: str) -> list[str]:
        return await self._reader.run(leases.leases_of, journal)

    # -- accounts and keys -----------------------------------------------------------------------------------
    async def create_user(self, user: str, role: str, actor: str, now_ms: int) -> bool:
        return await self._writer.run(accounts.create_user, user, role, actor, now_ms)

    async def set_user_active(self, user: str, active: bool, actor: str, now_ms: int) -> bool:
        return await self._writer.run(accounts.set_user_active, user, active, actor, now_ms)

    async def account(self, user: str) -> Account | None:
        return await self._reader.run(accounts.load, user)

    async def accounts(self, after: str = "") -> AsyncIterator[Account]:
        while page := await self._scanner.run(accounts.page, after, limits.accounts_page_max):
            for account in page:
                yield account
            after = page[-1].user

    async def lifetime(self, user: str) -> Mapping[str, int] | None:
        """A user's lifetime counters under the replaced system's names, money as pico-USD; None: no such
        user.
        """
        return await self._reader.run(accounts.lifetime, user)

    async def create_key(self, key: KeyRecord, actor: str, now_ms: int) -> bool:
        return await self._writer.run(accounts.create_key, key, actor, now_ms)

    async def key(self, digest: str) -> KeyRecord | None:
        return await self._reader.run(accounts.key, digest)

    async def keys_of(self, user: str, before: str = "", limit: int | None = None) -> list[KeyRecord]:
        return await self._reader.run(accounts.keys_of, user, before, limit)

    async def set_key_active(self, digest: str, active: bool, actor: str, now_ms: int) -> bool:
        return await self._writer.run(accounts.set_key_active, digest, active, actor, now_ms)

    async def set_key_limits(
        self,
        digest: str,
        requests_per_minute: int | None,
        allowed_models: tuple[str, ...] | None,
        actor: str,
        now_ms: int,
    ) -> bool:
        return await self._writer.run(
            accounts.set_key_limits, digest, requests_per_minute, allowed_models, actor, now_ms
        )

    # -- events ----------------------------------------------------------------------------------------------
    async def apply_event(self, event: Event, now_ms: int) -> EventResult:
        return await self._writer.run(events.apply_event, event, now_ms)

    async def adopt_balances(self, user: str, actor: str, now_ms: int) -> EventResult:
        return await self._writer.run(events.adopt_balances, user, actor, now_ms)

    # -- claims ----------------------------------------------------------------------------------------------
    async def set_claim(self, user: str, claim: Claim) -> bool:
        return await self._writer.run(claims.set_claim, user, claim)

    async def collect(self, user: str, reference: str, now_ms: int) -> int | None:
        return await self._writer.run(claims.collect, user, reference, now_ms)

    async def drop_claim(self, user: str, reference: str) -> None:
        await self._writer.run(claims.drop, user, reference)

    async def claims(self, limit: int, after: tuple[str, str] = ("", "")) -> list[tuple[str, Claim]]:
        return await self._reader.run(claims.page, limit, *after)

    # -- records ---------------------------------------------------------------------------------------------
    async def record(self, kind: str, id_: str) -> Record | None:
        return await self._reader.run(records.record, kind, id_)

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
        return await self._reader.run(
            records.records, kind, user, status, reference, due_before_ms, before, limit
        )

    async def expire_records(self, kind: str, status: str, before_ms: int, limit: int) -> int:
        return await self._writer.run(records.expire, kind, status, before_ms, limit)

    # -- import ----------------------------------------------------------------------------------------------
    async def open_accounts(
        self, openings: Sequence[Opening], now_ms: int, *, dry_run: bool = False
    ) -> list[OpeningResult]:
        return await self._writer.run(importing.open_accounts, openings, now_ms, dry_run)

    async def import_keys(self, keys: Sequence[tuple[KeyRecord, int]]) -> int:
        return await self._writer.run(importing.import_keys, keys)

    async def import_logs(self, logs: Sequence[OldLog]) -> set[str]:
        return await self._writer.run(importing.import_logs, logs)

    async def adopt_logs(self, limit: int) -> bool:
        """The replaced system never wrote to SQLite."""
        del limit
        return False

    # -- reading ---------------------------------------------------------------------------------------------
    async def transactions(
        self, user: str, limit: int, before: str = "", kind: str = ""
    ) -> list[Transaction]:
        return await self._reader.run(reading.transactions, user, limit, before, kind)

    async def account_with_rows(self, user: str) -> tuple[Account, list[Transaction]] | None:
        return await self._scanner.run(reading.account_with_rows, user)

    async def account_with_sums(self, user: str) -> tuple[Account, Mapping[str, int], int] | None:
        return await self._scanner.run(reading.account_with_sums, user)

    async def row_ids(self, exchanges: Sequence[tuple[str, str]]) -> set[str]:
        return await self._scanner.run(rows.booked, exchanges)

    async def request_log(self, exchange: str) -> Mapping[str, object] | None:
        return await self._reader.run(logs.request_log, exchange)

    async def request_logs(
        self, user: str, limit: int, before_ms: int | None = None
    ) -> list[Mapping[str, object]]:
        return await self._reader.run(logs.request_logs, user, limit, before_ms)

    async def logs_after(self, exchange: str, limit: int) -> list[Mapping[str, object]]:
        return await self._scanner.run(logs.logs_after, exchange, limit)

    # -- statistics ------------------------------------------------------------------------------------------
    async def tallies(self, parts: Sequence[Part], names: Sequence[str] | None = None) -> list[Tally]:
        return await self._scanner.run(statistics.tallies, parts, names)

    async def tallies_by_step(self, parts: Sequence[Part], width_ms: int) -> list[Tally]:
        return await self._scanner.run(statistics.tallies_by_step, parts, width_ms)

    async def spending(self, parts: Sequence[Part]) -> Mapping[str, int]:
        return await self._scanner.run(statistics.spending, parts)

    async def users(self, after: str, limit: int) -> list[UserRow]:
        return await self._scanner.run(statistics.users, after, limit)

    async def tallied_names(self, parts: Sequence[Part]) -> set[str]:
        return await self._scanner.run(statistics.tallied_names, parts)

    async def usages(self, from_ms: int, to_ms: int, user: str = "") -> list[Usage]:
        return await self._scanner.run(statistics.usages, from_ms, to_ms, user)

    async def wealth(self) -> Wealth:
        return await self._scanner.run(statistics.wealth)

    async def pool_use(self, from_ms: int, to_ms: int) -> list[PoolUse]:
        return await self._scanner.run(statistics.pool_use, from_ms, to_ms)

    async def search_logs(self, query: LogQuery, limit: int) -> LogPage:
        return await self._scanner.run(statistics.search_logs, query, limit)

    async def audit_entries(
        self, before: int | None, limit: int, actor: str = "", subject: str = ""
    ) -> list[AuditEntry]:
        return await self._scanner.run(statistics.audit_entries, before, limit, actor, subject)

    async def series_totals(self) -> Mapping[str, Mapping[str, tuple[int, int]]]:
        return await self._scanner.run(statistics.series_totals)

    # -- prices, quarantine, changes -------------------------------------------------------------------------
    async def put_price_book(self, book: Mapping[str, object], content_hash: str, now_ms: int) -> int:
        return await self._writer.run(feed.put_price_book, book, content_hash, now_ms)

    async def price_book(self, version: int) -> Mapping[str, object] | None:
        return await self._reader.run(feed.price_book, version)

    async def price_versions(self) -> list[tuple[int, str, int]]:
        return await self._reader.run(feed.price_versions)

    async def parked(self) -> list[Mapping[str, object]]:
        return await self._reader.run(parking.waiting)

    async def resolve_parked(
        self, exchange: str, amount_pico: int | None, actor: str, now_ms: int
    ) -> Booked | None:
        return await self._writer.run(parking.resolve, exchange, amount_pico, actor, now_ms)

    async def changes_after(self, number: int, limit: int) -> list[Change]:
        return await self._reader.run(feed.after, number, limit)

    async def append_change(self, kind: str, subject: str, journal: str = "") -> None:
        await self._writer.run(feed.append, kind, subject, journal)

    async def audit(
        self, actor: str, action: str, subject: str, details: Mapping[str, object], now_ms: int
    ) -> None:
        await self._writer.run(feed.audit, actor, action, subject, details, now_ms)
