"""Request bodies: one strict reading, and edits that change what they say and nothing else (rows B01-B16)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.meter import ScanError, scan

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
OPTIONS = st.none() | st.fixed_dictionaries(
    {}, optional={"include_usage": st.none() | st.booleans(), "include_obfuscation": st.booleans()}
)
BODIES = st.fixed_dictionaries(
    {"model": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)},
    optional={
        "stream": st.booleans(),
        "stream_options": OPTIONS,
        "metadata": VALUES,
        "max_tokens": st.integers(1, 2**31 - 1),
        "temperature": st.floats(0, 2),
        "messages": st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": st.text()})),
    },
)


def shuffled(draw_order: list[str], body: dict[str, Any]) -> dict[str, Any]:
    return {key: body[key] for key in sorted(body, key=draw_order.index)}


@given(
    BODIES,
    st.permutations(
        ["model", "stream", "stream_options", "metadata", "max_tokens", "temperature", "messages"]
    ),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.booleans(),
)
def test_M9_an_edited_body_is_the_same_body_with_just_those_changes(
    body: dict[str, Any],
    order: list[str],
    indent: int | str | None,
    ascii_only: bool,
    model: str | None,
    include_usage: bool,
) -> None:
    body = shuffled(order, body)
    sent = json.dumps(body, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    facts = scan(sent, "chat")
    edited = facts.edited(sent, model, include_usage)
    expected = dict(body)
    if model is not None:
        expected["model"] = model
    if include_usage:
        expected["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    assert json.loads(edited) == expected
    if model is None and (not include_usage or facts.include_usage is True):
        assert edited == sent


@given(BODIES)
def test_facts_are_those_of_a_full_parser(body: dict[str, Any]) -> None:
    sent = json.dumps(body).encode()
    facts = scan(sent, "chat")
    assert facts.model == body["model"]
    assert facts.stream == body.get("stream", False)
    assert facts.output_limit == body.get("max_tokens")
    assert facts.include_usage == (body.get("stream_options") or {}).get("include_usage")
    assert facts.message_count == len(body.get("messages", []))
    assert (facts.text_bytes, facts.data_bytes) == (len(sent), 0)


def code_of(body: bytes) -> str:
    try:
        scan(body, "chat")
    except ScanError as error:
        return error.code
    return ""


@given(st.binary(max_size=300))
def test_B02_any_bytes_are_a_scan_or_a_scan_error(body: bytes) -> None:
    assert code_of(body) in {
        "",
        "utf8",
        "json",
        "depth",
        "duplicate_key",
        "type",
        "missing",
        "range",
        "limit",
    }
    if not code_of(body):
        assert isinstance(json.loads(body), dict)


@given(VALUES)
def test_B02_what_it_accepts_another_strict_parser_accepts(value: Any) -> None:
    sent = json.dumps({"model": "m", "metadata": value}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert code_of(sent) in {"", "utf8"}


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b'{"model":"a","model":"b"}', "duplicate_key", "model"),
        (b'{"model":"a","stream":null}', "type", "stream"),
        (b'{"model":"a","max_tokens":0}', "range", "max_tokens"),
        (b'{"model":"a","stream_options":{"include_usage":1}}', "type", "stream_options.include_usage"),
        (b'{"messages":[]}', "missing", "model"),
        (b'{"model":"' + b"x" * 257 + b'"}', "limit", "model"),
        (b'{"model":"a"', "json", ""),
        (b'{"model":"\xff"}', "utf8", ""),
        (b'{"model":"a","metadata":' + b"[" * 200, "depth", ""),
    ],
)
def test_errors_say_code_field_and_what_to_change(body: bytes, code: str, field: str) -> None:
    with pytest.raises(ScanError) as caught:
        scan(body, "chat")
    assert (caught.value.code, caught.value.field) == (code, field)
    assert len(str(caught.value)) > 15


def test_M11_errors_repeat_nothing_of_the_prompt() -> None:
    with pytest.raises(ScanError) as caught:
        scan(b'{"model":"m","messages":[{"content":"my secret"}],"my secret":"my secret', "chat")
    assert "secret" not in str(caught.value) + caught.value.field


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10**6,
        b'{"model":"m","a":' + b"9" * 10**6 + b"}",
        b'{"model":"m",' + b",".join(b'"k%d":0' % key for key in range(10**5)) + b"}",
        b'{"model":"m","messages":[' + b",".join([b'{"content":""}'] * 10**5) + b"]}",
        b'{"model":"m","a":"' + b"\\\\" * 10**6 + b'"}',
        b'{"model":"m","' + b"\\u0061" * 10**5 + b'":1}',
    ],
    ids=["brackets", "digits", "keys", "messages", "escapes", "long key"],
)
def test_B03_B18_hostile_shapes_are_answered(body: bytes) -> None:
    assert code_of(body) in {"", "type", "limit", "depth"}


def test_large_bodies_give_the_same_facts_as_small_ones() -> None:
    big = json.dumps({"messages": [{"content": "wörd " * 10**5}], "model": "m"}, ensure_ascii=False).encode()
    facts = scan(big, "chat")
    assert (facts.model, facts.message_count, facts.text_bytes) == ("m", 1, len(big))


def test_unknown_wire_formats_and_other_bodies_are_a_callers_fault() -> None:
    with pytest.raises(ValueError, match="wire format"):
        scan(b"{}", "gemini")
    with pytest.raises(ValueError, match="not the body"):
        scan(b'{"model":"m"}', "chat").edited(b"{}", None, True)
    with pytest.raises(TypeError):
        scan(bytearray(b'{"model":"m"}'), "chat")  # type: ignore[arg-type]


def test_B11_price_fields_and_hosted_tools_reach_admission() -> None:
    facts = scan(
        b'{"model":"m","service_tier":"priority","tools":[{"type":"web_search"},{"type":"function"}]}',
        "responses",
    )
    assert facts.price_fields == {"service_tier": "priority"}
    assert facts.hosted_tools == ["web_search"]
    assert facts.server_context is False
    assert (facts.choices, facts.image_count, facts.audio_count, facts.file_count) == (1, 0, 0, 0)
