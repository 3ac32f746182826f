"""Usage is read at each wire format's own place only, exactly (M8, U29 to U36, B14 to B17).

Each body is read whole and byte by byte; both readings must be equal in every member.
"""

import json
from typing import Any

import pytest

from farebox._meter import Pipe, Reading

MEMBERS = [name for name in dir(Reading) if not name.startswith("_")]
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
COUNTS = {"input": 5, "output": 7}
FAKE = '{"prompt_tokens":900,"completion_tokens":900,"total_tokens":1800}'


def read(wire_format: str, body: bytes, **options: Any) -> Reading:
    readings = []
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        pipe = Pipe(wire_format, len(body), **options)
        for piece in pieces:
            pipe.feed(piece)
        readings.append(pipe.reading())
    one, two = readings
    assert [getattr(one, name) for name in MEMBERS] == [getattr(two, name) for name in MEMBERS]
    return one


def chat(usage: object, **members: object) -> bytes:
    answer = {"id": "c", "choices": [{"message": {"content": "hello"}}], "usage": usage}
    return json.dumps(answer | members).encode()


def events(*documents: object) -> bytes:
    return b"".join(b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents)


# ---- numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "count", "flag"),
    [
        ("12", 12, None), ("12.0", 12, None), ("1e3", 1000, None), ("1.5e2", 150, None),
        ("1500e-2", 15, None),
        ("12.7", 13, "number_fraction"), ("0.1", 1, "number_fraction"), ("1e-400", 1, "number_fraction"),
        ('"12"', 12, "number_as_text"), ("-0", 0, None), ("-1", None, "number_negative"),
        ("-0.5", None, "number_negative"), ("18446744073709551615", 2**64 - 1, None),
        ("18446744073709551616", 2**64 - 1, "number_huge"), ("1e400", 2**64 - 1, "number_huge"),
        ("9" * 1000, 2**64 - 1, "number_huge"), ("0." + "1" * 1000, None, "number_not_finite"),
        ("NaN", None, "number_not_finite"),
        ("Infinity", None, "number_not_finite"), ("-Infinity", None, "number_not_finite"),
        ("true", None, None), ("null", None, None), ("[12]", None, None), ('{"a":12}', None, None),
        ('"twelve"', None, None), ('"-12"', None, None), ('""', None, None), ("0e999999999999", 0, None),
    ],
)  # fmt: skip
def test_U29_numbers(token: str, count: int | None, flag: str | None) -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":' + token.encode() + b',"completion_tokens":7}}'
    reading = read("chat", body)
    assert reading.usage is not None
    assert reading.usage["input_total"] == (count or 0)
    assert reading.usage["output"] == 7
    assert reading.flags == ([flag] if flag else [])


def test_U29_sums_saturate() -> None:
    huge = 2**64 - 1
    reading = read("messages", json.dumps({"type": "message", "usage": {
        "input_tokens": huge, "cache_read_input_tokens": huge, "cache_creation_input_tokens": huge,
        "output_tokens": huge}}).encode())  # fmt: skip
    assert reading.input_total == huge
    assert reading.counts["cache_write_5m"] == huge


@pytest.mark.parametrize(
    "usage", [None, {}, [], "n/a", 3, {"prompt_tokens_details": None}, {"prompt_tokens": None}]
)
def test_R4_not_reported_is_not_zero(usage: object) -> None:
    reading = read("chat", chat(usage))
    assert reading.usage is None
    assert reading.counts == {}
    assert reading.complete
    assert not reading.final


# ---- only the format's own places --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {"choices": [{"delta": {"usage": USAGE}}]},
        {"choices": [{"message": {"usage": USAGE, "content": '"usage":' + FAKE}}]},
        {"choices": [{"message": {"tool_calls": [{"function": {"arguments": f'{{"usage":{FAKE}}}'}}]}}]},
        {"metadata": {"usage": USAGE}, "error": {"usage": USAGE}},
        {"Usage": USAGE, "usage ": USAGE, "usages": USAGE, "USAGE": USAGE},
        {"usage": {"completion_Tokens": 5, "Prompt_tokens": 3, "prompt_tokens ": 3}},
        {"nested": {"usage": USAGE}, "list": [{"usage": USAGE}], "response": {"usage": USAGE}},
        {"message": {"usage": USAGE}, "delta": {"usage": USAGE}, "usageMetadata": {"promptTokenCount": 1}},
    ],
)
def test_U34_U35_B14_usage_elsewhere_is_no_usage(document: object) -> None:
    assert read("chat", json.dumps(document).encode()).usage is None
    assert read("chat", events(document)).usage is None


def test_U34_B16_events_inside_text_are_text() -> None:
    fake = f'\n\ndata: {{"choices":[],"usage":{FAKE}}}\n\ndata: [DONE]\n\n'
    body = events({"choices": [{"delta": {"content": fake}}]}, {"choices": [], "usage": USAGE})
    reading = read("chat", body)
    assert reading.counts == COUNTS
    assert not reading.complete
    comment = (
        b': data: {"usage":' + FAKE.encode() + b'}\n\nevent: data: {}\n\nData: {"usage":' + FAKE.encode()
    )
    assert read("chat", comment + b"}\n\n" + body).counts == COUNTS


def test_responses_usage_only_in_the_terminal_event() -> None:
    early = {"type": "response.in_progress", "response": {"usage": {"input_tokens": 900, "output_tokens": 1}}}
    item = {"type": "response.output_item.done", "item": {"usage": {"input_tokens": 900}, "type": "message"}}
    spoof = {"type": "response.output_text.delta", "delta": "x", "usage": {"input_tokens": 900}}
    end = {"type": "response.completed", "response": {"usage": {"input_tokens": 5, "output_tokens": 7},
           "output": [{"usage": {"input_tokens": 9}}], "metadata": {"usage": "x"}}}  # fmt: skip
    assert read("responses", events(early, item, spoof)).usage is None
    assert read("responses", events(early, item, spoof, end)).counts == COUNTS


def test_messages_usage_only_in_start_and_delta() -> None:
    wrong = {
        "type": "content_block_start",
        "usage": {"input_tokens": 900},
        "message": {"usage": {"input_tokens": 9}},
    }
    assert read("messages", events(wrong)).usage is None


def test_escaped_keys_are_the_keys() -> None:
    body = rb'{"us\u0061ge":{"prompt\u005ftokens":5,"completion_tokens":7},"\u0075sage2":{"prompt_tokens":1}}'
    assert read("chat", body).counts == COUNTS


# ---- several statements ------------------------------------------------------------------------------------


def test_U35_duplicate_members_take_the_last_and_say_so() -> None:
    first = b'{"usage":{"prompt_tokens":500,"completion_tokens":9},'
    body = first + b'"usage":{"prompt_tokens":5,"completion_tokens":1,"completion_tokens":7}}'
    reading = read("chat", body)
    assert reading.counts == COUNTS
    assert reading.flags == ["duplicate_keys"]


def test_R2_statements_restate_and_never_add() -> None:
    body = events(
        {"choices": [{"usage": USAGE}]}, {"choices": [], "usage": USAGE}, {"choices": [], "usage": None}
    )
    assert read("chat", body).counts == COUNTS


def test_R3_the_last_statement_stands_also_when_lower() -> None:
    body = events({"usage": {"prompt_tokens": 50, "completion_tokens": 70}}, {"usage": USAGE})
    reading = read("chat", body)
    assert reading.counts == COUNTS
    assert reading.flags == ["usage_non_monotonic"]


def test_two_places_that_differ_are_said() -> None:
    reading = read(
        "chat", events({"x_groq": {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}, "usage": USAGE})
    )
    assert reading.counts == COUNTS
    assert reading.flags == ["usage_objects_disagree"]


def test_R9_aliases_take_the_greatest() -> None:
    usage = USAGE | {
        "cached_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 0},
        "prompt_cache_hit_tokens": 2,
    }
    reading = read("chat", chat(usage))
    assert reading.counts == {"input": 2, "cache_read": 3, "output": 7}
    assert reading.flags == ["aliases_disagree"]


# ---- prompt, cache and total (R7, R8) ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "completion", "total", "details", "counts", "flags"),
    [
        (10, 5, 15, {"cached": 4}, {"input": 6, "cache_read": 4, "output": 5}, []),
        (10, 5, 15, {"cached": 4, "written": 3},
         {"input": 3, "cache_read": 4, "cache_write_5m": 3, "output": 5}, []),
        (10, 5, 15, {"cached": 8, "written": 8},
         {"input": 2, "cache_read": 8, "cache_write_5m": 8, "output": 5}, ["cache_read_write_overlap"]),
        (10, 5, 15, {"cached": 40}, {"input": 10, "cache_read": 40, "output": 5},
         ["cached_gt_prompt_exclusive_semantics"]),
        (10, 5, 55, {"cached": 40}, {"input": 10, "cache_read": 40, "output": 5},
         ["cached_gt_prompt_exclusive_semantics"]),
        (10, 5, 19, {"cached": 4}, {"input": 10, "cache_read": 4, "output": 5},
         ["cached_gt_prompt_exclusive_semantics"]),
        (10, 5, 22, {"reasoning": 7}, {"input": 10, "output": 12},
         ["reasoning_excluded_from_completion_tokens"]),
        (10, 5, 15, {"reasoning": 7}, {"input": 10, "output": 5}, ["reasoning_gt_completion"]),
        (10, 5, 20, {}, {"input": 10, "output": 10}, ["hidden_output_from_total"]),
        (10, 5, 3, {}, {"input": 10, "output": 5}, []),
        (10, 5, 315, {"audio": 300}, {"input": 10, "audio_input": 300, "output": 5},
         ["audio_tokens_excluded_from_prompt_tokens"]),
        (10, 5, 15, {"audio": 4}, {"input": 6, "audio_input": 4, "output": 5}, []),
        (None, None, 15, {}, {"input": 15}, []),
        (10, None, 15, {}, {"input": 10, "output": 5}, []),
    ],
)  # fmt: skip
def test_R8_prompt_cache_and_total(
    prompt: int | None,
    completion: int | None,
    total: int,
    details: dict[str, int],
    counts: dict[str, int],
    flags: list[str],
) -> None:
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "prompt_tokens_details": {
            "cached_tokens": details.get("cached"),
            "cache_write_tokens": details.get("written"),
            "audio_tokens": details.get("audio"),
        },
        "completion_tokens_details": {"reasoning_tokens": details.get("reasoning")},
    }
    reading = read("chat", chat(usage))
    assert reading.counts == counts
    assert reading.flags == flags


def test_exclusive_upstreams_add_the_cache() -> None:
    usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 3}}
    assert read("chat", chat(usage), cache_semantics="exclusive").counts == COUNTS | {"cache_read": 3}


# ---- Anthropic ---------------------------------------------------------------------------------------------


def start(message_id: str = "m1", **usage: object) -> dict[str, object]:
    return {"type": "message_start", "message": {"id": message_id, "model": "claude", "usage": usage}}


def delta(**usage: object) -> dict[str, object]:
    return {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}


END_OF_MESSAGE = {"type": "message_stop"}


def test_U17_messages_cut_after_the_start_keep_the_input() -> None:
    reading = read(
        "messages", events(start(input_tokens=9, output_tokens=1), {"type": "error", "error": {"type": "x"}})
    )
    assert reading.counts == {"input": 9, "output": 1}
    assert (reading.complete, reading.final, reading.failed) == (False, False, True)


def test_messages_merge_member_by_member() -> None:
    body = events(
        start(input_tokens=2039, cache_read_input_tokens=5, output_tokens=3),
        delta(input_tokens=10423, output_tokens=40, cache_read_input_tokens=None),
        delta(output_tokens=50),
        END_OF_MESSAGE,
    )
    reading = read("messages", body)
    assert reading.counts == {"input": 10423, "cache_read": 5, "output": 50}
    assert (reading.complete, reading.final, reading.failed) == (True, True, False)
    assert json.loads(reading.raw)[-1] == {"output_tokens": 50}


def test_messages_zero_restatement_keeps_the_start() -> None:
    body = events(start(input_tokens=9, cache_read_input_tokens=4), delta(input_tokens=0, output_tokens=2))
    reading = read("messages", body)
    assert reading.counts == {"input": 9, "cache_read": 4, "output": 2}
    assert reading.flags == ["zero_restatement_ignored"]


def test_case_40_two_messages_of_one_stream_are_two_bills() -> None:
    one = [start("m1", input_tokens=10, output_tokens=1), delta(output_tokens=4)]
    two = [start("m2", input_tokens=20, output_tokens=1), delta(output_tokens=5), END_OF_MESSAGE]
    reading = read("messages", events(*one, *two))
    assert reading.counts == {"input": 30, "output": 9}
    assert reading.input_total == 20
    assert reading.flags == ["spliced_messages"]
    assert read("messages", events(one[0], *one, END_OF_MESSAGE)).counts == {"input": 10, "output": 4}


def test_case_40_searches_of_both_messages_are_billed() -> None:
    first = [start("m1", input_tokens=1), delta(output_tokens=1, server_tool_use={"web_search_requests": 2})]
    second = [start("m2", input_tokens=1), delta(output_tokens=1, server_tool_use={"web_search_requests": 3})]
    assert read("messages", events(*first, *second)).counts["web_search"] == 5


def test_bedrock_second_names_count_above_zero_and_metrics_only_without_usage() -> None:
    usage = {
        "inputTokens": 5,
        "outputTokens": 7,
        "cacheReadInputTokenCount": 3,
        "cacheWriteInputTokenCount": 0,
    }
    metrics = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 5, "outputTokenCount": 7}}
    for wire_format in ("invoke", "converse"):
        reading = read(wire_format, json.dumps({"usage": usage}).encode())
        assert reading.counts == COUNTS | {"cache_read": 3}
    reading = read("invoke", events({"type": "content_block_delta"}, metrics))
    assert reading.counts == COUNTS
    assert json.loads(reading.raw) == metrics["amazon-bedrock-invocationMetrics"]


def test_unknown_time_to_live_counts_as_five_minutes_and_growth_keeps_the_starts() -> None:
    assert read("messages", events(start(input_tokens=1, cache_creation_input_tokens=8))).counts == {
        "input": 1, "cache_write_5m": 8}  # fmt: skip
    hourly = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 8}
    body = events(
        start(input_tokens=1, cache_creation_input_tokens=8, cache_creation=hourly),
        delta(cache_creation_input_tokens=10, output_tokens=1),
    )
    reading = read("messages", body)
    assert reading.counts == {"input": 1, "cache_write_1h": 10, "output": 1}
    assert reading.flags == ["cache_creation_breakdown_stale"]


def test_iterations_compaction_is_added_and_advisors_stand_apart() -> None:
    iterations = [
        {"type": "message", "input_tokens": 100, "output_tokens": 1},
        {"type": "compaction", "input_tokens": 500, "output_tokens": 50, "cache_read_input_tokens": 7},
        {"type": "advisor_message", "model": "opus", "input_tokens": 30, "output_tokens": 3},
        {"type": "advisor_message", "model": "opus", "input_tokens": 30, "output_tokens": 4},
        {"type": "message", "input_tokens": 200, "output_tokens": 9},
        {"type": "mystery", "input_tokens": 1},
    ]
    usage = {"input_tokens": 300, "output_tokens": 10, "iterations": iterations}
    reading = read("messages", json.dumps({"type": "message", "usage": usage}).encode())
    assert reading.counts == {"input": 800, "cache_read": 7, "output": 60}
    assert reading.input_total == 507
    assert reading.other_models == {"opus": {"input": 60, "output": 7}}
    assert reading.flags == [
        "compaction_iterations_added",
        "other_model_iterations",
        "unknown_iteration_type",
    ]


def test_M10_a_hundred_thousand_iterations() -> None:
    entry = b'{"type":"compaction","input_tokens":1,"output_tokens":1},'
    body = b'{"type":"message","usage":{"input_tokens":5,"output_tokens":7,"iterations":[' + entry * 100_000
    pipe = Pipe("messages", -2)
    pipe.feed(body[:-1] + b"]}}")
    assert pipe.reading().counts == {"input": 100_005, "output": 100_007}
    assert pipe.reading().raw == b""
    assert "usage_raw_dropped" in pipe.reading().flags


# ---- tools, media, names -----------------------------------------------------------------------------------


def test_responses_tool_calls_are_counted_once() -> None:
    output = [
        {"type": "web_search_call", "action": {"type": "search"}},
        {"type": "web_search_call", "action": {"type": "open_page"}},
        {"action": {"query": "x", "type": "search"}, "type": "web_search_call"},
        {"type": "file_search_call"},
        {"type": "code_interpreter_call", "container_id": "c1"},
        {"type": "code_interpreter_call", "container_id": "c1"},
        {"type": "code_interpreter_call", "container_id": "c2"},
    ]
    usage = {"input_tokens": 5, "output_tokens": 7}
    tools = {"web_search": 2, "file_search": 1, "code_interpreter": 2}
    done = [{"type": "response.output_item.done", "item": item} for item in output]
    end = {"type": "response.completed", "response": {"output": output, "usage": usage}}
    assert read("responses", events(*done, end)).counts == COUNTS | tools
    assert read("responses", events(*done)).counts == tools
    assert read("responses", json.dumps({"output": output, "usage": usage}).encode()).counts == COUNTS | tools


def test_anthropic_and_gateway_web_searches() -> None:
    usage = {"input_tokens": 5, "output_tokens": 7, "server_tool_use": {"web_search_requests": 3}}
    reading = read("messages", json.dumps({"type": "message", "usage": usage}).encode())
    assert reading.counts == COUNTS | {"web_search": 3}
    assert reading.flags == ["input_total_spans_inferences"]
    assert (
        read("chat", chat(USAGE | {"server_tool_use": {"web_search_requests": 2}})).counts["web_search"] == 2
    )


def test_media_without_tokens() -> None:
    seconds = read("transcriptions", b'{"text":"hello","usage":{"type":"duration","seconds":3.2}}')
    assert seconds.counts == {"second": 4}
    images = read("images", b'{"data":[{"b64_json":"AA"},{"b64_json":"BB"}]}')
    assert images.counts == {"image": 2}
    assert read("images", b'{"data":[{}],"usage":{"input_tokens":5,"output_tokens":7}}').counts == COUNTS


def test_U33_names_in_the_answer() -> None:
    body = events(
        {"id": "", "model": "", "choices": []},
        {"id": "c9", "model": "real-model", "service_tier": "flex", "choices": []},
        {"id": "c9", "model": "other", "service_tier": "priority", "choices": [], "usage": USAGE},
    )
    reading = read("chat", body)
    assert (reading.model, reading.response_id, reading.service_tier) == ("real-model", "c9", "priority")
    usage = {"input_tokens": 1, "service_tier": "batch", "speed": "fast", "inference_geo": "eu"}
    message = read("messages", json.dumps({"type": "message", "model": "m\udc00é", "usage": usage}).encode())
    assert (message.service_tier, message.speed, message.inference_geo) == ("batch", "fast", "eu")
    assert message.model == "m\ufffdé"


def test_output_bytes_are_those_of_the_text() -> None:
    text = 'é"\\\n\t\U0001f600/'
    size = len(text.encode())
    for body in (
        json.dumps({"choices": [{"delta": {"content": text}}]}),
        '{"choices":[{"delta":{"content":"é\\"\\\\\\n\\t😀\\/"}}]}',
    ):
        assert read("chat", body.encode()).output_bytes == size
    message = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
    assert read("messages", events(message, message)).output_bytes == 2 * size
    deltas = [{"type": "response.output_text.delta", "delta": text}] * 2
    end = {"type": "response.completed", "response": {"output": [{"content": [{"text": text * 2}]}]}}
    assert read("responses", events(*deltas, end)).output_bytes == 2 * size
    assert read("responses", events(end)).output_bytes == 2 * size


def test_U30_text_without_output_tokens_is_said() -> None:
    body = events({"choices": [{"delta": {"content": "word " * 200}, "finish_reason": "stop"}]},
                  {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 0}})  # fmt: skip
    assert read("chat", body + b"data: [DONE]\n\n").flags == ["output_below_text"]


# ---- framing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "flags"),
    [
        (b'data: {"choices":[]}\ndata: {"usage":%s}\n\n', ["glued_documents"]),
        (b'data: {"choices":[]}{"usage":%s}\n\n', ["glued_documents"]),
        (b'data: {"id":"cutdata: {"id":"x","choices":[]}\n\ndata: {"usage":%s}\n\n', ["malformed_json"]),
        (b'data: {"a":NaN,"b":[Infinity,{}],"usage":%s}\n\n', []),
        (b'data: ping\n\ndata: \n\ndata:\n\ndata\n\n:\n\ndata: {"usage":%s}\n\n', ["malformed_json"]),
        (b'data:{"usage":\n: note\ndata: %s\nid: 7\ndata:  }\n\n', []),
        (b'\xef\xbb\xbfdata: {"usage":%s}', []),
        (b'\xef\xbb\xbf\r\n\r\n {"usage":%s}\n', []),
        (b'retry: 3\nid\nevent:x\ndata:{"usage":%s}\nevent: error\n\n', []),
        (b'{"text":"\xff\xfe\x00\n","usage":%s}', []),
        (b'{"usage":%s} garbage', ["trailing_bytes"]),
        (b'[{"usage":%s}\n,\r\n{"a":1}]', []),
        (b'[{"usage":%s},{"a":', ["cut_document"]),
        (b'data: {"a":"x\ndata: {"usage":%s}\n\n', ["glued_documents", "malformed_json"]),
        (b'data: {"deep":' + b"[" * 100_000 + b'\n\ndata: {"usage":%s}\n\n', ["cut_document"]),
        (b'data: {"deep":' + b"[" * 100_000 + b"]" * 100_000 + b',"usage":%s}\n\n', []),
        (b'{"deep":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b',"usage":%s}', []),
    ],
)
def test_U10_U11_U36_odd_framing(body: bytes, flags: list[str]) -> None:
    usage = json.dumps(USAGE).encode()
    reading = read("chat", body.replace(b"%s", usage))
    assert reading.counts == COUNTS
    assert reading.flags == flags


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"usage":{"prompt_tokens":5,"completion_tokens":7}',
        b'data: {"usage":{"prompt_tokens":5,"completion_tokens":7},"a":}\n\n',
        b'data: {"usage":{"prompt_tokens":5,"completion_tokens":7}]\n\n',
        b' data: {"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\n',
        b"<html>usage</html>",
        b"",
        b"\x00\x00",
        b"[[1,2],3]",
    ],
)
def test_U10_what_is_not_whole_says_nothing(body: bytes) -> None:
    assert read("chat", body).usage is None


def test_R11_a_cut_json_body_keeps_a_closed_usage_as_preliminary() -> None:
    reading = read("chat", b'{"usage":{"prompt_tokens":5,"completion_tokens":7},"choices":[{"message":{"cont')
    assert reading.counts == COUNTS
    assert (reading.complete, reading.final) == (False, False)
    assert read("chat", b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7').usage is None


def test_U18_an_error_body_is_failed_without_usage() -> None:
    for body in (b'{"error":{"message":"x"}}', events({"error": "x"}), b'error: {"message":"x"}\n\n'):
        reading = read("chat", body)
        assert reading.failed
        assert reading.usage is None
    assert not read("chat", b'{"error":null,"choices":[]}').failed


def test_stream_without_done_is_complete_when_it_ends_after_its_finish() -> None:
    body = events({"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": USAGE})
    assert read("chat", body).complete
    pipe = Pipe("chat", len(body) + 1)
    pipe.feed(body)
    pipe.finish()
    assert not pipe.reading().complete
    assert pipe.reading().final
