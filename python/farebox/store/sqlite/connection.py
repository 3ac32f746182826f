"""One SQLite connection on one thread of its own: transactions, and what an error of the library means.

Promises: an operation is one transaction, complete or without effect; and every error says which of the two
it was (StoreDownError: nothing happened; StoreUnknownError: the commit itself failed on the disk;
StoreRefusedError: the file cannot be used), with the file and the remedy in its message (fault rows S14,
S15).
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from farebox.base import limits
from farebox.base.errors import FaultError, StoreDownError, StoreRefusedError, StoreUnknownError
from farebox.store.sqlite import schema

P = ParamSpec("P")
T = TypeVar("T")

_CACHED_STATEMENTS = 256
_MODE_RETRY_S = 0.01
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_UNUSABLE = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH}
)
_ROW_ERRORS = frozenset({sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG})


class Lane:
    """A connection and its thread; calls run in the order in which they were made."""

    def __init__(self, path: Path, *, name: str, writes: bool) -> None:
        self._path = path
        self._writes = writes
        self._begin = "BEGIN IMMEDIATE" if writes else "BEGIN"
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-{name}")
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    async def open(self) -> None:
        """Connect; the writing lane also creates or checks the schema. Raises StoreRefusedError,
        StoreDownError.
        """
        await self._submit(self._connect)

    async def run(
        self, operation: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The result of `operation(connection, ...)`, run as one transaction on this lane's thread."""
        return await self._submit(
            lambda: self._transact(lambda connection: operation(connection, *args, **kwargs))
        )

    async def close(self) -> None:
        """Finish the running call, drop the waiting ones, disconnect."""
        if self._closed:
            return
        self._closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._executor.shutdown)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _submit(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise StoreDownError(f"{self._path}: the store is closed")
        future = self._executor.submit(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.cancelled() and not _is_cancelled():
                raise StoreDownError(f"{self._path}: the store was closed before the call began") from None
            raise

    def _connect(self) -> None:
        schema.check_library(self._path)
        try:
            connection = sqlite3.connect(
                self._path,
                timeout=limits.sqlite_busy_timeout_s,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=_CACHED_STATEMENTS,
            )
        except sqlite3.Error as error:
            raise fault(error, self._path) from error
        try:
            self._prepare(connection)
        except sqlite3.Error as error:
            connection.close()
            raise fault(error, self._path) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if not self._writes:
            connection.execute("PRAGMA query_only = 1")
            return
        connection.execute(f"PRAGMA page_size = {limits.sqlite_page_bytes}")
        mode = _keep_write_ahead_log(connection)
        if mode != "wal":
            raise StoreRefusedError(
                f"{self._path}: SQLite cannot keep a write-ahead log here (journal mode stays {mode}); "
                "put the file on a local disk"
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {limits.sqlite_log_bytes_max}")
        connection.execute(f"PRAGMA cache_size = -{limits.sqlite_cache_bytes_max // 2**10}")
        pages = limits.sqlite_checkpoint_bytes // limits.sqlite_page_bytes
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        schema.check_whole(connection, self._path)
        connection.execute("BEGIN IMMEDIATE")
        try:
            schema.migrate(connection, self._path)
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection
        if connection is None:
            raise StoreDownError(f"{self._path}: the store is not open")
        try:
            connection.execute(self._begin)
            result = work(connection)
        except sqlite3.Error as error:
            _roll_back(connection)
            raise fault(error, self._path) from error
        except BaseException:
            _roll_back(connection)
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            _roll_back(connection)
            raise fault(error, self._path, committing=True) from error
        return result


def _keep_write_ahead_log(connection: sqlite3.Connection) -> str:
    """Switch the file to a write-ahead log; the mode it has then.

    SQLite does not wait for a lock here: of several processes that open a new file at once, all but one are
    told at once that it is locked. So the wait is ours.
    """
    deadline_s = time.monotonic() + limits.sqlite_busy_timeout_s
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline_s:
                raise
            time.sleep(_MODE_RETRY_S)


def fault(error: sqlite3.Error, path: Path, *, committing: bool = False) -> FaultError:
    """What an error of SQLite means for the caller; the transaction has been rolled back."""
    code = primary_code(error)
    if code in _DAMAGED:
        return StoreRefusedError(
            f"{path}: damaged, or not an SQLite database ({error}); keep a copy and restore a backup: "
            "journals still on disk are applied to it"
        )
    if code in _UNUSABLE:
        return StoreRefusedError(
            f"{path}: cannot be opened for writing ({error}); check the folder and its permissions"
        )
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreDownError(
            f"{path}: locked by another program for more than {limits.sqlite_busy_timeout_s:.0f} s; "
            "end the backup or shell that holds it; the operation is tried again"
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreDownError(f"{path}: the disk is full; free some space, the operation is tried again")
    if committing and code == sqlite3.SQLITE_IOERR:
        return StoreUnknownError(f"{path}: the disk failed during a commit ({error})")
    return StoreDownError(f"{path}: {error}")


def primary_code(error: sqlite3.Error) -> int:
    """The primary result code behind an error; 0 for errors of the Python module itself."""
    code: int = getattr(error, "sqlite_errorcode", 0) or 0
    return code & 0xFF


def is_row_error(error: Exception) -> bool:
    """Whether the fault lies in a value to be written (poison), not in the store."""
    if isinstance(error, sqlite3.Error):
        return primary_code(error) in _ROW_ERRORS
    return isinstance(error, OverflowError | UnicodeEncodeError)


@contextlib.contextmanager
def savepoint(connection: sqlite3.Connection) -> Iterator[None]:
    """Undo what the block did, and only that, when it raises."""
    connection.execute("SAVEPOINT part")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO part")
            connection.execute("RELEASE part")
        raise
    connection.execute("RELEASE part")


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
