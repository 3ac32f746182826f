"""How an exchange gets to its upstream: recorded first, sent then, and given back where neither can be.

`open` and `sent` are in the journal before the first upstream byte leaves (M4). Whatever keeps an exchange
from being sent ends it here, its hold with it: voided silently while nothing is on record, by a record of its
own after that. A pooled connection that had closed unused is replaced by a new one.
"""

import logging
from collections.abc import Coroutine
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from farebox.base.counters import INDEX
from farebox.base.errors import FaultError, Refusal, Refused, UpstreamConnectError
from farebox.base.records import Void, opened_payload
from farebox.proxy.attempts import Attempts
from farebox.proxy.refusals import NOT_RECORDED, SHUTTING_DOWN, UNREACHABLE
from farebox.proxy.settle import record_void
from farebox.wire.errors import render

if TYPE_CHECKING:
    from farebox.proxy.exchange import Exchange
    from farebox.wire.upstream import Connection, Pool

_log = logging.getLogger("farebox.exchange")

_OPEN_TOTAL = INDEX["exchanges_open"]
_UPSTREAM_ERRORS = INDEX["upstream_errors_total"]
_VOIDED = INDEX["voided_total"]
_BYTES_UP = INDEX["bytes_up_total"]


def begin_sending(exchange: "Exchange") -> Coroutine[Any, Any, None] | None:
    """Record `open` and `sent`, then send; what is returned must be awaited: no idle connection was there.

    Raises Refused (here or when awaited) after giving the hold back.
    """
    try:
        if exchange.worker.closed:
            raise Refused(Refusal.DRAINING, SHUTTING_DOWN, retry_after_s=1, close=True)
        pool, places, body = exchange.offer.pool, exchange.offer.places, exchange.request[1]
        if places:
            exchange.attempts = Attempts(exchange, places, body)
            return _begin_on_new(exchange, exchange.attempts)
        exchange.address(pool.endpoint, body)
        connection = pool.take()
        if connection is None:
            return _begin_on_new(exchange, pool)
        _record_open(exchange, connection)
    except BaseException:
        _void(exchange, "failed")
        raise
    return None


async def _begin_on_new(exchange: "Exchange", pool: "Pool | Attempts") -> None:
    worker = exchange.worker
    try:
        connection = await pool.connect()
    except UpstreamConnectError as error:
        _void(exchange, "no connection")
        worker.counters[_UPSTREAM_ERRORS] += 1
        _log.warning("%s: %s", exchange.id, error)
        raise Refused(Refusal.UPSTREAM_FAILED, UNREACHABLE) from None
    except BaseException:
        _void(exchange, "failed")
        raise
    if exchange.client.gone or worker.closed:
        connection.release(True)
        _void(exchange, "client gone" if exchange.client.gone else "stopped")
        return
    try:
        _record_open(exchange, connection)
    except BaseException:
        _void(exchange, "failed")
        raise


def _record_open(exchange: "Exchange", connection: "Connection") -> None:
    worker, key, offer, hold = exchange.worker, exchange.key, exchange.offer, exchange.hold
    opened = opened_payload(
        exchange.id,
        key.user,
        hold.wallet,
        key.digest[:16],
        offer.model_id,
        exchange.route.name,
        offer.price_version,
        offer.upstream,
        exchange.stream,
        exchange.started_ms,
        exchange.ask.input_estimate_tokens,
        hold.amount_pico,
    )
    exchange.connection = connection
    try:
        worker.books.record(offer.price_version)
        worker.journal.append_open(exchange.id, opened, exchange.opened)
    except FaultError as error:
        connection.release(True)
        _void(exchange, "journal failed")
        _log.error("journal: %s", error)
        raise Refused(Refusal.JOURNAL_UNAVAILABLE, NOT_RECORDED, retry_after_s=5) from None
    worker.exchanges[exchange.id] = exchange
    worker.counters[_OPEN_TOTAL] += 1


def send_recorded(exchange: "Exchange", error: Exception | None) -> None:
    """The journal holds `open` and `sent`: now, and only now, may a byte leave. Or it could not take them."""
    connection = exchange.connection
    if connection is None:
        return
    if exchange.settled or error is not None or exchange.client.gone:
        connection.release(True)
        _end_before_sending(exchange, error)
        return
    head, body = exchange.request
    try:
        if exchange.attempts is None:
            connection.send(head, body, exchange, None if exchange.stream else exchange.take_whole)
        else:
            connection.send(head, body, exchange.attempts)
    except UpstreamConnectError:
        exchange.worker.spawn(_send_on_another(exchange))
        return
    _was_sent(exchange)


def _end_before_sending(exchange: "Exchange", error: Exception | None) -> None:
    if error is None:
        end_unsent(exchange, "client gone", Refusal.INTERNAL, "")
    else:
        end_unsent(exchange, "journal failed", Refusal.JOURNAL_UNAVAILABLE, NOT_RECORDED)


async def _send_on_another(exchange: "Exchange") -> None:
    """The pooled connection had closed before anything was sent: a new one is safe."""
    try:
        attempts = exchange.attempts
        connection = await (exchange.offer.pool.connect() if attempts is None else attempts.connect_again())
        if exchange.settled or exchange.client.gone:
            connection.release(True)
            _end_before_sending(exchange, None)
            return
        connection.send(*exchange.request, attempts or exchange)
    except UpstreamConnectError as error:
        _log.warning("%s: %s", exchange.id, error)
        end_unsent(exchange, "no connection", Refusal.UPSTREAM_FAILED, UNREACHABLE)
        return
    exchange.connection = connection
    _was_sent(exchange)


def _was_sent(exchange: "Exchange") -> None:
    exchange.sent = True
    if exchange.added_ns:
        exchange.added_ns += monotonic_ns()
    exchange.worker.counters[_BYTES_UP] += len(exchange.request[1])
    exchange.request = (b"", b"")
    if exchange.client.gone:
        exchange.client_gone()
    else:
        exchange.client.on_gone = exchange.client_gone


def _void(exchange: "Exchange", reason: str) -> None:
    """End a hold of which nothing is in the journal, unless it has ended."""
    if exchange.settled:
        return
    exchange.settled = True
    exchange.worker.leases.void(exchange.key.user, exchange.hold)
    exchange.worker.counters[_VOIDED] += 1
    _log.info("%s voided: %s", exchange.id, reason)


def end_unsent(exchange: "Exchange", reason: str, refusal: Refusal, message: str) -> None:
    """End an exchange that is open in the journal but reached no upstream, unless it has ended."""
    if exchange.settled:
        return
    exchange.settled = True
    worker, client = exchange.worker, exchange.client
    worker.forget(exchange)
    worker.counters[_VOIDED] += 1
    worker.leases.void(exchange.key.user, exchange.hold, recorded=True)
    record_void(worker, Void(exchange.id, exchange.key.user, reason))
    if not client.gone:
        retry_after_s = 5 if refusal.value.status == 503 else None
        refused = Refused(refusal, message, retry_after_s=retry_after_s)
        client.answer(*render(refused, exchange.route.family, exchange.id))
