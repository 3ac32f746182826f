"""Promise: the scripted upstream speaks both APIs as their SDKs expect, obeys its scripts, and its log
tells what its answers stated.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anthropic
import httpx
import openai
import pytest


@dataclass
class Upstream:
    url: str
    log_file: Path
    process: subprocess.Popen[str]

    def log(self) -> dict:
        return httpx.get(f"{self.url}/_log").json()


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    log_file = tmp_path / "upstream.jsonl"
    command = [sys.executable, "-m", "farebox.run.demo.upstream", "--port", "0", "--log", str(log_file)]
    process = subprocess.Popen(
        [*command, "--bodies", str(tmp_path), "--key", "sk-upstream"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    address = process.stdout.readline().rpartition(" ")[2].strip()
    yield Upstream(f"http://{address}", log_file, process)
    process.terminate()
    process.wait()
    process.stdout.close()


def said(**script: object) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Hello. script: {json.dumps(script)} Thank you."}]


def post(upstream: Upstream, path: str, body: dict, **extra) -> httpx.Response:
    return httpx.post(f"{upstream.url}{path}", json=body, headers={"x-api-key": "sk-upstream"}, **extra)


def test_openai_sdk_chat_streamed_and_not(upstream: Upstream) -> None:
    with openai.OpenAI(api_key="sk-upstream", base_url=f"{upstream.url}/v1", max_retries=0) as client:
        messages = said(prompt=100, cache_read=50, completion=7, chunks=3, tool="weather")
        whole = client.chat.completions.create(model="m", messages=messages)
        parts = list(
            client.chat.completions.create(
                model="m", messages=messages, stream=True, stream_options={"include_usage": True}
            )
        )
        quiet = list(client.chat.completions.create(model="m", messages=messages, stream=True))
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (150, 7)
    assert whole.choices[0].message.tool_calls[0].function.name == "weather"
    arguments = "".join(
        call.function.arguments
        for part in parts
        for choice in part.choices
        for call in choice.delta.tool_calls or ()
    )
    assert json.loads(arguments)["city"] == "Paris"
    assert parts[-1].usage.prompt_tokens_details.cached_tokens == 50
    assert all(part.usage is None for part in quiet), "usage comes only when asked for"
    assert upstream.log()["usage"] == {"input": 300, "cache_read": 150, "output": 21}


def test_openai_sdk_responses_completions_embeddings(upstream: Upstream) -> None:
    with openai.OpenAI(api_key="sk-upstream", base_url=f"{upstream.url}/v1", max_retries=0) as client:
        whole = client.responses.create(model="m", input="script: " + json.dumps({"prompt": 9, "text": "Hi"}))
        events = list(client.responses.create(model="m", input=said(chunks=4, completion=40), stream=True))
        completion = client.completions.create(model="m", prompt="Once")
        vectors = client.embeddings.create(model="m", input=["a", "b"])
    assert (whole.output_text, whole.usage.input_tokens) == ("Hi", 9)
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.output_tokens == 40
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert completion.usage.total_tokens == 17
    assert vectors.data[1].embedding == [0.25, -0.5, 0.125, 1.0]


def test_anthropic_sdk_messages_streamed_and_not(upstream: Upstream) -> None:
    with anthropic.Anthropic(api_key="sk-upstream", base_url=upstream.url, max_retries=0) as client:
        messages = said(
            prompt=10, completion=20, cache_read=30, cache_write=40, cache_write_1h=50, text="Good day"
        )
        whole = client.messages.create(model="m", max_tokens=100, messages=messages)
        with client.messages.stream(model="m", max_tokens=100, messages=messages) as stream:
            final = stream.get_final_message()
        counted = client.messages.count_tokens(model="m", messages=messages)
    assert whole.content[0].text == final.content[0].text == "Good day"
    assert final.usage.output_tokens == whole.usage.output_tokens == 20
    assert final.usage.cache_creation.ephemeral_1h_input_tokens == 50
    assert (final.usage.input_tokens, final.usage.cache_creation_input_tokens) == (10, 90)
    assert counted.input_tokens == 130
    kinds = {"input": 20, "cache_read": 60, "cache_write_5m": 80, "cache_write_1h": 100, "output": 40}
    assert upstream.log()["usage"] == kinds


def test_scripted_errors_come_in_the_routes_format(upstream: Upstream) -> None:
    body = {"model": "m", "messages": said(status=429, retry_after=3, error="slow down")}
    chat = post(upstream, "/v1/chat/completions", body)
    messages = post(upstream, "/v1/messages", body)
    assert (chat.status_code, chat.headers["retry-after"]) == (429, "3")
    assert chat.json()["error"]["code"] == "rate_limit_exceeded"
    assert messages.json()["error"] == {"type": "rate_limit_error", "message": "slow down"}
    assert post(upstream, "/v1/messages", {"messages": said(nonsense=1)}).status_code == 400
    assert post(upstream, "/v1/nothing", {}).status_code == 404
    assert httpx.post(f"{upstream.url}/v1/messages", json={}).status_code == 401
    assert upstream.log()["statuses"] == {"429": 2, "400": 1, "404": 1, "401": 1}
    assert upstream.log()["usage"] == {}


@pytest.mark.parametrize("script", [{"cut_after": 2}, {"cut_after": 2, "delay_ms": 1}, {"drop": True}])
def test_a_cut_answer_is_not_a_completed_one(upstream: Upstream, script: dict) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        post(upstream, "/v1/messages", {"model": "m", "stream": True, "messages": said(**script)})
    log = upstream.log()
    assert (log["received"], log["completed"], log["usage"]) == (1, 0, {})


def test_every_layout_carries_the_same_body(upstream: Upstream) -> None:
    bodies = set()
    layouts = (
        {},
        {"delay_ms": 1},
        {"piece_bytes": 7},
        {"framing": "close"},
        {"framing": "length"},
        {"gzip": True},
    )
    for layout in layouts:
        body = {"model": "m", "stream": True, "messages": said(prompt=3, chunks=6, **layout)}
        got = post(upstream, "/v1/chat/completions", body)
        shown = got.headers["x-request-id"].removeprefix("req_")
        bodies.add(got.text.replace(shown, "0" * 16))
    assert len(bodies) == 1
    assert bodies.pop().endswith("data: [DONE]\n\n")


def test_the_log_file_has_one_line_per_exchange(upstream: Upstream) -> None:
    ids = {post(upstream, "/v1/messages", {"model": "m", "messages": said()}).json()["id"] for _ in range(3)}
    upstream.process.terminate()
    upstream.process.wait()
    lines = [json.loads(line) for line in upstream.log_file.read_text().splitlines()]
    assert {f"msg_{line['id']}" for line in lines} == ids
    assert lines[0] == {
        "id": lines[0]["id"],
        "completed": True,
        "route": "/v1/messages",
        "model": "m",
        "streamed": False,
        "status": 200,
        "usage": {"input": 12, "output": 5},
    }


def test_a_request_in_chunks_is_answered_like_one_with_a_length(upstream: Upstream) -> None:
    body = json.dumps({"model": "m", "messages": said(prompt=9, completion=3)}).encode()
    pieces = (body[at : at + 7] for at in range(0, len(body), 7))
    with httpx.Client(base_url=upstream.url, headers={"x-api-key": "sk-upstream"}) as client:
        usages = [
            client.post("/v1/chat/completions", content=content).json()["usage"] for content in (pieces, body)
        ]
    assert usages[0] == usages[1]
    assert upstream.log()["usage"] == {"input": 18, "output": 6}


def test_long_requests_are_told_apart_and_answered_alike_again(upstream: Upstream) -> None:
    bodies = [{"model": "m", "messages": [*said(text="x" * 20_000), *said(prompt=n)]} for n in range(1, 8)]
    for body in [*bodies, *bodies]:
        answer = post(upstream, "/v1/chat/completions", body).json()
        assert answer["usage"]["prompt_tokens"] == bodies.index(body) + 1
    assert upstream.log()["usage"]["input"] == 2 * sum(range(1, 8))
