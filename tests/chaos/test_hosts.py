"""Rows L02, L03 and J35 of the fault matrix, on real hosts: one wallet in many hands, and an orderly end."""

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from chaos.hosts import WRITER, Host, Machines, send
from chaos.traffic import POOL, Bank
from chaos.verdict import bring_to_an_end
from farebox.store import open_store
from farebox.store.base import Store
from farebox.writer.verify import verify
from needs import SEED

PRICE_PICO = 60 * 1_312_500 + 40 * 10_500_000
AFFORDABLE = 6


def request(*, tokens_max: int = 40, **script: object) -> dict[str, object]:
    text = "script: " + json.dumps({"prompt": 60, "completion": 40, **script})
    messages = [{"role": "user", "content": text}]
    return {"model": "gpt-5.1", "max_tokens": tokens_max, "messages": messages}


@pytest.fixture
def machines(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Machines]:
    hosts, workers = request.param
    with Machines(tmp_path, f"sqlite:///{tmp_path / 'farebox.sqlite'}", hosts, workers) as made:
        for host in made.hosts:
            assert host.wait_ready()
        yield made


async def opened(store: Store, amount_pico: int) -> Bank:
    """A bank of one user."""
    await store.open()
    bank = Bank(store, ["alice"], random.Random(SEED))
    await bank.open_accounts(0)
    await bank.top_up("alice", amount_pico, "first")
    return bank


async def statuses(bank: Bank, hosts: list[Host], count: int) -> Counter[int]:
    """So many requests of alice at once, over all hosts."""
    headers = {"Authorization": f"Bearer {bank.keys['alice']}"}
    seen: Counter[int] = Counter()

    async def one(session: aiohttp.ClientSession, host: Host) -> None:
        async with session.post(f"{host.base_url}/v1/chat/completions", json=request()) as response:
            await response.read()
            seen[response.status] += 1

    async with aiohttp.ClientSession(headers=headers) as session:
        await asyncio.gather(*(one(session, hosts[number % len(hosts)]) for number in range(count)))
    return seen


async def checked(bank: Bank, machines: Machines, served: int) -> None:
    """With every host ended: what was served is charged, and nothing else."""
    for host in machines.hosts:
        await asyncio.to_thread(host.stop)
    roots = [host.journals for host in machines.hosts]
    assert await bring_to_an_end(bank.store, roots) == []
    for root in roots:
        assert (await verify(bank.store, root)).differences == []
    account = await bank.store.account("alice")
    assert account is not None
    assert account.balances[POOL] == bank.credited["alice"] - served * PRICE_PICO
    assert account.written_off_pico == 0


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("machines", [(2, 2)], indirect=True)
async def test_L02_L03_one_wallet_on_two_hosts_is_never_spent_twice(
    tmp_path: Path, machines: Machines
) -> None:
    """First both hosts work; then one has lost the store (its writer hangs), the other serves on."""
    bank = await opened(open_store(f"sqlite:///{tmp_path / 'farebox.sqlite'}"), AFFORDABLE * PRICE_PICO)
    try:
        seen = await statuses(bank, machines.hosts, 40)
        assert 0 < seen[200] <= AFFORDABLE
        await bank.top_up("alice", AFFORDABLE * PRICE_PICO, "second")
        (writer,) = machines.hosts[0].processes(WRITER)
        send(writer, signal.SIGSTOP)
        try:
            after = await statuses(bank, machines.hosts, 20)
        finally:
            send(writer, signal.SIGCONT)
        assert set(seen + after) <= {200, 402, 503}
        assert seen[200] + after[200] <= 2 * AFFORDABLE
        await checked(bank, machines, seen[200] + after[200])
    finally:
        await bank.store.close()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("machines", [(1, 1)], indirect=True)
async def test_J35_an_end_in_order_settles_every_stream(tmp_path: Path, machines: Machines) -> None:
    """The first SIGTERM drains, the second cuts: each of 300 streams is settled, the exit is clean."""
    store = open_store(f"sqlite:///{tmp_path / 'farebox.sqlite'}")
    bank = await opened(store, 1000 * 10**12)
    (host,) = machines.hosts
    begun, streams = asyncio.Semaphore(0), 300

    async def one(session: aiohttp.ClientSession) -> None:
        body = {**request(chunks=200, delay_ms=5000), "stream": True}
        try:
            async with session.post(f"{host.base_url}/v1/chat/completions", json=body) as response:
                assert response.status == 200
                async for _ in response.content:
                    begun.release()
                    break
                await response.content.read()
        except aiohttp.ClientError:
            return

    try:
        headers = {"Authorization": f"Bearer {bank.keys['alice']}"}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
            clients = [asyncio.create_task(one(session)) for _ in range(streams)]
            for _ in range(streams):
                await begun.acquire()
            assert host.supervisor is not None
            for _ in range(2):
                host.supervisor.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.2)
            assert await asyncio.to_thread(host.supervisor.wait, 60) == 0
            await asyncio.gather(*clients)
        assert await bring_to_an_end(store, [host.journals]) == []
        report = await verify(store, host.journals)
        assert (report.differences, report.parked) == ([], [])
        rows = await store.transactions("alice", 10 * streams)
        charges = [row for row in rows if row.type == "spent"]
        assert len(charges) == streams == machines.upstream.totals()["received"]
        assert all(row.amount_pico < 0 for row in charges)
    finally:
        await store.close()
