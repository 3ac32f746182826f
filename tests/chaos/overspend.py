"""M2 and hole 35 under pressure: many requests at once on a wallet that affords a few, at several workers.

    python tests/chaos/overspend.py --rounds 100 --hosts 2 --workers 2 --parallel 2000

`make overspend ROUNDS=100` runs it on both stores, on one host and on two; `test_overspend.py` runs a short
form. Each round has a user of his own whose wallet is worth `affordable` answers and half a one: the last one
needs its whole hold, which is a little more than its price. Promise: never more are served than the wallet
affords, at least 95 % of those it affords are, everybody else is told 402, and the books are right to the
pico. Exit status 1 otherwise.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

import mongodb
from chaos.hosts import Host, Machines
from farebox.base.clock import wall_ms
from farebox.base.keys import display_prefix, key_digest, new_key
from farebox.base.records import KeyRecord
from farebox.credits.moves import Move
from farebox.credits.transfers import perform
from farebox.store import open_store
from farebox.store.base import EventResult, Store
from farebox.writer.verify import verify

POOL = "creditsNew"
PRICE_PICO = 1000 * 1_312_500 + 500 * 10_500_000
"""1,000 input and 500 output tokens of gpt-5.1 at 1.25 and 10 USD per million, times 1.05."""
SCRIPT = 'script: {"prompt": 1000, "completion": 500, "first_delay_ms": 20}'
BODY = {
    "model": "gpt-5.1",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "word " * 180 + SCRIPT}],
}
"""About as many bytes as the answer claims input tokens: the bound of a hold is a token a byte."""
SERVED_SHARE = 0.95
TOO_SLOW = 408
"""What a client is told that takes 15 s to send its request; 2,000 of them in one process may."""
ANSWER_S = 600.0
"""2,000 connections at once take long on a busy machine."""


@dataclass(slots=True)
class Report:
    """What happened, and every way in which it was not as promised."""

    served: list[int] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


async def run(
    folder: Path,
    url: str,
    *,
    rounds: int,
    hosts: int,
    workers: int,
    parallel: int,
    affordable: int,
    **changes: Any,
) -> Report:
    """`rounds` users, one after the other, each with `parallel` requests at once; `changes` of settings."""
    report = Report()
    store = open_store(url)
    await store.open()
    try:
        with Machines(folder, url, hosts, workers, **changes) as machines:
            for host in machines.hosts:
                assert await asyncio.to_thread(host.wait_ready), f"{host.folder} does not serve"
            began_s = time.monotonic()
            for number in range(rounds):
                seen = await _round(store, machines.hosts, f"user{number:04}", parallel, affordable)
                report.statuses += seen
                report.served.append(seen[200])
                if seen[200] > affordable or set(seen) - {200, 402, TOO_SLOW}:
                    report.wrong.append(f"round {number}: {dict(seen)}, affordable {affordable}")
            report.seconds = time.monotonic() - began_s
            sent = machines.upstream.totals()["received"]
            if sent != sum(report.served):
                report.wrong.append(f"the upstream served {sent}, clients got {sum(report.served)}")
            for host in machines.hosts:
                await asyncio.to_thread(host.stop)
            await _check_books(store, [host.journals for host in machines.hosts], report, affordable)
    finally:
        await store.close()
    if sum(report.served) < SERVED_SHARE * affordable * rounds:
        report.wrong.append(f"only {sum(report.served)} of {affordable * rounds} affordable were served")
    return report


async def _round(store: Store, hosts: list[Host], user: str, parallel: int, affordable: int) -> Counter[int]:
    """How often each status came back."""
    headers = {
        "Authorization": f"Bearer {await _customer(store, user, affordable * PRICE_PICO + PRICE_PICO // 2)}"
    }
    seen: Counter[int] = Counter()

    async def one(session: aiohttp.ClientSession, host: Host) -> None:
        async with session.post(f"{host.base_url}/v1/chat/completions", json=BODY) as response:
            await response.read()
            seen[response.status] += 1

    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    patience = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=ANSWER_S)
    async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=patience) as session:
        await asyncio.gather(*(one(session, hosts[number % len(hosts)]) for number in range(parallel)))
    return seen


async def _customer(store: Store, user: str, amount_pico: int) -> str:
    key = new_key()
    assert await store.create_user(user, "user", "test", wall_ms())
    record = KeyRecord(key_digest(key), user, display_prefix(key), "", True, True, "user", None, None)
    assert await store.create_key(record, "test", wall_ms())
    given = await perform(
        store, Move("grant", f"first-{user}", user, POOL, amount_pico, "test", "test"), wall_ms()
    )
    assert given.result is EventResult.DONE
    return key


async def _check_books(store: Store, journals: list[Path], report: Report, affordable: int) -> None:
    """Everything is booked once the hosts have stopped: balances, leases and rows, to the pico."""
    for root in journals:
        verdict = await verify(store, root, lambda *_: None)
        report.wrong += [str(difference) for difference in verdict.differences]
    for number, served in enumerate(report.served):
        account = await store.account(f"user{number:04}")
        assert account is not None
        expected_pico = (affordable - served) * PRICE_PICO + PRICE_PICO // 2
        found = (
            account.balances[POOL],
            account.written_off_pico,
            sum(lot.leased_pico for lot in account.lots),
        )
        if found != (expected_pico, 0, 0):
            report.wrong.append(
                f"round {number}: balance, written off, leased {found}; balance {expected_pico}"
            )


def _mongodb(folder: Path, stack: ExitStack) -> str:
    """An empty database of the server named in the environment, or of one started for this run."""
    name = f"farebox_overspend_{os.getpid()}"
    if mongodb.NAMED_SERVER:
        base, _, query = mongodb.NAMED_SERVER.partition("?")
        return f"{base.rstrip('/')}/{name}" + (f"?{query}" if query else "")
    (folder / "mongodb").mkdir()
    server = mongodb.MongoDBServer(folder / "mongodb")
    server.start()
    stack.callback(server.kill)
    return f"{server.url.partition('?')[0].rstrip('/')}/{name}"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Many requests at once on a wallet that affords a few.")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--workers", type=int, default=4, help="per host")
    parser.add_argument("--parallel", type=int, default=2000, help="requests at once")
    parser.add_argument("--affordable", type=int, default=20, help="answers the wallet is worth")
    parser.add_argument("--store", choices=("sqlite", "mongodb"), default="sqlite")
    options = vars(parser.parse_args())
    kind = options.pop("store")
    with tempfile.TemporaryDirectory(prefix="farebox-overspend-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        url = f"sqlite:///{folder / 'farebox.sqlite'}" if kind == "sqlite" else _mongodb(folder, stack)
        report = asyncio.run(run(folder, url, **options))
    served, affordable = sum(report.served), options["affordable"] * options["rounds"]
    sys.stdout.write(
        f"{kind}, {options['hosts']} hosts, {options['workers']} workers each, "
        f"{options['parallel']} at once: "
        f"{served} of {affordable} affordable served ({served / affordable:.1%}), fewest in a round "
        f"{min(report.served)}, statuses {dict(report.statuses)}, {report.seconds:.0f} s\n"
    )
    for wrong in report.wrong[:50]:
        sys.stdout.write(f"WRONG: {wrong}\n")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
