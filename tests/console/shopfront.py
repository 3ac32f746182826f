"""A console with something to see: users with lots and keys, a past of priced exchanges, a late payment.

Names of users, models and reasons include text that would be markup if anything showed it unescaped.
"""

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from credits.desk import SHOP
from farebox.base.clock import wall_ms
from farebox.base.records import LotAmount, Settlement, Transaction
from farebox.config.load import load
from farebox.console.server import Console, start_console
from farebox.credits.accounts import create_key
from farebox.credits.admins import create_admin
from farebox.meter.price_book import charge_of, new_price_book, plain_models
from farebox.run.demo import processes
from farebox.store.base import Event, EventResult, Record, RecordChange, Store
from farebox.writer.service import Writer

USD = 10**12
HOUR = 3_600_000
DAY = 24 * HOUR
JOURNAL = "a" * 16
MODEL = "gpt-5.1"
PAYLOAD = "<img src=x onerror=alert(1)><script>alert(2)</script>"
EVIL_USER = "<svg onload=alert(3)>"
EXCHANGES = 40


@dataclass
class Shopfront:
    """What was made, and where to look at it."""

    store: Store
    now: int
    url: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    exchanges: list[Settlement] = field(default_factory=list)
    charged: dict[str, int] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def open_shopfront(store: Store, folder: Path) -> AsyncIterator[Shopfront]:
    """Fill a store and serve it."""
    front = Shopfront(store, wall_ms())
    await _people(front)
    await _past(front, folder)
    await _late_payment(front)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    status = Writer(store, folder / "journals").status()
    (folder / "writer.json").write_bytes(orjson.dumps({**status, "damaged": {"b" * 16: PAYLOAD}}))
    console = Console(store, SHOP, {}, list, folder / "writer.json", live=_live(front))
    close = await start_console(console, "127.0.0.1", port)
    front.url = f"http://127.0.0.1:{port}"
    try:
        yield front
    finally:
        await close()


def _live(front: Shopfront):
    async def live() -> list[Mapping[str, object]]:
        return [
            {
                "exchange": "f" * 32,
                "user": EVIL_USER,
                "model": PAYLOAD,
                "upstream": "demo",
                "wallet": "openhands",
                "route": "chat",
                "stream": True,
                "started_ms": front.now,
                "first_byte_ms": None,
                "held_pico": USD // 3,
                "output_bytes": 0,
                "client_gone": False,
            }
        ]

    return live


async def _people(front: Shopfront) -> None:
    store, now = front.store, front.now
    for role in ("admin", "support", "read-only"):
        front.tokens[role] = (await create_admin(store, f"eve-{role}", role, None, "test", now)).token
    for user in ("alice", "bob", EVIL_USER):
        assert await store.create_user(user, "user", "test", now)
        for number, (pool, ends) in enumerate(
            (("credits", now + 2 * DAY), ("creditsNew", now + 9 * DAY), ("refCredits", None))
        ):
            part = LotAmount(f"{len(front.tokens):02x}{number:022x}", pool, 20 * USD)
            row = Transaction(user, "earned_purchase", f"first-{pool}", pool, 20 * USD, (part,), PAYLOAD, now)
            event = Event((row,), expires_at_ms=ends, source="purchase", actor="test")
            assert await store.apply_event(event, now) is EventResult.DONE
        front.tokens[user] = (await create_key(store, user, PAYLOAD[:40], "test", now)).key


async def _past(front: Shopfront, folder: Path) -> None:
    """Two price books, and exchanges of the last two days, booked, logged and summed."""
    store, now = front.store, front.now
    config = folder / "config.json"
    config.write_text(processes.packaged_config())
    entries = dict(load([config]).services[0].price_book())
    entries[PAYLOAD] = entries[MODEL]
    dearer = {**entries, MODEL: {**entries[MODEL], "multiplier": "1.25"}}
    for effective, book in ((now - 3 * DAY, dearer), (now - 2 * DAY, entries)):
        made = new_price_book(book, 0, effective)
        version = await store.put_price_book(
            {"models": plain_models(made.models)}, made.content_hash, effective
        )
    book = new_price_book(entries, version, now)
    await store.claim_epoch(JOURNAL, 1, "host", now)
    for number in range(EXCHANGES):
        user = ("alice", "bob", EVIL_USER)[number % 3]
        model = PAYLOAD if number % 5 == 4 else MODEL
        wallet = "ohmygpt" if number % 4 == 0 else "openhands"
        counts = {"input": 1000 + 37 * number, "output": 200 + 11 * number, "cache_read": 500 * (number % 2)}
        ended = now - number * HOUR - 5000
        amount = charge_of(book.models[model], counts, counts["input"], None).amount_pico
        front.exchanges.append(
            Settlement(
                exchange=f"{number + 1:032x}",
                user=user,
                wallet=wallet,
                key="digest",
                model=model,
                wire_format="chat",
                price_version=version,
                multiplier=book.models[model].multiplier,
                evidence="exact" if number % 7 else "estimated",
                flags=(),
                counts=counts,
                others={},
                input_total=counts["input"],
                variant="",
                amount_pico=amount,
                takes=(),
                quarantine="",
                outcome="ok",
                status=200,
                upstream="demo",
                upstream_model=model,
                upstream_request=PAYLOAD[:100],
                stream=bool(number % 2),
                started_ms=ended - 900 - number,
                first_byte_ms=ended - 700,
                ended_ms=ended,
            )
        )
        front.charged[wallet] = front.charged.get(wallet, 0) + amount
    await store.book(JOURNAL, 1, front.exchanges, now)
    assert await store.finish(JOURNAL, 1, front.exchanges, {}, front.exchanges, 0, 1 << 40, 1 << 40) == []


async def _late_payment(front: Shopfront) -> None:
    document = {
        "amount": "50000",
        "currency": "VND",
        "order": "",
        "returned": "0",
        "reason": f"late: {PAYLOAD}",
        "text": PAYLOAD,
    }
    record = Record(
        "payment", "sepay:77", 1, document, user="bob", status="review", created_ms=front.now - DAY
    )
    event = Event((), records=(RecordChange.insert(record),), actor="test")
    assert await front.store.apply_event(event, front.now) is EventResult.DONE
