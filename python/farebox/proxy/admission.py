"""What a request asks for, before any money moves: pure decisions from scan, model row and price.

The one place that decides which price-changing fields pass, how much is held for a request, and what a
refused caller is told he could afford.
"""

from collections.abc import Mapping
from typing import Protocol

from farebox.base import limits
from farebox.base.errors import Refusal, Refused
from farebox.base.units import usd_from_pico, usd_rounded
from farebox.meter import (
    ModelPrice,
    Scan,
    fitting_output_tokens,
    hold_bound_pico,
    input_bound,
    output_bound,
    tool_fee_kind,
    tool_fees,
)

BASE_VALUES: Mapping[str, frozenset[str]] = {
    "service_tier": frozenset(("auto", "default", "standard", "standard_only", "null")),
    "speed": frozenset(("standard", "null")),
    "inference_geo": frozenset(("global", "default", "null")),
    "background": frozenset(("false", "null")),
}
"""Values of price-changing fields that mean the base price."""

_PLAIN_TIERS = frozenset((None, *BASE_VALUES["service_tier"]))

NO_FEES: Mapping[str, int] = {}
ESTIMATE_BYTES_PER_TOKEN = 4
_ESTIMATE_IMAGE_TOKENS = 1_000


class Model(Protocol):
    """The part of a configured model row that admission needs."""

    @property
    def id(self) -> str: ...
    @property
    def priced_fields(self) -> Mapping[str, Mapping[str, str]]: ...
    @property
    def context_tokens(self) -> int | None: ...
    @property
    def max_output_tokens(self) -> int | None: ...
    @property
    def assumed_output_tokens(self) -> int: ...
    @property
    def input_bytes_per_token(self) -> int: ...


class Ask:
    """What an exchange may cost: bounds for its hold, an estimate for when nothing better is ever known.

    Never changed once made.
    """

    __slots__ = (
        "choices",
        "fees",
        "first_output_tokens",
        "hold_pico",
        "input_estimate_tokens",
        "input_tokens",
        "media",
        "output_tokens",
        "variant",
    )

    def __init__(
        self,
        input_tokens: int,
        output_tokens: int,
        first_output_tokens: int,
        hold_pico: int,
        input_estimate_tokens: int,
        variant: str,
        media: bool,
        choices: int,
        fees: Mapping[str, int],
    ) -> None:
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.first_output_tokens = first_output_tokens
        self.hold_pico = hold_pico
        self.input_estimate_tokens = input_estimate_tokens
        self.variant = variant
        self.media = media
        self.choices = choices
        self.fees = fees


def ask_of(scan: Scan, wire_format: str, model: Model, price: ModelPrice) -> Ask:
    """Bounds and first hold of a request. Raises Refused UNPRICED_FIELD."""
    fields, hosted_tools = scan.price_fields, scan.hosted_tools
    variant = variant_asked(fields, model) if fields else ""
    fees = NO_FEES
    if hosted_tools:
        _check_tools(hosted_tools, price)
        fees = tool_fees(hosted_tools)
    input_tokens = input_bound(
        scan,
        wire_format,
        context_tokens=model.context_tokens,
        input_bytes_per_token=model.input_bytes_per_token,
    )
    output_tokens = output_bound(scan, wire_format, model.assumed_output_tokens, model.max_output_tokens)
    first_output_tokens = output_tokens
    if scan.stream:
        first_output_tokens = min(output_tokens, limits.stream_slice_output_tokens * scan.choices)
    media = bool(scan.image_count or scan.audio_count or scan.file_count)
    return Ask(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        first_output_tokens=first_output_tokens,
        hold_pico=hold_bound_pico(
            price, input_tokens, first_output_tokens, fees, variant=variant or None, media=media
        ),
        input_estimate_tokens=min(input_tokens, _input_estimate(scan)),
        variant=variant,
        media=media,
        choices=scan.choices,
        fees=fees,
    )


def hold_needed_pico(ask: Ask, price: ModelPrice, output_tokens: int) -> int:
    """The hold for an exchange that may reach `output_tokens` (at most its bound)."""
    return hold_bound_pico(
        price,
        ask.input_tokens,
        min(output_tokens, ask.output_tokens),
        ask.fees,
        variant=ask.variant or None,
        media=ask.media,
    )


def variant_asked(price_fields: Mapping[str, str], model: Model) -> str:
    """Name of the price variant the request's fields choose; "" for the base price.

    Raises Refused UNPRICED_FIELD for a value this model does not price, or for two variants at once.
    """
    variants: list[str] = []
    for name, value in price_fields.items():
        if value in BASE_VALUES.get(name, ()):
            continue
        variant = model.priced_fields.get(name, {}).get(value)
        if variant is None:
            raise Refused(
                Refusal.UNPRICED_FIELD,
                f"The field {name} with this value is not offered for model {model.id}; leave it out.",
                details={"param": name},
            )
        variants.append(variant)
    if len(variants) > 1:
        names = " and ".join(sorted(price_fields))
        raise Refused(Refusal.UNPRICED_FIELD, f"Use only one of {names}; they are not priced together.")
    return variants[0] if variants else ""


def variant_served(
    model: Model, asked: str, service_tier: str | None, speed: str | None, inference_geo: str | None
) -> tuple[str, tuple[str, ...]]:
    """The variant to price by: what the answer says was served, else what was asked (R10); with flags.

    A served value that this model does not price keeps the variant asked for, flagged.
    """
    if (
        not asked
        and not model.priced_fields
        and service_tier in _PLAIN_TIERS
        and not speed
        and not inference_geo
    ):
        return "", ()
    flags: list[str] = []
    base_said = False
    served = {"service_tier": service_tier, "speed": speed, "inference_geo": inference_geo}
    for name, value in served.items():
        if value is None:
            continue
        priced = model.priced_fields.get(name, {})
        if value in priced:
            return priced[value], ()
        if value in BASE_VALUES.get(name, ()):
            base_said = base_said or asked in priced.values()
        else:
            flags.append(f"unpriced_{name}")
    return ("" if base_said and not flags else asked), tuple(flags)


def _check_tools(hosted_tools: list[str], price: ModelPrice) -> None:
    for tool in hosted_tools:
        kind = tool_fee_kind(tool)
        if kind is None or (kind and kind not in price.lines):
            raise Refused(
                Refusal.UNPRICED_FIELD,
                f"The hosted tool {tool[:64]} is not offered for this model; remove it from tools.",
                details={"param": "tools"},
            )


def _input_estimate(scan: Scan) -> int:
    return -(-scan.text_bytes // ESTIMATE_BYTES_PER_TOKEN) + scan.image_count * _ESTIMATE_IMAGE_TOKENS


def short_of_money(
    ask: Ask, price: ModelPrice, *, wallet: str, remaining_pico: int, held_pico: int, expired: bool
) -> Refused:
    """The 402 for a wallet that cannot hold what `ask` needs; amounts as decimal USD strings."""
    free_pico = max(0, remaining_pico - held_pico)
    details: dict[str, object] = {
        "wallet": wallet,
        "remaining": usd_from_pico(max(0, remaining_pico)),
        "held": usd_from_pico(held_pico),
        "needed": usd_from_pico(ask.hold_pico),
    }
    if expired:
        return Refused(
            Refusal.CREDITS_EXPIRED, "Your credits have expired. Buy credits to go on.", details=details
        )
    if remaining_pico <= 0:
        shown = usd_rounded(max(0, remaining_pico), 2)
        details["balance"] = _number(shown)
        return Refused(
            Refusal.POOL_EMPTY, f"Insufficient credits. Your balance is ${shown}.", details=details
        )
    fitting = fitting_output_tokens(
        price,
        ask.input_tokens,
        free_pico,
        ask.fees,
        choices=ask.choices,
        variant=ask.variant or None,
        media=ask.media,
    )
    details["max_tokens"] = min(fitting, ask.output_tokens)
    cost, balance = usd_rounded(ask.hold_pico, 4), usd_rounded(free_pico, 4)
    remedy = "Lower max_tokens" if details["max_tokens"] else "Shorten the input"
    return Refused(
        Refusal.BALANCE_SHORT,
        f"This request may cost up to ${cost}, and ${balance} of your balance is free. "
        f"{remedy}, wait for running requests to finish, or buy credits.",
        details=details,
    )


def _number(decimal_text: str) -> float:
    """The replaced system's contract has a JSON number here; it is shown, never reckoned with."""
    return float(decimal_text)
