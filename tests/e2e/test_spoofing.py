"""Promise M7, M8, M9, M11: only the upstream's own usage decides a charge; nobody can forge it or slip past
it.

The upstream's bytes are the test's own; the client's answer and the bill are held against them, to the byte
and to the pico. `None` as an amount: quarantined for an operator.
"""

import gzip
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.deployment import Customer, Deployment
from e2e.raw_upstream import RawUpstream, http_answer
from farebox.base.limits import answer_held_bytes_max
from farebox.run.demo.processes import wait_until
from farebox.store.base import Store

USD = 10**12
UPSTREAM_KEY_MARK = b"sk-demo-"

CHAT_IN, CHAT_OUT = 1_312_500, 10_500_000
CLAUDE_IN, CLAUDE_OUT = 3_150_000, 15_750_000
"""Pico-USD a token: the demonstration's prices times 1.05."""
CHAT = 120 * CHAT_IN + 60 * CHAT_OUT
CLAUDE = 120 * CLAUDE_IN + 60 * CLAUDE_OUT

TEXT = "hello there"
FORGED_SSE = (
    '\\n\\ndata: {\\"choices\\":[],\\"usage\\":{\\"prompt_tokens\\":0,\\"completion_tokens\\":0}}'
    '\\n\\ndata: [DONE]\\n\\nevent: message_stop\\ndata: {\\"type\\":\\"message_stop\\"}\\n\\n'
)
FORGED_USAGE = (
    '\\"usage\\":{\\"prompt_tokens\\":0,\\"completion_tokens\\":0,\\"input_tokens\\":0,\\"output_tokens\\":0}'
)
USAGE = '"usage":{"prompt_tokens":120,"completion_tokens":60,"total_tokens":180}'
SMALL = '"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}'
CLAUDE_USAGE = '"usage":{"input_tokens":120,"output_tokens":60}'


@dataclass
class Served:
    """What one exchange gave: the client's side, and how it was booked."""

    status: int
    headers: dict[str, str]
    body: bytes
    truncated: bool
    log: Any
    amount_pico: int


class Till:
    """A deployment in front of a raw upstream, and one customer."""

    def __init__(self, deployment: Deployment, upstream: RawUpstream, customer: Customer) -> None:
        self.deployment = deployment
        self.upstream = upstream
        self.customer = customer

    def call(
        self, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes, bool]:
        connection = http.client.HTTPConnection("127.0.0.1", self.deployment.port, timeout=15)
        try:
            sent = {
                "Content-Type": "application/json",
                "Authorization": f"Bearer {self.customer.key}",
                **(headers or {}),
            }
            connection.request("POST", path, body, sent)
            response = connection.getresponse()
            said = {name.lower(): value for name, value in response.getheaders()}
            try:
                return response.status, said, response.read(), False
            except http.client.IncompleteRead as error:
                return response.status, said, error.partial, True
        finally:
            connection.close()

    def serve(self, answer: bytes, *, stream: bool = False, claude: bool = False, **members: Any) -> Served:
        """One exchange that the upstream answers with `answer`; waits until it is booked."""
        self.upstream.answer = answer
        asked: dict[str, Any] = {
            "model": "claude-sonnet-4-5" if claude else "gpt-5.1",
            "max_tokens": 200,
            "messages": [{"role": "user", "content": "hi" * 10}],
            "stream": stream,
            **members,
        }
        if stream and not claude:
            asked.setdefault("stream_options", {"include_usage": True})
        path = "/v1/messages" if claude else "/v1/chat/completions"
        status, headers, body, truncated = self.call(path, json.dumps(asked).encode())
        exchange = headers["x-request-id"]

        async def log_row(store: Store) -> Any:
            return await store.request_log(exchange)

        rows: list[Any] = []
        assert wait_until(lambda: bool(rows.append(self.deployment.store(log_row)) or rows[-1]), 10.0)
        amount_pico = -sum(
            row.amount_pico for row in self.deployment.spent_rows("alice") if row.reference == exchange
        )
        return Served(status, headers, body, truncated, rows[-1], amount_pico)


class RawDeployment(Deployment):
    """Sends everything to a raw upstream."""

    def __init__(self, folder: Path, port: int) -> None:
        self.raw_port = port
        super().__init__(folder)

    def amend(self, document: dict[str, Any]) -> None:
        super().amend(document)
        for endpoint in document["endpoints"]:
            endpoint["base_url"] = f"http://127.0.0.1:{self.raw_port}"


@pytest.fixture(scope="module")
def till(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Till]:
    with (
        RawUpstream() as upstream,
        RawDeployment(tmp_path_factory.mktemp("till"), upstream.port) as deployment,
    ):
        till = Till(deployment, upstream, deployment.customer("alice", 100 * USD))
        yield till
        deployment.settled(["alice"])
        assert deployment.verified().differences == []


def chat_body(members: str, content: str = TEXT, message: str = "") -> bytes:
    said = message or f'{{"role":"assistant","content":"{content}"}}'
    return (
        '{"id":"c-1","object":"chat.completion","created":1,"model":"gpt-5.1","choices":[{"index":0,'
        f'"message":{said},"finish_reason":"stop"}}],{members}}}'
    ).encode()


def chat_events(*usages: str, content: str = TEXT, end: str = "data: [DONE]\n\n") -> bytes:
    chunk = '{"id":"c-1","object":"chat.completion.chunk","created":1,"model":"gpt-5.1","choices":['
    delta = f'{{"index":0,"delta":{{"content":"{content}"}},"finish_reason":null}}]'
    events = [f"data: {chunk}{delta}}}\n\n", *(f"data: {chunk}],{usage}}}\n\n" for usage in usages)]
    return ("".join(events) + end).encode()


def claude_events(
    first: str = '"usage":{"input_tokens":120,"output_tokens":1}',
    last: str = '"usage":{"output_tokens":60}',
    content: str = TEXT,
    delta: str = '"type":"text_delta","text"',
    end: str = "",
) -> bytes:
    def event(kind: str, members: str) -> str:
        return f'event: {kind}\ndata: {{"type":"{kind}",{members}}}\n\n'

    head = '"id":"m-1","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[]'
    tail = event("message_delta", '"delta":{"stop_reason":"end_turn"},' + last) if last else ""
    return (
        event("message_start", f'"message":{{{head},{first}}}')
        + event("content_block_start", '"index":0,"content_block":{"type":"text","text":""}')
        + event("content_block_delta", f'"index":0,"delta":{{{delta}:"{content}"}}')
        + tail
        + (end or event("message_stop", '"x":1'))
    ).encode()


TOOL_CALL = (
    '{"role":"assistant","content":null,"tool_calls":[{"id":"t","type":"function","function":'
    '{"name":"usage","arguments":"{'
    + FORGED_USAGE
    + '}"},"usage":{"prompt_tokens":0,"completion_tokens":0}}]}'
)


@pytest.mark.parametrize(
    ("body", "amount_pico"),
    [
        pytest.param(chat_body(USAGE), CHAT, id="plain"),
        pytest.param(chat_body(USAGE, "{" + FORGED_USAGE + "}"), CHAT, id="U34-text"),
        pytest.param(chat_body(USAGE, FORGED_SSE), CHAT, id="B16-fake-events"),
        pytest.param(chat_body(USAGE, message=TOOL_CALL), CHAT, id="B17-tool-arguments"),
        pytest.param(chat_body(f"{SMALL},{USAGE}"), CHAT, id="U35-duplicate-last-counts"),
        pytest.param(chat_body(USAGE.replace("usage", "us\\u0061ge")), CHAT, id="U35-escaped-key"),
        pytest.param(chat_body(USAGE + "," + SMALL.replace("usage", "Usage")), CHAT, id="B05-other-case"),
        pytest.param(chat_body(USAGE + ',"x":{' + SMALL + "}"), CHAT, id="U34-nested-elsewhere"),
        pytest.param(chat_body(USAGE.replace("60", '"60"')), CHAT, id="U29-number-as-text"),
        pytest.param(chat_body(USAGE.replace("60", "-60")), CHAT, id="U29-negative-from-total"),
        pytest.param(chat_body(USAGE.replace("60", "NaN")), CHAT, id="U29-nan-from-total"),
        pytest.param(chat_body(USAGE.replace("60", "1e30")), None, id="U29-huge"),
        pytest.param(chat_body(USAGE.replace("60", "9223372036854775808")), None, id="U29-2-to-63"),
        pytest.param(chat_body(USAGE).replace(b'"gpt-5.1"', b'"gpt-dear"'), CHAT, id="U33-model-differs"),
        pytest.param(chat_body(USAGE).replace(b"gpt-5.1", b"m" * 90_000), CHAT, id="M10-long-model-name"),
        pytest.param(b'{"error":{"message":"no","type":"server_error"}}', 0, id="U18-error-in-200"),
    ],
)
def test_M8_a_plain_answer_is_billed_by_its_own_usage_and_passes_unchanged(
    till: Till, body: bytes, amount_pico: int | None
) -> None:
    served = till.serve(http_answer(body))
    assert (served.status, served.body) == (200, body)
    assert served.amount_pico == (amount_pico or 0)
    parked = till.deployment.verified().parked
    assert any(served.headers["x-request-id"] in str(row) for row in parked) == (amount_pico is None)


@pytest.mark.parametrize(
    ("body", "claude", "amount_pico", "evidence"),
    [
        pytest.param(chat_events(USAGE), False, CHAT, "exact", id="chat"),
        pytest.param(chat_events(USAGE, content=FORGED_SSE), False, CHAT, "exact", id="U34-chat-fake-events"),
        pytest.param(chat_events(SMALL, USAGE), False, CHAT, "exact", id="U29-chat-last-counts"),
        pytest.param(chat_events(), False, None, "estimated", id="U06-chat-no-usage"),
        pytest.param(claude_events(), True, CLAUDE, "exact", id="messages"),
        pytest.param(claude_events(content=FORGED_SSE), True, CLAUDE, "exact", id="U34-messages-fake-events"),
        pytest.param(
            claude_events(content="{" + FORGED_USAGE + "}", delta='"type":"input_json_delta","partial_json"'),
            True, CLAUDE, "exact", id="B17-messages-tool-arguments",
        ),
        pytest.param(
            claude_events(last=""),
            True,
            120 * CLAUDE_IN + 3 * CLAUDE_OUT,
            "partial",
            id="U06-messages-no-last-usage",
        ),
    ],
)  # fmt: skip
def test_M8_a_stream_is_billed_by_its_own_usage_and_passes_unchanged(
    till: Till, body: bytes, claude: bool, amount_pico: int | None, evidence: str
) -> None:
    served = till.serve(http_answer(body, content_type="text/event-stream"), stream=True, claude=claude)
    assert (served.status, served.body, served.truncated) == (200, body, False)
    if amount_pico is None:
        amount_pico = served.log["inputTokens"] * CHAT_IN + 3 * CHAT_OUT
    assert (served.amount_pico, served.log["evidence"]) == (amount_pico, evidence)


def test_U30_usage_of_zero_beside_delivered_text_is_estimated(till: Till) -> None:
    zero = '"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'
    served = till.serve(http_answer(chat_body(zero)))
    assert served.log["evidence"] == "estimated"
    assert served.amount_pico == served.log["inputTokens"] * CHAT_IN + 3 * CHAT_OUT
    served = till.serve(http_answer(chat_body('"usage":{"prompt_tokens":120,"completion_tokens":0}')))
    assert (served.amount_pico, served.log["evidence"]) == (120 * CHAT_IN + 3 * CHAT_OUT, "partial")


def test_M9_an_injected_usage_chunk_is_removed_and_nothing_else(till: Till) -> None:
    body = chat_events(USAGE, content=FORGED_SSE)
    served = till.serve(http_answer(body, content_type="text/event-stream"), stream=True, stream_options=None)
    assert served.body == chat_events(content=FORGED_SSE)
    assert served.amount_pico == CHAT
    assert b'"include_usage":true' in till.upstream.received[-1][1].replace(b" ", b"")


@pytest.mark.parametrize(
    ("body", "amount_pico"),
    [
        pytest.param(chat_events(end=""), None, id="U05-U07-before-usage"),
        pytest.param(chat_events(USAGE, end=""), CHAT, id="U07-after-usage"),
        pytest.param(
            chat_events(end='data: {"error":{"message":"no","type":"server_error"}}\n\n'),
            None,
            id="U17-error-event",
        ),
    ],
)
def test_U05_U07_a_cut_stream_is_seen_cut_and_billed_for_what_was_sent(
    till: Till, body: bytes, amount_pico: int | None
) -> None:
    served = till.serve(http_answer(body, content_type="text/event-stream", declared=0), stream=True)
    assert served.truncated
    assert served.body.startswith(body)
    if amount_pico is None:
        assert served.log["evidence"] == "estimated"
        assert served.amount_pico == served.log["inputTokens"] * CHAT_IN + 3 * CHAT_OUT
    else:
        assert served.amount_pico == amount_pico


def test_U08_a_short_plain_answer_is_our_error_and_costs_nothing_unless_it_stated_usage(till: Till) -> None:
    body = chat_body(USAGE)
    served = till.serve(http_answer(body, declared=len(body) + 100))
    assert served.status == 502
    assert served.log["outcome"] == "upstream_broke"
    served = till.serve(http_answer(body, declared=len(body) - 1) + b"HTTP/1.1 200 OK\r\n\r\n")
    assert served.body == body[:-1]
    assert b"HTTP/1.1" not in served.body


LARGE = chat_body('"x":1', "l" * (answer_held_bytes_max + 1 - len(chat_body('"x":1', ""))))
"""Without usage; its last byte is the one that is too many to be held back."""


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http_answer(LARGE, declared=len(LARGE) + 5_000), id="declared"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
            + b"%x\r\n%b\r\n" % (len(LARGE), LARGE),
            id="chunked",
        ),
    ],
)
def test_U08_M9_a_large_plain_answer_that_breaks_off_gets_no_word_of_ours(till: Till, answer: bytes) -> None:
    served = till.serve(answer)
    assert served.truncated
    assert served.body == LARGE
    assert (served.log["outcome"], served.log["evidence"]) == ("upstream_broke", "estimated")


def test_U07_M9_an_encoded_stream_that_breaks_off_gets_no_word_of_ours(till: Till) -> None:
    """Even where its bytes look like the end of an event."""
    packed = gzip.compress(chat_events(end="")) + b"\n\n"
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n"
    head += "Content-Encoding: gzip\r\n\r\n"
    served = till.serve(head.encode() + b"%x\r\n%b\r\n" % (len(packed), packed), stream=True)
    assert served.truncated
    assert served.body == packed
    assert (served.log["outcome"], served.log["evidence"]) == ("upstream_broke", "estimated")


def test_U15_gzip_that_was_not_asked_for_is_metered_and_relayed_as_it_is(till: Till) -> None:
    packed = gzip.compress(chat_body(USAGE))
    served = till.serve(http_answer(packed, lines=("Content-Encoding: gzip",)))
    assert (served.body, served.amount_pico) == (packed, CHAT)
    assert served.headers["content-encoding"] == "gzip"
    assert b"accept-encoding: identity" in till.upstream.received[-1][0].lower()
    served = till.serve(http_answer(packed, lines=("Content-Encoding: br",)))
    assert (served.status, served.amount_pico) == (502, 0)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_U21_redirects_are_not_followed_and_cost_nothing(till: Till, status: int) -> None:
    before = len(till.upstream.received)
    location = f"Location: http://127.0.0.1:{till.upstream.port}/elsewhere"
    served = till.serve(http_answer(b"{}", status=status, lines=(location,)))
    assert (served.status, served.amount_pico) == (502, 0)
    assert "location" not in served.headers
    assert len(till.upstream.received) == before + 1


def test_A30_H22_H23_only_what_describes_a_request_goes_up_and_no_secret_comes_down(till: Till) -> None:
    secrets = {
        "Authorization": f"Bearer {till.customer.key}",
        "X-Api-Key": till.customer.key,
        "Cookie": "session=1",
        "Connection": "keep-alive, authorization, x-api-key",
        "Proxy-Authorization": "Basic eDp5",
        "Proxy-Connection": "keep-alive",
        "X-Forwarded-For": "10.0.0.1",
        "X-Real-IP": "10.0.0.1",
        "Forwarded": "for=10.0.0.1",
        "X-Accel-Redirect": "/",
        "X-Farebox-User": "root",
        "X-Usage": '{"prompt_tokens":0}',
        "Usage": "0",
        "OpenAI-Organization": "org-1",
        "TE": "trailers",
    }
    said = ("Set-Cookie: a=b", "X-Ratelimit-Limit-Requests: 5", "Openai-Organization: org-operator",
            "Authorization: Bearer sk-demo-echo", "X-Request-Id: up-1")  # fmt: skip
    till.upstream.answer = http_answer(chat_body(USAGE), lines=said)
    body = json.dumps(
        {"model": "gpt-5.1", "messages": [], "usage": {"prompt_tokens": 0}, "max_tokens": 9}
    ).encode()
    status, headers, answer, _ = till.call("/v1/chat/completions", body, secrets)
    head = till.upstream.received[-1][0]
    names = {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:] if line}
    assert names <= {
        b"host",
        b"user-agent",
        b"accept-encoding",
        b"content-type",
        b"authorization",
        b"content-length",
    }
    assert till.customer.key.encode() not in head
    assert head.count(UPSTREAM_KEY_MARK) == 1
    assert (status, answer) == (200, chat_body(USAGE))
    assert headers["x-farebox-cost"] == "0.0007875"
    assert not {"set-cookie", "authorization", "openai-organization", "x-ratelimit-limit-requests"} & set(
        headers
    )
    assert UPSTREAM_KEY_MARK.decode() not in str(headers)


@pytest.mark.parametrize("status", [401, 403, 500])
def test_A30_an_upstream_that_echoes_its_credential_in_an_error_is_not_quoted(
    till: Till, status: int
) -> None:
    served = till.serve(http_answer(b'{"error":{"message":"bad key sk-demo-echo"}}', status=status))
    assert UPSTREAM_KEY_MARK not in served.body
    assert served.amount_pico == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(
            '{"model":"gpt-5.1","model":"claude-sonnet-4-5","messages":[]}', 400, id="B04-model-twice"
        ),
        pytest.param(
            '{"model":"gpt-5.1","m\\u006fdel":"claude-sonnet-4-5","messages":[]}', 400, id="B05-escaped"
        ),
        pytest.param('{"Model":"gpt-5.1","messages":[]}', 400, id="B05-case"),
        pytest.param(
            '{"model":"gpt-5.1","max_tokens":5,"max_tokens":9,"messages":[]}', 400, id="B04-limit-twice"
        ),
        pytest.param('{"model":"gpt-5.1\\u200b","messages":[]}', 404, id="B09-zero-width"),
        pytest.param('{"model":"GPT-5.1","messages":[]}', 404, id="B09-case"),
        pytest.param('{"model":"gpt-5.1.","messages":[]}', 404, id="B09-dot"),
        pytest.param('{"model":"openai/gpt-5.1","messages":[]}', 404, id="B09-prefix"),
        pytest.param('{"model":"gpt-\\uff15.1","messages":[]}', 404, id="B09-fullwidth"),
        pytest.param('{"model":"../gpt-5.1","messages":[]}', 404, id="B09-path"),
        pytest.param('{"model":"","messages":[]}', None, id="B10-empty"),
        pytest.param('{"model":"gpt-5.1","service_tier":"priority","messages":[]}', 400, id="B11-tier"),
        pytest.param('{"model":"gpt-5.1","service_tier":7,"messages":[]}', 400, id="B11-tier-number"),
        pytest.param('{"model":"gpt-5.1","web_search_options":{},"messages":[]}', 400, id="B11-search"),
        pytest.param('{"model":"gpt-5.1","modalities":["audio"],"messages":[]}', 400, id="B11-audio"),
        pytest.param('{"model":"gpt-5.1","api_base":"http://evil","messages":[]}', 400, id="B12-api-base"),
        pytest.param('{"model":"gpt-5.1","base_url":"http://evil","messages":[]}', 400, id="B12-base-url"),
        pytest.param('{"model":"gpt-5.1","custom_llm_provider":"x","messages":[]}', 400, id="B12-provider"),
        pytest.param('{"model":"gpt-5.1","fallbacks":["o3-pro"],"messages":[]}', 400, id="B12-fallbacks"),
        pytest.param('{"model":"gpt-5.1","extra_headers":{"a":"b"},"messages":[]}', 400, id="B12-headers"),
    ],
)
def test_B_requests_that_could_mean_another_price_or_place_never_reach_the_upstream(
    till: Till, body: str, status: int | None
) -> None:
    before = len(till.upstream.received)
    answered, _, said, _ = till.call("/v1/chat/completions", body.encode())
    assert answered in ({400, 404} if status is None else {status}), said
    assert len(till.upstream.received) == before


def test_B10_an_alias_reaches_the_row_it_is_priced_by(till: Till) -> None:
    plain = (
        '{"id":"m","type":"message","role":"assistant","model":"x","content":[{"type":"text","text":"hi"}],'
    )
    served = till.serve(http_answer((plain + CLAUDE_USAGE + "}").encode()), claude=True)
    assert json.loads(till.upstream.received[-1][1])["model"] == "claude-sonnet-4-5-20250929"
    assert served.amount_pico == CLAUDE


def test_A30_an_upstream_error_too_large_to_hold_is_not_passed_on(till: Till) -> None:
    secret = "organisation org-operator"
    body = b'{"error":{"message":"' + secret.encode() + b" " * (3 * 2**20) + b'"}}'
    served = till.serve(http_answer(body, status=500))
    assert served.status == 502
    assert secret.encode() not in served.body
    assert served.amount_pico == 0
