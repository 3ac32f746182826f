"""A storm of deliveries at a real console process that is killed at random points, and its reckoning.

    python -m credits.webhook_storm --deliveries 1000 --kills 100 --seed 7 [--store sqlite:////tmp/x/store.db]

Every delivery is sent until it is acknowledged, as providers do, many of them several times, twenty in
parallel, in random order. Afterwards each payment must be credited exactly once, for exactly what was paid.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout
from stripe import WebhookSignature

from credits.shop import settings
from farebox.base.clock import monotonic_s, wall_ms
from farebox.base.units import pico_from_usd
from farebox.credits.orders import place_order
from farebox.store import open_store
from farebox.store.base import Store
from farebox.writer.verify import verify
from mongodb import MongoDBServer

BANK_KEY, CARD_SECRET = "bank-key-of-the-storm", "whsec_of_the_storm"
PARALLEL = 20
USERS = ("alice", "bob", "carol")
WEEK_MINUTES = 10_080
PROMOTION = {
    "name": "storm",
    "begins": "2020-01-01T00:00:00Z",
    "ends": "2090-01-01T00:00:00Z",
    "percent": "10",
}
SECTION = {
    "rates": {"VND": "2500", "USD": "1"},
    "order_minutes": WEEK_MINUTES,
    "orders_open_max": 1000,
    "promotions": [PROMOTION],
    "referral": {"percent": "50"},
}


@dataclass
class Payment:
    """One payment as its provider tells of it; a short one must end in review."""

    number: int
    provider: str
    user: str
    order: str
    credits_pico: int
    is_short: bool

    def request(self) -> tuple[str, str, dict[str, str]]:
        """(path, body, headers) of one delivery, signed now."""
        if self.provider == "sepay":
            paid = self.credits_pico * 2500 // 10**12 - self.is_short
            transfer = {
                "id": self.number,
                "subAccount": "",
                "transferType": "in",
                "transferAmount": paid,
                "content": f"storm {self.order}",
            }
            return "/webhooks/sepay", json.dumps(transfer), {"Authorization": f"Apikey {BANK_KEY}"}
        session = {
            "id": f"cs_{self.number}",
            "mode": "payment",
            "payment_status": "paid",
            "payment_intent": f"pi_{self.number}",
            "amount_total": self.credits_pico * 100 // 10**12 - self.is_short,
            "currency": "usd",
            "client_reference_id": self.order,
        }
        event = {
            "type": "checkout.session.completed",
            "created": wall_ms() // 1000,
            "data": {"object": session},
        }
        body = json.dumps(event)
        return (
            "/webhooks/stripe",
            body,
            {"Stripe-Signature": WebhookSignature.generate_signature_header(body, CARD_SECRET)},
        )


@dataclass
class Storm:
    """The deliveries, the console process and what came back."""

    folder: Path
    store_url: str
    deliveries: int
    kills: int
    seed: int
    payments: list[Payment] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    killed: int = 0
    sent: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _up: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def run(self) -> None:
        """Everything, from the first order to the last acknowledged delivery."""
        store = open_store(self.store_url)
        await store.open()
        try:
            await self._prepare(store)
        finally:
            await store.close()
        self._write_config()
        waiting: list[Payment] = self._shuffled()
        points = sorted(self.random.sample(range(1, self.deliveries), self.kills))
        async with ClientSession(timeout=ClientTimeout(total=30)) as client:
            try:
                await self._start(client)
                senders = [self._sender(client, waiting) for _ in range(PARALLEL)]
                await asyncio.gather(self._killer(client, points), *senders)
            finally:
                self._kill()

    async def reckon(self) -> dict[str, Any]:
        """What the books say; `wrong` lists everything that is not as it must be."""
        store = open_store(self.store_url)
        await store.open()
        try:
            wrong = [wrong for payment in self.payments for wrong in await self._check(store, payment)]
            wrong += await self._check_users(store)
            report = await verify(store, None)
        finally:
            await store.close()
        paid = sum(payment.credits_pico for payment in self.payments if not payment.is_short)
        return {
            "payments": len(self.payments),
            "sent": self.sent,
            "killed": self.killed,
            "outcomes": dict(self.outcomes),
            "paid_pico": paid,
            "wrong": wrong + report.differences,
        }

    # -- preparation -----------------------------------------------------------------------------------------
    async def _prepare(self, store: Store) -> None:
        shop = settings(**SECTION)
        for user in USERS:
            await store.create_user(user, "user", "storm", wall_ms())
        for number in range(max(1, self.deliveries * 2 // 5)):
            user, provider = self.random.choice(USERS), self.random.choice(("sepay", "stripe"))
            wanted = str(self.random.randint(20, 100))
            currency = "VND" if provider == "sepay" else "USD"
            order = await place_order(store, shop, user, wanted, currency, "storm", wall_ms(), f"r{number}")
            is_short = self.random.random() < 0.1
            self.payments.append(Payment(number, provider, user, order.id, pico_from_usd(wanted), is_short))

    def _write_config(self) -> None:
        (self.folder / "bank.key").write_text(BANK_KEY)
        (self.folder / "card.key").write_text(CARD_SECRET)
        document = {
            "port": 1 if self.port != 1 else 2,
            "endpoints": [{"name": "x-openai", "base_url": "http://127.0.0.1:9"}],
            "models": [
                {
                    "id": "m",
                    "name": "m",
                    "upstream": "x",
                    "billing_upstream": "openhands",
                    "input_price_per_mtok": "1",
                    "output_price_per_mtok": "1",
                }
            ],
            "data_dir": str(self.folder),
            "store": {"url": self.store_url},
            "console": {"port": self.port},
            "credits": {
                **SECTION,
                "sepay": {"api_key_file": str(self.folder / "bank.key")},
                "stripe": {"webhook_secret_file": str(self.folder / "card.key")},
            },
        }
        (self.folder / "storm.json").write_text(json.dumps(document))

    def _shuffled(self) -> list[Payment]:
        """Every payment at least once, the rest of the deliveries doubles, in random order."""
        more = [self.random.choice(self.payments) for _ in range(self.deliveries - len(self.payments))]
        waiting = [*self.payments, *more]
        self.random.shuffle(waiting)
        return waiting

    # -- the process -----------------------------------------------------------------------------------------
    async def _start(self, client: ClientSession) -> None:
        with (self.folder / "console.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                [sys.executable, "-m", "farebox.run.console_process", str(self.folder / "storm.json")],
                stdout=log,
                stderr=log,
                env={**os.environ, "FAREBOX_LOG_LEVEL": "ERROR"},
            )
        deadline_s = monotonic_s() + 60
        while monotonic_s() < deadline_s and self._process.poll() is None:
            with contextlib.suppress(ClientError, OSError):
                async with client.get(self.url + "/healthz") as answer:
                    if answer.status == 200:
                        self._up.set()
                        return
            await asyncio.sleep(0.02)
        raise RuntimeError(f"the console did not come up: {(self.folder / 'console.log').read_text()}")

    def _kill(self) -> None:
        self._up.clear()
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    async def _killer(self, client: ClientSession, points: list[int]) -> None:
        """Kill the process when so many deliveries have been begun, wherever it is by then."""
        for point in points:
            while self.sent < point:
                await asyncio.sleep(0.001)
            await asyncio.sleep(self.random.random() * 0.02)
            self._kill()
            self.killed += 1
            await self._start(client)

    async def _sender(self, client: ClientSession, waiting: list[Payment]) -> None:
        """Take deliveries until there are none; one that is not acknowledged is sent again."""
        while waiting:
            payment = waiting.pop()
            self.sent += 1
            while not await self._delivered(client, payment):
                pass

    async def _delivered(self, client: ClientSession, payment: Payment) -> bool:
        await self._up.wait()
        path, body, headers = payment.request()
        try:
            async with client.post(self.url + path, data=body, headers=headers) as answer:
                document = await answer.json()
        except (ClientError, OSError, TimeoutError, ValueError):
            self.outcomes["cut off"] += 1
            await asyncio.sleep(0.01)
            return False
        if answer.status >= 500:
            self.outcomes[f"status {answer.status}"] += 1
            await asyncio.sleep(0.05)
            return False
        self.outcomes[document.get("outcome", str(document))] += 1
        return True

    # -- the reckoning ---------------------------------------------------------------------------------------
    async def _check(self, store: Store, payment: Payment) -> list[str]:
        prefix = "pi_" if payment.provider == "stripe" else ""
        record = await store.record("payment", f"{payment.provider}:{prefix}{payment.number}")
        if record is None:
            return [f"{payment}: lost"]
        expected = "review" if payment.is_short else "credited"
        if record.status != expected:
            return [f"{payment}: {record.status}, not {expected}"]
        return []

    async def _check_users(self, store: Store) -> list[str]:
        wrong = []
        for user in USERS:
            snapshot = await store.account_with_rows(user)
            assert snapshot is not None
            paid = [p.credits_pico for p in self.payments if p.user == user and not p.is_short]
            rows = [row.amount_pico for row in snapshot[1] if row.type == "earned_purchase"]
            bonus = [row.amount_pico for row in snapshot[1] if row.type == "earned_bonus"]
            if sorted(rows) != sorted(paid) or sorted(bonus) != sorted(amount // 10 for amount in paid):
                wrong.append(f"{user}: paid {sum(paid)}, credited {sum(rows)} in {len(rows)} rows")
            if snapshot[0].balances.get("creditsNew", 0) != sum(paid) + sum(bonus):
                wrong.append(f"{user}: the balance is not what was paid and given")
        return wrong


async def storm(folder: Path, deliveries: int, kills: int, seed: int, store_url: str = "") -> dict[str, Any]:
    """Run one storm; the reckoning."""
    url = store_url or f"sqlite:///{folder}/store.db"
    weather = Storm(folder, url, deliveries, kills, seed)
    await weather.run()
    return await weather.reckon()


def main() -> None:
    """Run a storm of any size and print its reckoning."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--deliveries", type=int, default=1000)
    arguments.add_argument("--kills", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments.add_argument("--store", default="", help="a URL, or `mongodb` for a server of its own")
    given = arguments.parse_args()
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        url = given.store
        if url == "mongodb":
            server = MongoDBServer(folder)
            server.start()
            held.callback(server.kill)
            url = f"{server.url}/storm"
        found = asyncio.run(storm(folder, given.deliveries, given.kills, given.seed, url))
    sys.stdout.write(json.dumps({"seed": given.seed, **found}, indent=1) + "\n")
    sys.exit(bool(found["wrong"]))


if __name__ == "__main__":
    main()
