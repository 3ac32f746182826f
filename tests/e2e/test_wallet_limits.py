"""Promise: a wallet is never overspent, however many requests meet it at once, and what it affords is served.

The exchanges, the processes and the store are real; the wallet is worth exactly so many of the scripted
answers.
"""

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from e2e.deployment import Customer, Deployment

PRICE_PICO = 1000 * 1_312_500 + 500 * 10_500_000
"""1,000 input and 500 output tokens of gpt-5.1 at 1.25 and 10 USD per million, times 1.05."""

SCRIPT = 'script: {"prompt": 1000, "completion": 500, "first_delay_ms": 20}'
BODY = {
    "model": "gpt-5.1",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "word " * 180 + SCRIPT}],
}
"""About as many bytes as the answer claims input tokens: the bound of a hold is a token a byte."""


async def statuses(deployment: Deployment, customer: Customer, total: int, at_once: int) -> Counter[int]:
    """Send `total` requests, `at_once` at a time; how often each status came back."""
    seen: Counter[int] = Counter()
    waiting = asyncio.Semaphore(at_once)
    headers = {"Authorization": f"Bearer {customer.key}"}

    async def one(session: aiohttp.ClientSession) -> None:
        async with waiting, session.post(f"{deployment.base_url}/v1/chat/completions", json=BODY) as response:
            await response.read()
            seen[response.status] += 1

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        await asyncio.gather(*(one(session) for _ in range(total)))
    return seen


@pytest.mark.parametrize(
    ("affordable", "at_least", "total", "at_once"),
    [(5, 4, 200, 200), (220, 209, 2000, 500)],
    ids=["5-of-200", "220-of-2000"],
)
@pytest.mark.timeout(120)
def test_M2_never_more_than_the_wallet_affords(
    tmp_path: Path, affordable: int, at_least: int, total: int, at_once: int
) -> None:
    with Deployment(tmp_path) as deployment:
        customer = deployment.customer("alice", affordable * PRICE_PICO)
        seen = asyncio.run(statuses(deployment, customer, total, at_once))
        deployment.settled(["alice"])
        assert set(seen) <= {200, 402}
        assert at_least <= seen[200] <= affordable
        account = deployment.account("alice")
        assert account.balances["creditsNew"] == (affordable - seen[200]) * PRICE_PICO
        assert account.written_off_pico == 0
        assert len(deployment.spent_rows("alice")) == seen[200]
        assert deployment.verified().differences == []
