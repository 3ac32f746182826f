"""What the scripted upstream says: pure functions from a request body and its script to an answer.

The same request always gives the same answer, except for the exchange's id: in these bytes it is `ID_MARK`,
and the server fills it in. Streams are in `streams.py`.
"""

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from farebox.run.demo.script import Json, Script
from farebox.run.demo.shapes import (
    ARGUMENTS,
    CREATED,
    ID,
    chat_envelope,
    chat_usage,
    dumped,
    finish_reason,
    message_of,
    messages_usage,
    model_of,
    output_item,
    response_of,
    whole_text,
)
from farebox.run.demo.streams import STREAMS

ROUTES: Final = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "count_tokens",
}
"""Path -> wire format."""

_EMBEDDING = (0.25, -0.5, 0.125, 1.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, type and events of an answer; `counts` is its usage in normal form (empty: none stated)."""

    status: int
    content_type: str
    events: tuple[bytes, ...]
    streamed: bool
    counts: Mapping[str, int]


def answer(wire_format: str, request: Json, script: Script) -> Answer:
    """The answer to a request of `wire_format` under `script`."""
    if script.status != 200:
        refused = error_body(wire_format, script.status, script.error)
        return Answer(script.status, "application/json", (refused,), streamed=False, counts={})
    counts = _counts(wire_format, script)
    if request.get("stream") is True and wire_format in STREAMS:
        events = _told(STREAMS[wire_format](request, script), wire_format, script)
        return Answer(200, "text/event-stream; charset=utf-8", events, streamed=True, counts=counts)
    body = _BODIES[wire_format](request, script)
    return Answer(
        200, "application/json", (dumped({**body, **script.members}),), streamed=False, counts=counts
    )


def error_body(wire_format: str, status: int, message: str) -> bytes:
    """An error in the words of the wire format's provider."""
    if wire_format in {"messages", "count_tokens"}:
        kinds = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error"}
        kinds |= {
            404: "not_found_error",
            413: "request_too_large",
            429: "rate_limit_error",
            529: "overloaded_error",
        }
        detail = {"type": kinds.get(status, "api_error"), "message": message}
        return dumped({"type": "error", "error": detail, "request_id": f"req_{ID}"})
    kind = "invalid_request_error" if status < 500 else "server_error"
    code = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}.get(status)
    return dumped({"error": {"message": message, "type": kind, "param": None, "code": code}})


def _told(events: Iterator[bytes], wire_format: str, script: Script) -> tuple[bytes, ...]:
    """The events that are really sent: all, or up to a scripted error, or without the terminal one."""
    told = list(events)
    if script.error_after >= 0:
        kept = told[: script.error_after + 1]
        body = error_body(wire_format, 500, script.error)
        prefix = b"event: error\n" if wire_format == "messages" else b""
        return (*kept, prefix + b"data: " + body + b"\n\n")
    return tuple(told if script.terminal else told[:-1])


# -- usage ---------------------------------------------------------------------------------------------------


def _counts(wire_format: str, script: Script) -> dict[str, int]:
    if not script.usage or wire_format == "count_tokens":
        return {}
    kinds = {"input": script.prompt, "cache_read": script.cache_read}
    if wire_format == "messages":
        kinds |= {"cache_write_5m": script.cache_write, "cache_write_1h": script.cache_write_1h}
    if wire_format != "embeddings":
        kinds["output"] = script.completion
    else:
        del kinds["cache_read"]
    return {kind: count for kind, count in kinds.items() if count}


# -- whole bodies --------------------------------------------------------------------------------------------


def _chat_body(request: Json, script: Script) -> Json:
    message: Json = {"role": "assistant", "content": whole_text(script), "refusal": None}
    if script.tool:
        call = {
            "id": f"call_{ID}",
            "type": "function",
            "function": {"name": script.tool, "arguments": ARGUMENTS},
        }
        message |= {"content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(script)}
    count = request.get("n") or 1
    body = chat_envelope(request, "chat.completion")
    body["choices"] = [{**choice, "index": index} for index in range(count)]
    return body | ({"usage": chat_usage(script)} if script.usage else {})


def _completions_body(request: Json, script: Script) -> Json:
    choice = {"text": whole_text(script), "index": 0, "logprobs": None, "finish_reason": "stop"}
    body = {"id": f"cmpl-{ID}", "object": "text_completion", "created": CREATED, "model": model_of(request)}
    return {**body, "choices": [choice]} | ({"usage": chat_usage(script)} if script.usage else {})


def _responses_body(request: Json, script: Script) -> Json:
    return response_of(request, script, "completed", [output_item(script, "completed")])


def _embeddings_body(request: Json, script: Script) -> Json:
    vector: object = list(_EMBEDDING)
    if request.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack(f"<{len(_EMBEDDING)}f", *_EMBEDDING)).decode()
    said = request.get("input")
    many = len(said) if isinstance(said, list) and said and not isinstance(said[0], int) else 1
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(many)]
    body = {"object": "list", "data": data, "model": model_of(request)}
    usage = {"prompt_tokens": script.prompt, "total_tokens": script.prompt, **script.usage_members}
    return body | ({"usage": usage} if script.usage else {})


def _messages_body(request: Json, script: Script) -> Json:
    content: Json = {"type": "text", "text": whole_text(script)}
    if script.tool:
        content = {
            "type": "tool_use",
            "id": f"toolu_{ID}",
            "name": script.tool,
            "input": json.loads(ARGUMENTS),
        }
    body = message_of(request, [content], "tool_use" if script.tool else "end_turn")
    return body | ({"usage": messages_usage(script, script.completion)} if script.usage else {})


def _count_tokens_body(_request: Json, script: Script) -> Json:
    return {"input_tokens": script.prompt + script.cache_read + script.cache_write + script.cache_write_1h}


_BODIES: Final = {
    "chat": _chat_body,
    "completions": _completions_body,
    "responses": _responses_body,
    "embeddings": _embeddings_body,
    "messages": _messages_body,
    "count_tokens": _count_tokens_body,
}
