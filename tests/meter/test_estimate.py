"""Holds are upper bounds: no usage within the bounds of a request costs more than its hold (M2)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.base.errors import InvariantBrokenError
from farebox.meter import (
    charge_of,
    fitting_output_tokens,
    hold_bound_pico,
    input_bound,
    model_price,
    output_bound,
    scan,
    tool_fee_kind,
    tool_fees,
)
from farebox.meter.estimate import CONTEXT_TOKENS_UNKNOWN, HOSTED_TOOL_CALLS, INPUT_BOUNDS, OUTPUT_TOKENS_MAX

ENTRY: dict[str, Any] = {
    "lines": {
        "input": "3.33",
        "output": "15.7",
        "cache_read": "0.3",
        "cache_write_5m": "3.75",
        "cache_write_1h": "6",
        "audio_input": "40",
        "audio_output": "80",
        "web_search": "0.01",
        "call": "0.0001",
    },
    "multiplier": "1.05",
    "tiers": [(1000, False, {"input": "7", "output": "23"}), (5000, True, {"cache_write_5m": "9.13"})],
    "variants": {
        "flex": {"input": "1"},
        "priority": {"output": "33"},
        "priority@1000": {"output": "50"},
        "priority@5000": {"output": "51"},
    },
}
PRICE = model_price(ENTRY)
KINDS = ("input", "cache_read", "cache_write_5m", "cache_write_1h")


def facts(body: dict[str, Any], wire_format: str = "chat") -> Any:
    return scan(json.dumps({"model": "m", **body}).encode(), wire_format)


@given(
    st.lists(st.integers(0, 3000), min_size=4, max_size=4),
    st.integers(0, 5000),
    st.integers(0, 5),
    st.sampled_from([None, "priority", "unheard of"]),
    st.integers(0, 100),
)
def test_M2_no_usage_within_the_bounds_costs_more_than_the_hold(
    inputs: list[int], output: int, searches: int, variant: str | None, spare: int
) -> None:
    counts = dict(zip(KINDS, inputs, strict=True)) | {"output": output, "web_search": searches, "call": 1}
    total = sum(inputs)
    charge = charge_of(PRICE, counts, total, variant)
    hold = hold_bound_pico(PRICE, total + spare, output + spare, {"web_search": 5}, variant=variant)
    assert charge.missing == []
    assert charge.amount_pico <= hold


def test_holds_cover_media_only_when_there_is_some() -> None:
    counts = {"audio_input": 100, "audio_output": 100, "call": 1}
    charge = charge_of(PRICE, counts, 100).amount_pico
    assert charge == hold_bound_pico(PRICE, 100, 100, media=True)
    assert charge > hold_bound_pico(PRICE, 100, 100)


def test_a_hold_for_a_tool_without_a_price_is_a_fault_of_the_caller() -> None:
    with pytest.raises(InvariantBrokenError):
        hold_bound_pico(PRICE, 1, 1, {"file_search": 1})


@given(
    st.integers(0, 8000),
    st.integers(0, 10**12),
    st.integers(1, 4),
    st.sampled_from([None, "priority"]),
    st.booleans(),
)
def test_the_fitting_limit_fits_and_one_more_does_not(
    input_tokens: int, remaining_pico: int, choices: int, variant: str | None, media: bool
) -> None:
    def hold(limit: int) -> int:
        return hold_bound_pico(
            PRICE, input_tokens, limit * choices, {"web_search": 1}, variant=variant, media=media
        )

    limit = fitting_output_tokens(
        PRICE, input_tokens, remaining_pico, {"web_search": 1}, choices=choices, variant=variant, media=media
    )
    assert limit == 0 or hold(limit) <= remaining_pico
    assert hold(limit + 1) > remaining_pico


def test_no_limit_fits_where_the_input_alone_is_too_dear() -> None:
    hold = hold_bound_pico(PRICE, 100, 0)
    assert fitting_output_tokens(PRICE, 100, hold - 1) == 0
    assert fitting_output_tokens(PRICE, 100, hold) == 0
    assert fitting_output_tokens(PRICE, 100, hold + hold_bound_pico(PRICE, 0, 7)) >= 7
    assert fitting_output_tokens(PRICE, 6000, hold) == 0


def test_where_output_costs_nothing_any_limit_fits() -> None:
    free = model_price({"lines": {"input": "0", "output": "0"}})
    assert fitting_output_tokens(free, 10, 0) == OUTPUT_TOKENS_MAX
    assert hold_bound_pico(free, 10, 10) == 0


def test_input_bounds_count_every_part() -> None:
    text = facts({"messages": [{"role": "user", "content": "hello"}]})
    inside = 26 + 15
    assert input_bound(text, "chat") == 16 + 8 + text.text_bytes - inside
    assert input_bound(text, "chat", input_bytes_per_token=4) == 16 + 8 + -(-(text.text_bytes - inside) // 4)
    assert input_bound(text, "chat", context_tokens=40) == 40
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1000}}] * 2
    image = facts({"messages": [{"role": "user", "content": parts}]})
    assert input_bound(image, "chat") == 16 + 8 + image.text_bytes - inside + 2 * 50_000
    assert input_bound(image, "chat", image_tokens=765) == 16 + 8 + image.text_bytes - inside + 2 * 765
    for count in (1, 2):
        clip = {"type": "input_audio", "input_audio": {"data": "B" * 3201}}
        sound = facts({"messages": [{"content": [clip] * count}]})
        heard = 64 * count + -(-3201 * count // 32)
        assert input_bound(sound, "chat") == 16 + 8 + sound.text_bytes - inside + heard
        page = {"type": "file", "file": {"file_data": "C" * 3000}}
        file = facts({"messages": [{"content": [page] * count}]})
        assert input_bound(file, "chat") == 16 + 8 + file.text_bytes - inside + (5000 + 6000) * count


def test_a_request_that_says_nothing_is_bounded_by_what_frames_it() -> None:
    assert input_bound(facts({}), "chat") == 16


def test_a_hold_is_no_more_than_the_dearest_text_where_no_media_occur() -> None:
    price = model_price({"lines": {"input": "3", "output": "15", "audio_input": "40", "audio_output": "80"}})
    assert hold_bound_pico(price, 1_000_000, 1_000_000) == 18 * 10**12
    assert hold_bound_pico(price, 1_000_000, 1_000_000, media=True) == 120 * 10**12


def test_the_fitting_limit_is_a_whole_number_of_tokens_per_choice() -> None:
    price = model_price({"lines": {"input": "3", "output": "15"}})
    limit = fitting_output_tokens(price, 0, 10**12, choices=7)
    assert (limit, type(limit)) == (10**6 // 105, int)


def test_the_fitting_limit_knows_dearer_tiers_behind_one_that_is_out_of_reach() -> None:
    price = model_price(
        {
            "lines": {"input": "0", "output": "1"},
            "tiers": [(1000, False, {"output": "9"})],
            "variants": {"priority": {"output": "4"}},
        }
    )
    assert fitting_output_tokens(price, 10, 36 * 10**6, variant="priority") == 9
    assert fitting_output_tokens(price, 10, 36 * 10**6) == 36
    assert fitting_output_tokens(price, 2000, 36 * 10**6) == 4


def test_a_kind_that_costs_more_than_there_is_names_itself() -> None:
    with pytest.raises(InvariantBrokenError, match="file_search"):
        hold_bound_pico(PRICE, 1, 1, {"file_search": 1})


def test_tools_add_what_the_upstream_writes_around_them_once() -> None:
    request = {"messages": [{"role": "user", "content": "hello"}]}
    tool = {"name": "look", "input_schema": {"type": "object"}}
    for wire_format, tools_tokens in (("chat", 64), ("messages", 1024)):
        bare = input_bound(facts(request, wire_format), wire_format)
        told = facts(request | {"tools": [tool, tool]}, wire_format)
        assert told.tool_count == 2
        assert (
            input_bound(told, wire_format)
            == bare + tools_tokens + told.text_bytes - facts(request, wire_format).text_bytes
        )


def test_what_the_body_does_not_show_is_taken_to_fill_the_context() -> None:
    hidden = facts({"previous_response_id": "r", "input": "x"}, "responses")
    assert input_bound(hidden, "responses", context_tokens=400_000) == 400_000
    assert input_bound(hidden, "responses") == CONTEXT_TOKENS_UNKNOWN
    hosted = facts({"tools": [{"type": "web_search_20250305"}]}, "messages")
    assert input_bound(hosted, "messages", context_tokens=300_000) == 300_000


def test_B19_prompts_of_token_numbers_are_two_bytes_a_token() -> None:
    tokens = facts({"prompt": [7] * 1000}, "completions")
    assert input_bound(tokens, "completions", input_bytes_per_token=4) >= 1000


def test_every_request_format_has_bounds() -> None:
    for wire_format in INPUT_BOUNDS:
        assert input_bound(facts({}, wire_format), wire_format) > 0
    with pytest.raises(KeyError):
        input_bound(facts({}), "gemini")


def test_B07_output_bounds_multiply_choices() -> None:
    assert output_bound(facts({"max_tokens": 100, "n": 3}), "chat", 4096) == 300
    assert output_bound(facts({}), "chat", 4096) == 4096
    assert output_bound(facts({}), "chat", 4096, 1000) == 1000
    assert output_bound(facts({"max_tokens": 10**6}), "chat", 4096, 128_000) == 128_000
    assert output_bound(facts({"input": ["a", "b"]}, "embeddings"), "embeddings", 4096) == 0


def test_B11_hosted_tools_have_a_fee_or_are_unknown() -> None:
    assert tool_fee_kind("web_search_preview_2025_03_11") == "web_search"
    assert tool_fee_kind("web_fetch_20250910") == ""
    assert tool_fee_kind("quantum_oracle") is None
    tools = ["web_search", "web_search_options", "mcp", "file_search", "quantum_oracle"]
    assert tool_fees(tools) == {"file_search": HOSTED_TOOL_CALLS, "web_search": HOSTED_TOOL_CALLS}
