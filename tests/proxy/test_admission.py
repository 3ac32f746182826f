"""Promise M2, B11: what is held bounds what may be charged, and a field that changes the price is priced or
refused.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from farebox.base.errors import Refusal, Refused
from farebox.base.limits import stream_slice_output_tokens
from farebox.meter import model_price, scan
from farebox.proxy.admission import ask_of, hold_needed_pico, short_of_money, variant_asked, variant_served

LINES = {"input": "1", "output": "2", "web_search": "0.01"}
PRICE = model_price({"lines": LINES, "multiplier": "1", "variants": {"priority": {"output": "4"}}})
FREE_OF_TOOLS = model_price({"lines": {"input": "1", "output": "2"}, "multiplier": "1"})
TIERS = {"service_tier": {"priority": "priority"}, "speed": {"fast": "priority"}}


@dataclass
class Model:
    id: str = "m"
    priced_fields: dict[str, dict[str, str]] = field(default_factory=lambda: dict(TIERS))
    context_tokens: int | None = None
    max_output_tokens: int | None = 1000
    assumed_output_tokens: int = 100
    input_bytes_per_token: int = 1


def ask(price: Any = PRICE, **members: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 100}], **members}
    return ask_of(scan(json.dumps(body).encode(), "chat"), "chat", Model(), price)


def refused(**members: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        ask(**members)
    assert caught.value.refusal is Refusal.UNPRICED_FIELD
    return caught.value


def test_L10_a_plain_request_holds_its_bound_and_a_stream_its_first_slice() -> None:
    plain, stream = ask(max_tokens=900, n=2), ask(max_tokens=900, stream=True)
    assert plain.output_tokens == plain.first_output_tokens == 1800
    assert stream.first_output_tokens == stream_slice_output_tokens
    assert plain.hold_pico == hold_needed_pico(plain, PRICE, 1800) > hold_needed_pico(plain, PRICE, 900)
    assert hold_needed_pico(stream, PRICE, 10**6) == hold_needed_pico(stream, PRICE, 900)
    assert plain.input_tokens >= 100 >= plain.input_estimate_tokens


def test_B11_a_tier_is_priced_by_its_own_lines_or_refused() -> None:
    assert ask(service_tier="priority").hold_pico > ask(service_tier="default").hold_pico
    assert refused(service_tier="flex").details == {"param": "service_tier"}
    with pytest.raises(Refused):
        variant_asked({"service_tier": "priority", "speed": "fast"}, Model())
    assert variant_asked({"service_tier": "auto", "background": "false"}, Model()) == ""


def test_B11_a_hosted_tool_is_priced_or_refused() -> None:
    searching = [{"type": "web_search"}]
    body = json.dumps({"model": "m", "input": "x", "tools": searching}).encode()
    assert ask_of(scan(body, "responses"), "responses", Model(), PRICE).fees
    unknown = json.dumps({"model": "m", "input": "x", "tools": [{"type": "time_machine"}]}).encode()
    for sent, price in ((body, FREE_OF_TOOLS), (unknown, PRICE)):
        with pytest.raises(Refused):
            ask_of(scan(sent, "responses"), "responses", Model(), price)


@pytest.mark.parametrize(
    ("asked", "tier", "speed", "served", "flags"),
    [
        ("", None, None, "", ()),
        ("", "priority", None, "priority", ()),
        ("priority", "default", None, "", ()),
        ("priority", "mystery", None, "priority", ("unpriced_service_tier",)),
        ("priority", "default", "mystery", "priority", ("unpriced_speed",)),
        ("priority", None, None, "priority", ()),
    ],
)
def test_R10_what_was_served_is_priced_not_what_was_asked(
    asked: str, tier: str | None, speed: str | None, served: str, flags: tuple[str, ...]
) -> None:
    assert variant_served(Model(), asked, tier, speed, None) == (served, flags)


def test_R10_a_model_without_variants_serves_the_base_price() -> None:
    assert variant_served(Model(priced_fields={}), "", "default", None, None) == ("", ())


def test_402_says_what_would_fit() -> None:
    wanted = ask(max_tokens=900)
    free_pico = hold_needed_pico(wanted, PRICE, 500)
    short = short_of_money(wanted, PRICE, wallet="w", remaining_pico=free_pico, held_pico=0, expired=False)
    assert short.refusal is Refusal.BALANCE_SHORT
    assert short.details["max_tokens"] == 500
    held = short_of_money(
        wanted, PRICE, wallet="w", remaining_pico=free_pico, held_pico=free_pico, expired=False
    )
    assert held.details["max_tokens"] == 0
    expired = short_of_money(wanted, PRICE, wallet="w", remaining_pico=0, held_pico=0, expired=True)
    empty = short_of_money(wanted, PRICE, wallet="w", remaining_pico=-5, held_pico=0, expired=False)
    assert (expired.refusal, empty.refusal) == (Refusal.CREDITS_EXPIRED, Refusal.POOL_EMPTY)
    assert empty.details["remaining"] == "0"
