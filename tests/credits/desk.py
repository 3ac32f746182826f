"""A console on a free port with its store, a shop's settings, and a client that signs what it sends."""

import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from stripe import WebhookSignature

from credits.shop import settings
from farebox.base.clock import wall_ms
from farebox.base.keys import key_digest
from farebox.base.redaction import Secret
from farebox.console.server import Console, start_console
from farebox.credits.accounts import create_key
from farebox.credits.admins import create_admin
from farebox.credits.sepay import SepayProvider
from farebox.credits.stripe_events import StripeProvider
from farebox.store.base import Store

BANK_KEY = "bank-key-of-the-test"
CARD_SECRET = "whsec_of_the_test"
PRO = {"id": "pro", "name": "Pro", "credits_monthly": "500", "usd_per_credit": "0.01", "price_ids": ["p1"]}
SHOP = settings(
    sepay={"api_key_env": "K", "sub_account": "VA1"},
    stripe={"webhook_secret_env": "K"},
    order_minutes=60,
    plans=[PRO],
    allocations=[{"from_pool": "credits", "to_pool": "creditsNew", "max": "10", "max_per_day": "20"}],
)


@dataclass
class Desk:
    """The console under test, and tokens of every role."""

    store: Store
    url: str
    client: ClientSession
    tokens: dict[str, str] = field(default_factory=dict)
    _numbers: Any = field(default_factory=count)

    async def send(
        self, method: str, path: str, role: str = "", body: object = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """(status, document). A write has a fresh Idempotency-Key unless one is given."""
        sent = {"Idempotency-Key": f"key-{next(self._numbers):08}", **headers}
        if role:
            sent["Authorization"] = f"Bearer {self.tokens.get(role, role)}"
        data = None if body is None else json.dumps(body)
        async with self.client.request(method, self.url + path, data=data, headers=sent) as answer:
            return answer.status, json.loads(await answer.read())

    async def get(self, path: str, role: str = "admin") -> dict[str, Any]:
        status, document = await self.send("GET", path, role)
        assert status == 200, document
        return document

    async def post(self, path: str, body: object, role: str = "admin", **headers: str) -> dict[str, Any]:
        status, document = await self.send("POST", path, role, body, **headers)
        assert status == 200, document
        return document

    async def transfer(self, order: str, number: int, **fields: Any) -> tuple[int, dict[str, Any]]:
        """The bank tells of money."""
        body = transfer_body(order, number, **fields)
        return await self.send("POST", "/webhooks/sepay", "", body, Authorization=f"Apikey {BANK_KEY}")

    async def event(self, kind: str, about: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Stripe tells of something."""
        event = {"id": "evt", "type": kind, "created": wall_ms() // 1000, "data": {"object": about}}
        signature = WebhookSignature.generate_signature_header(json.dumps(event), CARD_SECRET)
        return await self.send("POST", "/webhooks/stripe", "", event, **{"Stripe-Signature": signature})


def transfer_body(order: str, number: int, **fields: Any) -> dict[str, Any]:
    """A bank transfer as the webhook says it."""
    usual = {
        "id": number,
        "gateway": "MB",
        "transactionDate": "",
        "subAccount": "VA1",
        "transferType": "in",
        "transferAmount": 50000,
        "content": f"thanks {order}",
        "referenceCode": f"FT{number}",
    }
    return {**usual, **fields}


def console_of(store: Store, folder: Path) -> Console:
    return Console(
        store=store,
        settings=SHOP,
        providers={
            "sepay": SepayProvider(SHOP.sepay, Secret(BANK_KEY), SHOP.order_prefix),
            "stripe": StripeProvider(SHOP.stripe, Secret(CARD_SECRET), frozenset(SHOP.rates)),
        },
        counters=list,
        writer_status=folder / "none.json",
    )


async def fill(store: Store) -> dict[str, str]:
    """Users alice and bob, and a token of every role; expired, revoked and disabled ones too."""
    now_ms = wall_ms()
    tokens: dict[str, str] = {}
    for role in ("admin", "support", "read-only"):
        tokens[role] = (await create_admin(store, f"eve-{role}", role, None, "test", now_ms)).token
    tokens["expired admin"] = (await create_admin(store, "old", "admin", now_ms - 1, "test", now_ms)).token
    for user in ("alice", "bob", "mallory"):
        await store.create_user(user, "admin", "test", now_ms)
        tokens["user" if user == "alice" else user] = (await create_key(store, user, "k", "test", now_ms)).key
    tokens["expired user"] = (
        await create_key(store, "alice", "old", "test", now_ms, expires_at_ms=now_ms - 1)
    ).key
    tokens["revoked user"] = (await create_key(store, "alice", "gone", "test", now_ms)).key
    await store.set_key_active(key_digest(tokens["revoked user"]), False, "test", now_ms)
    await store.set_user_active("mallory", False, "test", now_ms)
    tokens["disabled user"] = tokens.pop("mallory")
    return tokens


__all__ = ["SHOP", "Desk", "console_of", "fill", "start_console", "transfer_body"]


@contextlib.asynccontextmanager
async def running_desk(store: Store, folder: Path) -> AsyncIterator[Desk]:
    """A console on a free port, with users and tokens of every role."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    close = await start_console(console_of(store, folder), "127.0.0.1", port)
    async with ClientSession() as client:
        yield Desk(store, f"http://127.0.0.1:{port}", client, await fill(store))
    await close()
