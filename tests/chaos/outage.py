"""The store away or slow under load: who is refused, what is lost, and what a request costs meanwhile.

    python tests/chaos/outage.py --seconds 60

`make outage SECONDS=60` runs it. One customer with money to hand sends plain requests without a pause: in
good times, while the store is locked for SECONDS (SQLite: another program holds its write lock), while every
transaction takes a second, and after. It prints what each time brought, then the verdict over store and
journals; figures of time are for people, the exit status follows from the money alone.
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
from farebox.run.failpoints import PERMIT, VARIABLE

USD = 10**12
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


@contextlib.contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold the store's write lock, as a backup tool or a shell does."""
    connection = sqlite3.connect(store, timeout=30, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@contextlib.contextmanager
def slow(points: Path, delay_ms: int) -> Iterator[None]:
    """Let every transaction of the store begin so much later."""
    point = points / "store.begin"
    point.write_text(f"delay {delay_ms} times=1000000")
    try:
        yield
    finally:
        point.unlink(missing_ok=True)


def run(folder: Path, points: Path, seconds: float, clients: int) -> tuple[list[Phase], list[str]]:
    """All times, one after the other; what each brought and what is wrong."""
    phases = [Phase(name) for name in ("before", "store locked", "store slow", "after")]
    good, away, late, after = phases
    short_s = max(1.0, seconds / 6)
    with Deployment(folder) as deployment:
        customer = deployment.customer("alice", 100_000 * USD)
        asyncio.run(load(deployment, customer, good, 2 * seconds, clients))
        with locked(folder / "farebox.sqlite"):
            asyncio.run(load(deployment, customer, away, seconds, clients))
        asyncio.run(load(deployment, customer, Phase("catching up"), short_s, clients))
        with slow(points, 1000):
            asyncio.run(load(deployment, customer, late, short_s, clients))
        asyncio.run(load(deployment, customer, after, short_s, clients))
        deployment.settled(["alice"], 120.0)
        report = deployment.verified()
        wrong = [*report.differences, *report.parked]
        charged = len(deployment.spent_rows("alice"))
        if charged != deployment.upstream_count():
            wrong.append(f"{deployment.upstream_count()} exchanges served, {charged} charged")
    return phases, wrong


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Farebox while its store is away, and while it is slow.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="farebox-outage-") as temporary:
        points = permitted(Path(temporary))
        phases, wrong = run(Path(temporary), points, options.seconds, options.clients)
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
