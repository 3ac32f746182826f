"""Journals full of settled exchanges, made without HTTP: the writer's input at full speed.

The records are those of an ordinary chat exchange (open, sent, settle), written by the journal's own appender
in turns of a worker's size, so that segments, positions and checksums are the real ones.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import orjson

from farebox.base import frames
from farebox.base.ids import ExchangeIds
from farebox.base.records import LotAmount, opened_payload, settlement_payload
from farebox.base.units import PICO_PER_USD
from farebox.credits.accounts import create_user
from farebox.credits.moves import Move
from farebox.credits.transfers import perform
from farebox.journal import Journal, create
from farebox.store.base import Store

NOW_MS = 1_760_000_000_000
CHARGE_PICO = 140_000_000
"""Price of each exchange: 40 tokens in at 1.25 USD and 9 out at 10 USD per million."""
POOL = "creditsNew"
WALLET = "openhands"
KEY = "5e" * 32
MODEL = "gpt-5.1"
_UNSYNCED_MAX = 100_000
_RAW_USAGE = '{"prompt_tokens":40,"completion_tokens":9,"total_tokens":49}'


class Load:
    """Users with one lot each, all of it leased to one journal, and exchanges of them in turn."""

    def __init__(self, journal: Journal, lots: Sequence[tuple[str, str]], turn: int = 64) -> None:
        """`lots`: (user, lot); `turn`: exchanges that end in one turn of the loop."""
        self.journal = journal
        self.made = 0
        self._lots = lots
        self._turn = turn
        self._ids = ExchangeIds()

    async def make(self, count: int) -> None:
        """Write `count` more exchanges; everything is written, and synced soon, on return."""
        ends_at = self.made + count
        while self.made < ends_at:
            for _ in range(min(self._turn, ends_at - self.made)):
                self._exchange()
            await asyncio.sleep(0)
            if self.journal.last_pos - self.journal.synced_pos > _UNSYNCED_MAX:
                await self.synced()

    async def synced(self) -> None:
        """Wait until everything made is on disk."""
        pos = self.journal.last_pos
        while self.journal.synced_pos < pos:  # noqa: ASYNC110 - the sync thread sets no event
            await asyncio.sleep(0.005)

    def _exchange(self) -> None:
        user, lot = self._lots[self.made % len(self._lots)]
        now_ms = NOW_MS + self.made // 10
        self.made += 1
        exchange = self._ids.new(now_ms)
        append = self.journal.append
        append(frames.OPEN_SENT, opened(exchange, user, now_ms))
        append(frames.SETTLE, settled(exchange, user, (LotAmount(lot, POOL, CHARGE_PICO),), now_ms))


def opened(exchange: str, user: str, now_ms: int) -> bytes:
    """The open payload of an ordinary exchange."""
    started_ms = now_ms - 3
    return opened_payload(
        exchange, user, WALLET, KEY, MODEL, "chat", 1, "bench-openai", False, started_ms, 60, 2 * CHARGE_PICO
    )


def settled(exchange: str, user: str, takes: tuple[LotAmount, ...], now_ms: int) -> bytes:
    """The settle payload of an ordinary exchange."""
    return settlement_payload(
        exchange,
        user,
        WALLET,
        KEY,
        MODEL,
        "chat",
        1,
        "1",
        "exact",
        (),
        {"input": 40, "output": 9},
        {},
        40,
        "",
        CHARGE_PICO,
        takes,
        "",
        "completed",
        200,
        "bench-openai",
        "gpt-5.1-2025-11-13",
        f"req_{exchange[-12:]}",
        False,
        now_ms - 3,
        now_ms - 1,
        now_ms,
        _RAW_USAGE,
        False,
    )


async def make_users(store: Store, count: int, usd_each: int) -> list[tuple[str, str]]:
    """Users with one lot of credit each; (user, lot)."""
    lots = []
    for number in range(count):
        user = f"user-{number}"
        await create_user(store, user, "user", "bench", NOW_MS)
        move = Move("grant", f"bench-{number}", user, POOL, usd_each * PICO_PER_USD, "bench", "bench")
        credit = await perform(store, move, NOW_MS)
        lots.append((user, credit.rows[0].lots[0].lot))
    return lots


async def begin_journal(store: Store, root: Path) -> Journal:
    """A new journal under `root`, ready to append."""
    loop = asyncio.get_running_loop()
    journal = create(root)
    journal.scan()
    journal.intend_epoch(1)
    await store.claim_epoch(journal.id, 1, "bench", NOW_MS)
    journal.begin_epoch(1, loop.call_soon, loop.call_soon_threadsafe)
    return journal


async def lease_all(store: Store, journal: str, lots: Sequence[tuple[str, str]], usd_each: int) -> None:
    """Lease each user's whole credit to the journal."""
    for user, _ in lots:
        pico = usd_each * PICO_PER_USD
        answer = await store.grant(user, WALLET, journal, 1, 0, pico, pico, NOW_MS)
        if answer.reason:
            raise SystemExit(f"no lease for {user}: {answer.reason}")


def bytes_in(directory: Path, pattern: str) -> int:
    """Bytes of the files of a directory that match."""
    return sum(path.stat().st_size for path in directory.glob(pattern))


def dump_line(value: object) -> str:
    """One line of JSON."""
    return orjson.dumps(value).decode()
