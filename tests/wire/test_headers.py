"""Only listed headers pass, nobody can inject one, and a request carries one key or is refused."""

import pytest
from aiohttp import hdrs
from multidict import CIMultiDict, CIMultiDictProxy

from farebox._meter import Head, parse_head, request_lines
from farebox.base import limits
from farebox.base.errors import Refusal, Refused
from farebox.wire.headers import client_key, encode_headers, require_json


def headers(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


def response_head(*lines: bytes) -> Head:
    data = b"HTTP/1.1 200 OK\r\n" + b"".join(line + b"\r\n" for line in lines) + b"Content-Length: 0\r\n\r\n"
    head = parse_head(data, False, 65536, 100)
    assert head is not None
    return head


def logged_id(head: Head) -> str:
    return head.facts(limits.upstream_request_id_bytes_max)[3]


def refusal_of(*pairs: tuple[str, str], query: str = "") -> Refused:
    with pytest.raises(Refused) as caught:
        client_key(headers(*pairs), query)
    return caught.value


@pytest.mark.parametrize(
    "pairs",
    [
        [("Authorization", "Bearer sk-1")],
        [("authorization", "bearer sk-1")],
        [("X-Api-Key", "sk-1")],
        [("api-key", "sk-1")],
        [("x-goog-api-key", "sk-1")],
        [("Authorization", "Bearer sk-1"), ("X-Api-Key", "sk-1"), ("X-Api-Key", "sk-1")],
    ],
)
def test_A06_one_key_however_often(pairs: list[tuple[str, str]]) -> None:
    assert client_key(headers(*pairs)) == "sk-1"


@pytest.mark.parametrize(
    "pairs",
    [
        [("Authorization", "Bearer sk-1"), ("X-Api-Key", "sk-2")],
        [("Authorization", "Bearer sk-1"), ("Authorization", "Bearer sk-2")],
        [("api-key", "sk-1"), ("x-goog-api-key", "sk-2")],
    ],
)
def test_A06_different_keys_are_refused(pairs: list[tuple[str, str]]) -> None:
    assert refusal_of(*pairs).refusal is Refusal.KEY_AMBIGUOUS


@pytest.mark.parametrize("query", ["key=x", "a=b&api_key=x", "API_KEY=x", "access_token", "token=&x"])
def test_A05_key_in_the_query_is_refused(query: str) -> None:
    refused = refusal_of(("Authorization", "Bearer sk-1"), query=query)
    assert refused.refusal is Refusal.KEY_AMBIGUOUS
    assert query not in refused.message


def test_A05_other_queries_and_cookies_do_not_matter() -> None:
    assert client_key(headers(("X-Api-Key", "k"), ("Cookie", "key=x")), "beta=true") == "k"


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Bearer  sk", "sk-1", "Basic c2s=", "Bearer " + "k" * 65536, "Bearer a\0b",
     "Bearer \u00e4", "Bearer a b", "Token sk-1", "Bearer a\tb"],
)  # fmt: skip
def test_A07_A08_malformed_keys_get_one_answer(value: str) -> None:
    refused = refusal_of(("Authorization", value))
    assert refused.refusal is Refusal.KEY_MISSING
    assert refused.message == refusal_of().message


def test_A07_text_of_a_query_language_is_only_text() -> None:
    assert client_key(headers(("X-Api-Key", "{$gt:''}"))) == "{$gt:''}"
    assert refusal_of(("X-Api-Key", "' OR '1'='1")).refusal is Refusal.KEY_MISSING


def test_H21_injected_lines_are_rejected() -> None:
    for pair in [("x", "a\r\nb: c"), ("x\n", "a"), ("x", "a\0"), ("x", "\u00e9"), ("x", "a\x7f")]:
        with pytest.raises(ValueError, match="may not be sent"):
            encode_headers([pair])
    assert encode_headers([("A", "b"), ("C", "d e")]) == b"A: b\r\nC: d e\r\n"
    assert encode_headers([]) == b""


def test_H22_H23_only_listed_headers_go_up() -> None:
    sent = [
        (b"Host", b"h"),
        (b"accept", b"text/event-stream"),
        (b"Accept-Encoding", b"gzip"),
        (b"Authorization", b"Bearer k"),
        (b"Connection", b"x-api-key"),
        (b"X-Forwarded-For", b"1.2.3.4"),
        (b"OpenAI-Organization", b"o"),
        (b"OpenAI-Project", b"p"),
        (b"openai-beta", b"assistants=v2"),
        (b"ANTHROPIC-BETA", b"one"),
        (b"Anthropic-Beta", b"two"),
        (b"Cookie", b"c"),
        (b"User-Agent", b"u"),
        (b"TraceParent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"tracestate", b"a=b"),
    ]
    assert request_lines(sent, "/v1/chat/completions") == (
        b"Accept: text/event-stream\r\nOpenAI-Beta: assistants=v2\r\n"
        b"Anthropic-Beta: one\r\nAnthropic-Beta: two\r\n"
        b"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nTracestate: a=b\r\n"
    )


def test_messages_routes_always_name_a_version() -> None:
    assert request_lines([], "/v1/messages") == b"Anthropic-Version: 2023-06-01\r\n"
    named = [(b"anthropic-version", b"2024-01-01")]
    assert request_lines(named, "/v1/messages") == b"Anthropic-Version: 2024-01-01\r\n"


def test_U23_only_listed_headers_come_down() -> None:
    head = response_head(
        b"Content-Type: text/event-stream; charset=utf-8",
        b"Content-Encoding: gzip",
        b"Retry-After: 3",
        b"Set-Cookie: a=b",
        b"Server: s",
        b"X-Request-Id: req_1",
        b"OpenAI-Organization: o",
        b"X-RateLimit-Remaining-Tokens: 5",
    )
    assert head.facts(128)[0] == (
        b"Content-Type: text/event-stream; charset=utf-8\r\n"
        b"Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
        b"Content-Encoding: gzip\r\nRetry-After: 3\r\n"
    )


def test_U23_request_id_is_kept_for_the_log_if_it_is_harmless() -> None:
    assert logged_id(response_head(b"Request-Id: req_1")) == "req_1"
    assert logged_id(response_head(b"X-Request-Id: " + b"x" * 129)) == ""
    assert logged_id(response_head(b"X-Request-Id: \xff")) == ""
    assert logged_id(response_head()) == ""


@pytest.mark.parametrize(
    "declared",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json; charset=UTF-8",
    ],
)
def test_H25_json_is_accepted(declared: str) -> None:
    require_json(headers((hdrs.CONTENT_TYPE, declared)))


@pytest.mark.parametrize(
    "declared",
    [None, "", "text/plain", "multipart/form-data; boundary=---", "application/json; charset=utf-16",
     "application/x-www-form-urlencoded"],
)  # fmt: skip
def test_H25_other_types_are_refused(declared: str | None) -> None:
    with pytest.raises(Refused) as caught:
        require_json(headers(*([] if declared is None else [(hdrs.CONTENT_TYPE, declared)])))
    assert caught.value.refusal is Refusal.BODY_TYPE
