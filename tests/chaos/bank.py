"""The bank test: many users with small wallets on several hosts, while everything that can die, dies.

    python tests/chaos/bank.py --seconds 600 --seed 7 --exchanges 100000

`make chaos SECONDS=600 SEED=7` runs it; `test_bank.py` runs a short form. It prints its seed, what it did to
whom, and the verdict; exit status 1 and every fault where one cent is not explained.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from chaos.databases import DATABASES, Database
from chaos.hosts import Machines
from chaos.traffic import Bank
from chaos.trouble import Trouble
from chaos.verdict import Verdict, judge
from farebox.base import limits
from farebox.base.errors import FareboxError
from farebox.store import open_store
from mongodb import fast_folder

CENTS = 2
REPORT_INTERVAL_S = 60.0
LOOK_S = 120.0
"""How long the verdict's own looks at the store may take; while it runs, Farebox's limits are as always."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How large a run is. It ends with its time or its exchanges, whichever comes first."""

    seconds: float
    seed: int
    exchanges: int = 100_000
    hosts: int = 2
    workers: int = 4
    users: int = 50
    clients: int = 32
    store: str = "sqlite"


async def run(plan: Plan, folder: Path) -> Verdict:
    """One run in an empty folder."""
    rng = random.Random(plan.seed)
    with DATABASES[plan.store](folder, plan.hosts) as database:
        store = open_store(database.url)
        await store.open()
        bank = Bank(store, [f"user{number:02}" for number in range(plan.users)], rng)
        try:
            await bank.open_accounts(CENTS)
            return await _run(plan, folder, database, bank)
        finally:
            await store.close()


async def _run(plan: Plan, folder: Path, database: Database, bank: Bank) -> Verdict:
    with Machines(folder, database.urls, plan.hosts, plan.workers) as machines:
        trouble = Trouble(machines, bank.rng, more=dict(database.trouble(bank.rng)))
        await trouble.good_weather()
        began_s = time.monotonic()
        await _bad_times(plan, bank, machines, trouble)
        took_s = time.monotonic() - began_s
        for host in machines.hosts:
            await asyncio.to_thread(host.stop)
        limits.store_timeout_s = LOOK_S
        verdict = await judge(bank, [host.journals for host in machines.hosts], machines.upstream.lines())
    verdict.figures |= {
        "seed": plan.seed,
        "requests": bank.sent,
        "seconds": round(took_s),
        "outcomes": dict(bank.outcomes),
        "transfers": bank.moved,
        "trouble": dict(trouble.made),
    }
    return verdict


async def _bad_times(plan: Plan, bank: Bank, machines: Machines, trouble: Trouble) -> None:
    """Traffic and trouble side by side, until the time or the exchanges are used up."""
    work = (bank.move_money(), bank.watch_balances(), _report(bank, trouble))
    background = [asyncio.create_task(one) for one in work]
    clients = [
        asyncio.create_task(bank.client(machines.hosts, number, plan.exchanges))
        for number in range(plan.clients)
    ]
    try:
        await trouble.run(plan.seconds, lambda: bank.sent >= plan.exchanges)
    finally:
        bank.stopping = True
        await asyncio.gather(*clients, *background)


async def _report(bank: Bank, trouble: Trouble) -> None:
    """A line now and then: a long run is watched."""
    began_s = said_s = time.monotonic()
    while not bank.stopping:
        await asyncio.sleep(0.5)
        if time.monotonic() >= said_s + REPORT_INTERVAL_S:
            said_s = time.monotonic()
            sys.stdout.write(
                f"{said_s - began_s:.0f} s: {bank.sent} requests, {dict(bank.outcomes)}, "
                f"{sum(trouble.made.values())} troubles\n"
            )
            sys.stdout.flush()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Kill, stop and cut off Farebox while it serves; then audit it."
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0: a random one")
    parser.add_argument("--exchanges", type=int, default=100_000)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--workers", type=int, default=4, help="per host")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--store", choices=sorted(DATABASES), default="sqlite")
    parser.add_argument("--folder", type=Path, help="keep everything here; default: a temporary folder")
    options = vars(parser.parse_args())
    folder = options.pop("folder")
    options["seed"] = options["seed"] or random.SystemRandom().randrange(1, 10**6)
    plan = Plan(**options)
    sys.stdout.write(f"seed {plan.seed}\n")
    sys.stdout.flush()
    with (
        tempfile.TemporaryDirectory(prefix="farebox-chaos-") as temporary,
        fast_folder(Path(temporary)) as fast,
    ):
        place = folder or fast
        place.mkdir(parents=True, exist_ok=True)
        try:
            verdict = asyncio.run(run(plan, place))
        except FareboxError as error:
            sys.stdout.write(f"FAILED: {error}\n")
            return 1
    return verdict.tell()


if __name__ == "__main__":
    sys.exit(main())
