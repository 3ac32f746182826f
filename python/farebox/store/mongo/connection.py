"""One MongoDB database: every call with a deadline, majority-committed and journaled, its errors translated.

Promises: a call ends within `limits.store_timeout_s` whatever the servers do, and works again when they are
back; a transaction happened, did not happen (StoreDownError, StoreConflictError), or says that nobody knows
(StoreUnknownError), after its commit was repeated as long as there was time. Options that would lower
durability are refused (fault row S07).
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import parse_qsl, urlsplit

import pymongo
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConnectionFailure, ExecutionTimeout, OperationFailure, PyMongoError
from pymongo.monitoring import CommandListener
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from farebox.base import clock, limits
from farebox.base.errors import StoreConflictError, StoreDownError, StoreRefusedError, StoreUnknownError
from farebox.base.redaction import redacted
from farebox.store.mongo import faults
from farebox.store.mongo.sessions import NotedSessions
from farebox.store.mongo.values import UnstorableError

T = TypeVar("T")
Document: TypeAlias = dict[str, Any]

DEFAULT_DATABASE: Final = "farebox"
_FIXED_OPTIONS: Final = frozenset(
    {"w", "journal", "j", "wtimeoutms", "wtimeout", "readconcernlevel", "readpreference", "retrywrites"}
)
_DURABLE: Final = WriteConcern("majority", j=True)


class Place:
    """The database as one call sees it: inside a transaction, or outside of any (`session` is None)."""

    __slots__ = ("_database", "session")

    def __init__(self, database: AsyncDatabase[Document], session: AsyncClientSession | None) -> None:
        self._database = database
        self.session = session

    def __getitem__(self, collection: str) -> AsyncCollection[Document]:
        return self._database[collection]


class Connection:
    """A client and its database."""

    def __init__(
        self, url: str, listeners: tuple[CommandListener, ...] = (), sessions: Path | None = None
    ) -> None:
        """`listeners` hear every command (pymongo's command monitoring); `sessions`: see `NotedSessions`.

        Raises StoreRefusedError.
        """
        self.where = _where(url)
        self._url = url
        self._name = _checked_name(url, self.where)
        self._listeners = listeners
        self._client: AsyncMongoClient[Document] | None = None
        self._closed = False
        self._sessions = NotedSessions(sessions)
        self._abandoned: list[Mapping[str, Any]] = []

    async def open(self) -> None:
        """Reach a server that can be used. Raises StoreDownError, StoreRefusedError."""
        if self._closed:
            raise StoreDownError(f"{self.where}: the store is closed")
        try:
            self._client = self._new_client()
            with pymongo.timeout(limits.store_select_timeout_s):
                greeting = await self._client.admin.command("hello")
        except PyMongoError as error:
            raise faults.unreachable(error, self.where) from error
        _check_clock(greeting.get("localTime"), self.where)
        if "setName" not in greeting and greeting.get("msg") != "isdbgrid":
            raise faults.no_transactions(self.where)
        self._abandoned = self._sessions.left_behind()
        await self._end_left_behind()

    async def _end_left_behind(self) -> None:
        """End the transactions of a predecessor that was killed. Raises StoreDownError, StoreRefusedError."""
        try:
            while self._abandoned:
                await self._end_abandoned()
        except PyMongoError as error:
            raise faults.fault(error, self.where, may_have_happened=False) from error
        self._sessions.begin()

    def _new_client(self) -> AsyncMongoClient[Document]:
        select_ms = int(limits.store_select_timeout_s * 1000)
        return AsyncMongoClient(
            self._url,
            appname="farebox",
            tz_aware=True,
            event_listeners=self._listeners,
            connectTimeoutMS=select_ms,
            serverSelectionTimeoutMS=select_ms,
            waitQueueTimeoutMS=select_ms,
            timeoutMS=int(limits.store_timeout_s * 1000),
            maxPoolSize=limits.store_connections_max,
            retryReads=True,
            retryWrites=True,
        )

    async def close(self) -> None:
        """Disconnect; calls made later are refused."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    @property
    def database(self) -> AsyncDatabase[Document]:
        """The database itself, with the concerns of every call."""
        if self._client is None:
            raise StoreDownError(f"{self.where}: the store is {'closed' if self._closed else 'not open'}")
        return self._client.get_database(
            self._name,
            codec_options=CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_MS),
            read_preference=ReadPreference.PRIMARY,
            write_concern=_DURABLE,
            read_concern=ReadConcern("majority"),
        )

    async def read(self, work: Callable[[Place], Awaitable[T]]) -> T:
        """The result of reads outside of a transaction; they are repeated by the driver."""
        return await self._outside(work, may_have_happened=False)

    async def write(self, work: Callable[[Place], Awaitable[T]]) -> T:
        """The result of one guarded write outside of a transaction. It may reach the server twice: its filter
        must not match again.
        """
        return await self._outside(work, may_have_happened=True)

    async def _outside(self, work: Callable[[Place], Awaitable[T]], *, may_have_happened: bool) -> T:
        place = Place(self.database, None)
        try:
            with pymongo.timeout(limits.store_timeout_s):
                return await work(place)
        except PyMongoError as error:
            raise faults.fault(error, self.where, may_have_happened=may_have_happened) from error

    async def transact(
        self, work: Callable[[Place], Awaitable[T]], *, attempts: int = limits.store_conflict_attempts_max
    ) -> T:
        """The result of `work` in one transaction, with a snapshot of its own, complete or without effect.

        `work` is called again after a conflict with another writer, up to `attempts` times and while there is
        time; then StoreConflictError. An id that is there already counts as a conflict: the next attempt sees
        it. Raises UnstorableError where an update does not fit a document that others have written to.
        """
        deadline_s = time.monotonic() + limits.store_timeout_s
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._attempt(work, deadline_s)
            except StoreConflictError:
                pause_s = random.uniform(0, limits.store_conflict_pause_s * attempt)  # noqa: S311 - no secret
                if attempt >= attempts or time.monotonic() + pause_s >= deadline_s:
                    raise
                await asyncio.sleep(pause_s)

    async def _attempt(self, work: Callable[[Place], Awaitable[T]], deadline_s: float) -> T:
        database = self.database
        try:
            await self._end_abandoned()
            async with database.client.start_session() as session:
                self._sessions.note(session.session_id)
                try:
                    with pymongo.timeout(max(0.001, deadline_s - time.monotonic())):
                        async with _transaction(session):
                            result = await work(Place(database, session))
                        await self._commit(session)
                except (ConnectionFailure, ExecutionTimeout, StoreUnknownError, asyncio.CancelledError):
                    if len(self._abandoned) < limits.store_sessions_noted_max:
                        self._abandoned.append(session.session_id)
                    raise
                return result
        except PyMongoError as error:
            if faults.is_duplicate(error):
                raise StoreConflictError(f"{self.where}: an id of the transaction is taken") from error
            if faults.is_misfit(error):
                raise UnstorableError(f"{self.where}: {redacted(str(error))[:300]}") from error
            raise faults.fault(error, self.where, may_have_happened=False) from error

    async def _end_abandoned(self) -> None:
        """End transactions of ours that the server may still hold open after a broken connection.

        Until its own limit ends them (a minute), every write to their users' documents is a conflict.
        """
        if not self._abandoned:
            return
        sessions = self._abandoned[: limits.store_connections_max]
        with contextlib.suppress(OperationFailure), pymongo.timeout(limits.store_abort_timeout_s):
            await self.database.client.admin.command("killSessions", sessions)
        self._abandoned = [one for one in self._abandoned if one not in sessions]

    async def _commit(self, session: AsyncClientSession) -> None:
        """Commit, again and again while the outcome is unknown: the server knows a commit it has seen."""
        while True:
            try:
                await session.commit_transaction()
            except OperationFailure as error:
                if error.code == faults.WRITE_CONFLICT:
                    raise
                if not error.has_error_label("UnknownTransactionCommitResult") or error.timeout:
                    raise StoreUnknownError(self._unknown(error)) from error
            except PyMongoError as error:
                if not error.has_error_label("UnknownTransactionCommitResult") or error.timeout:
                    raise StoreUnknownError(self._unknown(error)) from error
            else:
                return
            await asyncio.sleep(limits.store_conflict_pause_s)

    def _unknown(self, error: PyMongoError) -> str:
        return f"{self.where}: nobody knows whether a commit happened: {redacted(str(error))[:200]}"


@contextlib.asynccontextmanager
async def _transaction(session: AsyncClientSession) -> AsyncIterator[None]:
    """Begin; abort when the block raises. The commit is the caller's, so that its errors are told apart."""
    await session.start_transaction(
        read_concern=ReadConcern("snapshot"), write_concern=_DURABLE, read_preference=ReadPreference.PRIMARY
    )
    try:
        yield
    except BaseException:
        with contextlib.suppress(PyMongoError), pymongo.timeout(limits.store_abort_timeout_s):
            await session.abort_transaction()
        raise


def _checked_name(url: str, where: str) -> str:
    """The database a URL names. Raises StoreRefusedError on junk and on options that lower durability."""
    options = {name.lower() for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
    fixed = sorted(options & _FIXED_OPTIONS)
    if fixed:
        raise StoreRefusedError(
            f"{where}: take {', '.join(fixed)} out of the address: every write waits for a majority and its "
            "journal, every read asks the primary"
        )
    try:
        name = parse_uri(url)["database"] if url.startswith("mongodb://") else urlsplit(url).path.strip("/")
    except (PyMongoError, ValueError) as error:
        raise StoreRefusedError(f"{where}: {redacted(str(error))}") from None
    return name or DEFAULT_DATABASE


def _check_clock(server: datetime | None, where: str) -> None:
    """Raises StoreRefusedError where the server tells a time far from this machine's."""
    ahead_s = clock.wall_ms() / 1000 - server.timestamp() if server is not None else 0.0
    if abs(ahead_s) > limits.clock_apart_max_s:
        raise faults.other_clock(where, ahead_s)


def _where(url: str) -> str:
    """The address without user, password and options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
