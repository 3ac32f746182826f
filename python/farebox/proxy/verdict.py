"""What an ended exchange is charged: a pure decision from what its answer said and how it ended.

The one place that knows which evidence a usage is, when an estimate stands in for it, when nothing is owed, and when
an operator must look. Amounts are pico-USD; nothing here moves money.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from farebox.meter import Charge, ModelPrice, PriceError, Reading, charge_of
from farebox.proxy.admission import Ask, Model, variant_served

_ESTIMATE_BYTES_PER_TOKEN = 4
_COUNT_PLAUSIBLE_MAX = 10**9
_FIRST_ERROR_STATUS = 400

PriceOf = Callable[[str], ModelPrice | None]
"""Price of another model by its id, as the upstream or the configuration names it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How an exchange ended."""

    status: int
    cut_by_us: bool
    cut_by_upstream: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is owed. `quarantine` is empty, or why `amount_pico` (then 0) must be found by an operator."""

    amount_pico: int
    counts: Mapping[str, int]
    others: Mapping[str, Mapping[str, int]]
    input_total: int
    evidence: str
    flags: tuple[str, ...]
    variant: str
    quarantine: str = ""
    lines: tuple[tuple[str, int, str, str], ...] = field(default=())


def verdict_of(
    reading: Reading, ending: Ending, ask: Ask, model: Model, price: ModelPrice, price_of: PriceOf, hold_pico: int
) -> Verdict:
    """Charge what was reported; estimate what was delivered without a report; nothing for what failed."""
    variant, tier_flags = variant_served(
        model,
        ask.variant,
        {
            "service_tier": reading.service_tier,
            "speed": reading.speed,
            "inference_geo": reading.inference_geo,
        },
    )
    flags = (*reading.flags, *tier_flags)
    if reading.usage is not None:
        counts, evidence = _reported(reading)
        return _priced(reading, counts, evidence, flags, variant, price, price_of)
    if _owes_nothing(reading, ending):
        return Verdict(0, {}, {}, 0, "none", flags, variant)
    return _estimated(reading, ask, flags, variant, price, hold_pico)


def _owes_nothing(reading: Reading, ending: Ending) -> bool:
    """An upstream that failed before it said anything about usage is not paid for (DESIGN section 2)."""
    if ending.status >= _FIRST_ERROR_STATUS:
        return True
    if reading.output_bytes:
        return False
    return reading.failed or (ending.cut_by_upstream and not ending.cut_by_us)


def _reported(reading: Reading) -> tuple[dict[str, int], str]:
    """Counts as reported; where they are preliminary, output is at least what was delivered."""
    if reading.final:
        return reading.counts, "exact"
    counts = dict(reading.counts)
    counts["output"] = max(counts.get("output", 0), _tokens(reading.output_bytes))
    return counts, "partial"


def _estimated(
    reading: Reading, ask: Ask, flags: tuple[str, ...], variant: str, price: ModelPrice, hold_pico: int
) -> Verdict:
    counts = {"input": ask.input_estimate_tokens, "output": _tokens(reading.output_bytes)}
    counts = {kind: count for kind, count in counts.items() if count}
    charge = charge_of(price, _with_call(counts, price), ask.input_estimate_tokens, variant or None)
    if charge.missing:
        return _quarantined(counts, {}, ask.input_estimate_tokens, "estimated", flags, variant, charge)
    return Verdict(
        min(charge.amount_pico, hold_pico),
        _with_call(counts, price),
        {},
        ask.input_estimate_tokens,
        "estimated",
        flags if charge.amount_pico <= hold_pico else (*flags, "capped_at_hold"),
        variant,
        lines=tuple(charge.lines),
    )


def _priced(
    reading: Reading,
    counts: Mapping[str, int],
    evidence: str,
    flags: tuple[str, ...],
    variant: str,
    price: ModelPrice,
    price_of: PriceOf,
) -> Verdict:
    counts = _with_call(counts, price)
    implausible = [kind for kind, count in counts.items() if count > _COUNT_PLAUSIBLE_MAX]
    if implausible:
        return Verdict(
            0, counts, reading.other_models, reading.input_total, evidence, flags, variant,
            f"implausible count of {', '.join(implausible)}",
        )  # fmt: skip
    try:
        charge = charge_of(price, counts, reading.input_total, variant or None)
        if charge.missing:
            return _quarantined(
                counts, reading.other_models, reading.input_total, evidence, flags, variant, charge
            )
        amount_pico, lines = charge.amount_pico, list(charge.lines)
        for name, other_counts in reading.other_models.items():
            other = price_of(name)
            other_charge = None if other is None else charge_of(other, other_counts, sum(other_counts.values()))
            if other_charge is None or other_charge.missing:
                return Verdict(
                    0, counts, reading.other_models, reading.input_total, evidence, flags, variant,
                    f"no price for tokens of model {name}",
                )  # fmt: skip
            amount_pico += other_charge.amount_pico
            lines += [(f"{name}:{kind}", *rest) for kind, *rest in other_charge.lines]  # type: ignore[misc]
    except PriceError as error:
        return Verdict(
            0, counts, reading.other_models, reading.input_total, evidence, flags, variant, str(error)
        )
    return Verdict(
        amount_pico, counts, reading.other_models, reading.input_total, evidence, flags, variant,
        lines=tuple(lines),
    )  # fmt: skip


def _quarantined(
    counts: Mapping[str, int],
    others: Mapping[str, Mapping[str, int]],
    input_total: int,
    evidence: str,
    flags: tuple[str, ...],
    variant: str,
    charge: Charge,
) -> Verdict:
    reason = f"no price for {', '.join(charge.missing)}"
    return Verdict(0, counts, others, input_total, evidence, flags, variant, reason)


def _with_call(counts: Mapping[str, int], price: ModelPrice) -> Mapping[str, int]:
    return {**counts, "call": 1} if "call" in price.lines else counts


def _tokens(output_bytes: int) -> int:
    return -(-output_bytes // _ESTIMATE_BYTES_PER_TOKEN)
