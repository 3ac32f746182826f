"""Farebox as in production, from this checkout: one worker, writer, supervisor and console, SQLite."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import rig
from compare.peer import MONEY_REQUEST_USD, Books, CannotRunError, Running
from farebox.base.clock import wall_ms
from farebox.base.units import PICO_PER_USD
from farebox.credits.accounts import create_key, create_user
from farebox.credits.moves import Move
from farebox.credits.transfers import perform
from farebox.store import open_store
from farebox.store.base import Store
from machine import commit

Found = TypeVar("Found")

POOL = "creditsNew"
REQUEST_PICO = int(MONEY_REQUEST_USD * PICO_PER_USD)
CHARGES_READ_MAX = 10_000
BOOKING_WAIT_S = 60


class Farebox:
    """One Farebox with a data folder of its own."""

    name = "Farebox"
    switched_on = "key, hold, journal, ledger, request log, metrics; SQLite"
    connections = 64
    books_lag_s = 1.0

    def __init__(self) -> None:
        self._tested: rig.FareboxUnderTest | None = None
        self._users: dict[str, str] = {}

    def install(self, _cache: Path) -> str:
        return commit() or "this checkout"

    def start(self, the_rig: rig.Rig) -> Running:
        if self._tested is None:
            self._tested = the_rig.start_farebox("farebox")
        else:
            self._tested.process = the_rig.serve("farebox-again", self._tested.config, the_rig.server_core)
            the_rig.wait_ready(self._tested.process, self._tested.port, "/readyz")
        return Running(self._tested.process, self._tested.port, self._tested.key)

    def new_key(self, affordable: int) -> str:
        user = f"bench-{secrets.token_hex(4)}"
        key = self._ask(lambda store: _make(store, user, affordable * REQUEST_PICO))
        self._users[key] = user
        return key

    def books(self, key: str) -> Books:
        user = self._users[key]
        self.verify()
        billed, left_pico = self._ask(lambda store: _read(store, user))
        return Books(billed, Fraction(left_pico, REQUEST_PICO))

    def verify(self) -> None:
        """Wait until everything is booked. Raises CannotRunError on any difference `farebox verify` finds."""
        found = self._running().command("verify", "--wait", str(BOOKING_WAIT_S))
        if not found["clean"] or found["pending"] or found["parked_total"]:
            raise CannotRunError(f"void: verify found differences: {str(found)[:500]}")

    def prove(self, served: int) -> None:
        """Every charge recomputes, and there are as many as the upstream served. Raises CannotRunError."""
        self.verify()
        audited = self._running().command("audit")
        if not audited["clean"] or audited["charges"] != served:
            raise CannotRunError(
                f"void: the upstream served {served}, {audited['charges']} were charged;"
                f" audit clean: {audited['clean']}"
            )

    def _running(self) -> rig.FareboxUnderTest:
        if self._tested is None:
            raise RuntimeError("start it first")
        return self._tested

    def _ask(self, question: Callable[[Store], Awaitable[Found]]) -> Found:
        """Ask the store beside the running service, as the command line does."""
        path = self._running().config.parent / "farebox.sqlite"

        async def answer() -> Found:
            store = open_store(f"sqlite:///{path}")
            await store.open()
            try:
                return await question(store)
            finally:
                await store.close()

        return asyncio.run(answer())


async def _make(store: Store, user: str, amount_pico: int) -> str:
    now_ms = wall_ms()
    await create_user(store, user, "user", "bench", now_ms)
    await perform(store, Move("grant", user, user, POOL, amount_pico, "bench", "bench"), now_ms)
    return (await create_key(store, user, "bench", "bench", now_ms, requests_per_minute=10**9)).key


async def _read(store: Store, user: str) -> tuple[int, int]:
    """How many exchanges were charged, and what is left."""
    rows = await store.transactions(user, CHARGES_READ_MAX, kind="spent")
    account = await store.account(user)
    return len({row.reference for row in rows}), account.balances.get(POOL, 0) if account else 0
