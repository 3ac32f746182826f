"""One worker: everything an exchange meets on its way, put together.

The worker owns the exchanges that are open; the journal and the store's face are
handed to it, and requests come from the services' handlers (service.py).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from farebox.base import clock, limits
from farebox.base.counters import INDEX, Counters
from farebox.base.ids import ExchangeIds
from farebox.base.log import wants_json
from farebox.config.settings import Service
from farebox.journal.journal import Journal
from farebox.meter import ModelPrice, PriceBook
from farebox.proxy.abandon import Drains
from farebox.proxy.accounts import Accounts
from farebox.proxy.books import Books
from farebox.proxy.exchange import Exchange
from farebox.proxy.gauges import keep_gauges
from farebox.proxy.leases import Leases
from farebox.proxy.rates import RateLimiter
from farebox.proxy.settlement_log import SettlementLog
from farebox.proxy.streams import Streams
from farebox.store.base import WorkerStore

_log = logging.getLogger("farebox.worker")

_OPEN_TOTAL = INDEX["exchanges_open"]


class Worker:
    """Serves exchanges of one or more services. Create it inside the running loop, after recovery."""

    def __init__(
        self,
        store: WorkerStore,
        journal: Journal,
        counters: Counters,
        *,
        loop: asyncio.AbstractEventLoop,
        lease_wait_s: float,
        written_off_pico_max: int,
    ) -> None:
        self.store = store
        self.journal = journal
        self.loop = loop
        self.counters = counters.values
        self.tally = counters.tally
        self.wall_ms = clock.wall_ms
        self.exchanges: dict[str, Exchange] = {}
        self.draining = False
        self.closed = False
        self.memory_short = False
        self.ready: Callable[[], str] = lambda: ""
        self.upstream_connections: Callable[[], int] = lambda: 0
        self.new_id = ExchangeIds().new
        self.rates = RateLimiter()
        self._tasks: set[asyncio.Task[None]] = set()
        self.settlement_log = SettlementLog(loop, counters.gather, as_json=wants_json())
        self.accounts = Accounts(store.key)
        self.books = Books(journal.append)
        self.leases = Leases(
            store,
            journal.id,
            journal.epoch,
            synced_pos=lambda: journal.synced_pos,
            wall_ms=clock.wall_ms,
            loop=loop,
            lease_wait_s=lease_wait_s,
            written_off_pico_max=written_off_pico_max,
            count=self._count,
        )
        self.streams = Streams(self)
        self.drains = Drains(loop)
        self.spawn(self.streams.run())
        self.spawn(keep_gauges(self))

    def _count(self, name: str) -> None:
        self.counters[INDEX[name]] += 1

    # -- services --------------------------------------------------------------------------------------------
    def offer(self, service: Service, book: PriceBook) -> None:
        """Make a service's prices known; call before its first request."""
        names = {name: row.id for row in service.models for name in (*row.ids, row.upstream_model)}
        self.books.add(book, names)

    def price_of(self, version: int) -> Callable[[str], tuple[str, ModelPrice] | None]:
        """Look-up of other models' prices in a version."""
        return partial(self.books.find, version)

    # -- exchanges -------------------------------------------------------------------------------------------
    def forget(self, exchange: Exchange) -> None:
        """The exchange has ended."""
        self.exchanges.pop(exchange.id, None)
        self.counters[_OPEN_TOTAL] -= 1
        if exchange.gone_handled:
            self.drains.ended(exchange)

    def held_pico(self) -> int:
        """What the exchanges that run hold together."""
        held_pico = 0
        for exchange in self.exchanges.values():
            held_pico += exchange.hold.amount_pico
        return held_pico

    # -- what the writer tells -------------------------------------------------------------------------------
    def on_push(self, message: Mapping[str, Any]) -> None:
        """A push of the host's writer (see store/remote.py)."""
        if "applied" in message:
            journal, pos = message["applied"]
            if journal == self.journal.id:
                self.leases.applied(pos)
        elif "fence" in message:
            journal, user = message["fence"]
            if journal == self.journal.id:
                self.leases.distrust(user)
        elif "change" in message:
            self._changed(*message["change"][1:4])
        elif "connected" in message:
            self.accounts.forget_all()
            self.leases.distrust_all()

    def _changed(self, kind: str, subject: str, journal: str) -> None:
        if kind == "key":
            self.accounts.forget_key(subject)
        elif kind == "user":
            self.accounts.forget_user(subject)
            self.leases.user_changed(subject)
        elif kind == "freed":
            self.leases.user_changed(subject)
        elif kind == "want" and journal != self.journal.id:
            self.leases.recall(subject, journal)
        elif kind == "fence" and journal in {"", self.journal.id}:
            self.leases.distrust(subject)

    # -- life ------------------------------------------------------------------------------------------------
    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that this worker owns."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("background work failed", exc_info=task.exception())

    async def settle_all(self) -> None:
        """End every exchange still open: upstreams are cut, what was seen is settled; none begins after."""
        self.closed = True
        for exchange in list(self.exchanges.values()):
            exchange.stop_draining()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Give leases back and stop; call after the last exchange has ended."""
        await asyncio.sleep(2 * limits.sync_interval_s)
        await self.leases.close()
        for task in list(self._tasks):
            task.cancel()
        self.settlement_log.close()
