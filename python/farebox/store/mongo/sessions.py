"""The server sessions of one process, noted in a file, so that its successor can end what it left open.

A process that is killed between a transaction's first write and its commit leaves the transaction open: the
server ends it after a minute, and until then every write to its users is a conflict. The successor of a
killed writer ends it at once. Promises: a session stands in the file before its first transaction begins; the
file never holds more than `limits.store_sessions_noted_max` of them; ending a session that is not there any
more changes nothing.
"""

import contextlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bson import Binary

from farebox.base import limits


class NotedSessions:
    """The file of one process's sessions; None: nothing is noted. One process at a time has a file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: set[bytes] = set()

    def left_behind(self) -> list[Mapping[str, Any]]:
        """Sessions of the file, which a predecessor noted; what cannot be read is no session."""
        if self._path is None or not self._path.exists():
            return []
        found: list[Mapping[str, Any]] = []
        for line in self._path.read_text(errors="replace").splitlines()[-limits.store_sessions_noted_max :]:
            with contextlib.suppress(ValueError):
                found.append({"id": Binary.from_uuid(uuid.UUID(line))})
        return found

    def begin(self) -> None:
        """Forget what the predecessor noted: it is ended."""
        self._known.clear()
        if self._path is not None:
            self._path.write_text("")

    def note(self, session: Mapping[str, Any]) -> None:
        """Write down a session before it is used; nothing for one that is known."""
        name = bytes(session["id"])
        if self._path is None or name in self._known:
            return
        if len(self._known) >= limits.store_sessions_noted_max:
            self.begin()
        self._known.add(name)
        with self._path.open("a") as file:
            file.write(f"{uuid.UUID(bytes=name)}\n")
