"""Ledger, logs and balances as NDJSON files, with a schema file for each.

Promises: a user's balances and rows are of one snapshot, so an export adds up although traffic runs; what is
on disk is exactly what the state file says, so an export that was cut off goes on where it was, without a row
lost or doubled.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import orjson

from farebox.base import limits
from farebox.base.errors import UsageError
from farebox.credits.export_schema import SCHEMAS, balance_line, log_line, transaction_line
from farebox.store.base import Store

OnProgress = Callable[[str, int, int], None]
"""Called with what is written, how many of it are done, and how many there are; 0: nobody knows."""

_STATE: Final = "export.state.json"


@dataclass(slots=True)
class State:
    """How far an export has come: the last user and log written, rows and bytes by table."""

    user: str = ""
    users_done: bool = False
    log: str = ""
    done: bool = False
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SCHEMAS, 0))
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SCHEMAS, 0))


class Export:
    """The files of one export in one folder; open while the `with` block runs."""

    def __init__(self, folder: Path) -> None:
        """Begin, or go on with what is there. Raises UsageError where the folder holds something else."""
        self._folder = folder
        self.state = _state_of(folder)
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for table, columns in SCHEMAS.items():
            schema = orjson.dumps(columns, option=orjson.OPT_INDENT_2)
            (self._folder / f"{table}.schema.json").write_bytes(schema)
            file = (self._folder / f"{table}.ndjson").open("ab")
            file.truncate(self.state.bytes[table])
            self._files[table] = file
        self._keep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    async def run(self, store: Store, on_progress: OnProgress) -> None:
        """Write everything that is not written yet."""
        if not self.state.users_done:
            await self._write_users(store, on_progress)
        await self._write_logs(store, on_progress)
        self.state.done = True
        self._keep()

    async def _write_users(self, store: Store, on_progress: OnProgress) -> None:
        unsaved = 0
        async for listed in store.accounts(self.state.user):
            found = await store.account_with_rows(listed.user)
            lifetime = await store.lifetime(listed.user)
            if found is None or lifetime is None:
                continue
            account, rows = found
            self._write("balances", balance_line(account, lifetime, rows))
            for row in reversed(rows):
                self._write("transactions", transaction_line(row))
            self.state.user = listed.user
            unsaved += 1 + len(rows)
            if unsaved >= limits.export_page_rows:
                self._keep()
                on_progress("users", self.state.rows["balances"], 0)
                unsaved = 0
        self.state.users_done = True
        self._keep()
        on_progress("users", self.state.rows["balances"], self.state.rows["balances"])

    async def _write_logs(self, store: Store, on_progress: OnProgress) -> None:
        while page := await store.logs_after(self.state.log, limits.export_page_rows):
            for row in page:
                self._write("request_logs", log_line(row))
            self.state.log = str(page[-1]["_id"])
            self._keep()
            on_progress("request logs", self.state.rows["request_logs"], 0)
        on_progress("request logs", self.state.rows["request_logs"], self.state.rows["request_logs"])

    def _write(self, table: str, line: bytes) -> None:
        self._files[table].write(line)
        self.state.rows[table] += 1
        self.state.bytes[table] += len(line)

    def _keep(self) -> None:
        """Make what was written so far count: first the lines, then the state that speaks of them."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        written = self._folder / f"{_STATE}.new"
        with written.open("wb") as file:
            file.write(orjson.dumps(asdict(self.state)))
            file.flush()
            os.fsync(file.fileno())
        written.replace(self._folder / _STATE)


def _state_of(folder: Path) -> State:
    path = folder / _STATE
    if not path.exists():
        if folder.exists() and any(folder.glob("*.ndjson")):
            raise UsageError(f"{folder} holds files of something else; name a folder of its own")
        return State()
    try:
        known: Mapping[str, object] = orjson.loads(path.read_bytes())
        state = State(**known)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UsageError(f"{path} is damaged; export into another folder") from None
    if state.done:
        raise UsageError(f"the export in {folder} is complete; name another folder for a new one")
    for table, length in state.bytes.items():
        file = folder / f"{table}.ndjson"
        if not file.exists() or file.stat().st_size < length:
            raise UsageError(f"{file} is shorter than when it was written; export into another folder")
    return state
