"""Load for tests that disturb: clients that go on whatever happens, and how the books must be then."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from e2e.deployment import Customer, Deployment


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
