"""The common exchange, decided in two compiled calls instead of twenty small ones.

Plain is a request of text alone, without tools and price fields, and an answer with the final usage of one
model at the base price. `PlainTerms.ask` stands for `admission.ask_of`, `plain_charge` for
`verdict.verdict_of` on the tap's reading. Those two are the reference, and get everything that is not plain;
tests/proxy/test_plain.py holds both ways equal over generated requests and answers.
"""

from farebox.base import limits
from farebox.meter import ModelPrice, Pipe, PlainCharge, PlainTerms, Scan, plain_charge, whole_answer
from farebox.meter.estimate import INPUT_BOUNDS
from farebox.proxy.admission import (
    BASE_VALUES,
    ESTIMATE_BYTES_PER_TOKEN,
    NO_FEES,
    Ask,
    Model,
    ask_of,
)
from farebox.proxy.verdict import COUNT_PLAUSIBLE_MAX


def plain_terms(model: Model, wire_format: str, price: ModelPrice) -> PlainTerms | None:
    """The terms of a model on a wire format; None where its exchanges are never plain."""
    if model.priced_fields or "call" in price.lines:
        return None
    bound = INPUT_BOUNDS[wire_format]
    has_output = wire_format != "embeddings"
    return PlainTerms(
        price.price,
        input_bound=(
            bound.request_tokens,
            bound.message_tokens,
            bound.envelope_bytes,
            bound.message_bytes,
            min(model.input_bytes_per_token, bound.bytes_per_token),
        ),
        context_tokens=model.context_tokens,
        assumed_output_tokens=model.assumed_output_tokens,
        output_tokens_max=model.max_output_tokens if has_output else 0,
        slice_output_tokens=limits.stream_slice_output_tokens,
        estimate_bytes_per_token=ESTIMATE_BYTES_PER_TOKEN,
        rates=[
            (rates.reached_tokens, rates.input_pico, rates.output_pico)
            for rates in price.rates
            if not rates.variant
        ],
        plain_tiers=sorted(BASE_VALUES["service_tier"]),
        count_max=COUNT_PLAUSIBLE_MAX,
    )


def plain_ask(terms: PlainTerms | None, scan: Scan, wire_format: str, model: Model, price: ModelPrice) -> Ask:
    """What `ask_of` decides, in one call where the request is plain. Raises Refused UNPRICED_FIELD."""
    parts = None if terms is None else terms.ask(scan)
    if parts is None:
        return ask_of(scan, wire_format, model, price)
    input_tokens, output_tokens, first_output_tokens, hold_pico, estimate_tokens = parts
    return Ask(
        input_tokens,
        output_tokens,
        first_output_tokens,
        hold_pico,
        estimate_tokens,
        "",
        False,
        scan.choices,
        NO_FEES,
    )


def plain_verdict(terms: PlainTerms | None, ask: Ask, tap: Pipe) -> PlainCharge | None:
    """What `verdict_of` decides of the tap's reading, however the exchange ended, if it is plain."""
    return None if terms is None or ask.variant else plain_charge(terms, tap)


def plain_answer(
    terms: PlainTerms | None, ask: Ask, wire_format: str, data: bytes, own_lines: bytes
) -> tuple[int, bytes, bytes, PlainCharge, str, bool] | None:
    """The whole answer in `data`, if it is one and plain (see `whole_answer`)."""
    if terms is None or ask.variant:
        return None
    return whole_answer(
        data,
        terms,
        wire_format,
        own_lines,
        head_bytes_max=limits.response_head_bytes_max,
        headers_max=limits.response_headers_max,
        body_bytes_max=limits.answer_held_bytes_max,
        request_id_bytes_max=limits.upstream_request_id_bytes_max,
    )
