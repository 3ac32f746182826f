"""One worker: everything an exchange meets on its way, put together.

The order of checks is fixed (route, key, rate, body, model, price fields, money) and stands in `_metered`. The worker
owns the exchanges that are open; the journal, the store's face and the sockets are handed to it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import orjson

from farebox.base import clock, frames, limits
from farebox.base.counters import INDEX, Counters
from farebox.base.errors import FaultError, Refusal, Refused, UpstreamConnectError
from farebox.base.ids import ExchangeIds
from farebox.base.keys import key_digest
from farebox.base.records import KeyRecord, Settlement
from farebox.config.settings import Endpoint as EndpointSettings
from farebox.config.settings import ModelRow, Service
from farebox.journal.journal import Journal
from farebox.ledger.user_lease import Hold
from farebox.meter import ModelPrice, PriceBook, Reading, Scan, ScanError, new_price_book, scan
from farebox.proxy.abandon import Drains
from farebox.proxy.accounts import Accounts
from farebox.proxy.admission import Ask, ask_of, short_of_money
from farebox.proxy.books import Books
from farebox.proxy.exchange import Exchange
from farebox.proxy.forward import Forward
from farebox.proxy.leases import Leases, Shortage
from farebox.proxy.own_routes import (
    anthropic_model,
    anthropic_models,
    credits_of,
    openai_model,
    openai_models,
)
from farebox.proxy.rates import RateLimiter, RateState
from farebox.proxy.settlement_log import SettlementLog
from farebox.proxy.streams import Streams
from farebox.proxy.verdict import Verdict
from farebox.store.base import WorkerStore
from farebox.wire.errors import JSON_LINE, render
from farebox.wire.headers import client_key, require_json
from farebox.wire.incoming import Incoming
from farebox.wire.routes import Route, family_of, match
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
        pools: Mapping[tuple[str, str], Pool],
        *,
        loop: asyncio.AbstractEventLoop,
        lease_wait_s: float,
        written_off_pico_max: int,
        serves_on_pico_max: int = 0,
    ) -> None:
        self.store = store
        self.journal = journal
        self.loop = loop
        self.counters = counters.values
        self.wall_ms = clock.wall_ms
        self.exchanges: dict[str, Exchange] = {}
        self.draining = False
        self.ready: Callable[[], str] = lambda: ""
        self._pools = pools
        self._ids = ExchangeIds()
        self._rates = RateLimiter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._serves_on_pico_left = serves_on_pico_max
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
    def serve(self, service: Service, book: PriceBook) -> "ServiceHandler":
        """A handler for one service's socket, selling at `book`'s prices."""
        names = {name: row.id for row in service.models for name in (*row.ids, row.upstream_model)}
        self.books.add(book, names)
        for row in service.models:
            for endpoint in row.endpoints.values():
                self._pool_by_endpoint[id(endpoint)] = self._pools[service.name, endpoint.name]
        return ServiceHandler(self, service, book)

    def pool_of(self, endpoint: EndpointSettings) -> Pool:
        """The connections to a configured endpoint."""
        return self._pool_by_endpoint[id(endpoint)]

    def price_of(self, version: int) -> Callable[[str], ModelPrice | None]:
        """Look-up of other models' prices in a version."""
        return lambda name: self.books.price(version, name)

    # -- exchanges -------------------------------------------------------------------------------------------
    def new_id(self, now_ms: int) -> str:
        """A fresh exchange id."""
        return self._ids.new(now_ms)

    def rate(self, key: KeyRecord, limit: int) -> RateState:
        """Count a request against its key's limit."""
        return self._rates.admit(key.digest, key.requests_per_minute or limit, self.loop.time())

    def forget(self, exchange: Exchange) -> None:
        """The exchange has ended."""
        self.exchanges.pop(exchange.id, None)
        self.drains.ended(exchange)

    def serves_on(self, lacking_pico: int) -> bool:
        """Whether a dry stream may run on at the operator's expense (policy `finish`), up to the cap."""
        if self._serves_on_pico_left < lacking_pico:
            return False
        self._serves_on_pico_left -= lacking_pico
        return True

    def record_settlement(
        self,
        exchange: Exchange,
        verdict: Verdict,
        reading: Reading,
        outcome: str,
        then: Callable[[Exception | None], None],
    ) -> None:
        """End the hold by the verdict and put the settlement into the journal. Raises the journal's errors."""
        now_ms = self.wall_ms()
        user = exchange.key.user
        if verdict.quarantine:
            takes, record = self.leases.reserve(user, exchange.id, exchange.hold, now_ms)
        else:
            takes, record = self.leases.settle(user, exchange.id, exchange.hold, verdict.amount_pico, now_ms)
        settlement = Settlement(
            exchange=exchange.id,
            user=user,
            wallet=exchange.hold.wallet,
            key=exchange.key.digest[:16],
            model=exchange.model.id,
            wire_format=exchange.route.name,
            price_version=exchange.price_version,
            multiplier=exchange.price.multiplier,
            evidence=verdict.evidence,
            flags=verdict.flags,
            counts=verdict.counts,
            others=verdict.others,
            input_total=verdict.input_total,
            variant=verdict.variant,
            amount_pico=verdict.amount_pico,
            takes=takes,
            quarantine=verdict.quarantine,
            outcome=outcome,
            status=exchange.status,
            upstream=exchange.model.upstream,
            upstream_model=reading.model or "",
            upstream_request=exchange.upstream_request,
            stream=exchange.stream,
            started_ms=exchange.started_ms,
            first_byte_ms=exchange.first_byte_ms,
            ended_ms=now_ms,
            raw_usage=reading.raw.decode("utf-8", "replace"),
            free=exchange.price.free,
        )

        def written(error: Exception | None) -> None:
            if error is None:
                self.leases.written(user, record, self.journal.last_pos)
                self._note(settlement, verdict)
            else:
                self.leases.unwritten(user)
            then(error)

        self.journal.append(frames.SETTLE, settlement.encode(), written)

    def _note(self, settlement: Settlement, verdict: Verdict) -> None:
        counters = self.counters
        counters[_EXCHANGES] += 1
        counters[_LATENCY_MS] += settlement.ended_ms - settlement.started_ms
        counters[_CHARGED] += settlement.amount_pico
        counters[_BY_EVIDENCE[settlement.evidence]] += 1
        if settlement.quarantine:
            counters[_QUARANTINED] += 1
        for kind, count in settlement.counts.items():
            index = _TOKENS.get(kind)
            if index is not None:
                counters[index] += count
        self._settlement_log.add(
            settlement, verdict, self.leases.remaining_pico(settlement.user, settlement.wallet)
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
        elif kind == "want" and journal != self.journal.id:
            self.leases.recall(subject)
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
        """End every exchange still open: upstreams are cut, what was seen is settled."""
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


class ServiceHandler:
    """Handles the requests of one service's socket."""

    def __init__(self, worker: Worker, service: Service, book: PriceBook) -> None:
        self._worker = worker
        self._service = service
        self._book = book
        self._rate_limit = service.requests_per_minute

    async def __call__(self, client: Incoming) -> None:
        """Answer one request; refusals in the route's own format."""
        worker = self._worker
        started_ms = worker.wall_ms()
        exchange_id = worker.new_id(started_ms)
        try:
            route = match(client.method, client.path)
            if route.metered:
                await self._metered(client, route, exchange_id, started_ms)
            elif route.name == "count_tokens":
                await self._forwarded(client, route, exchange_id)
            else:
                await self._own(client, route)
        except Refused as refused:
            self._refuse(client, refused, exchange_id)
        except FaultError as error:
            _log.warning("%s: %s", exchange_id, error)
            away = Refused(Refusal.STORE_UNAVAILABLE, "Farebox cannot reach its store.", retry_after_s=2)
            self._refuse(client, away, exchange_id)

    def _refuse(self, client: Incoming, refused: Refused, exchange_id: str) -> None:
        status = refused.refusal.value.status
        self._worker.counters[_REFUSED_COUNTERS.get(status, _REFUSED_OTHER)] += 1
        if refused.close:
            client.keep_alive = False
        if client.answered:
            client.abort()
            return
        client.answer(*render(refused, family_of(client.path), exchange_id))

    # -- admission -------------------------------------------------------------------------------------------
    async def _metered(self, client: Incoming, route: Route, exchange_id: str, started_ms: int) -> None:
        worker = self._worker
        if worker.draining:
            raise Refused(Refusal.DRAINING, "This server is shutting down.", retry_after_s=1, close=True)
        key = await self._key(client)
        rate = self._rate(key)
        require_json(client.headers)
        body = await client.body(self._service.body_bytes_max)
        asked = await self._scan(body, route.name)
        model = self._model(asked.model, route, key)
        price = self._book.models[model.id]
        ask = ask_of(asked, route.name, model, price)
        hold = worker.leases.hold_now(key.user, model.wallet, ask.hold_pico, started_ms)
        if hold is None:
            hold = await self._wait_for_hold(key, model, price, ask)
        strip_usage = (
            asked.stream
            and not asked.include_usage
            and route.name in _INJECTED_FORMATS
            and model.endpoints[route.name].inject_include_usage
        )
        upstream_name = model.upstream_model if model.upstream_model != asked.model else None
        if upstream_name is not None or strip_usage:
            body = asked.edited(body, upstream_name, strip_usage)
        exchange = Exchange(
            worker,
            client,
            route,
            exchange_id,
            started_ms,
            key,
            model,
            price,
            self._book.version,
            ask,
            hold,
            stream=asked.stream,
            strip_usage=strip_usage,
            rate_lines=_rate_lines(rate),
        )
        await exchange.begin(body)

    async def _key(self, client: Incoming) -> KeyRecord:
        digest = key_digest(client_key(client.headers, client.query))
        accounts = self._worker.accounts
        key = accounts.get(digest) or await accounts.find(digest, self._worker.loop.time())
        if key is None:
            raise Refused(Refusal.KEY_UNKNOWN, "This API key is not valid.")
        if not key.key_active or not key.user_active:
            raise Refused(Refusal.KEY_REVOKED, "This API key is not valid.")
        if key.expires_at_ms is not None and key.expires_at_ms <= self._worker.wall_ms():
            raise Refused(Refusal.KEY_REVOKED, "This API key is not valid.")
        return key

    def _rate(self, key: KeyRecord) -> RateState:
        rate = self._worker.rate(key, self._rate_limit)
        if rate.retry_after_s:
            raise Refused(
                Refusal.RATE_LIMITED,
                f"Rate limit of {rate.limit} requests a minute reached; try again in {rate.retry_after_s} s.",
                retry_after_s=rate.retry_after_s,
            )
        return rate

    async def _scan(self, body: bytes, wire_format: str) -> Scan:
        try:
            if len(body) < limits.scan_in_thread_bytes_min:
                return scan(body, wire_format, limits.json_depth_max)
            return await asyncio.to_thread(scan, body, wire_format, limits.json_depth_max)
        except ScanError as error:
            details: dict[str, object] = {"param": error.field} if error.field else {}
            raise Refused(Refusal.BODY_INVALID, str(error), details=details) from None

    def _model(self, name: str, route: Route, key: KeyRecord) -> ModelRow:
        model = self._service.models.get(name)
        if model is None:
            raise Refused(Refusal.MODEL_UNKNOWN, f"The model {_shown(name)} does not exist here.")
        if key.allowed_models is not None and model.id not in key.allowed_models:
            raise Refused(Refusal.MODEL_NOT_ALLOWED, f"This key may not use the model {model.id}.")
        if route.name not in model.endpoints:
            raise Refused(Refusal.UNSUPPORTED, f"The model {model.id} is not served on {route.path}.")
        return model

    async def _wait_for_hold(self, key: KeyRecord, model: ModelRow, price: ModelPrice, ask: Ask) -> Hold:
        got = await self._worker.leases.hold(key.user, model.wallet, ask.hold_pico)
        if isinstance(got, Hold):
            return got
        raise _shortage_refusal(got, ask, price, model.wallet)

    # -- without money ---------------------------------------------------------------------------------------
    async def _forwarded(self, client: Incoming, route: Route, exchange_id: str) -> None:
        key = await self._key(client)
        self._rate(key)
        require_json(client.headers)
        body = await client.body(self._service.body_bytes_max)
        asked = await self._scan(body, "messages")
        model = self._model(asked.model, route, key)
        if model.upstream_model != asked.model:
            body = asked.edited(body, model.upstream_model, False)
        try:
            await Forward(client, route, exchange_id).begin(
                self._worker.pool_of(model.endpoints[route.name]), body
            )
        except UpstreamConnectError:
            raise Refused(Refusal.UPSTREAM_FAILED, "The upstream provider cannot be reached.") from None

    async def _own(self, client: Incoming, route: Route) -> None:
        if route.name == "healthz":
            _answer_json(client, 200, {"status": "ok"})
        elif route.name == "readyz":
            reason = "draining" if self._worker.draining else self._worker.ready()
            status = {"status": "ready"} if not reason else {"status": "not ready", "reason": reason}
            _answer_json(client, 503 if reason else 200, status)
        else:
            key = await self._key(client)
            if route.name == "credits":
                await self._credits(client, key)
            else:
                self._models(client, route, key)

    def _models(self, client: Incoming, route: Route, key: KeyRecord) -> None:
        anthropic = "anthropic-version" in client.headers
        if route.model:
            row = self._service.models.get(route.model)
            if row is None:
                raise Refused(Refusal.MODEL_UNKNOWN, f"The model {_shown(route.model)} does not exist here.")
            _answer_json(client, 200, anthropic_model(row) if anthropic else openai_model(row))
            return
        rows = [row for row in self._service.models if key.allowed_models is None or row.id in key.allowed_models]
        _answer_json(client, 200, anthropic_models(rows) if anthropic else openai_models(rows))

    async def _credits(self, client: Incoming, key: KeyRecord) -> None:
        account = await self._worker.store.account(key.user)
        if account is None:
            raise Refused(Refusal.KEY_REVOKED, "This account does not exist any more.")
        _answer_json(client, 200, credits_of(account, self._worker.wall_ms()))


def compile_book(service: Service, version: int, effective_ms: int) -> PriceBook:
    """The service's configured prices as a price book."""
    return new_price_book(dict(service.price_book()), version, effective_ms)  # type: ignore[arg-type]


def _answer_json(client: Incoming, status: int, value: object) -> None:
    client.answer(status, JSON_LINE, orjson.dumps(value))


def _shortage_refusal(shortage: Shortage, ask: Ask, price: ModelPrice, wallet: str) -> Refused:
    if shortage.reason in {"short", "expired"}:
        return short_of_money(
            ask,
            price,
            wallet=wallet,
            remaining_pico=shortage.remaining_pico,
            held_pico=shortage.held_pico,
            expired=shortage.reason == "expired",
        )
    refusal, message = _SHORTAGE_REFUSALS[shortage.reason]
    retry_after_s = 1 if refusal.value.status == 503 else None
    return Refused(refusal, message, retry_after_s=retry_after_s)


def _rate_lines(rate: RateState) -> bytes:
    return b"X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n" % (
        rate.limit,
        rate.remaining,
        rate.reset_s,
    )


def _shown(name: str) -> str:
    """A name from outside, safe and short enough for a message."""
    return repr(name[:80])


__all__ = ["ServiceHandler", "Worker", "compile_book"]
