"""What the scripted upstream says: pure functions from a request body to the bytes of an answer.

A request may carry a script in the text of its last user message (or in `prompt`, or `input`):

    script: {"prompt": 12, "completion": 5, "chunks": 100, "delay_ms": 2}

Without one the defaults of `Script` apply. Counts are in Farebox's normal form: `prompt` is uncached input;
the wire format decides whether cached tokens are shown inside it (OpenAI) or beside it (Anthropic). The same
request always gives the same answer, except for the exchange's id: in these bytes it is `ID_MARK`, and the
server fills it in.
"""

import base64
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

import orjson

ID_MARK: Final = b"0exchange-id-mar"
"""16 bytes that the server replaces with the exchange's 16 hex digits, so that lengths stay right."""

ROUTES: Final = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "count_tokens",
}
"""Path -> wire format."""

Json = dict[str, Any]

_ID = ID_MARK.decode()
_SCRIPT = re.compile(r"script:\s*(?=\{)")
_CREATED = 1_750_000_000
_EMBEDDING = (0.25, -0.5, 0.125, 1.0)


class ScriptError(ValueError):
    """The request's script is not one; the text says why."""


@dataclass(frozen=True, slots=True)
class Script:
    """How one request is answered. Every field may be set by a request; unknown fields are refused."""

    prompt: int = 12
    """Uncached input tokens."""
    completion: int = 5
    """Output tokens."""
    cache_read: int = 0
    cache_write: int = 0
    """Tokens written to the five-minute cache."""
    cache_write_1h: int = 0
    reasoning: int = 0
    """Part of `completion`."""
    usage: bool = True
    """False: the answer never states its usage."""
    usage_members: Mapping[str, Any] = field(default_factory=dict)
    """Merged into the usage object."""
    members: Mapping[str, Any] = field(default_factory=dict)
    """Merged into the answer object (not streamed) or into each of its envelopes (streamed)."""
    text: str = ""
    """What the model says; empty: one word a chunk."""
    tool: str = ""
    """The answer is a call of this tool instead of text."""
    chunks: int = 5
    """Content events of a streamed answer."""
    delay_ms: float = 0.0
    """Between two events of a streamed answer; 0: all in one write."""
    first_delay_ms: float = 0.0
    """Before the answer's first byte."""
    piece_bytes: int = 0
    """Cut the body into pieces of this size, each a write of its own."""
    framing: str = ""
    """chunked, length or close; empty: chunked for streams, length otherwise."""
    gzip: bool = False
    status: int = 200
    """Anything but 200 answers with an error in the route's format."""
    error: str = "scripted failure"
    retry_after: int = 0
    error_after: int = -1
    """After so many content events comes an error event, and the stream ends."""
    cut_after: int = -1
    """After so many events (streamed) or bytes (not streamed) the connection is closed."""
    stall_after: int = -1
    """After so many events nothing more is said."""
    terminal: bool = True
    """False: the stream ends without its terminal event."""
    drop: bool = False
    """Close the connection instead of answering."""
    hang: bool = False
    """Never answer."""
    close: bool = False
    """Close after the answer, and say so."""
    close_silently: bool = False
    """Close after the answer without having said so."""
    body: str = ""
    """Answer with this file of the server's `--bodies` directory."""


_FIELDS: Final = {f.name: f.type for f in fields(Script)}
DEFAULT_SCRIPT: Final = Script()


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, type and events of an answer; `counts` is its usage in normal form (empty: none stated)."""

    status: int
    content_type: str
    events: tuple[bytes, ...]
    streamed: bool
    counts: Mapping[str, int]


def script_from(members: object, default: Script = DEFAULT_SCRIPT) -> Script:
    """A script from its JSON form over `default`. Raises ScriptError on unknown fields or wrong types."""
    if not isinstance(members, dict):
        raise ScriptError("a script is a JSON object")
    for name, value in members.items():
        if name not in _FIELDS:
            raise ScriptError(f"unknown script field {name!r}; known: {', '.join(_FIELDS)}")
        expected = type(getattr(DEFAULT_SCRIPT, name))
        accepted = (int, float) if expected is float else expected
        if not isinstance(value, accepted) or (isinstance(value, bool) and expected is not bool):
            raise ScriptError(f"script field {name!r} must be a {expected.__name__}")
    values = {name: getattr(default, name) for name in _FIELDS}
    return Script(**{**values, **members})


def script_of(request: Json, default: Script = DEFAULT_SCRIPT) -> Script:
    """The script a request carries, or `default`. Raises ScriptError on one that cannot be read."""
    text = _last_user_text(request)
    found = _SCRIPT.search(text)
    if found is None:
        return default
    try:
        members, _ = json.JSONDecoder().raw_decode(text, found.end())
    except ValueError as error:
        raise ScriptError(f"the script is not JSON: {error}") from None
    return script_from(members, default)


def answer(wire_format: str, request: Json, script: Script) -> Answer:
    """The answer to a request of `wire_format` under `script`."""
    if script.status != 200:
        refused = error_body(wire_format, script.status, script.error)
        return Answer(script.status, "application/json", (refused,), streamed=False, counts={})
    counts = _counts(wire_format, script)
    if request.get("stream") is True and wire_format in _STREAMS:
        events = _told(_STREAMS[wire_format](request, script), wire_format, script)
        return Answer(200, "text/event-stream; charset=utf-8", events, streamed=True, counts=counts)
    body = _BODIES[wire_format](request, script)
    return Answer(
        200, "application/json", (_dump({**body, **script.members}),), streamed=False, counts=counts
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
        return _dump({"type": "error", "error": detail, "request_id": f"req_{_ID}"})
    kind = "invalid_request_error" if status < 500 else "server_error"
    code = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}.get(status)
    return _dump({"error": {"message": message, "type": kind, "param": None, "code": code}})


# -- what was asked ------------------------------------------------------------------------------------------


def _last_user_text(request: Json) -> str:
    for member in ("messages", "input", "prompt"):
        said = request.get(member)
        if isinstance(said, str):
            return said
        if isinstance(said, list):
            turns = [
                turn for turn in said if not isinstance(turn, dict) or turn.get("role", "user") == "user"
            ]
            if turns:
                return _text_of(turns[-1])
    return ""


def _text_of(turn: object) -> str:
    if isinstance(turn, str):
        return turn
    content = turn.get("content", "") if isinstance(turn, dict) else ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


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


def _chat_usage(script: Script) -> Json:
    prompt = script.prompt + script.cache_read
    return {
        "prompt_tokens": prompt,
        "completion_tokens": script.completion,
        "total_tokens": prompt + script.completion,
        "prompt_tokens_details": {"cached_tokens": script.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": script.reasoning, "audio_tokens": 0},
        **script.usage_members,
    }


def _responses_usage(script: Script) -> Json:
    prompt = script.prompt + script.cache_read
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": script.cache_read},
        "output_tokens": script.completion,
        "output_tokens_details": {"reasoning_tokens": script.reasoning},
        "total_tokens": prompt + script.completion,
        **script.usage_members,
    }


def _messages_usage(script: Script, output: int) -> Json:
    return {
        "input_tokens": script.prompt,
        "cache_creation_input_tokens": script.cache_write + script.cache_write_1h,
        "cache_read_input_tokens": script.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": script.cache_write,
            "ephemeral_1h_input_tokens": script.cache_write_1h,
        },
        "output_tokens": output,
        "service_tier": "standard",
        **script.usage_members,
    }


# -- whole bodies --------------------------------------------------------------------------------------------


def _chat_body(request: Json, script: Script) -> Json:
    message: Json = {"role": "assistant", "content": _whole_text(script), "refusal": None}
    if script.tool:
        call = {
            "id": f"call_{_ID}",
            "type": "function",
            "function": {"name": script.tool, "arguments": _ARGUMENTS},
        }
        message |= {"content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(script)}
    count = request.get("n") or 1
    body = _chat_envelope(request, "chat.completion")
    body["choices"] = [{**choice, "index": index} for index in range(count)]
    return body | ({"usage": _chat_usage(script)} if script.usage else {})


def _completions_body(request: Json, script: Script) -> Json:
    choice = {"text": _whole_text(script), "index": 0, "logprobs": None, "finish_reason": "stop"}
    body = {"id": f"cmpl-{_ID}", "object": "text_completion", "created": _CREATED, "model": _model(request)}
    return {**body, "choices": [choice]} | ({"usage": _chat_usage(script)} if script.usage else {})


def _responses_body(request: Json, script: Script) -> Json:
    return _response(request, script, "completed", [_output_item(script, "completed")])


def _embeddings_body(request: Json, script: Script) -> Json:
    vector: object = list(_EMBEDDING)
    if request.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack(f"<{len(_EMBEDDING)}f", *_EMBEDDING)).decode()
    said = request.get("input")
    many = len(said) if isinstance(said, list) and said and not isinstance(said[0], int) else 1
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(many)]
    body = {"object": "list", "data": data, "model": _model(request)}
    usage = {"prompt_tokens": script.prompt, "total_tokens": script.prompt, **script.usage_members}
    return body | ({"usage": usage} if script.usage else {})


def _messages_body(request: Json, script: Script) -> Json:
    content: Json = {"type": "text", "text": _whole_text(script)}
    if script.tool:
        content = {
            "type": "tool_use",
            "id": f"toolu_{_ID}",
            "name": script.tool,
            "input": json.loads(_ARGUMENTS),
        }
    body = _message(request, [content], "tool_use" if script.tool else "end_turn")
    return body | ({"usage": _messages_usage(script, script.completion)} if script.usage else {})


def _count_tokens_body(_request: Json, script: Script) -> Json:
    return {"input_tokens": script.prompt + script.cache_read + script.cache_write + script.cache_write_1h}


# -- streams -------------------------------------------------------------------------------------------------


def _chat_stream(request: Json, script: Script) -> Iterator[bytes]:
    asked = _usage_asked(request)
    envelope = _chat_envelope(request, "chat.completion.chunk") | dict(script.members)
    if asked:
        envelope["usage"] = None

    def chunk(delta: Json, finish: str | None = None) -> bytes:
        return _data({**envelope, "choices": [_delta_choice(delta, finish)]})

    yield chunk({"role": "assistant", "content": "" if not script.tool else None})
    for index, piece in enumerate(_pieces(script)):
        if script.tool:
            call: Json = {"index": 0, "function": {"arguments": piece}}
            if index == 0:
                call |= {"id": f"call_{_ID}", "type": "function"}
                call["function"]["name"] = script.tool
            yield chunk({"tool_calls": [call]})
        else:
            yield chunk({"content": piece})
    yield chunk({}, _finish(script))
    if asked and script.usage:
        yield _data({**envelope, "choices": [], "usage": _chat_usage(script)})
    yield b"data: [DONE]\n\n"


def _completions_stream(request: Json, script: Script) -> Iterator[bytes]:
    asked = _usage_asked(request)
    envelope: Json = {
        "id": f"cmpl-{_ID}",
        "object": "text_completion",
        "created": _CREATED,
        "model": _model(request),
    }
    envelope |= dict(script.members) | ({"usage": None} if asked else {})
    for piece in _pieces(script):
        yield _data(
            {**envelope, "choices": [{"text": piece, "index": 0, "logprobs": None, "finish_reason": None}]}
        )
    yield _data(
        {**envelope, "choices": [{"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}]}
    )
    if asked and script.usage:
        yield _data({**envelope, "choices": [], "usage": _chat_usage(script)})
    yield b"data: [DONE]\n\n"


def _messages_stream(request: Json, script: Script) -> Iterator[bytes]:
    message = _message(request, [], None) | dict(script.members)
    if script.usage:
        message["usage"] = _messages_usage(script, 1)
    block: Json = {"type": "text", "text": ""}
    if script.tool:
        block = {"type": "tool_use", "id": f"toolu_{_ID}", "name": script.tool, "input": {}}
    yield _event("message_start", {"message": message})
    yield _event("content_block_start", {"index": 0, "content_block": block})
    yield _event("ping", {})
    for piece in _pieces(script):
        delta = {"type": "text_delta", "text": piece}
        if script.tool:
            delta = {"type": "input_json_delta", "partial_json": piece}
        yield _event("content_block_delta", {"index": 0, "delta": delta})
    yield _event("content_block_stop", {"index": 0})
    end: Json = {"delta": {"stop_reason": "tool_use" if script.tool else "end_turn", "stop_sequence": None}}
    if script.usage:
        end["usage"] = {"output_tokens": script.completion, **script.usage_members}
    yield _event("message_delta", end)
    yield _event("message_stop", {})


def _responses_stream(request: Json, script: Script) -> Iterator[bytes]:
    number = iter(range(10**9))
    where = {"item_id": f"msg_{_ID}", "output_index": 0, "content_index": 0}

    def event(kind: str, members: Json) -> bytes:
        return _event(kind, {"sequence_number": next(number), **members})

    for kind in ("response.created", "response.in_progress"):
        yield event(kind, {"response": _response(request, script, "in_progress", [])})
    yield event(
        "response.output_item.added", {"output_index": 0, "item": _output_item(script, "in_progress")}
    )
    delta = "response.function_call_arguments.delta" if script.tool else "response.output_text.delta"
    if not script.tool:
        yield event("response.content_part.added", {**where, "part": _output_text("")})
    for piece in _pieces(script):
        yield event(delta, {**where, "delta": piece})
    if script.tool:
        yield event("response.function_call_arguments.done", {**where, "arguments": _ARGUMENTS})
    else:
        yield event("response.output_text.done", {**where, "text": _whole_text(script)})
        yield event("response.content_part.done", {**where, "part": _output_text(_whole_text(script))})
    item = _output_item(script, "completed")
    yield event("response.output_item.done", {"output_index": 0, "item": item})
    yield event("response.completed", {"response": _response(request, script, "completed", [item])})


def _told(events: Iterator[bytes], wire_format: str, script: Script) -> tuple[bytes, ...]:
    """The events that are really sent: all, or up to a scripted error, or without the terminal one."""
    told = list(events)
    if script.error_after >= 0:
        kept = told[: script.error_after + 1]
        body = error_body(wire_format, 500, script.error)
        prefix = b"event: error\n" if wire_format == "messages" else b""
        return (*kept, prefix + b"data: " + body + b"\n\n")
    return tuple(told if script.terminal else told[:-1])


# -- parts ---------------------------------------------------------------------------------------------------

_ARGUMENTS: Final = '{"city": "Paris", "unit": "celsius"}'


def _pieces(script: Script) -> list[str]:
    """The content of a stream, one piece an event."""
    count = max(script.chunks, 1)
    if not script.text and not script.tool:
        return [f"word{index} " for index in range(count)]
    whole = _ARGUMENTS if script.tool else script.text
    size = -(-len(whole) // count)
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def _whole_text(script: Script) -> str:
    return script.text or "".join(_pieces(script))


def _finish(script: Script) -> str:
    return "tool_calls" if script.tool else "stop"


def _model(request: Json) -> str:
    return str(request.get("model", "scripted"))


def _usage_asked(request: Json) -> bool:
    options = request.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _chat_envelope(request: Json, kind: str) -> Json:
    head = {"id": f"chatcmpl-{_ID}", "object": kind, "created": _CREATED, "model": _model(request)}
    return {**head, "service_tier": "default", "system_fingerprint": "fp_scripted"}


def _delta_choice(delta: Json, finish: str | None) -> Json:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _message(request: Json, content: list[Json], stop: str | None) -> Json:
    return {
        "id": f"msg_{_ID}",
        "type": "message",
        "role": "assistant",
        "model": _model(request),
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
    }


def _output_text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _output_item(script: Script, status: str) -> Json:
    done = status == "completed"
    if script.tool:
        arguments = _ARGUMENTS if done else ""
        call = {"type": "function_call", "id": f"fc_{_ID}", "call_id": f"call_{_ID}", "name": script.tool}
        return {**call, "arguments": arguments, "status": status}
    content = [_output_text(_whole_text(script))] if done else []
    return {"type": "message", "id": f"msg_{_ID}", "status": status, "role": "assistant", "content": content}


def _response(request: Json, script: Script, status: str, output: list[Json]) -> Json:
    usage = _responses_usage(script) if script.usage and status == "completed" else None
    return {
        "id": f"resp_{_ID}",
        "object": "response",
        "created_at": _CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": _model(request),
        "output": output,
        "parallel_tool_calls": True,
        "service_tier": "default",
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
        **script.members,
    }


def _dump(value: object) -> bytes:
    return orjson.dumps(value)


def _data(value: object) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _event(kind: str, members: Json) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, **members}))


_BODIES: Final = {
    "chat": _chat_body,
    "completions": _completions_body,
    "responses": _responses_body,
    "embeddings": _embeddings_body,
    "messages": _messages_body,
    "count_tokens": _count_tokens_body,
}
_STREAMS: Final = {
    "chat": _chat_stream,
    "completions": _completions_stream,
    "responses": _responses_stream,
    "messages": _messages_stream,
}
