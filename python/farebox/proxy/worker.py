"""One worker: everything an exchange meets on its way, put together.

The worker owns the exchanges that are open and records how they end; the journal and the store's face are
handed to it, and requests come from the services' handlers (service.py).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from farebox.base import clock, frames, limits
from farebox.base.counters import INDEX, Counters
from farebox.base.errors import FaultError, Refusal
from farebox.base.ids import ExchangeIds
from farebox.base.records import Void, settlement_payload
from farebox.config.settings import Endpoint as EndpointSettings
from farebox.config.settings import Service
from farebox.journal.journal import Journal
from farebox.meter import ModelPrice, PriceBook
from farebox.proxy.abandon import Drains
from farebox.proxy.accounts import Accounts
from farebox.proxy.books import Books
from farebox.proxy.exchange import Exchange
from farebox.proxy.leases import Leases
from farebox.proxy.rates import RateLimiter
from farebox.proxy.settlement_log import SettlementLog
from farebox.proxy.streams import Streams
from farebox.proxy.user_money import Unbooked
from farebox.proxy.verdict import Verdict
from farebox.store.base import WorkerStore
from farebox.wire.upstream import Pool

_log = logging.getLogger("farebox.worker")

_INJECTED_FORMATS = frozenset(("chat", "completions"))
_REFUSED_COUNTERS: Mapping[int, int] = {
    401: INDEX["refused_401_total"],
    402: INDEX["refused_402_total"],
    404: INDEX["refused_404_total"],
    429: INDEX["refused_429_total"],
}
_REFUSED_OTHER = INDEX["refused_other_total"]
_EXCHANGES = INDEX["exchanges_total"]
_LATENCY_MS = INDEX["latency_ms_total"]
_CHARGED = INDEX["charged_pico_total"]
_RECORD_AGAIN_S = 0.5
_COUNTER_MASK = (1 << 63) - 1
_QUARANTINED = INDEX["quarantined_total"]
_BY_EVIDENCE = {
    "exact": INDEX["settled_exact_total"],
    "partial": INDEX["settled_partial_total"],
    "estimated": INDEX["settled_estimated_total"],
    "none": INDEX["voided_total"],
}
_TOKENS = {
    "input": INDEX["tokens_input_total"],
    "cache_read": INDEX["tokens_cache_read_total"],
    "cache_write_5m": INDEX["tokens_cache_write_total"],
    "cache_write_1h": INDEX["tokens_cache_write_total"],
    "output": INDEX["tokens_output_total"],
}
_SHORTAGE_REFUSALS = {
    "inactive": (Refusal.KEY_REVOKED, "This account is disabled."),
    "unknown": (Refusal.KEY_REVOKED, "This account does not exist any more."),
    "parked": (Refusal.ACCOUNT_PARKED, "This account is on hold; ask the operator."),
    "written_off": (Refusal.ACCOUNT_PARKED, "This account owes too much; ask the operator."),
    "crowded": (Refusal.OVERLOADED, "Too many requests of this account wait for money; try again."),
    "down": (Refusal.STORE_UNAVAILABLE, "Your balance cannot be checked right now; try again."),
}


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
        self.wall_ms = clock.wall_ms
        self.exchanges: dict[str, Exchange] = {}
        self.draining = False
        self.closed = False
        self.ready: Callable[[], str] = lambda: ""
        self._pools: Mapping[tuple[str, str], Pool] = {}
        self.new_id = ExchangeIds().new
        self.rates = RateLimiter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pool_by_endpoint: dict[int, Pool] = {}
        self._settlement_log = SettlementLog(loop)
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

    def _count(self, name: str) -> None:
        self.counters[INDEX[name]] += 1

    # -- services --------------------------------------------------------------------------------------------
    def use_pools(self, pools: Mapping[tuple[str, str], Pool]) -> None:
        """Take these connections, by service and endpoint, for the services offered from now on."""
        self._pools = pools
        self._pool_by_endpoint = {}

    def offer(self, service: Service, book: PriceBook) -> None:
        """Make a service's prices and endpoints known; call before its first request."""
        names = {name: row.id for row in service.models for name in (*row.ids, row.upstream_model)}
        self.books.add(book, names)
        for row in service.models:
            for endpoint in row.endpoints.values():
                self._pool_by_endpoint[id(endpoint)] = self._pools[service.name, endpoint.name]

    def pool_of(self, endpoint: EndpointSettings) -> Pool:
        """The connections to a configured endpoint."""
        return self._pool_by_endpoint[id(endpoint)]

    def price_of(self, version: int) -> Callable[[str], tuple[str, ModelPrice] | None]:
        """Look-up of other models' prices in a version."""
        return partial(self.books.find, version)

    # -- exchanges -------------------------------------------------------------------------------------------
    def forget(self, exchange: Exchange) -> None:
        """The exchange has ended."""
        self.exchanges.pop(exchange.id, None)
        if exchange.gone_handled:
            self.drains.ended(exchange)

    def record_settlement(
        self,
        exchange: Exchange,
        verdict: Verdict,
        outcome: str,
        then: Callable[[Verdict], None],
    ) -> None:
        """End the hold by the verdict and put the settlement into the journal; `then` runs when it is there.

        Raises the journal's errors.
        """
        now_ms = self.wall_ms()
        key, offer, hold = exchange.key, exchange.offer, exchange.hold
        if verdict.quarantine:
            record = self.leases.reserve(key.user, exchange.id, hold, now_ms)
        else:
            record = self.leases.settle(key.user, exchange.id, hold, verdict.amount_pico, now_ms)
        payload = settlement_payload(
            exchange.id,
            key.user,
            hold.wallet,
            key.digest[:16],
            offer.model_id,
            exchange.route.name,
            offer.price_version,
            offer.price.multiplier,
            verdict.evidence,
            verdict.flags,
            verdict.counts,
            verdict.others,
            verdict.input_total,
            verdict.variant,
            verdict.amount_pico,
            record.takes,
            verdict.quarantine,
            outcome,
            exchange.status,
            offer.model.upstream,
            verdict.upstream_model[: limits.model_name_bytes_max],
            exchange.upstream_request,
            exchange.stream,
            exchange.started_ms,
            exchange.first_byte_ms,
            now_ms,
            verdict.raw_usage,
            offer.price.free,
        )

        def written(error: Exception | None) -> None:
            if error is None:
                self._settled(exchange, verdict, record, outcome, now_ms)
                exchange.settlement_written(verdict, then)
            else:
                self.spawn(self._record_again(payload, exchange, verdict, record, outcome, now_ms))
                exchange.settlement_failed(error)

        self.journal.append_settle(exchange.id, payload, written)

    async def _record_again(
        self,
        payload: bytes,
        exchange: Exchange,
        verdict: Verdict,
        record: Unbooked,
        outcome: str,
        ended_ms: int,
    ) -> None:
        if await self._append_again(frames.SETTLE, payload):
            self._settled(exchange, verdict, record, outcome, ended_ms)
        else:
            self.leases.unwritten(exchange.key.user)

    def record_void(self, void: Void) -> None:
        """Record that an exchange reached no upstream; its money goes back to the store only after that."""

        def written(error: Exception | None) -> None:
            if error is None:
                self.leases.void_written(void.user, self.journal.last_pos)
            else:
                self.spawn(self._record_void_again(void))

        try:
            self.journal.append(frames.VOID, void.encode(), written)
        except FaultError as error:
            _log.error("%s: the void could not be recorded: %s", void.exchange, error)

    async def _record_void_again(self, void: Void) -> None:
        if await self._append_again(frames.VOID, void.encode()):
            self.leases.void_written(void.user, self.journal.last_pos)

    async def _append_again(self, kind: int, payload: bytes) -> bool:
        """The disk did not take a record: try until it does; False when the journal is broken for good."""
        while True:
            await asyncio.sleep(_RECORD_AGAIN_S)
            outcome: asyncio.Future[Exception | None] = self.loop.create_future()
            try:
                self.journal.append(kind, payload, outcome.set_result)
            except FaultError:
                return False
            if await outcome is None:
                return True

    def _count_tokens(self, counts: Mapping[str, int]) -> None:
        for kind, count in counts.items():
            index = _TOKENS.get(kind)
            if index is not None:
                self.counters[index] += count

    def _settled(
        self, exchange: Exchange, verdict: Verdict, record: Unbooked, outcome: str, ended_ms: int
    ) -> None:
        """The settlement is in the journal: what it freed may serve others; count it and log its line."""
        user, offer, amount_pico = exchange.key.user, exchange.offer, verdict.amount_pico
        remaining_pico = self.leases.written(user, record, self.journal.last_pos)
        counters = self.counters
        counters[_EXCHANGES] += 1
        counters[_LATENCY_MS] += ended_ms - exchange.started_ms
        counters[_CHARGED] = (counters[_CHARGED] + amount_pico) & _COUNTER_MASK
        counters[_BY_EVIDENCE[verdict.evidence]] += 1
        if verdict.quarantine:
            counters[_QUARANTINED] += 1
        else:
            self._count_tokens(verdict.counts)
        self._settlement_log.add(
            (
                exchange.id,
                user,
                offer.model_id,
                verdict.evidence,
                outcome,
                verdict.used,
                offer.price.multiplier,
                amount_pico,
                record.takes,
                remaining_pico,
            )
        )

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
        self._settlement_log.flush()
