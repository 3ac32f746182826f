"""Streamed answers of the scripted upstream: each wire format's events, in its provider's order."""

from collections.abc import Iterator
from typing import Final

from farebox.run.demo.script import Json, Script
from farebox.run.demo.shapes import (
    ARGUMENTS,
    CREATED,
    ID,
    chat_envelope,
    chat_usage,
    content_pieces,
    data_event,
    delta_choice,
    finish_reason,
    message_of,
    messages_usage,
    model_of,
    named_event,
    output_item,
    output_text,
    response_of,
    usage_asked,
    whole_text,
)


def _chat_stream(request: Json, script: Script) -> Iterator[bytes]:
    asked = usage_asked(request)
    envelope = chat_envelope(request, "chat.completion.chunk") | dict(script.members)
    if asked:
        envelope["usage"] = None

    def chunk(delta: Json, finish: str | None = None) -> bytes:
        return data_event({**envelope, "choices": [delta_choice(delta, finish)]})

    yield chunk({"role": "assistant", "content": "" if not script.tool else None})
    for index, piece in enumerate(content_pieces(script)):
        if script.tool:
            call: Json = {"index": 0, "function": {"arguments": piece}}
            if index == 0:
                call |= {"id": f"call_{ID}", "type": "function"}
                call["function"]["name"] = script.tool
            yield chunk({"tool_calls": [call]})
        else:
            yield chunk({"content": piece})
    yield chunk({}, finish_reason(script))
    if asked and script.usage:
        yield data_event({**envelope, "choices": [], "usage": chat_usage(script)})
    yield b"data: [DONE]\n\n"


def _completions_stream(request: Json, script: Script) -> Iterator[bytes]:
    asked = usage_asked(request)
    envelope: Json = {
        "id": f"cmpl-{ID}",
        "object": "text_completion",
        "created": CREATED,
        "model": model_of(request),
    }
    envelope |= dict(script.members) | ({"usage": None} if asked else {})
    for piece in content_pieces(script):
        yield data_event(
            {**envelope, "choices": [{"text": piece, "index": 0, "logprobs": None, "finish_reason": None}]}
        )
    yield data_event(
        {**envelope, "choices": [{"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}]}
    )
    if asked and script.usage:
        yield data_event({**envelope, "choices": [], "usage": chat_usage(script)})
    yield b"data: [DONE]\n\n"


def _messages_stream(request: Json, script: Script) -> Iterator[bytes]:
    message = message_of(request, [], None) | dict(script.members)
    if script.usage:
        message["usage"] = messages_usage(script, 1)
    block: Json = {"type": "text", "text": ""}
    if script.tool:
        block = {"type": "tool_use", "id": f"toolu_{ID}", "name": script.tool, "input": {}}
    yield named_event("message_start", {"message": message})
    yield named_event("content_block_start", {"index": 0, "content_block": block})
    yield named_event("ping", {})
    for piece in content_pieces(script):
        delta = {"type": "text_delta", "text": piece}
        if script.tool:
            delta = {"type": "input_json_delta", "partial_json": piece}
        yield named_event("content_block_delta", {"index": 0, "delta": delta})
    yield named_event("content_block_stop", {"index": 0})
    end: Json = {"delta": {"stop_reason": "tool_use" if script.tool else "end_turn", "stop_sequence": None}}
    if script.usage:
        end["usage"] = {"output_tokens": script.completion, **script.usage_members}
    yield named_event("message_delta", end)
    yield named_event("message_stop", {})


def _responses_stream(request: Json, script: Script) -> Iterator[bytes]:
    number = iter(range(10**9))
    where = {"item_id": f"msg_{ID}", "output_index": 0, "content_index": 0}

    def event(kind: str, members: Json) -> bytes:
        return named_event(kind, {"sequence_number": next(number), **members})

    for kind in ("response.created", "response.in_progress"):
        yield event(kind, {"response": response_of(request, script, "in_progress", [])})
    yield event("response.output_item.added", {"output_index": 0, "item": output_item(script, "in_progress")})
    delta = "response.function_call_arguments.delta" if script.tool else "response.output_text.delta"
    if not script.tool:
        yield event("response.content_part.added", {**where, "part": output_text("")})
    for piece in content_pieces(script):
        yield event(delta, {**where, "delta": piece})
    if script.tool:
        yield event("response.function_call_arguments.done", {**where, "arguments": ARGUMENTS})
    else:
        yield event("response.output_text.done", {**where, "text": whole_text(script)})
        yield event("response.content_part.done", {**where, "part": output_text(whole_text(script))})
    item = output_item(script, "completed")
    yield event("response.output_item.done", {"output_index": 0, "item": item})
    yield event("response.completed", {"response": response_of(request, script, "completed", [item])})


STREAMS: Final = {
    "chat": _chat_stream,
    "completions": _completions_stream,
    "responses": _responses_stream,
    "messages": _messages_stream,
}
