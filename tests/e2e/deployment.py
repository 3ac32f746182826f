"""Farebox as an operator runs it, for tests: real processes, the scripted upstream, a store of its own.

The store is looked at directly (WAL lets several processes read), so that what a test believes does not pass
through the code it tests.
"""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from farebox.base.clock import wall_ms
from farebox.base.ids import new_lot_id
from farebox.base.keys import display_prefix, key_digest, new_key
from farebox.base.records import Account, KeyRecord, LotAmount, Transaction
from farebox.run.demo.processes import Processes, get, wait_until
from farebox.store import open_store
from farebox.store.base import Event, EventResult, Store
from farebox.writer.verify import VerifyReport, verify

T = TypeVar("T")


@dataclass
class Customer:
    """A user with a key; amounts are pico-USD."""

    user: str
    key: str


class Deployment(Processes):
    """The demonstration's processes under a configuration the test may change."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        super().__init__(folder)
        self.start_upstream()
        self.write_config()
        document = json.loads(self.config.read_text())
        self.amend(document)
        document.update(changes)
        self.config.write_text(json.dumps(document))
        try:
            self.start_farebox()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def amend(self, document: dict[str, Any]) -> None:
        """Change the demonstration's configuration before Farebox starts with it."""
        document["limits"] = {"requests_per_minute": 10_000_000}

    @property
    def farebox(self) -> subprocess.Popen[bytes]:
        """The supervisor's process."""
        return self._children[-1]

    def store_url(self) -> str:
        """The store's address, as its own users name it."""
        return f"sqlite:///{quote(str(self.folder / 'farebox.sqlite'))}"

    # -- accounts --------------------------------------------------------------------------------------------
    def store(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Run `work` on a connection of its own."""

        async def session() -> T:
            store = open_store(self.store_url())
            await store.open()
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(session())

    def customer(
        self,
        user: str,
        amount_pico: int,
        pool: str = "creditsNew",
        *,
        requests_per_minute: int | None = None,
        allowed_models: tuple[str, ...] | None = None,
    ) -> Customer:
        """A new user with money in one pool, and his key."""
        made = Customer(user, new_key())
        self.store(lambda store: store.create_user(user, "user", "test", wall_ms()))
        self.give_key(made, requests_per_minute, allowed_models)
        if amount_pico:
            assert self.top_up(user, amount_pico, pool, f"first-{user}") is EventResult.DONE
        return made

    def give_key(
        self,
        customer: Customer,
        requests_per_minute: int | None = None,
        allowed_models: tuple[str, ...] | None = None,
    ) -> None:
        """Make a customer's key known."""
        digest, prefix = key_digest(customer.key), display_prefix(customer.key)
        record = KeyRecord(
            digest, customer.user, prefix, "", True, True, "user", requests_per_minute, allowed_models
        )
        assert self.store(lambda store: store.create_key(record, "test", wall_ms()))

    def top_up(self, user: str, amount_pico: int, pool: str, reference: str) -> EventResult:
        """Credit a pool as a purchase does."""
        lots = (LotAmount(new_lot_id(), pool, amount_pico),)
        row = Transaction(user, "earned_purchase", reference, pool, amount_pico, lots, "test", wall_ms())

        async def credit(store: Store) -> EventResult:
            result = await store.apply_event(Event((row,), source="test", actor="test"), wall_ms())
            await store.append_change("user", user)
            return result

        return self.store(credit)

    def account(self, user: str) -> Account:
        """The user's money as stored."""

        async def read(store: Store) -> Account:
            account = await store.account(user)
            assert account is not None
            return account

        return self.store(read)

    def spent_rows(self, user: str) -> list[Transaction]:
        """The user's charges."""

        async def read(store: Store) -> list[Transaction]:
            rows = await store.transactions(user, 1_000_000)
            return [row for row in rows if row.type == "spent"]

        return self.store(read)

    def logs(self, user: str) -> list[Any]:
        """The user's request-log rows."""

        async def read(store: Store) -> list[Any]:
            return list(await store.request_logs(user, 1_000_000))

        return self.store(read)

    # -- settling down ---------------------------------------------------------------------------------------
    def verified(self) -> VerifyReport:
        """The verdict over store and journals."""

        async def look(store: Store) -> VerifyReport:
            return await verify(store, self.folder / "journals", lambda *_: None)

        return self.store(look)

    def settled(self, users: list[str], timeout_s: float = 20.0) -> None:
        """Wait until every settlement is booked and nothing is leased any more."""

        def still() -> bool:
            report = self.verified()
            if report.pending and any(report.pending.values()):
                return False
            return all(not lot.leased_pico for user in users for lot in self.account(user).lots)

        assert wait_until(still, timeout_s), [self.account(user) for user in users]

    def upstream_count(self) -> int:
        """Exchanges the upstream saw."""
        count: int = self.upstream_log()["received"]
        return count

    # -- violence --------------------------------------------------------------------------------------------
    def processes(self, module: str) -> list[int]:
        """Process ids of Farebox's children that run a module."""
        found = subprocess.run(
            ["pgrep", "-f", f"farebox.run.{module} .*{self.folder}"],
            capture_output=True,
            text=True,
            check=False,
        )
        return [int(line) for line in found.stdout.split()]

    def kill(self, module: str) -> None:
        """Kill -9 every process of a kind (`worker_process`, `writer_process`)."""
        for process in self.processes(module):
            _kill(process)

    def kill_everything(self) -> None:
        """Kill -9 the supervisor and all its children, at once."""
        victims = [self.farebox.pid]
        for module in ("worker_process", "writer_process", "console_process"):
            victims += self.processes(module)
        for process in victims:
            _kill(process)
        self.farebox.wait()
        self._children.pop()
        wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in victims), 10.0)

    def ready(self, timeout_s: float = 30.0) -> bool:
        """Wait until requests are taken."""
        return wait_until(lambda: get(self.port, "/readyz")[0] == 200, timeout_s)


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        time.sleep(0)
