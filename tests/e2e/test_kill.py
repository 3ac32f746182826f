"""Promise M4, M5, M6: kill -9 at any moment loses no charge, doubles none, and leaves books that add up.

Real processes are killed at random moments under load; the seed heads the test report.
What the clients received and what the scripted upstream saw are held against the store.
"""

import asyncio
import random
from pathlib import Path

import aiohttp
import pytest

from e2e.deployment import Deployment
from e2e.load import Load, check_books, under_load
from needs import SEED

USD = 10**12


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
