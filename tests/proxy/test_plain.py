"""The compiled way of the common exchange decides exactly what the general functions decide (M5, M7).

Every generated request and answer goes both ways; the compiled one may only decline what is not plain, and
must not decline what every day brings.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.base import limits
from farebox.base.records import LotAmount, Settlement, settlement_payload
from farebox.meter import (
    END,
    REUSABLE,
    ModelPrice,
    Pipe,
    PlainCharge,
    Scan,
    SettlementWording,
    format_pico,
    model_price,
    parse_head,
    scan,
)
from farebox.proxy.admission import ask_of
from farebox.proxy.plain import plain_answer, plain_ask, plain_terms, plain_verdict
from farebox.proxy.settlement_log import settlement_line
from farebox.proxy.verdict import Ending, Verdict, verdict_of

LINES = {
    "input": "1.25",
    "cache_read": "0.125",
    "cache_write_5m": "1.5",
    "cache_write_1h": "2.51",
    "output": "10",
}
TIERS = [(1000, False, {"input": "2.5", "output": "15"}), (5000, True, {"input": "3"})]


@dataclass
class Row:
    """A model row, as far as money is concerned."""

    id: str = "m"
    priced_fields: dict[str, dict[str, str]] = field(default_factory=dict)
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    assumed_output_tokens: int = 4096
    input_bytes_per_token: int = 1


PRICES = [
    model_price({"lines": LINES, "multiplier": "1.05"}),
    model_price({"lines": LINES, "tiers": TIERS, "variants": {"flex": {"input": "1"}}}),
    model_price({"lines": {"input": "3", "output": "15"}}),
    model_price({"lines": {**LINES, "call": "0.001"}}),
    model_price({"lines": dict.fromkeys(LINES, "0")}),
]
TOKENS = st.one_of(
    st.integers(0, 20), st.integers(0, 10_000), st.sampled_from([10**9, 10**9 + 1, 2**63, -1, 1.5, None])
)
TIER_NAMES = st.sampled_from(["default", "auto", "standard", "flex", "priority", "", None])

rows = st.builds(
    Row,
    priced_fields=st.sampled_from([{}, {}, {}, {"service_tier": {"flex": "flex"}}]),
    context_tokens=st.sampled_from([None, None, 50, 128_000]),
    max_output_tokens=st.sampled_from([None, None, 100, 64_000]),
    input_bytes_per_token=st.sampled_from([1, 2, 4, 16]),
)
formats = st.sampled_from(["chat", "messages", "responses", "completions", "embeddings"])
contents = st.one_of(
    st.text(max_size=60),
    st.just(
        [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "https://a/b.png"}}]
    ),
)


@st.composite
def requests(draw: st.DrawFn, wire_format: str) -> bytes:
    """A request of a wire format; mostly plain."""
    body: dict[str, Any] = {"model": "m"}
    if wire_format in {"chat", "messages"}:
        body["messages"] = [
            {"role": "user", "content": text} for text in draw(st.lists(contents, min_size=1, max_size=4))
        ]
    elif wire_format == "completions":
        body["prompt"] = draw(
            st.one_of(st.text(max_size=60), st.lists(st.text(max_size=9), min_size=1, max_size=3))
        )
    else:
        body["input"] = draw(st.text(max_size=60))
    limit = {"chat": "max_completion_tokens", "responses": "max_output_tokens"}.get(wire_format, "max_tokens")
    if wire_format != "embeddings" and draw(st.booleans()):
        body[limit] = draw(st.integers(1, 2**31 - 1))
    if wire_format in {"chat", "completions"} and draw(st.booleans()):
        body["n"] = draw(st.integers(1, 8))
    if wire_format != "embeddings" and draw(st.booleans()):
        body["stream"] = draw(st.booleans())
    if draw(st.integers(0, 5)) == 0:
        body["tools"] = [{"type": "function", "function": {"name": "f"}}]
    if draw(st.integers(0, 5)) == 0:
        body["service_tier"] = draw(st.sampled_from(["auto", "default"]))
    return json.dumps(body).encode()


@st.composite
def answers(draw: st.DrawFn, wire_format: str) -> bytes:
    """A plain answer's body with a usage that may be odd, or cut short."""
    read, written, reasoning = draw(TOKENS), draw(TOKENS), draw(TOKENS)
    text = draw(st.text(max_size=12))
    body: dict[str, Any] = {"id": "x", "model": draw(st.sampled_from(["m", "m-2026", "", None]))}
    if wire_format == "messages":
        body |= {"type": "message", "role": "assistant", "content": [{"type": "text", "text": text}]}
        usage = {"cache_read_input_tokens": read, "cache_creation_input_tokens": written, "speed": None}
        names = ("input_tokens", "output_tokens")
    elif wire_format == "responses":
        body |= {"object": "response", "status": "completed"}
        body["output"] = [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
        usage = {
            "input_tokens_details": {"cached_tokens": read},
            "output_tokens_details": {"reasoning_tokens": reasoning},
        }
        names = ("input_tokens", "output_tokens")
    else:
        body |= {"object": "chat.completion", "choices": [{"index": 0, "message": {"content": text}}]}
        usage = {"prompt_tokens_details": {"cached_tokens": read}, "total_tokens": draw(TOKENS)}
        names = ("prompt_tokens", "completion_tokens")
    usage |= {name: draw(TOKENS) for name in names}
    if draw(st.integers(0, 9)):
        body["usage"] = {key: value for key, value in usage.items() if value is not None}
    tier = draw(TIER_NAMES)
    if tier is not None and draw(st.booleans()):
        (body["usage"] if wire_format == "messages" and "usage" in body else body)["service_tier"] = tier
    data = json.dumps(body).encode()
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data


def fed(wire_format: str, answer: bytes) -> Pipe:
    """A tap through which the whole answer has gone."""
    tap = Pipe(wire_format, len(answer))
    tap.feed(answer)
    return tap


def as_verdict(plain: PlainCharge) -> Verdict:
    """A plain charge in the general words."""
    return Verdict(
        plain.amount_pico,
        plain.counts,
        {},
        plain.input_total,
        plain.evidence,
        plain.flags,
        "",
        plain.quarantine,
        plain.used,
        plain.upstream_model,
        plain.raw_usage,
    )


def no_other_model(name: str) -> None:
    """Nothing else is priced."""


FACT = st.booleans()
ASK_MEMBERS = (
    "input_tokens",
    "output_tokens",
    "first_output_tokens",
    "hold_pico",
    "input_estimate_tokens",
    "variant",
    "media",
    "choices",
    "fees",
)


@given(st.data(), formats, rows, st.sampled_from(PRICES))
def test_M2_a_plain_request_is_bounded_as_every_request(
    data: st.DataObject, wire_format: str, row: Row, price: ModelPrice
) -> None:
    found: Scan = scan(data.draw(requests(wire_format)), wire_format)
    terms = plain_terms(row, wire_format, price)
    asked = plain_ask(terms, found, wire_format, row, price), ask_of(found, wire_format, row, price)
    plain, every = ([getattr(ask, name) for name in ASK_MEMBERS] for ask in asked)
    assert plain == every


@given(st.data(), formats, rows, st.sampled_from(PRICES))
def test_M7_a_plain_answer_is_charged_as_every_answer(
    data: st.DataObject, wire_format: str, row: Row, price: ModelPrice
) -> None:
    tap = fed(wire_format, data.draw(answers(wire_format)))
    terms = plain_terms(row, wire_format, price)
    ask = ask_of(scan(SHORTEST, wire_format), wire_format, row, price)
    plain = plain_verdict(terms, ask, tap)
    if plain is not None:
        ending = data.draw(st.builds(Ending, st.sampled_from([0, 200, 500]), st.booleans(), st.booleans()))
        assert as_verdict(plain) == verdict_of(tap.reading(), ending, ask, row, price, no_other_model, 10**12)


SHORTEST = b'{"model":"m","messages":[],"input":"","prompt":""}'
ASK = ask_of(scan(SHORTEST, "chat"), "chat", Row(), PRICES[0])
USUAL = {
    "chat": b'{"model":"m","choices":[{"message":{"content":"hi"}}],"service_tier":"default",'
    b'"usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17}}',
    "messages": b'{"type":"message","model":"m","content":[{"type":"text","text":"hi"}],'
    b'"stop_reason":"end_turn",'
    b'"usage":{"input_tokens":12,"output_tokens":5,"service_tier":"standard"}}',
    "responses": b'{"object":"response","status":"completed","model":"m","output":[],'
    b'"usage":{"input_tokens":12,"output_tokens":5,"total_tokens":17}}',
}


@pytest.mark.parametrize("wire_format", USUAL)
def test_the_usual_exchange_is_plain(wire_format: str) -> None:
    terms = plain_terms(Row(), wire_format, PRICES[0])
    assert terms is not None
    body = b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}],"input":"hi"}'
    assert terms.ask(scan(body, wire_format)) is not None
    ask = plain_ask(terms, scan(body, wire_format), wire_format, Row(), PRICES[0])
    verdict = plain_verdict(terms, ask, fed(wire_format, USUAL[wire_format]))
    assert verdict is not None
    assert (verdict.counts, verdict.amount_pico) == ({"input": 12, "output": 5}, 68_250_000)


STATUS_LINES = st.sampled_from([b"200 OK", b"200 OK", b"201 Created", b"400 Bad Request", b"100 Continue"])
HEADERS = st.lists(
    st.sampled_from(
        [
            b"Content-Type: application/json",
            b"Content-Type: text/event-stream",
            b"Content-Encoding: gzip",
            b"X-Request-Id: req_1",
            b"Retry-After: 3",
            b"Set-Cookie: secret=1",
            b"Connection: close",
            b"Transfer-Encoding: chunked",
            b"Broken",
        ]
    ),
    max_size=3,
)


@given(
    st.data(),
    formats,
    rows,
    st.sampled_from(PRICES),
    STATUS_LINES,
    HEADERS,
    st.sampled_from([0, 0, 0, 1, -1]),
)
def test_M7_a_whole_answer_in_one_call_is_the_same_answer(
    data: st.DataObject,
    wire_format: str,
    row: Row,
    price: ModelPrice,
    status_line: bytes,
    headers: list[bytes],
    missing_bytes: int,
) -> None:
    body = data.draw(answers(wire_format))
    length = b"Content-Length: %d" % (len(body) + missing_bytes)
    read = b"\r\n".join([b"HTTP/1.1 " + status_line, *headers, length, b"", body])
    terms = plain_terms(row, wire_format, price)
    ask = ask_of(scan(SHORTEST, wire_format), wire_format, row, price)
    found = plain_answer(terms, ask, wire_format, read, b"x-own: 1\r\n")
    if found is None:
        return
    status, lines, given_body, charge, upstream_request, is_reusable = found
    head = parse_head(read, False, limits.response_head_bytes_max, limits.response_headers_max)
    assert head is not None
    assert (head.status, given_body) == (status, body)
    upstream_lines, is_event_stream, encoding, upstream_id = head.facts(limits.upstream_request_id_bytes_max)
    assert (is_event_stream, encoding, upstream_id) == (False, "", upstream_request)
    cost = format_pico(charge.amount_pico).encode()
    assert lines == upstream_lines + b"x-own: 1\r\nx-farebox-cost: " + cost + b"\r\n"
    tap = Pipe(wire_format, head.framing)
    out = tap.feed(body)
    assert isinstance(out, tuple)
    assert (out[0] + out[1], bool(out[2] & REUSABLE), out[2] & ~(END | REUSABLE)) == (body, is_reusable, 0)
    general = plain_verdict(terms, ask, tap)
    assert general is not None
    assert as_verdict(charge) == as_verdict(general)


@pytest.mark.parametrize("wire_format", USUAL)
def test_the_usual_answer_is_taken_in_one_call(wire_format: str) -> None:
    body = USUAL[wire_format]
    read = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    terms = plain_terms(Row(), wire_format, PRICES[0])
    found = plain_answer(terms, ASK, wire_format, read, b"")
    assert found is not None
    assert (found[0], found[2], found[3].amount_pico, found[5]) == (200, body, 68_250_000, True)


@pytest.mark.parametrize(
    ("changed", "to"),
    [
        (b"200 OK", b"500 Oh"),
        (b"200 OK", b"100 OK"),
        (b"application/json", b"text/event-stream"),
        (b"Content-Length: ", b"Content-Encoding: gzip\r\nContent-Length: "),
        (b"Content-Length: ", b"Content-Length: 1"),
        (b"Content-Length: 1", b"Content-Length: "),
        (b'"usage"', b'"usagE"'),
    ],
)
def test_any_other_answer_goes_step_by_step(changed: bytes, to: bytes) -> None:
    body = USUAL["chat"]
    read = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    assert changed in read
    terms = plain_terms(Row(), "chat", PRICES[0])
    assert plain_answer(terms, ASK, "chat", read.replace(changed, to, 1), b"") is None


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MS = st.integers(0, 2**45)
TAKES = st.lists(
    st.builds(LotAmount, st.sampled_from(["a" * 24, "b" * 24]), WORDS, st.integers(0, 2**62)), max_size=4
)


@given(st.data())
def test_M7_a_plain_settlement_is_recorded_and_logged_as_every_settlement(data: st.DataObject) -> None:
    price = PRICES[0]
    model = data.draw(st.one_of(WORDS, st.just("m" * 300), st.just('\x00\x1f"\\\x7f\u00e9')))
    answer = {"model": model, "choices": [], "usage": {"prompt_tokens": data.draw(st.integers(0, 10**9))}}
    answer["usage"]["completion_tokens"] = data.draw(st.integers(0, 10**9))
    tap = fed("chat", json.dumps(answer, ensure_ascii=data.draw(st.booleans())).encode())
    plain = plain_verdict(plain_terms(Row(), "chat", price), ASK, tap)
    assert plain is not None
    verdict = as_verdict(plain)
    wallet, model_id, upstream = data.draw(WORDS), data.draw(WORDS), data.draw(WORDS)
    exchange, user, key, outcome, request = [data.draw(WORDS) for _ in range(5)]
    takes = tuple(data.draw(TAKES))
    version, status, stream, free = data.draw(st.integers(0, 2**40)), 200, *data.draw(st.tuples(FACT, FACT))
    remaining_pico = data.draw(st.none() | st.integers(-(2**62), 2**62))
    started_ms, first_ms, ended_ms = [data.draw(MS) for _ in range(3)]
    wording = SettlementWording(
        wallet, model_id, "chat", version, price.multiplier, upstream, free, limits.model_name_bytes_max
    )
    payload, line = plain.settlement(
        wording,
        exchange,
        user,
        key,
        takes,
        remaining_pico,
        outcome,
        status,
        request,
        stream,
        started_ms,
        first_ms,
        ended_ms,
    )
    general = settlement_payload(
        exchange,
        user,
        wallet,
        key,
        model_id,
        "chat",
        version,
        price.multiplier,
        verdict.evidence,
        verdict.flags,
        verdict.counts,
        verdict.others,
        verdict.input_total,
        verdict.variant,
        verdict.amount_pico,
        takes,
        verdict.quarantine,
        outcome,
        status,
        upstream,
        verdict.upstream_model[: limits.model_name_bytes_max],
        request,
        stream,
        started_ms,
        first_ms,
        ended_ms,
        verdict.raw_usage,
        free,
    )
    assert Settlement.decode(payload) == Settlement.decode(general)
    assert line == settlement_line(
        exchange, user, model_id, verdict, outcome, price.multiplier, takes, remaining_pico
    )


@pytest.mark.parametrize("change", [{"priced_fields": {"speed": {"fast": "fast"}}}, {}])
def test_models_with_variants_or_call_fees_are_never_plain(change: dict[str, Any]) -> None:
    price = PRICES[0] if change else PRICES[3]
    assert plain_terms(replace(Row(), **change), "chat", price) is None


def test_M7_every_recorded_answer_is_charged_alike_wherever_it_is_cut(shared_path: Path) -> None:
    folder = shared_path / "corpus"
    plain_count = 0
    for line in (folder / "INDEX.jsonl").read_text().splitlines():
        row = json.loads(line)
        wire_format = row["api"]
        if wire_format not in USUAL:
            continue
        body = (folder / "bodies" / row["file"]).read_bytes()
        price = PRICES[1]
        terms = plain_terms(Row(), wire_format, price)
        ask = ask_of(scan(SHORTEST, wire_format), wire_format, Row(), price)
        for length in (len(body), len(body) - 1, len(body) * 9 // 10, len(body) // 2):
            tap = Pipe(wire_format, len(body))
            tap.feed(body[:length])
            plain = plain_verdict(terms, ask, tap)
            plain_count += plain is not None
            if plain is not None:
                ending = Ending(row["http_status"], False, length < len(body))
                assert as_verdict(plain) == verdict_of(
                    tap.reading(), ending, ask, Row(), price, no_other_model, 10**12
                )
    assert plain_count > 50
