"""One service's requests: the fixed order of checks from the request line to the hold.

Route, key, rate, body, model, price fields, money: the first that fails answers (the order is a promise; a
refusal never tells more than the checks before it allow). What is known already is decided within the read of
the request, without a task; what must be asked or awaited goes on in a coroutine from the step that was
reached.
"""

import logging
from collections.abc import Coroutine, Mapping, Sequence
from time import monotonic_ns
from typing import Any

from farebox.base import limits
from farebox.base.counters import HOLD_WAIT, INDEX, REFUSED, observe
from farebox.base.errors import FaultError, Refusal, Refused
from farebox.base.records import KeyRecord
from farebox.config.settings import Service
from farebox.ledger.user_lease import Hold
from farebox.meter import ModelPrice, PriceBook, Scan
from farebox.proxy.access import Access
from farebox.proxy.admission import Ask, short_of_money
from farebox.proxy.exchange import Exchange
from farebox.proxy.health import Place
from farebox.proxy.offer import Offer, offers_of
from farebox.proxy.plain import plain_ask
from farebox.proxy.refusals import KEY_NOT_VALID, SHUTTING_DOWN, asked_family
from farebox.proxy.scanning import scan_now, scan_somewhere
from farebox.proxy.sending import begin_sending
from farebox.proxy.unmetered import Unmetered
from farebox.proxy.user_money import Shortage
from farebox.proxy.worker import Worker
from farebox.wire.errors import render
from farebox.wire.incoming import Incoming
from farebox.wire.routes import Route, match
from farebox.wire.upstream import Pool

_log = logging.getLogger("farebox.service")

_FAULT_NOTED_EVERY_S = 5.0
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


class ServiceHandler:
    """Handles the requests of one service's sockets."""

    def __init__(
        self, worker: Worker, service: Service, book: PriceBook, places: Mapping[str, Sequence[Place[Pool]]]
    ) -> None:
        """`places`: endpoint name -> where its requests may go."""
        worker.offer(service, book)
        self._worker = worker
        self._access = Access(worker, service)
        self._unmetered = Unmetered(worker, service, self._access, places)
        self._body_bytes_max = service.body_bytes_max
        self._finish_cap_pico = service.stream_dry_cap_pico if service.stream_dry_policy == "finish" else 0
        self._offers = offers_of(service, book, places)
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
                pending = self._unmetered.answer(client, route, exchange_id)
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
        client.answer(*render(refused, asked_family(client), exchange_id))

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
        body = client.body_now(self._body_bytes_max)
        if body is None or len(body) >= limits.scan_in_thread_bytes_min:
            return self._metered_slowly(client, route, exchange_id, started_ms, key, rate_lines, body)
        scanned = scan_now(body, route.name)
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
            key = await self._access.find_key(client)
            rate_lines = self._admitted(client, key, started_ms)
        if body is None:
            body = await client.body(self._body_bytes_max)
        if scanned is None:
            scanned = await scan_somewhere(body, route.name)
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
        rate = self._access.counted(key, now_ms)
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
            model = self._access.model(name, route, key)
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
