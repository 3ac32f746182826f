"""What an ended exchange is charged: a pure decision from what its answer said and how it ended.

The one place that knows which evidence a usage is, when an estimate stands in for it, when nothing is owed,
and when an operator must look. Amounts are pico-USD; nothing here moves money.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from farebox.meter import Charge, ModelPrice, PlainCharge, PriceError, Reading, charge_of
from farebox.meter.price_book import MEDIA_INPUT_KINDS, TOKEN_INPUT_KINDS
from farebox.proxy.admission import Ask, Model, variant_served

_ESTIMATE_BYTES_PER_TOKEN = 4
COUNT_PLAUSIBLE_MAX = 10**9
_FIRST_REDIRECT_STATUS = 300
_OUTPUT_KINDS = frozenset(("output", "audio_output", "image_output"))

PriceOf = Callable[[str], tuple[str, ModelPrice] | None]
"""Id and price in the book of another model, by any name: id, alias, or what the upstream calls it."""

_PROMPT_KINDS = (*TOKEN_INPUT_KINDS, *MEDIA_INPUT_KINDS)


@dataclass(slots=True)
class Ending:
    """How an exchange ended."""

    status: int
    cut_by_us: bool
    cut_by_upstream: bool


@dataclass(slots=True)
class Verdict:
    """What is owed. `quarantine` is empty, or why `amount_pico` (then 0) must be found by an operator.

    `used` says for people what was used at which price: `input=12@1.25 output=5@10`. `upstream_model` and
    `raw_usage` are the upstream's own words.

    Never changed once made; not frozen for speed, like `Ask`.
    """

    amount_pico: int
    counts: Mapping[str, int]
    others: Mapping[str, Mapping[str, int]]
    input_total: int
    evidence: str
    flags: tuple[str, ...]
    variant: str
    quarantine: str = ""
    used: str = ""
    upstream_model: str = ""
    raw_usage: str = ""


Judged = Verdict | PlainCharge
"""A verdict, or a plain exchange's charge: exact, at base prices, of one model."""


def verdict_of(
    reading: Reading,
    ending: Ending,
    ask: Ask,
    model: Model,
    price: ModelPrice,
    price_of: PriceOf,
    hold_pico: int,
) -> Verdict:
    """Charge what was reported; estimate what was delivered without a report; nothing for what failed."""
    verdict = _decided(reading, ending, ask, model, price, price_of, hold_pico)
    verdict.upstream_model, verdict.raw_usage = reading.model or "", reading.raw.decode("utf-8", "replace")
    return verdict


def _decided(
    reading: Reading,
    ending: Ending,
    ask: Ask,
    model: Model,
    price: ModelPrice,
    price_of: PriceOf,
    hold_pico: int,
) -> Verdict:
    variant, tier_flags = variant_served(
        model, ask.variant, reading.service_tier, reading.speed, reading.inference_geo
    )
    flags = (*reading.flags, *tier_flags)
    if reading.usage is not None and (reading.counts or not reading.output_bytes):
        counts, evidence = _reported(reading)
        if reading.final and evidence != "exact":
            flags = (*flags, "output_missing")
        return _priced(reading, counts, evidence, flags, variant, price, price_of)
    if _owes_nothing(reading, ending):
        return Verdict(0, {}, {}, 0, "none", flags, variant)
    if reading.usage is not None:
        flags = (*flags, "zero_usage")
    return _estimated(reading, ask, flags, variant, price, hold_pico)


def unjudged(reading: Reading) -> Verdict:
    """The verdict where none could be reached: an operator must look."""
    raw_usage = reading.raw.decode("utf-8", "replace")
    why = "the charge could not be computed"
    return Verdict(0, {}, {}, 0, "none", tuple(reading.flags), "", why, "", reading.model or "", raw_usage)


def used_text(lines: Sequence[tuple[str, int, str, str]]) -> str:
    """What was used at which price: `input=12@1.25 output=5@10`."""
    return " ".join([f"{kind}={count}@{price}" for kind, count, price, _ in lines])


def _owes_nothing(reading: Reading, ending: Ending) -> bool:
    """An upstream that failed before it said anything about usage is not paid for."""
    if ending.status >= _FIRST_REDIRECT_STATUS:
        return True
    if reading.output_bytes:
        return False
    return reading.failed or (ending.cut_by_upstream and not ending.cut_by_us)


def _reported(reading: Reading) -> tuple[dict[str, int], str]:
    """Counts as reported; where they are preliminary, output is at least what was delivered.

    So it is where the final usage denies any output although text was delivered (U30).
    """
    if reading.final and (not reading.output_bytes or not _OUTPUT_KINDS.isdisjoint(reading.counts)):
        return reading.counts, "exact"
    counts = dict(reading.counts)
    counts["output"] = max(counts.get("output", 0), _tokens(reading.output_bytes))
    return counts, "partial"


def _estimated(
    reading: Reading, ask: Ask, flags: tuple[str, ...], variant: str, price: ModelPrice, hold_pico: int
) -> Verdict:
    """Input as estimated from the request, output from the text delivered; never above the hold."""
    counts = {"input": ask.input_estimate_tokens, "output": _tokens(reading.output_bytes)}
    priced = _with_call({kind: count for kind, count in counts.items() if count}, price)
    charge = charge_of(price, priced, ask.input_estimate_tokens, variant or None)
    quarantine = _unpriced(charge)
    if charge.amount_pico > hold_pico:
        flags = (*flags, "capped_at_hold")
    if not reading.output_bytes:
        flags = (*flags, "unsure")
    amount_pico = 0 if quarantine else min(charge.amount_pico, hold_pico)
    return Verdict(
        amount_pico,
        priced,
        {},
        ask.input_estimate_tokens,
        "estimated",
        flags,
        variant,
        quarantine,
        used_text(charge.lines),
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
    others: Mapping[str, Mapping[str, int]] = reading.other_models
    amount_pico = 0
    lines: Sequence[tuple[str, int, str, str]] = ()
    try:
        quarantine = _implausible(counts)
        if not quarantine:
            charge = charge_of(price, counts, reading.input_total, variant or None)
            quarantine = _unpriced(charge)
            amount_pico, lines = charge.amount_pico, charge.lines
        if others and not quarantine:
            others, more_pico, more_lines, quarantine = _priced_others(others, price_of)
            amount_pico, lines = amount_pico + more_pico, [*lines, *more_lines]
    except PriceError as error:
        quarantine = str(error)
    if quarantine:
        amount_pico, lines = 0, ()
    return Verdict(
        amount_pico,
        counts,
        others,
        reading.input_total,
        evidence,
        flags,
        variant,
        quarantine,
        used_text(lines),
    )


def _priced_others(
    others: Mapping[str, Mapping[str, int]], price_of: PriceOf
) -> tuple[dict[str, Mapping[str, int]], int, list[tuple[str, int, str, str]], str]:
    """Sub-inferences at their own models' prices: counts by the book's ids, amount, lines, and why not if one
    cannot be priced.
    """
    amount_pico = 0
    by_id: dict[str, Mapping[str, int]] = {}
    lines: list[tuple[str, int, str, str]] = []
    for name, counts in others.items():
        found = price_of(name)
        if found is None or found[0] in by_id:
            return dict(others), 0, [], f"no price for tokens of model {name}"
        model, price = found
        charge = charge_of(price, counts, sum(counts.get(kind, 0) for kind in _PROMPT_KINDS))
        if charge.missing:
            return dict(others), 0, [], f"no price for {', '.join(charge.missing)} of model {name}"
        by_id[model] = counts
        amount_pico += charge.amount_pico
        lines += [(f"{model}:{kind}", count, unit, amount) for kind, count, unit, amount in charge.lines]
    return by_id, amount_pico, lines, ""


def _implausible(counts: Mapping[str, int]) -> str:
    for kind, count in counts.items():
        if count > COUNT_PLAUSIBLE_MAX:
            return f"implausible count of {kind}"
    return ""


def _unpriced(charge: Charge) -> str:
    return f"no price for {', '.join(charge.missing)}" if charge.missing else ""


def _with_call(counts: Mapping[str, int], price: ModelPrice) -> Mapping[str, int]:
    return {**counts, "call": 1} if "call" in price.lines else counts


def _tokens(output_bytes: int) -> int:
    return -(-output_bytes // _ESTIMATE_BYTES_PER_TOKEN)
