"""Promise: the load tests read streams as their wire formats end them, a crossed threshold is told, and a
charge that differs from what the upstream served is found. Only parts that need no locust are tested here.
"""

import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from farebox.meter import scan
from farebox.run.demo.answers import ROUTES, answer
from farebox.run.demo.script import script_of

BENCH = Path(__file__).resolve().parents[2] / "bench"
FORMATS = ("chat", "messages", "responses")
SCRIPT = {"prompt": 40, "completion": 6, "chunks": 3}


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """bench/locust/NAME.py as the locust file imports it."""
    monkeypatch.syspath_prepend(str(BENCH))
    spec = importlib.util.spec_from_file_location(f"load_test_{name}", BENCH / "locust" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found: ModuleType = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, found)
    spec.loader.exec_module(found)
    return found


# -- answers -------------------------------------------------------------------------------------------------


def told(wire_format: str, **script: Any) -> list[bytes]:
    """The lines of what the scripted upstream streams."""
    question = {"role": "user", "content": "script: " + json.dumps({**SCRIPT, **script})}
    request = {"model": "m", "stream": True, "messages": [question], "input": [question]}
    return b"".join(answer(wire_format, request, script_of(request)).events).splitlines(keepends=True)


def read(answers: Any, wire_format: str, lines: list[bytes]) -> tuple[Any, list[float]]:
    """The stream after its lines, which come one a second from second 101 on, and the gaps it told."""
    stream = answers.Stream(wire_format, 100.0)
    gaps = [stream.take(line, 101.0 + number) for number, line in enumerate(lines)]
    return stream, [gap for gap in gaps if gap is not None]


@pytest.mark.parametrize("wire_format", FORMATS)
def test_a_stream_is_whole_with_its_terminal_event_and_not_without(
    wire_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = module("answers", monkeypatch)
    lines = told(wire_format)
    stream, gaps = read(answers, wire_format, lines)
    data = [number for number, line in enumerate(lines) if line.startswith(b"data:")]
    assert stream.problem() == ""
    assert stream.events == len(data)
    assert gaps == [after - before for before, after in itertools.pairwise(data)]
    first = next(number for number, line in enumerate(lines) if b"word0" in line)
    assert stream.first_token_s == 1.0 + first
    cut, _ = read(answers, wire_format, told(wire_format, terminal=False))
    assert cut.problem() == "ended without its terminal event"


@pytest.mark.parametrize("wire_format", FORMATS)
def test_an_error_in_a_stream_is_told_and_words_like_one_are_not(
    wire_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = module("answers", monkeypatch)
    broken, _ = read(answers, wire_format, told(wire_format, error_after=4))
    assert broken.problem().startswith("error in the stream: ")
    words = 'an "error" failed [DONE] "type":"message_stop" "type":"response.completed"'
    spoken, _ = read(answers, wire_format, told(wire_format, text=words * 3, terminal=False))
    assert spoken.problem() == "ended without its terminal event"


@pytest.mark.parametrize("wire_format", FORMATS)
def test_a_whole_answer_must_state_its_usage(wire_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = module("answers", monkeypatch)
    for usage, problem in ((True, ""), (False, "no usage in the answer")):
        question = {"role": "user", "content": "script: " + json.dumps({**SCRIPT, "usage": usage})}
        request = {"model": "m", "messages": [question], "input": [question]}
        (body,) = answer(wire_format, request, script_of(request)).events
        assert answers.plain_problem(body) == problem


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error":{"type":"insufficient_quota","code":"insufficient_credits"}}', "insufficient_credits"),
        (b'{"error":{"message":"m","type":"insufficient_balance"}}', "insufficient_balance"),
        (b'{"type":"error","error":{"type":"insufficient_credits"}}', "insufficient_credits"),
        (b'{"type":"response.failed","response":{"error":{"code":"server_error"}}}', "server_error"),
        (b"<html>502</html>", "no error body"),
    ],
)
def test_errors_are_named_by_code_then_type(body: bytes, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module("answers", monkeypatch).error_code(body) == code


# -- requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire_format", FORMATS)
def test_an_agents_request_is_read_by_farebox_and_its_script_by_the_upstream(
    wire_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = module("prompts", monkeypatch)
    turns = [prompts.question("Begin.", {}, is_scripted=False)]
    turns += prompts.tool_turns(wire_format, 1, "the file")
    turns += [prompts.question("Go on.", SCRIPT, is_scripted=True)]
    body = prompts.request(wire_format, "m", turns, output_tokens=9, is_streamed=True)
    body = prompts.with_tools(wire_format, prompts.with_system(wire_format, body, prompts.filler(500)))
    assert ROUTES[prompts.PATHS[wire_format]] == wire_format
    assert script_of(body).completion == SCRIPT["completion"]
    scanned = scan(json.dumps(body).encode(), wire_format)
    assert (scanned.model, scanned.stream, scanned.output_limit) == ("m", True, 9)


# -- thresholds ----------------------------------------------------------------------------------------------


def test_each_threshold_is_crossed_by_what_lies_above_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    thresholds = module("thresholds", monkeypatch)
    rows = [
        thresholds.Row("POST", "chat, plain", 98, 1, 5, 20, 30),
        thresholds.Row("POST", "chat, streamed", 2, 0, 300, 400, 500),
        thresholds.Row("TTFT", "chat, streamed", 2, 0, 8, 12, 12),
        thresholds.Row("GAP", "chat, streamed", 60, 0, 10, 15, 40),
        thresholds.Row("402", "tiny wallet", 7, 0, 3, 900, 900),
    ]
    met = thresholds.Thresholds(0.01, 100, 12, 15, 400)
    assert thresholds.crossed(rows, met) == []
    for member, value, said in (
        ("failure_ratio_max", 0.009, "1 of 100 requests failed"),
        ("requests_min", 101, "100 requests, at least 101"),
        ("first_token_p95_ms_max", 11, "time to first token of chat, streamed: p95 12 ms"),
        ("chunk_gap_p95_ms_max", 14, "gap between chunks of chat, streamed: p95 15 ms"),
        ("response_p95_ms_max", 399, "response time of chat, streamed: p95 400 ms"),
    ):
        (line,) = thresholds.crossed(rows, dataclass_with(met, member, value))
        assert said in line


def test_a_run_without_what_a_threshold_is_about_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    thresholds = module("thresholds", monkeypatch)
    assert thresholds.crossed([], thresholds.Thresholds()) == ["0 requests, at least 1 are needed"]
    rows = [thresholds.Row("POST", "chat, plain", 1, 0, 5, 5, 5)]
    (line,) = thresholds.crossed(rows, thresholds.Thresholds(first_token_p95_ms_max=10))
    assert "nothing was measured" in line


def dataclass_with(whole: Any, member: str, value: float) -> Any:
    return type(whole)(**{**{name: getattr(whole, name) for name in whole.__slots__}, member: value})


# -- the money -----------------------------------------------------------------------------------------------


def test_M7_a_charge_that_is_not_what_the_upstream_served_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = module("deployment", monkeypatch)
    model = {
        "id": "m",
        "input_price_per_mtok": 3,
        "output_price_per_mtok": 15,
        "cache_hit_price_per_mtok": 0.3,
        "cache_write_price_per_mtok": 3.75,
        "billing_multiplier": 1.05,
    }
    usage = {"input": 1200, "output": 800, "cache_write_5m": 2000, "cache_read": 10000}
    served = [{"id": "a", "model": "m", "usage": usage}, {"id": "b", "model": "m", "usage": {"input": 1}}]
    right = [charge("a", "0.027405"), charge("b", "0.00000315")]
    assert deployment.price_of(usage, model) == 27_405_000_000
    assert deployment.differences(right, served, [model]) == []
    unnamed = [right[0], charge("", "0.5", "estimated")]
    assert deployment.differences(unnamed, served, [model]) == []
    for rows in (
        right[:1],
        [*right, right[0]],
        [*right, charge("c", "0")],
        [right[0], charge("b", "0.00000316")],
    ):
        assert deployment.differences(rows, served, [model])


def charge(upstream: str, usd: str, evidence: str = "exact") -> dict[str, str]:
    request = f"req_{upstream}" if upstream else ""
    return {"_id": "x", "upstreamRequestId": request, "charge": usd, "evidence": evidence}
