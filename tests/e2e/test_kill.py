"""Promise M4, M5, M6: kill -9 at any moment loses no charge, doubles none, and leaves books that add up.

Real processes are killed at random moments under load; the seed heads the test report.
What the clients received and what the scripted upstream saw are held against the store.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from e2e.deployment import Customer, Deployment
from needs import SEED

USD = 10**12


def body(stream: bool, chunks: int) -> dict[str, object]:
    script = (
        f'script: {{"prompt": 120, "completion": 60, "chunks": {chunks}, "delay_ms": 2, "first_delay_ms": 5}}'
    )
    return {
        "model": "gpt-5.1",
        "max_tokens": 200,
        "stream": stream,
        "messages": [{"role": "user", "content": script}],
    }


@dataclass
class Load:
    """Clients that go on whatever happens; `received`: ids of the exchanges answered in full."""

    deployment: Deployment
    customers: list[Customer]
    received: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    stopping: bool = False

    async def client(self, customer: Customer, stream: bool) -> None:
        headers = {"Authorization": f"Bearer {customer.key}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            while not self.stopping:
                try:
                    await self.exchange(session, stream)
                except (aiohttp.ClientError, OSError, TimeoutError):
                    self.statuses["broken"] += 1
                    await asyncio.sleep(0.02)

    async def exchange(self, session: aiohttp.ClientSession, stream: bool) -> None:
        url = f"{self.deployment.base_url}/v1/chat/completions"
        timeout = aiohttp.ClientTimeout(total=30)
        async with session.post(url, json=body(stream, 12), timeout=timeout) as response:
            data = await response.read()
            self.statuses[str(response.status)] += 1
            if response.status != 200:
                await asyncio.sleep(0.02)
            elif not stream or data.rstrip().endswith(b"[DONE]"):
                self.received.append(response.headers["x-request-id"])

    async def run(self, at_once: int) -> None:
        clients = [
            self.client(self.customers[number % len(self.customers)], stream=number % 2 == 0)
            for number in range(at_once)
        ]
        await asyncio.gather(*clients)


async def under_load(load: Load, disturb: "asyncio.Future[None]", at_once: int = 24) -> None:
    running = asyncio.create_task(load.run(at_once))
    try:
        await disturb
    finally:
        load.stopping = True
        await running


def check_books(deployment: Deployment, load: Load, seen_by_upstream: int) -> None:
    """Each answer received in full is charged once, each exchange the upstream saw settled; M1, M2."""
    users = [customer.user for customer in load.customers]
    deployment.settled(users, timeout_s=40.0)
    report = deployment.verified()
    assert report.differences == []
    assert report.parked == []
    charges = Counter(row.reference for user in users for row in deployment.spent_rows(user))
    assert set(charges.values()) <= {1}
    assert charges
    missing = [exchange for exchange in load.received if not charges[exchange]]
    assert missing == []
    assert len(set(load.received)) == len(load.received)
    assert len(charges) >= seen_by_upstream
    assert all(min(deployment.account(user).balances.values()) >= 0 for user in users)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("module", "kills"), [("worker_process", 20), ("writer_process", 20)])
def test_J07_J12_killed_at_random_moments_under_load(tmp_path: Path, module: str, kills: int) -> None:
    rng = random.Random(SEED)
    with Deployment(tmp_path) as deployment:
        load = Load(deployment, [deployment.customer(name, 100 * USD) for name in ("alice", "bob", "carol")])

        async def disturb() -> None:
            for _ in range(kills):
                await asyncio.sleep(rng.uniform(0.1, 0.8))
                deployment.kill(module)
            await asyncio.sleep(1.5)

        asyncio.run(under_load(load, disturb()))  # type: ignore[arg-type]
        assert load.received
        check_books(deployment, load, deployment.upstream_count())


@pytest.mark.timeout(300)
def test_J12_everything_killed_at_random_moments_under_load(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    with Deployment(tmp_path) as deployment:
        load = Load(deployment, [deployment.customer(name, 100 * USD) for name in ("alice", "bob")])

        async def disturb() -> None:
            for _ in range(10):
                await asyncio.sleep(rng.uniform(0.2, 1.0))
                await asyncio.to_thread(deployment.kill_everything)
                await asyncio.to_thread(deployment.start_farebox)
            await asyncio.sleep(1.0)

        asyncio.run(under_load(load, disturb()))  # type: ignore[arg-type]
        assert load.received
        check_books(deployment, load, deployment.upstream_count())


@pytest.mark.timeout(120)
def test_M6_all_500_answers_are_billed_when_everything_dies_right_after(tmp_path: Path) -> None:
    with Deployment(tmp_path) as deployment:
        customer = deployment.customer("alice", 100 * USD)
        load = Load(deployment, [customer])

        async def five_hundred() -> None:
            headers = {"Authorization": f"Bearer {customer.key}"}
            async with aiohttp.ClientSession(headers=headers) as session:
                for _ in range(10):
                    await asyncio.gather(*(load.exchange(session, False) for _ in range(50)))

        asyncio.run(five_hundred())
        deployment.kill_everything()
        assert len(load.received) == 500
        deployment.start_farebox()
        check_books(deployment, load, 500)
        assert len(deployment.spent_rows("alice")) == 500
