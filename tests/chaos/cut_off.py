"""Two hosts with one database, the same users hammered on both, while the cable between one of them and the
database is pulled and put back.

    python tests/chaos/cut_off.py --seconds 60 --cuts 4 --seed 7

`make cut-off SECONDS=60` runs it; `test_cut_off.py` runs a short form. The hosts are in network namespaces
where root may make them (`networks.py`), the database is a MongoDB-wire server. Exit status 1 and every fault
where one cent is not explained, or where a host did not serve before and after.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from chaos.hosts import Host, Upstream
from chaos.networks import Network, networks
from chaos.traffic import Bank
from chaos.verdict import Verdict, judge
from farebox.store import open_store
from mongodb import MongoDBServer

CENTS = 3


async def run(
    folder: Path, *, seconds: float, cuts: int, seed: int, workers: int = 2, users: int = 6, clients: int = 10
) -> Verdict:
    """One run in an empty folder; every cut lasts about as long as the time between two."""
    with ExitStack() as stack:
        (folder / "mongodb").mkdir()
        server = MongoDBServer(folder / "mongodb")
        stack.callback(server.kill)
        await asyncio.to_thread(server.start)
        upstream = Upstream(folder)
        stack.callback(upstream.close)
        kind = networks()
        places = [stack.enter_context(kind(upstream.port, server.port)) for _ in range(2)]
        hosts = [_host(folder / f"host{number}", workers, place) for number, place in enumerate(places)]
        for host in hosts:
            host.configure()
            stack.callback(host.kill_all)
            host.start()
        store = open_store(f"{server.url}/bank")
        await store.open()
        bank = Bank(store, [f"user{number}" for number in range(users)], random.Random(seed))
        try:
            await bank.open_accounts(CENTS)
            for host in hosts:
                ready = await asyncio.to_thread(host.wait_ready)
                assert ready, (host.folder / "farebox.log").read_text()[-3000:]
            served = await _hammer(bank, hosts, places[1], seconds, cuts, clients)
            for host in hosts:
                await asyncio.to_thread(host.stop)
            verdict = await judge(bank, [host.journals for host in hosts], upstream.lines())
        finally:
            await store.close()
    verdict.figures |= {
        "seed": seed,
        "networks": kind.__name__,
        "requests": bank.sent,
        "outcomes": dict(bank.outcomes),
        "answers by host before, during and after the cuts": [dict(each) for each in served],
    }
    for name, each in zip(("before", "after"), (served[0], served[-1]), strict=True):
        verdict.wrong += [f"host {number} served nothing {name}" for number in (0, 1) if not each[number]]
    return verdict


def _host(folder: Path, workers: int, place: Network) -> Host:
    url = f"mongodb://{place.database.host}:{place.database.port}/bank?directConnection=true"
    return Host(folder, workers, url, place.upstream, address=place.address, inside=place.inside)


async def _hammer(
    bank: Bank, hosts: list[Host], place: Network, seconds: float, cuts: int, clients: int
) -> list[Counter[int]]:
    """Whole answers by host in each phase: served, cut off, served, and so on."""
    work = [asyncio.create_task(bank.client(hosts, number, 10**6)) for number in range(clients)]
    work += [asyncio.create_task(bank.move_money()), asyncio.create_task(bank.watch_balances())]
    phases: list[Counter[int]] = []
    seen = 0
    try:
        for number in range(2 * cuts + 1):
            if number:
                await asyncio.to_thread(place.cut_off if number % 2 else place.heal)
            await _phase(bank, hosts, seconds / (2 * cuts + 1), must_serve=number % 2 == 0)
            phases.append(Counter(each.host for each in bank.delivered[seen:]))
            seen = len(bank.delivered)
    finally:
        await asyncio.to_thread(place.heal)
        bank.stopping = True
        await asyncio.gather(*work)
    return phases


async def _phase(bank: Bank, hosts: list[Host], seconds: float, *, must_serve: bool) -> None:
    """So long, and in a phase without trouble until every host has given a whole answer in it."""
    began, loop = len(bank.delivered), asyncio.get_running_loop()
    ends_s, patience_s = loop.time() + seconds, loop.time() + seconds + 60.0

    def waited_enough() -> bool:
        now_s = loop.time()
        everywhere = {each.host for each in bank.delivered[began:]} == set(range(len(hosts)))
        return now_s >= ends_s and (everywhere or not must_serve or now_s >= patience_s)

    while not waited_enough():
        await asyncio.sleep(0.05)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Pull the cable between a host and its database.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cuts", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="0: a random one")
    options = parser.parse_args()
    seed = options.seed or random.SystemRandom().randrange(1, 10**6)
    with tempfile.TemporaryDirectory(prefix="farebox-cut-off-") as folder:
        verdict = asyncio.run(run(Path(folder), seconds=options.seconds, cuts=options.cuts, seed=seed))
    return verdict.tell()


if __name__ == "__main__":
    sys.exit(main())
