"""How an exchange ends on record: its hold is posted, its settlement goes into the journal, then it counts.

A settlement the disk does not take is tried again until it does; its client was cut off meanwhile, and its
money serves nobody before the record stands.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from farebox.base import frames, limits
from farebox.base.counters import INDEX, TOKENS, add_charge
from farebox.base.errors import FaultError
from farebox.base.records import Void, settlement_payload
from farebox.meter import PlainCharge
from farebox.proxy.settlement_log import settlement_line

if TYPE_CHECKING:
    from farebox.proxy.exchange import Exchange
    from farebox.proxy.user_money import Unbooked
    from farebox.proxy.verdict import Judged, Verdict
    from farebox.proxy.worker import Worker

_log = logging.getLogger("farebox.settle")

_RECORD_AGAIN_S = 0.5
_EXCHANGES = INDEX["exchanges_total"]
_LATENCY_MS = INDEX["latency_ms_total"]
_QUARANTINED = INDEX["quarantined_total"]
_BY_EVIDENCE = {
    "exact": INDEX["settled_exact_total"],
    "partial": INDEX["settled_partial_total"],
    "estimated": INDEX["settled_estimated_total"],
    "none": INDEX["voided_total"],
}


def record_settlement(worker: "Worker", exchange: "Exchange", judged: "Judged") -> None:
    """End the hold by what was judged and queue the settlement for the journal; `exchange.recorded` is told.

    Raises the journal's errors.
    """
    now_ms = exchange.ended_ms = worker.wall_ms()
    user, hold = exchange.key.user, exchange.hold
    if judged.quarantine:
        record = worker.leases.reserve(user, exchange.id, hold, now_ms)
    else:
        record = worker.leases.settle(user, exchange.id, hold, judged.amount_pico, now_ms)
    exchange.judged = judged
    exchange.record = record
    if isinstance(judged, PlainCharge):
        exchange.payload, exchange.log_line = judged.settlement(
            exchange.offer.wording,
            exchange.id,
            user,
            exchange.key.digest[:16],
            record.takes,
            record.remaining_pico,
            exchange.outcome,
            exchange.status,
            exchange.upstream_request,
            exchange.stream,
            exchange.started_ms,
            exchange.first_byte_ms,
            now_ms,
        )
    else:
        exchange.payload = _payload(exchange, judged, record)
        exchange.log_line = settlement_line(
            exchange.id,
            user,
            exchange.offer.model_id,
            judged,
            exchange.outcome,
            exchange.offer.price.multiplier,
            record.takes,
            record.remaining_pico,
        )
    worker.journal.append_settle(exchange.id, exchange.payload, exchange.recorded)


def _payload(exchange: "Exchange", judged: "Verdict", record: "Unbooked") -> bytes:
    key, offer = exchange.key, exchange.offer
    return settlement_payload(
        exchange.id,
        key.user,
        exchange.hold.wallet,
        key.digest[:16],
        offer.model_id,
        exchange.route.name,
        offer.price_version,
        offer.price.multiplier,
        judged.evidence,
        judged.flags,
        judged.counts,
        judged.others,
        judged.input_total,
        judged.variant,
        judged.amount_pico,
        record.takes,
        judged.quarantine,
        exchange.outcome,
        exchange.status,
        offer.upstream,
        judged.upstream_model[: limits.model_name_bytes_max],
        exchange.upstream_request,
        exchange.stream,
        exchange.started_ms,
        exchange.first_byte_ms,
        exchange.ended_ms,
        judged.raw_usage,
        offer.price.free,
    )


def count_settled(worker: "Worker", exchange: "Exchange") -> None:
    """The settlement is in the journal: what it freed may serve others; count it and log its line."""
    judged, record = exchange.judged, exchange.record
    if judged is None or record is None:
        return
    worker.leases.written(exchange.key.user, record, worker.journal.last_pos)
    worker.settlement_log.add(exchange.log_line)
    latency_ms = exchange.ended_ms - exchange.started_ms
    if isinstance(judged, PlainCharge):
        worker.tally.settled(judged, latency_ms)
        return
    counters = worker.counters
    counters[_EXCHANGES] += 1
    counters[_LATENCY_MS] += latency_ms
    add_charge(counters, judged.amount_pico)
    counters[_BY_EVIDENCE[judged.evidence]] += 1
    if judged.quarantine:
        counters[_QUARANTINED] += 1
        return
    for kind, count in judged.counts.items():
        index = TOKENS.get(kind)
        if index is not None:
            counters[index] += count


async def record_again(worker: "Worker", exchange: "Exchange") -> None:
    """The disk did not take the settlement: try until it does."""
    if await _append_again(worker, frames.SETTLE, exchange.payload):
        count_settled(worker, exchange)
    else:
        worker.leases.unwritten(exchange.key.user)


def record_void(worker: "Worker", void: Void) -> None:
    """Record that an exchange reached no upstream; its money goes back to the store only after that."""

    def written(error: Exception | None) -> None:
        if error is None:
            worker.leases.void_written(void.user, worker.journal.last_pos)
        else:
            worker.spawn(_record_void_again(worker, void))

    try:
        worker.journal.append(frames.VOID, void.encode(), written)
    except FaultError as error:
        _log.error("%s: the void could not be recorded: %s", void.exchange, error)


async def _record_void_again(worker: "Worker", void: Void) -> None:
    if await _append_again(worker, frames.VOID, void.encode()):
        worker.leases.void_written(void.user, worker.journal.last_pos)


async def _append_again(worker: "Worker", kind: int, payload: bytes) -> bool:
    """Append until the disk takes it; False when the journal is broken for good."""
    while True:
        await asyncio.sleep(_RECORD_AGAIN_S)
        outcome: asyncio.Future[Exception | None] = worker.loop.create_future()
        try:
            worker.journal.append(kind, payload, outcome.set_result)
        except FaultError:
            return False
        if await outcome is None:
            return True
