"""Error bodies byte for byte, for both families, as whole answers and inside streams; nothing of the
operator in them.
"""

import orjson
import pytest

from farebox.base.errors import Refusal, Refused
from farebox.wire.errors import cut_event, error_event, protocol_fault, render, upstream_fault

JSON = b"Content-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("refusal", "status", "openai", "anthropic"),
    [
        (Refusal.METHOD, 405, "invalid_request_error", "invalid_request_error"),
        (Refusal.KEY_MISSING, 401, "invalid_request_error", "authentication_error"),
        (Refusal.KEY_UNKNOWN, 401, "authentication_error", "authentication_error"),
        (Refusal.KEY_REVOKED, 401, "authentication_error", "authentication_error"),
        (Refusal.CREDITS_EXPIRED, 402, ("insufficient_quota", "credits_expired"), "credits_expired"),
        (Refusal.POOL_EMPTY, 402, ("insufficient_quota", "insufficient_credits"), "insufficient_credits"),
        (Refusal.BALANCE_SHORT, 402, "insufficient_balance", "insufficient_balance"),
        (Refusal.BODY_INVALID, 400, "invalid_request_error", "invalid_request_error"),
        (Refusal.MODEL_UNKNOWN, 404, "invalid_request_error", "invalid_request_error"),
        (Refusal.RATE_LIMITED, 429, ("rate_limit_error", "rate_limit_exceeded"), "rate_limit_error"),
        (Refusal.UPSTREAM_FAILED, 502, "upstream_error", "api_error"),
        (Refusal.INTERNAL, 500, "server_error", "api_error"),
    ],
)
def test_status_type_and_code(
    refusal: Refusal, status: int, openai: str | tuple[str, str], anthropic: str
) -> None:
    refused = Refused(refusal, "Text.")
    kind, code = openai if isinstance(openai, tuple) else (openai, None)
    coded = f',"code":"{code}"' if code else ""
    got_status, _, body = render(refused, "openai", "")
    assert (got_status, body) == (
        status,
        f'{{"error":{{"message":"Text.","type":"{kind}"{coded}}}}}'.encode(),
    )
    got_status, _, body = render(refused, "anthropic", "")
    assert got_status == status
    assert body == f'{{"type":"error","error":{{"type":"{anthropic}","message":"Text."}}}}'.encode()


def test_details_are_members_of_the_error() -> None:
    refused = Refused(Refusal.BALANCE_SHORT, "Short.", details={"needed": "0.5", "max_tokens": 10})
    assert render(refused, "openai", "r1") == (
        402,
        JSON + b"x-request-id: r1\r\n",
        b'{"error":{"message":"Short.","type":"insufficient_balance","needed":"0.5","max_tokens":10}}',
    )
    assert render(refused, "anthropic", "r1")[2] == (
        b'{"type":"error","error":{"type":"insufficient_balance","message":"Short.","needed":"0.5","max_tokens":10}}'
    )


def test_405_names_the_method_and_429_the_wait() -> None:
    _, lines, body = render(Refused(Refusal.METHOD, "Use GET.", details={"allow": "GET"}), "openai", "")
    assert lines == JSON + b"Allow: GET\r\n"
    assert b"allow" not in body
    assert (
        render(Refused(Refusal.RATE_LIMITED, "x", retry_after_s=7), "openai", "")[1]
        == JSON + b"Retry-After: 7\r\n"
    )


def test_H21_message_with_line_breaks_stays_inside_the_body() -> None:
    status, lines, body = render(Refused(Refusal.MODEL_UNKNOWN, 'a"b\r\nX: y'), "openai", "")
    assert (status, lines) == (404, JSON)
    assert orjson.loads(body)["error"]["message"] == 'a"b\r\nX: y'


def test_protocol_fault() -> None:
    assert protocol_fault(400, "No.") == (
        400,
        JSON,
        b'{"error":{"message":"No.","type":"invalid_request_error"}}',
    )


@pytest.mark.parametrize("status", [400, 413, 422])
def test_M9_faults_of_the_request_pass_unchanged(status: int) -> None:
    assert upstream_fault(status, "openai", "r") is None


@pytest.mark.parametrize(
    ("status", "answered", "openai", "anthropic"),
    [
        (401, 502, "upstream_error", "api_error"),
        (402, 502, "upstream_error", "api_error"),
        (403, 502, "upstream_error", "api_error"),
        (407, 502, "upstream_error", "api_error"),
        (302, 502, "upstream_error", "api_error"),
        (418, 502, "upstream_error", "api_error"),
        (404, 404, "not_found_error", "not_found_error"),
        (429, 429, "rate_limit_error", "rate_limit_error"),
        (529, 529, "overloaded_error", "overloaded_error"),
        (500, 500, "server_error", "api_error"),
        (503, 503, "server_error", "api_error"),
    ],
)
def test_U19_U20_U21_faults_of_the_upstream_get_our_own_body(
    status: int, answered: int, openai: str, anthropic: str
) -> None:
    answer = upstream_fault(status, "openai", "")
    assert answer is not None
    assert (answer[0], orjson.loads(answer[2])["error"]["type"]) == (answered, openai)
    answer = upstream_fault(status, "anthropic", "")
    assert answer is not None
    assert (answer[0], orjson.loads(answer[2])["error"]["type"]) == (answered, anthropic)
    for word in (b"credit", b"key", b"account", b"billing"):
        assert word not in answer[2].lower()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"20", b"Retry-After: 20\r\n"),
        (b"", b""),
        (b"soon", b""),
        (b"-1", b""),
        (b"9" * 400, b""),
        (b"1.5", b""),
    ],
)
def test_U19_retry_after_is_kept_when_plausible(sent: bytes, kept: bytes) -> None:
    answer = upstream_fault(429, "openai", "", sent)
    assert answer is not None
    assert answer[1] == JSON + kept


def test_error_events() -> None:
    refused = Refused(Refusal.UPSTREAM_TIMEOUT, "Late.")
    openai = b'data: {"error":{"message":"Late.","type":"upstream_error","code":"upstream_timeout"}}\n\n'
    assert error_event("chat", refused) == openai
    assert error_event("completions", refused) == openai
    assert error_event("messages", refused) == (
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"Late."}}\n\n'
    )
    assert error_event("responses", refused, 7) == (
        b'event: error\ndata: {"type":"error","code":"upstream_timeout","message":"Late.","param":null,'
        b'"sequence_number":7}\n\n'
    )


def test_cut_events() -> None:
    assert cut_event("chat", "why", response_id="i", model="m", created_s=5) == (
        b'data: {"id":"i","object":"chat.completion.chunk","created":5,"model":"m","choices":[{"index":0,'
        b'"finish_reason":"length","delta":{}}],"farebox_cut":"why"}\n\ndata: [DONE]\n\n'
    )
    assert cut_event("completions", "why") == (
        b'data: {"id":"","object":"text_completion","created":0,"model":"","choices":[{"index":0,'
        b'"finish_reason":"length","text":""}],"farebox_cut":"why"}\n\ndata: [DONE]\n\n'
    )
    assert cut_event("messages", "why", output_tokens=9) == (
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"max_tokens",'
        b'"stop_sequence":null},"usage":{"output_tokens":9},"farebox_cut":"why"}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )
    assert cut_event("responses", "why", response_id="i", model="m", created_s=5, sequence_number=3) == (
        b'event: response.incomplete\ndata: {"type":"response.incomplete","sequence_number":3,"response":'
        b'{"id":"i","object":"response","created_at":5,"status":"incomplete","error":null,"incomplete_details":{"reason":'
        b'"max_output_tokens"},"model":"m","output":[]},"farebox_cut":"why"}\n\n'
    )
