"""The writer's side of the workers' socket: serves the operations workers need and pushes news to all of
them.

Promises: only the methods of `WorkerStore` can be called; the socket is readable by this user alone; a worker
that does not read its pushes is disconnected rather than buffered for without end (M10); a call whose worker
has given up waiting is ended here as well, and where it has not begun, it never does.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from farebox.base import clock, limits
from farebox.base.errors import StoreRefusedError, StoreUnknownError
from farebox.store import wire_form
from farebox.store.base import WorkerStore
from farebox.store.remote import ERRORS

_LOG = logging.getLogger(__name__)
_OWNER_ONLY: Final = 0o177


class StoreServer:
    """Serves one store to the workers of this host."""

    def __init__(self, store: WorkerStore, socket_path: Path | str) -> None:
        self._path = Path(socket_path)
        self._methods = _methods(store, _Wants(self.push))
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._connections: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; replaces the socket a dead writer left. Raises StoreRefusedError when the path cannot be
        bound.
        """
        listener = _bound(self._path)
        self._inode = self._path.stat().st_ino
        self._server = await asyncio.start_unix_server(self._accept, sock=listener)

    async def close(self) -> None:
        """Stop listening, disconnect all workers, end what runs for them."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in tuple(self._connections):
            writer.close()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None
            self._remove_socket()

    @property
    def workers(self) -> int:
        """How many workers are connected."""
        return len(self._connections)

    def _remove_socket(self) -> None:
        """Remove our socket; not that of a successor who has taken its place meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def push(self, message: Mapping[str, object]) -> None:
        """Send news to every connected worker, without waiting."""
        frame = wire_form.encode([0, message])
        for writer in tuple(self._connections):
            self._send(writer, frame)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.create_task(self._serve(reader, writer))
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= limits.rpc_connections_max:
            _LOG.error("more than %d workers on %s: refused", limits.rpc_connections_max, self._path)
            await wire_form.close(writer)
            return
        self._connections.add(writer)
        room = asyncio.Semaphore(limits.rpc_pending_max)
        try:
            while True:
                message = await wire_form.read(reader)
                await room.acquire()
                task = asyncio.create_task(self._answer(writer, message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                task.add_done_callback(lambda _: room.release())
        except (asyncio.IncompleteReadError, OSError):
            pass
        except ValueError:
            _LOG.exception("a worker sent what is no message; disconnected")
        finally:
            self._connections.discard(writer)
            await wire_form.close(writer)

    async def _answer(self, writer: asyncio.StreamWriter, message: list[Any]) -> None:
        number = message[0]
        try:
            frame = wire_form.encode([number, await self._result(message)])
        except Exception as error:  # noqa: BLE001 - every fault of a call is the caller's to know
            frame = wire_form.encode([number, None, *_described(error)])
        self._send(writer, frame)

    async def _result(self, message: list[Any]) -> object:
        _, method, arguments = message
        operation = self._methods.get(method)
        if operation is None:
            raise StoreRefusedError(f"workers cannot call {method!r}")
        try:
            async with asyncio.timeout(limits.store_timeout_s):
                return await operation(*arguments)
        except TimeoutError:
            raise StoreUnknownError(f"{method}: not done in {limits.store_timeout_s:g} s") from None

    def _send(self, writer: asyncio.StreamWriter, frame: bytes) -> None:
        if writer not in self._connections or writer.is_closing():
            return
        if writer.transport.get_write_buffer_size() > limits.rpc_message_bytes_max:
            _LOG.error("a worker on %s does not read; disconnected", self._path)
            writer.transport.abort()
            return
        writer.write(frame)


def _described(error: Exception) -> tuple[str, str]:
    if type(error).__name__ in ERRORS:
        return type(error).__name__, str(error)
    _LOG.error("a call of a worker failed", exc_info=error)
    return StoreUnknownError.__name__, f"{type(error).__name__} in the writer; its log has the details"


def _methods(store: WorkerStore, wants: "_Wants") -> Mapping[str, Callable[..., Awaitable[object]]]:
    async def give_back(
        user: str, journal: str, epoch: int, op: int, amounts: list[list[Any]], now_ms: int
    ) -> int | None:
        parts = wire_form.lot_amounts_from(amounts)
        new_op = await store.give_back(user, journal, epoch, op, parts, now_ms)
        if new_op is not None:
            wants.returned(user)
        return new_op

    async def want(user: str, journal: str, wanted: bool) -> None:
        await store.want(user, journal, wanted)
        if wanted:
            wants.asked(user, journal)

    return {
        "claim_epoch": store.claim_epoch,
        "journal_states": store.journal_states,
        "beat": store.beat,
        "grant": store.grant,
        "give_back": give_back,
        "fence": store.fence,
        "want": want,
        "leases_of": store.leases_of,
        "account": store.account,
        "key": store.key,
        "put_price_book": store.put_price_book,
        "price_book": store.price_book,
    }


class _Wants:
    """Carries wants and returns between a host's workers at once; other hosts hear of wants in their poll."""

    def __init__(self, push: Callable[[Mapping[str, object]], None]) -> None:
        self._push = push
        self._asked_s: dict[str, float] = {}

    def asked(self, user: str, journal: str) -> None:
        """A worker is short of this user's money."""
        if len(self._asked_s) >= limits.wants_remembered_max:
            self._asked_s.clear()
        self._asked_s[user] = clock.monotonic_s()
        self._push({"change": [0, "want", user, journal]})

    def returned(self, user: str) -> None:
        """Money of this user is back in the store: whoever asked for it not long ago should ask again."""
        asked_s = self._asked_s.get(user)
        if asked_s is None:
            return
        if clock.monotonic_s() < asked_s + limits.lease_wait_s:
            self._push({"change": [0, "freed", user, ""]})
        else:
            del self._asked_s[user]


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(_OWNER_ONLY)
    try:
        if path.is_socket():
            path.unlink()
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise StoreRefusedError(
            f"{path}: cannot be bound as the workers' socket: {error}; choose another folder"
        ) from None
    finally:
        os.umask(before)
    return listener
