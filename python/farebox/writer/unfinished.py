"""How an exchange ends whose process died: the decision alone, pure (MONEY section 8, step 5).

An exchange that was opened and never sent is voided: nothing reached the upstream (J05). One that was
sent is charged its input estimate and the output seen so far, at most its hold, as `estimated`; without any
progress seen it is also `unsure` (J06, J07). Without prices it is quarantined with its hold. Nothing is ever
silently free (M5).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from farebox.base.errors import FareboxError
from farebox.base.records import Opened, Settlement, Void
from farebox.meter.price_book import ModelPrice, charge_of
from farebox.writer.flags import CAPPED, UNSURE

OUTCOME: Final = "recovered"
"""Outcome of settlements made here, and reason of voids."""

PriceOf = Callable[[int, str], ModelPrice | None]
"""(price version, model) -> prices, from the journal's own `prices` frames (hole 31)."""


class Unfinished(NamedTuple):
    """An `open` without its end. `output_tokens`: what progress frames saw; None when there was none."""

    opened: Opened
    is_sent: bool
    output_tokens: int | None


def close_open_exchanges(
    unfinished: Iterable[Unfinished], now_ms: int, price_of: PriceOf
) -> list[Settlement | Void]:
    """One end for each exchange, in their order."""
    return [_end(one, now_ms, price_of) for one in unfinished]


def _end(one: Unfinished, now_ms: int, price_of: PriceOf) -> Settlement | Void:
    if not one.is_sent:
        return Void(one.opened.exchange, one.opened.user, OUTCOME)
    price = price_of(one.opened.price_version, one.opened.model)
    if price is None:
        reason = f"prices of {one.opened.model}, version {one.opened.price_version}, are not in the journal"
        return _quarantined(one, now_ms, "1", reason)
    counts = _counts(one, price)
    try:
        charge = charge_of(price, counts, counts.get("input", 0))
    except (FareboxError, ValueError) as error:
        return _quarantined(one, now_ms, price.multiplier, str(error))
    if charge.missing:
        reason = f"no price for {', '.join(charge.missing)}"
        return _quarantined(one, now_ms, price.multiplier, reason)
    return _settlement(
        one,
        now_ms,
        multiplier=price.multiplier,
        counts=counts,
        charge_pico=charge.amount_pico,
        free=price.free,
    )


def _counts(one: Unfinished, price: ModelPrice) -> dict[str, int]:
    """The estimate in normal form: kinds that occur."""
    counts = {
        "input": one.opened.input_estimate_tokens,
        "output": one.output_tokens or 0,
        "call": int("call" in price.lines),
    }
    return {kind: count for kind, count in counts.items() if count}


def _quarantined(one: Unfinished, now_ms: int, multiplier: str, reason: str) -> Settlement:
    """For an operator to decide; asks for the whole hold to be set aside until then."""
    hold_pico = one.opened.hold_pico
    return _settlement(one, now_ms, multiplier=multiplier, charge_pico=hold_pico, quarantine=reason)


def _settlement(
    one: Unfinished,
    now_ms: int,
    *,
    multiplier: str,
    counts: Mapping[str, int] | None = None,
    charge_pico: int = 0,
    quarantine: str = "",
    free: bool = False,
) -> Settlement:
    """The record; it takes from no lot: the writer finds the money in the journal's own lease."""
    opened, counts = one.opened, counts or {}
    amount_pico = min(charge_pico, opened.hold_pico)
    flags = [UNSURE] if one.output_tokens is None else []
    if amount_pico < charge_pico:
        flags.append(CAPPED)
    return Settlement(
        exchange=opened.exchange,
        user=opened.user,
        wallet=opened.wallet,
        key=opened.key,
        model=opened.model,
        wire_format=opened.wire_format,
        price_version=opened.price_version,
        multiplier=multiplier,
        evidence="estimated",
        flags=tuple(flags),
        counts=counts,
        others={},
        input_total=counts.get("input", 0),
        variant="",
        amount_pico=amount_pico,
        takes=(),
        quarantine=quarantine,
        outcome=OUTCOME,
        status=0,
        upstream=opened.upstream,
        upstream_model="",
        upstream_request="",
        stream=opened.stream,
        started_ms=opened.started_ms,
        first_byte_ms=0,
        ended_ms=now_ms,
        free=free,
    )
