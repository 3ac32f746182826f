"""The store away or slow under load: who is refused, what is lost, and what a request costs meanwhile.

    python tests/chaos/outage.py --seconds 60 --store mongodb

`make outage SECONDS=60` runs it on both stores. One customer with money to hand sends plain requests without
a pause: in good times, while the store is away for SECONDS (SQLite: another program holds its write lock;
MongoDB: the server is cut off), while every write takes a second (MongoDB: the network holds every message
back), and after. It prints what each time brought, then the verdict over store and journals; figures of time
are for people, the exit status follows from money and refusals.
"""

import argparse
import asyncio
import contextlib
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from e2e.deployment import Customer, Deployment
from e2e.load import body
from farebox.base import limits
from farebox.run.failpoints import PERMIT, VARIABLE
from faults.tcp_proxy import TcpProxy
from mongodb import MongoDBServer, fast_folder

USD = 10**12
SLOW_S = 1.0
CREDIT_PICO = 100_000 * USD
HOLD_PICO = 3 * 10**9
"""About what a request of this load sets aside while it runs."""
WARM_UPS_MAX = 60
LOOK_S = 120.0
"""How long the test's own looks at the store may take; Farebox's limits are as in production."""
PAUSE_S = 0.1
"""Of a client between two requests: leased money must last, and a worker leases ahead what it used lately."""


@dataclass
class Phase:
    """What one time brought."""

    name: str
    statuses: Counter[int] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)

    def line(self) -> str:
        ordered = sorted(self.latencies_ms) or [0.0]
        p99_ms = ordered[int(0.99 * (len(ordered) - 1))]
        return (
            f"{self.name}: {dict(self.statuses)}, median {statistics.median(ordered):.1f} ms, "
            f"p99 {p99_ms:.1f} ms"
        )


async def load(
    deployment: Deployment, customer: Customer, phase: Phase, seconds: float, clients: int
) -> None:
    """Requests one after the other from a few clients, for so long."""
    ends_s = time.monotonic() + seconds
    headers = {"Authorization": f"Bearer {customer.key}"}

    async def client(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < ends_s:
            began_s = time.monotonic()
            url = f"{deployment.base_url}/v1/chat/completions"
            async with session.post(url, json=body(False, 1)) as response:
                await response.read()
                phase.statuses[response.status] += 1
                if response.status == 200:
                    phase.latencies_ms.append((time.monotonic() - began_s) * 1000)
                else:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(PAUSE_S)

    async with aiohttp.ClientSession(headers=headers) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))


class OnSQLite:
    """A file that somebody locks, and whose transactions begin late."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._points = permitted(folder)

    def deploy(self, folder: Path) -> Deployment:
        self._file = folder / "farebox.sqlite"
        return Deployment(folder)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Hold the write lock, as a backup tool or a shell does."""
        connection = sqlite3.connect(self._file, timeout=30, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")
            connection.close()

    @contextlib.contextmanager
    def slow(self, delay_s: float) -> Iterator[None]:
        """Let every transaction begin so much later."""
        point = self._points / "store.begin"
        point.write_text(f"delay {round(1000 * delay_s)} times=1000000")
        try:
            yield
        finally:
            point.unlink(missing_ok=True)


class DeploymentOnMongoDB(Deployment):
    """The deployment reaches the server through a network that can fail; the test's own eyes do not."""

    def __init__(self, folder: Path, url: str, own_url: str) -> None:
        self._own_url = own_url
        super().__init__(folder, store={"url": url})

    def store_url(self) -> str:
        return self._own_url


class OnMongoDB:
    """A server behind a network that is cut off, and that holds answers back."""

    name = "mongodb"

    def __init__(self, folder: Path) -> None:
        (folder / "mongodb").mkdir()
        self._server = MongoDBServer(folder / "mongodb")
        self._server.start()
        self._network = TcpProxy(self._server.port)

    def deploy(self, folder: Path) -> Deployment:
        url = f"mongodb://127.0.0.1:{self._network.port}/farebox?directConnection=true"
        return DeploymentOnMongoDB(folder, url, f"{self._server.url}/farebox")

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Cut every connection, and refuse new ones."""
        self._network.cut()
        try:
            yield
        finally:
            self._network.heal()

    @contextlib.contextmanager
    def slow(self, delay_s: float) -> Iterator[None]:
        """Hold every message back, half of the time each way."""
        self._network.delay(delay_s / 2)
        try:
            yield
        finally:
            self._network.heal()

    def close(self) -> None:
        """End server and network."""
        self._network.close()
        self._server.kill()


@contextlib.contextmanager
def rig(store: str, folder: Path) -> Iterator[OnSQLite | OnMongoDB]:
    """The store under test."""
    if store == OnSQLite.name:
        yield OnSQLite(folder)
        return
    with fast_folder(folder) as fast:
        made = OnMongoDB(fast)
        try:
            yield made
        finally:
            made.close()


def leased_pico(deployment: Deployment) -> int:
    """What the worker has to hand; it leases more ahead the longer its customer is busy."""
    return sum(lot.leased_pico for lot in deployment.account("alice").lots)


def needed_pico(deployment: Deployment, lasted_s: float, seconds: float, clients: int) -> int:
    """What the worker must have to hand to serve for so long as it did in good times, and a fifth more."""
    spent_pico = CREDIT_PICO - sum(deployment.account("alice").balances.values())
    return int(1.2 * spent_pico * seconds / lasted_s) + clients * HOLD_PICO


def run(folder: Path, store: str, seconds: float, clients: int) -> tuple[list[Phase], list[str]]:
    """All times, one after the other; what each brought and what is wrong."""
    phases = [Phase(name) for name in ("before", "store away", "catching up", "store slow", "after")]
    good, away, back, late, after = phases
    short_s = max(1.0, seconds / 6)
    place = folder / "farebox"
    place.mkdir()
    limits.store_timeout_s = LOOK_S
    with rig(store, folder) as under_test, under_test.deploy(place) as deployment:
        customer = deployment.customer("alice", CREDIT_PICO)
        asyncio.run(load(deployment, customer, good, 2 * seconds, clients))
        needed = needed_pico(deployment, 2 * seconds, seconds + 3 * short_s, clients)
        for _ in range(WARM_UPS_MAX):
            if leased_pico(deployment) >= needed:
                break
            asyncio.run(load(deployment, customer, good, short_s, clients))
        with under_test.away():
            asyncio.run(load(deployment, customer, away, seconds, clients))
        asyncio.run(load(deployment, customer, back, short_s, clients))
        with under_test.slow(SLOW_S):
            asyncio.run(load(deployment, customer, late, short_s, clients))
        asyncio.run(load(deployment, customer, after, short_s, clients))
        deployment.settled(["alice"], 300.0)
        report = deployment.verified()
        wrong = [*report.differences, *report.parked]
        charged = len(deployment.spent_rows("alice"))
        if charged != deployment.upstream_count():
            wrong.append(f"{deployment.upstream_count()} exchanges served, {charged} charged")
        answered = sum(phase.statuses[200] for phase in phases)
        if answered > charged:
            wrong.append(f"{answered} answers, {charged} charged")
    refused = {phase.name: dict(phase.statuses) for phase in phases if set(phase.statuses) - {200}}
    wrong += [f"{name}: {statuses}" for name, statuses in refused.items()]
    return phases, wrong


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Farebox while its store is away, and while it is slow.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--store", choices=("sqlite", "mongodb"), default="sqlite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="farebox-outage-") as temporary:
        phases, wrong = run(Path(temporary), options.store, options.seconds, options.clients)
    sys.stdout.write(f"{options.store}, {options.seconds:g} s\n")
    sys.stdout.write("\n".join([*(phase.line() for phase in phases), *wrong]) + "\n")
    sys.stdout.write("not a cent lost\n" if not wrong else f"{len(wrong)} faults\n")
    return 1 if wrong else 0


def permitted(folder: Path) -> Path:
    """A folder of failpoints that the processes started from here on may use."""
    points = folder / "failpoints"
    points.mkdir()
    (points / PERMIT).touch()
    os.environ[VARIABLE] = str(points)
    return points


if __name__ == "__main__":
    sys.exit(main())
