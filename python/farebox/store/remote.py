"""The worker's side of the store: the operations workers need, asked of their host's writer over a unix
socket.

Promises: no worker carries a store client; a failed call says whether it may have had an effect
(StoreUnknownError: it was sent, no answer came) or not (StoreDownError: it was never sent); waits and waiting
calls are bounded (M10). The connection is made again for ever, with back-off; a caller never waits for it
longer than a moment.

Messages (`wire_form.py`): call `[number, method, arguments]`; answer `[number, result]` or `[number, null,
error name, message]`; push `[0, message]`, see `OnPush`.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from farebox.base import limits
from farebox.base.errors import (
    FareboxError,
    InvariantBrokenError,
    StoreConflictError,
    StoreDownError,
    StoreRefusedError,
    StoreUnknownError,
    UsageError,
)
from farebox.base.records import Account, Fenced, Grant, KeyRecord, LotAmount
from farebox.store import wire_form
from farebox.store.base import JournalState

OnPush = Callable[[Mapping[str, Any]], None]
"""Called in the event loop with `{"applied": [journal, pos]}`, `{"change": [number, kind, subject,
journal]}`, `{"fence": [journal, user]}`; and with `{"connected": []}` whenever a connection is made, and when
the writer has missed changes: pushes before it are lost, so everything remembered of users and keys is old.
"""

ERRORS: Final[Mapping[str, type[FareboxError]]] = {
    kind.__name__: kind
    for kind in (
        StoreDownError,
        StoreConflictError,
        StoreUnknownError,
        StoreRefusedError,
        InvariantBrokenError,
        UsageError,
    )
}
"""Errors that cross the wire by name; anything else arrives as StoreUnknownError."""

_LOG = logging.getLogger(__name__)
_BACK_OFF_FIRST_S = 0.01


class RemoteStore:
    """A `WorkerStore` behind a socket. All methods belong to one event loop."""

    def __init__(self, socket_path: Path | str, on_push: OnPush) -> None:
        self._path = str(socket_path)
        self._on_push = on_push
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._connected = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    # -- life ------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        """Begin to connect; calls wait for the connection at most `limits.rpc_connect_wait_s`."""
        self._task = asyncio.create_task(self._stay_connected(), name="remote-store")

    async def close(self) -> None:
        """Disconnect; waiting calls fail."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    # -- operations: see `Store` -----------------------------------------------------------------------------
    async def claim_epoch(self, journal: str, epoch: int, host: str, now_ms: int) -> JournalState:
        return wire_form.journal_from(await self._call("claim_epoch", journal, epoch, host, now_ms))

    async def journal_states(self) -> list[JournalState]:
        return [wire_form.journal_from(form) for form in await self._call("journal_states")]

    async def beat(self, journal: str, epoch: int, now_ms: int) -> bool:
        return bool(await self._call("beat", journal, epoch, now_ms))

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
        return wire_form.grant_from(
            await self._call("grant", user, wallet, journal, epoch, op, need_pico, want_pico, now_ms)
        )

    async def give_back(
        self, user: str, journal: str, epoch: int, op: int, amounts: Sequence[LotAmount], now_ms: int
    ) -> int | None:
        new_op: int | None = await self._call("give_back", user, journal, epoch, op, list(amounts), now_ms)
        return new_op

    async def fence(
        self, user: str, journal: str, epoch: int, exchanges: Sequence[str], now_ms: int
    ) -> Fenced | None:
        return wire_form.fenced_from(await self._call("fence", user, journal, epoch, list(exchanges), now_ms))

    async def want(self, user: str, journal: str, wanted: bool) -> None:
        await self._call("want", user, journal, wanted)

    async def leases_of(self, journal: str) -> list[str]:
        return list(await self._call("leases_of", journal))

    async def account(self, user: str) -> Account | None:
        return wire_form.account_from(await self._call("account", user))

    async def key(self, digest: str) -> KeyRecord | None:
        return wire_form.key_from(await self._call("key", digest))

    async def put_price_book(self, book: Mapping[str, object], content_hash: str, now_ms: int) -> int:
        return int(await self._call("put_price_book", book, content_hash, now_ms))

    async def price_book(self, version: int) -> Mapping[str, object] | None:
        book: Mapping[str, object] | None = await self._call("price_book", version)
        return book

    # -- calls -----------------------------------------------------------------------------------------------
    async def _call(self, method: str, *arguments: object) -> Any:
        number = next(self._numbers)
        try:
            frame = wire_form.encode([number, method, arguments])
        except wire_form.FrameTooLongError as error:
            raise InvariantBrokenError(f"{method}: {error}") from None
        if len(self._waiting) >= limits.rpc_pending_max:
            raise StoreDownError(f"{limits.rpc_pending_max} calls wait for the writer already")
        writer = await self._connection()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            writer.write(frame)
            async with asyncio.timeout(limits.store_timeout_s):
                return await answer
        except TimeoutError:
            raise StoreUnknownError(
                f"{method}: no answer from the writer in {limits.store_timeout_s:g} s"
            ) from None
        finally:
            self._waiting.pop(number, None)

    async def _connection(self) -> asyncio.StreamWriter:
        if self._writer is None and not self._closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.rpc_connect_wait_s):
                    await self._connected.wait()
        writer = self._writer
        if writer is None or writer.is_closing():
            raise StoreDownError(f"no connection to the writer at {self._path}")
        return writer

    # -- the connection --------------------------------------------------------------------------------------
    async def _stay_connected(self) -> None:
        pause_s = _BACK_OFF_FIRST_S
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._path)
            except OSError:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, limits.rpc_reconnect_max_s)
                continue
            pause_s = _BACK_OFF_FIRST_S
            try:
                await self._listen(reader, writer)
            finally:
                self._fail_waiting()
                await wire_form.close(writer)
            await asyncio.sleep(pause_s)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._connected.set()
        self._push({"connected": []})
        try:
            while True:
                self._take(await wire_form.read(reader))
        except (asyncio.IncompleteReadError, OSError):
            return
        except ValueError:
            _LOG.exception("the writer sent what is no message; connecting again")

    def _fail_waiting(self) -> None:
        self._writer = None
        self._connected.clear()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(
                    StoreUnknownError("the connection to the writer broke before the answer came")
                )

    def _take(self, message: list[Any]) -> None:
        number = message[0]
        if number == 0:
            self._push(message[1])
            return
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return
        if len(message) == 2:
            answer.set_result(message[1])
        else:
            answer.set_exception(ERRORS.get(message[2], StoreUnknownError)(message[3]))

    def _push(self, message: Mapping[str, Any]) -> None:
        try:
            self._on_push(message)
        except Exception:  # noqa: BLE001 - whatever a listener does, the answers behind it must be read
            _LOG.exception("a push from the writer could not be handled: %s", sorted(message))
