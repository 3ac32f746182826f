"""One service's requests: the fixed order of checks from the request line to the hold.

Route, key, rate, body, model, price fields, money: the first that fails answers (the order is a promise; a
refusal never tells more than the checks before it allow). What is known already is decided within the read of
the request, without a task; what must be asked or awaited goes on in a coroutine from the step that was
reached.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from time import monotonic_ns
from typing import Any

import orjson

from farebox.base import limits
from farebox.base.counters import HOLD_WAIT, INDEX, REFUSED, observe
from farebox.base.errors import FaultError, Refusal, Refused
from farebox.base.keys import key_digest
from farebox.base.records import KeyRecord
from farebox.config.settings import ModelRow, Service
from farebox.ledger.user_lease import Hold
from farebox.meter import (
    ModelPrice,
    PriceBook,
    Scan,
    ScanError,
    SettlementWording,
    new_price_book,
    scan,
)
from farebox.meter.estimate import INPUT_BOUNDS
from farebox.proxy.admission import Ask, short_of_money
from farebox.proxy.exchange import Exchange
from farebox.proxy.forward import Forward
from farebox.proxy.health import Place
from farebox.proxy.own_routes import (
    anthropic_model,
    anthropic_models,
    credits_of,
    openai_model,
    openai_models,
)
from farebox.proxy.plain import plain_ask, plain_terms
from farebox.proxy.rates import RateState
from farebox.proxy.refusals import KEY_NOT_VALID, SHUTTING_DOWN
from farebox.proxy.sending import begin_sending
from farebox.proxy.user_money import Shortage
from farebox.proxy.worker import Worker
from farebox.wire.errors import JSON_LINE, render
from farebox.wire.incoming import Incoming
from farebox.wire.routes import Family, Route, family_of, match
from farebox.wire.upstream import Pool

_log = logging.getLogger("farebox.service")

_FAULT_NOTED_EVERY_S = 5.0
_INJECTED_FORMATS = frozenset(("chat", "completions"))
_REFUSED = {refusal: INDEX[name] for refusal, name in REFUSED.items()}
_SHORTAGES = {
    "inactive": (Refusal.KEY_REVOKED, KEY_NOT_VALID),
    "unknown": (Refusal.KEY_REVOKED, KEY_NOT_VALID),
    "parked": (Refusal.ACCOUNT_PARKED, "This account is on hold; ask the operator."),
    "written_off": (Refusal.ACCOUNT_PARKED, "This account owes too much; ask the operator."),
    "quarantined": (Refusal.ACCOUNT_PARKED, "Too many charges of this account await the operator."),
    "crowded": (Refusal.OVERLOADED, "Too many requests of this account wait for money; try again."),
    "down": (Refusal.STORE_UNAVAILABLE, "Your balance cannot be checked right now; try again."),
}

Pending = Coroutine[Any, Any, None] | None
"""None: the request is on its way or answered. Else what must be awaited."""


class Offer:
    """One model on one route, by one of its names: everything of it that an exchange needs."""

    __slots__ = (
        "injects_usage",
        "model",
        "model_id",
        "places",
        "pool",
        "price",
        "price_version",
        "sent_name",
        "terms",
        "upstream",
        "wallet",
        "wording",
    )

    def __init__(
        self,
        name: str,
        wire_format: str,
        model: ModelRow,
        price: ModelPrice,
        price_version: int,
        places: Sequence[Place[Pool]],
    ) -> None:
        self.model = model
        self.model_id = model.id
        self.upstream = model.upstream
        self.wallet = model.wallet
        self.price = price
        self.price_version = price_version
        self.pool = places[0].target
        self.places = places if len(places) > 1 else ()
        """Where requests go if there is more than one place; else empty."""
        self.terms = plain_terms(model, wire_format, price)
        self.wording = SettlementWording(
            model.wallet,
            model.id,
            wire_format,
            price_version,
            price.multiplier,
            model.upstream,
            price.free,
            limits.model_name_bytes_max,
        )
        self.sent_name = None if model.upstream_model == name else model.upstream_model
        """The name to put in the body; None when the client's is right."""
        self.injects_usage = (
            wire_format in _INJECTED_FORMATS and model.endpoints[wire_format].inject_include_usage
        )


class ServiceHandler:
    """Handles the requests of one service's sockets."""

    def __init__(
        self, worker: Worker, service: Service, book: PriceBook, places: Mapping[str, Sequence[Place[Pool]]]
    ) -> None:
        """`places`: endpoint name -> where its requests may go."""
        worker.offer(service, book)
        self._worker = worker
        self._places = places
        self._service = service
        self._book = book
        self._finish_cap_pico = service.stream_dry_cap_pico if service.stream_dry_policy == "finish" else 0
        self._offers = {
            (name, wire_format): Offer(
                name, wire_format, model, book.models[model.id], book.version, places[endpoint.name]
            )
            for model in service.models
            for wire_format, endpoint in model.endpoints.items()
            if wire_format in INPUT_BOUNDS
            for name in model.ids
        }
        self._fault_noted_s = -_FAULT_NOTED_EVERY_S

    def __call__(self, client: Incoming) -> Pending:
        """Answer one request; refusals in the route's own format."""
        worker = self._worker
        started_ms = worker.wall_ms()
        exchange_id = worker.new_id(started_ms)
        try:
            route = match(client.method, client.path)
            if route.metered:
                pending = self._metered(client, route, exchange_id, started_ms)
            else:
                pending = self._unmetered(client, route, exchange_id)
        except (Refused, FaultError) as error:
            self._refuse(client, error, exchange_id)
            return None
        return None if pending is None else self._awaited(client, pending, exchange_id)

    async def _awaited(self, client: Incoming, pending: Coroutine[Any, Any, None], exchange_id: str) -> None:
        try:
            await pending
        except (Refused, FaultError) as error:
            self._refuse(client, error, exchange_id)

    def _refuse(self, client: Incoming, error: Refused | FaultError, exchange_id: str) -> None:
        if isinstance(error, Refused):
            refused = error
        else:
            self._note_fault(error)
            refused = Refused(
                Refusal.STORE_UNAVAILABLE, "Farebox cannot reach its store; try again.", retry_after_s=2
            )
        self._worker.counters[_REFUSED[refused.refusal]] += 1
        if refused.close:
            client.keep_alive = False
        if client.answered:
            client.abort()
            return
        client.answer(*render(refused, _family(client), exchange_id))

    def _note_fault(self, error: FaultError) -> None:
        """Log a fault of the store once in a while: it fails every request until it is over."""
        now_s = self._worker.loop.time()
        if now_s >= self._fault_noted_s + _FAULT_NOTED_EVERY_S:
            self._fault_noted_s = now_s
            _log.warning("requests are refused: %s", error)

    # -- metered requests: at once as far as possible --------------------------------------------------------
    def _metered(self, client: Incoming, route: Route, exchange_id: str, started_ms: int) -> Pending:
        """The steps in their order; from the first that must wait, `_metered_slowly` goes on."""
        worker = self._worker
        if worker.draining:
            raise Refused(Refusal.DRAINING, SHUTTING_DOWN, retry_after_s=1, close=True)
        if worker.memory_short:
            raise Refused(
                Refusal.OVERLOADED, "Memory is short on this server; try again.", retry_after_s=1, close=True
            )
        trouble = worker.ready()
        if trouble:
            raise Refused(Refusal.STORE_UNAVAILABLE, f"Not available: {trouble}.", retry_after_s=5)
        key = worker.accounts.known(client.api_key())
        if key is None:
            return self._metered_slowly(client, route, exchange_id, started_ms)
        rate_lines = self._admitted(client, key, started_ms)
        body = client.body_now(self._service.body_bytes_max)
        if body is None or len(body) >= limits.scan_in_thread_bytes_min:
            return self._metered_slowly(client, route, exchange_id, started_ms, key, rate_lines, body)
        scanned = _scan(body, route.name)
        offer = self._offer(scanned.model, route, key)
        ask = plain_ask(offer.terms, scanned, route.name, offer.model, offer.price)
        hold = worker.leases.hold_now(key.user, offer.wallet, ask.hold_pico, started_ms)
        if hold is None:
            return self._metered_slowly(
                client, route, exchange_id, started_ms, key, rate_lines, body, scanned
            )
        return self._begin(
            client, route, exchange_id, started_ms, key, rate_lines, body, scanned, offer, ask, hold
        )

    async def _metered_slowly(
        self,
        client: Incoming,
        route: Route,
        exchange_id: str,
        started_ms: int,
        key: KeyRecord | None = None,
        rate_lines: bytes = b"",
        body: bytes | None = None,
        scanned: Scan | None = None,
    ) -> None:
        """Go on from the step that was reached (what is None was not), waiting where it must be."""
        if key is None:
            key = await self._find_key(client)
            rate_lines = self._admitted(client, key, started_ms)
        if body is None:
            body = await client.body(self._service.body_bytes_max)
        if scanned is None:
            scanned = await _scan_somewhere(body, route.name)
        offer = self._offer(scanned.model, route, key)
        ask = plain_ask(offer.terms, scanned, route.name, offer.model, offer.price)
        leases, wallet = self._worker.leases, offer.wallet
        hold = leases.hold_now(key.user, wallet, ask.hold_pico, started_ms)
        if hold is None:
            asked_ns = monotonic_ns()
            got = await leases.hold(key.user, wallet, ask.hold_pico)
            observe(self._worker.counters, HOLD_WAIT, (monotonic_ns() - asked_ns) // 1000)
            if not isinstance(got, Hold):
                raise _shortage_refusal(got, ask, offer.price, wallet)
            hold = got
        pending = self._begin(
            client, route, exchange_id, started_ms, key, rate_lines, body, scanned, offer, ask, hold
        )
        if pending is not None:
            await pending

    # -- the steps -------------------------------------------------------------------------------------------
    def _admitted(self, client: Incoming, key: KeyRecord, now_ms: int) -> bytes:
        """Check key, rate and the body's declared type; the answer's rate-limit lines."""
        rate = self._counted(key, now_ms)
        client.require_json()
        return b"X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n" % (
            rate.limit,
            rate.remaining,
            rate.reset_s,
        )

    def _offer(self, name: str, route: Route, key: KeyRecord) -> Offer:
        """What this key may use here under that name."""
        offer = self._offers.get((name, route.name))
        if offer is None or (key.allowed_models is not None and offer.model_id not in key.allowed_models):
            model = self._model(name, route, key)
            raise Refused(Refusal.UNSUPPORTED, f"The model {model.id} is not served on {route.path}.")
        return offer

    def _begin(
        self,
        client: Incoming,
        route: Route,
        exchange_id: str,
        started_ms: int,
        key: KeyRecord,
        rate_lines: bytes,
        body: bytes,
        scanned: Scan,
        offer: Offer,
        ask: Ask,
        hold: Hold,
    ) -> Pending:
        """Money is held: make the exchange and send it."""
        stream = scanned.stream
        strip_usage = stream and offer.injects_usage and not scanned.include_usage
        if strip_usage or offer.sent_name is not None:
            body = scanned.edited(body, offer.sent_name, strip_usage)
        exchange = Exchange(
            self._worker,
            client,
            route,
            exchange_id,
            started_ms,
            key,
            offer,
            ask,
            hold,
            stream,
            strip_usage,
            rate_lines,
            self._finish_cap_pico,
            body,
        )
        return begin_sending(exchange)

    # -- keys, rates, models ---------------------------------------------------------------------------------
    async def _find_key(self, client: Incoming) -> KeyRecord:
        digest = key_digest(client.api_key())
        accounts = self._worker.accounts
        key = accounts.get(digest) or await accounts.find(digest, self._worker.loop.time())
        if key is None:
            raise Refused(Refusal.KEY_UNKNOWN, KEY_NOT_VALID)
        return key

    def _check_key(self, key: KeyRecord, now_ms: int) -> None:
        expired = key.expires_at_ms is not None and key.expires_at_ms <= now_ms
        if expired or not key.key_active or not key.user_active:
            raise Refused(Refusal.KEY_REVOKED, KEY_NOT_VALID)

    def _counted(self, key: KeyRecord, now_ms: int) -> RateState:
        """The key is good; count the request against its rate."""
        if not key.key_active or not key.user_active or key.expires_at_ms is not None:
            self._check_key(key, now_ms)
        worker = self._worker
        limit = key.requests_per_minute or self._service.requests_per_minute
        rate = worker.rates.admit(key.digest, limit, worker.loop.time())
        if rate.retry_after_s:
            raise Refused(
                Refusal.RATE_LIMITED,
                f"Rate limit of {rate.limit} requests a minute reached; try again in {rate.retry_after_s} s.",
                retry_after_s=rate.retry_after_s,
            )
        return rate

    def _model(self, name: str, route: Route, key: KeyRecord) -> ModelRow:
        model = self._allowed_model(name, key)
        if route.name not in model.endpoints:
            raise Refused(Refusal.UNSUPPORTED, f"The model {model.id} is not served on {route.path}.")
        return model

    def _allowed_model(self, name: str, key: KeyRecord) -> ModelRow:
        model = self._service.models.get(name)
        if model is None:
            raise Refused(Refusal.MODEL_UNKNOWN, f"The model {_shown(name)} does not exist here.")
        if key.allowed_models is not None and model.id not in key.allowed_models:
            raise Refused(Refusal.MODEL_NOT_ALLOWED, f"This key may not use the model {model.id}.")
        return model

    # -- requests without money ------------------------------------------------------------------------------
    def _unmetered(self, client: Incoming, route: Route, exchange_id: str) -> Pending:
        if route.name == "count_tokens":
            return self._forwarded(client, route, exchange_id)
        if route.name == "healthz":
            _answer_json(client, 200, {"status": "ok"})
        elif route.name == "readyz":
            reason = self._not_ready()
            status = {"status": "ready"} if not reason else {"status": "not ready", "reason": reason}
            _answer_json(client, 503 if reason else 200, status)
        else:
            return self._own(client, route)
        return None

    def _not_ready(self) -> str:
        """Why metered requests are refused; empty where they are not."""
        worker = self._worker
        if worker.draining:
            return "draining"
        return "memory is short" if worker.memory_short else worker.ready()

    async def _forwarded(self, client: Incoming, route: Route, exchange_id: str) -> None:
        key = await self._find_key(client)
        self._counted(key, self._worker.wall_ms())
        client.require_json()
        body = await client.body(self._service.body_bytes_max)
        scanned = await _scan_somewhere(body, "messages")
        model = self._model(scanned.model, route, key)
        if model.upstream_model != scanned.model:
            body = scanned.edited(body, model.upstream_model, False)
        await Forward(client, route, exchange_id).run(self._places[model.endpoints[route.name].name], body)

    async def _own(self, client: Incoming, route: Route) -> None:
        key = await self._find_key(client)
        self._check_key(key, self._worker.wall_ms())
        if route.name == "credits":
            account = await self._worker.store.account(key.user)
            if account is None:
                raise Refused(Refusal.KEY_REVOKED, KEY_NOT_VALID)
            _answer_json(client, 200, credits_of(account, self._worker.wall_ms()))
            return
        anthropic = _family(client) == "anthropic"
        if route.model:
            row = self._allowed_model(route.model, key)
            _answer_json(client, 200, anthropic_model(row) if anthropic else openai_model(row))
            return
        rows = [
            row for row in self._service.models if key.allowed_models is None or row.id in key.allowed_models
        ]
        _answer_json(client, 200, anthropic_models(rows) if anthropic else openai_models(rows))


def _family(client: Incoming) -> Family:
    """In whose shapes to answer; on the list of models, which both serve, by a header only one sends."""
    if client.path.startswith("/v1/models") and "anthropic-version" in client.headers:
        return "anthropic"
    return family_of(client.path)


def compile_book(service: Service, version: int, effective_ms: int) -> PriceBook:
    """The service's configured prices as a price book."""
    return new_price_book(dict(service.price_book()), version, effective_ms)


def _scan(body: bytes, wire_format: str) -> Scan:
    try:
        return scan(body, wire_format, limits.json_depth_max)
    except ScanError as error:
        details: dict[str, object] = {"param": error.field} if error.field else {}
        raise Refused(Refusal.BODY_INVALID, str(error), details=details) from None


async def _scan_somewhere(body: bytes, wire_format: str) -> Scan:
    """Scan large bodies in a thread, so that they delay nobody."""
    if len(body) < limits.scan_in_thread_bytes_min:
        return _scan(body, wire_format)
    return await asyncio.to_thread(_scan, body, wire_format)


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
    refusal, message = _SHORTAGES[shortage.reason]
    retry_after_s = 1 if refusal in {Refusal.OVERLOADED, Refusal.STORE_UNAVAILABLE} else None
    return Refused(refusal, message, retry_after_s=retry_after_s)


def _shown(name: str) -> str:
    """A name from outside, safe and short enough for a message."""
    return repr(name[:80])
