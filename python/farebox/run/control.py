"""A child's control socket: one connection, one line of JSON that asks, one that answers.

Every worker listens on a unix socket of its own in the data directory, readable by its owner only. The
supervisor pings over it (a worker whose event loop stands still does not answer), and tells workers to reload
or to retire; whoever wants to see inside a worker asks there, too. `ControlServer` is the worker's side,
`ask` and `Pulse` are the supervisor's, which never waits for a child that hangs.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from farebox.base import limits

Answer = dict[str, Any]
Command = Callable[[Mapping[str, Any]], Awaitable[Answer]]

_BACKLOG: Final = 16


class ControlServer:
    """Answers commands by name. A command that raises is answered with `error`; the socket lives on."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; a socket left by a process that died is replaced."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            self._serve, path=self._path, limit=limits.control_line_bytes_max, backlog=_BACKLOG
        )
        self._path.chmod(0o600)

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The other side left, sent an endless line, or asks nothing while this process ends.
        with contextlib.suppress(OSError, ValueError, asyncio.CancelledError):
            if line := await reader.readline():
                writer.write(orjson.dumps(await self._answer(line)) + b"\n")
                await writer.drain()
        writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = orjson.loads(line)
            return await self._commands[request["do"]](request)
        except Exception as error:  # noqa: BLE001 - said to whoever asked
            return {"error": f"{type(error).__name__}: {error}"}


def ask(path: Path, request: Mapping[str, Any], timeout_s: float) -> Answer:
    """One question to a child; `error` in the answer when it cannot be reached or takes too long."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(orjson.dumps(request) + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline(limits.control_line_bytes_max)
    except OSError as error:
        return {"error": f"it does not answer: {error.strerror or error}"}
    return _parsed(line)


def _parsed(line: bytes) -> Answer:
    try:
        answer = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {"error": "it ended in the middle of its answer"}
    return answer if isinstance(answer, dict) else {"error": "it answers nonsense"}


class Pulse:
    """Pings one child without ever waiting: call `look` now and then.

    `state` is what the child last said of itself (empty before its first answer); `silent_s` how long it has
    owed an answer, counted only once it has answered at all: how long a start may take is another's matter.
    """

    def __init__(self, path: Path) -> None:
        self.state = ""
        self._path = path
        self._socket: socket.socket | None = None
        self._received = b""
        self._asked_s = 0.0

    def look(self, now_s: float) -> None:
        """Take an answer that has come; ask again when it is time."""
        if self._socket is not None:
            self._take(self._socket)
        elif now_s - self._asked_s >= limits.heartbeat_interval_s:
            self._ask(now_s)

    def silent_s(self, now_s: float) -> float:
        """Seconds since the unanswered question; 0 while nothing is owed."""
        return now_s - self._asked_s if self._socket is not None and self.state else 0.0

    def close(self) -> None:
        """Forget the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, now_s: float) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        self._asked_s = now_s
        try:
            connection.connect(str(self._path))
            connection.send(b'{"do":"ping"}\n')
        except BlockingIOError:
            pass  # its backlog is full: it owes an answer
        except OSError:
            connection.close()  # not there yet, or gone: its process tells more
            return
        self._socket = connection
        self._received = b""

    def _take(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(limits.control_line_bytes_max)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        if not data or self._received.endswith(b"\n"):
            self.close()
            self.state = str(_parsed(self._received).get("state", self.state))
