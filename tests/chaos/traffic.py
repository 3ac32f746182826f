"""The customers of the bank test: requests over HTTP, top-ups and transfers, and eyes on the balances.

Everything a client was told is written down here and nowhere else, so that the verdict can hold the store
against it: `delivered` has the answers that arrived whole, `credited` the money the store acknowledged.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from chaos.hosts import Host
from farebox.base.clock import wall_ms
from farebox.base.errors import FareboxError, UsageError
from farebox.base.keys import display_prefix, key_digest, new_key
from farebox.base.records import KeyRecord
from farebox.credits.moves import Move
from farebox.credits.transfers import perform
from farebox.store.base import EventResult, Store

POOL = "creditsNew"
CENT = 10**10
AT_MOST_S = 40.0
BACK_OFF_FIRST_S, BACK_OFF_MAX_S = 0.05, 2.0
"""Of a client that could not be served, doubling, as client libraries do: a host that is down would otherwise
be asked fifty times a second by each client, and hardly anything but refusals would be counted.
"""


@dataclass(frozen=True, slots=True)
class Delivered:
    """An answer that arrived whole: Farebox's id of the exchange, the upstream's, and what the model said."""

    exchange: str
    upstream: str
    host: int


@dataclass(slots=True)
class Bank:
    """Users with small wallets, and what happened to them."""

    store: Store
    users: list[str]
    rng: random.Random
    keys: dict[str, str] = field(default_factory=dict)
    delivered: list[Delivered] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    credited: Counter[str] = field(default_factory=Counter)
    moved: int = 0
    below_zero: list[str] = field(default_factory=list)
    balances_read: int = 0
    stopping: bool = False

    # -- accounts --------------------------------------------------------------------------------------------
    async def open_accounts(self, cents: int) -> None:
        """A key and a small wallet for each user."""
        for user in self.users:
            key = self.keys[user] = new_key()
            await self.store.create_user(user, "user", "bank", wall_ms())
            record = KeyRecord(
                key_digest(key), user, display_prefix(key), "", True, True, "user", 10_000_000, None
            )
            await self.store.create_key(record, "bank", wall_ms())
            if cents:
                await self.top_up(user, cents * CENT, f"first-{user}")

    async def top_up(self, user: str, amount_pico: int, reference: str) -> None:
        """Credit a user; tried again until the store says that it is done, as a payment provider does."""
        move = Move("grant", reference, user, POOL, amount_pico, "bank test", "bank")
        assert await self._performed(move) in {EventResult.DONE, EventResult.DUPLICATE}
        self.credited[user] += amount_pico

    async def transfer(self, giver: str, receiver: str, amount_pico: int, reference: str) -> None:
        """Move money between users, if the giver has it to hand."""
        move = Move("transfer", reference, giver, POOL, amount_pico, "bank test", "bank", receiver, POOL)
        self.moved += await self._performed(move) in {EventResult.DONE, EventResult.DUPLICATE}

    async def _performed(self, move: Move) -> EventResult:
        """What became of a move, asked again until the store says so."""
        while True:
            try:
                return (await perform(self.store, move, wall_ms(), wait_s=0)).result
            except UsageError:
                raise
            except FareboxError:
                await asyncio.sleep(0.2)

    async def move_money(self) -> None:
        """Top-ups where money runs out, and transfers from anybody to anybody."""
        number = 0
        while not self.stopping:
            number += 1
            try:
                account = await self.store.account(user := self.rng.choice(self.users))
                if account is not None and account.balances.get(POOL, 0) < CENT:
                    await self.top_up(user, self.rng.randrange(CENT, 4 * CENT), f"top-{number}")
                if self.rng.random() < 0.3:
                    giver, receiver = self.rng.sample(self.users, 2)
                    await self.transfer(giver, receiver, self.rng.randrange(1, CENT // 2), f"move-{number}")
            except FareboxError:
                self.outcomes["event failed"] += 1
            await asyncio.sleep(0.01)

    async def watch_balances(self) -> None:
        """Read balances all the time: none may ever be below zero, nor lent twice."""
        while not self.stopping:
            for user in self.users:
                try:
                    account = await self.store.account(user)
                except FareboxError:
                    continue
                assert account is not None
                self.balances_read += 1
                if min(account.balances.values()) < 0:
                    self.below_zero.append(f"{user}: {account.balances}")
                if any(not 0 <= lot.leased_pico <= lot.left_pico for lot in account.lots):
                    self.below_zero.append(f"{user}: {account.lots}")
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)

    # -- requests --------------------------------------------------------------------------------------------
    async def client(self, hosts: Sequence[Host], number: int, limit: int) -> None:
        """One client of many users that goes on whatever happens, on any host."""
        rng = random.Random(self.rng.getrandbits(64) + number)
        pause_s = BACK_OFF_FIRST_S
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=8)) as session:
            while not self.stopping and self.sent < limit:
                self.sent += 1
                at = rng.randrange(len(hosts))
                try:
                    answered = await self._exchange(session, hosts[at], at, rng)
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    self.outcomes[type(error).__name__] += 1
                    answered = False
                if answered:
                    pause_s = BACK_OFF_FIRST_S
                else:
                    await asyncio.sleep(rng.uniform(pause_s / 2, pause_s))
                    pause_s = min(2 * pause_s, BACK_OFF_MAX_S)

    async def _exchange(
        self, session: aiohttp.ClientSession, host: Host, at: int, rng: random.Random
    ) -> bool:
        """One request; whether Farebox could serve it or say that the money is short."""
        user, stream, messages = rng.choice(self.users), rng.random() < 0.5, rng.random() < 0.3
        path, body = _request(rng, stream, messages)
        headers = {"Authorization": f"Bearer {self.keys[user]}"}
        patience = aiohttp.ClientTimeout(total=rng.choice((0.05, AT_MOST_S, AT_MOST_S, AT_MOST_S)))
        url = f"{host.base_url}{path}"
        async with session.post(url, json=body, headers=headers, timeout=patience) as response:
            data = await response.read()
            self.outcomes[str(response.status)] += 1
            if response.status != 200:
                return response.status == 402
            if not stream or _is_complete(data, messages):
                exchange = response.headers["x-request-id"]
                self.delivered.append(Delivered(exchange, _upstream_id(data, stream), at))
                return True
            self.outcomes["stream broken off"] += 1
            return False


def _request(rng: random.Random, stream: bool, messages: bool) -> tuple[str, dict[str, object]]:
    script = {
        "prompt": rng.randrange(1, 60),
        "completion": rng.randrange(1, 80),
        "chunks": rng.randrange(1, 8),
        "delay_ms": rng.choice((0, 2, 10)),
        "first_delay_ms": rng.choice((0, 0, 5, 30)),
        "cache_read": rng.choice((0, 0, 20)),
    }
    text = f"script: {json.dumps(script)}"
    body = {"max_tokens": 100, "stream": stream, "messages": [{"role": "user", "content": text}]}
    if messages:
        return "/v1/messages", {"model": "claude-sonnet-4-5", **body}
    return "/v1/chat/completions", {"model": "gpt-5.1", **body}


def _is_complete(data: bytes, messages: bool) -> bool:
    return b"event: message_stop" in data if messages else data.rstrip().endswith(b"[DONE]")


def _upstream_id(data: bytes, stream: bool) -> str:
    """The scripted upstream's number of the exchange: the last 16 hex digits of the id it answered with."""
    text = data.decode()
    if stream:
        event = next(line for line in text.splitlines() if line.startswith("data: {"))
        document = json.loads(event.removeprefix("data: "))
        document = document.get("message", document)
    else:
        document = json.loads(text)
    return str(document["id"])[-16:]
