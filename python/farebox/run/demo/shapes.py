"""What whole and streamed answers of the scripted upstream share: usage objects, envelopes, items."""

from typing import Final

import orjson

from farebox.run.demo.script import Json, Script

ID_MARK: Final = b"0exchange-id-mar"
"""16 bytes that the server replaces with the exchange's 16 hex digits, so that lengths stay right."""

ID: Final = ID_MARK.decode()
CREATED: Final = 1_750_000_000
ARGUMENTS: Final = '{"city": "Paris", "unit": "celsius"}'


def chat_usage(script: Script) -> Json:
    """The usage object of chat and legacy completions."""
    prompt = script.prompt + script.cache_read
    return {
        "prompt_tokens": prompt,
        "completion_tokens": script.completion,
        "total_tokens": prompt + script.completion,
        "prompt_tokens_details": {"cached_tokens": script.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": script.reasoning, "audio_tokens": 0},
        **script.usage_members,
    }


def responses_usage(script: Script) -> Json:
    """The usage object of responses."""
    prompt = script.prompt + script.cache_read
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": script.cache_read},
        "output_tokens": script.completion,
        "output_tokens_details": {"reasoning_tokens": script.reasoning},
        "total_tokens": prompt + script.completion,
        **script.usage_members,
    }


def messages_usage(script: Script, output: int) -> Json:
    """The usage object of messages; `output` differs between the first and the last event."""
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


def content_pieces(script: Script) -> list[str]:
    """The content of a stream, one piece an event."""
    count = max(script.chunks, 1)
    if not script.text and not script.tool:
        return [f"word{index} " for index in range(count)]
    whole = ARGUMENTS if script.tool else script.text
    size = -(-len(whole) // count)
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def whole_text(script: Script) -> str:
    """All of what the model says."""
    return script.text or "".join(content_pieces(script))


def finish_reason(script: Script) -> str:
    """Why a chat choice ended."""
    return "tool_calls" if script.tool else "stop"


def model_of(request: Json) -> str:
    """The model as the client named it."""
    return str(request.get("model", "scripted"))


def usage_asked(request: Json) -> bool:
    """Whether a streaming client wants the usage chunk."""
    options = request.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def chat_envelope(request: Json, kind: str) -> Json:
    """The members around `choices` of a chat answer or chunk."""
    head = {"id": f"chatcmpl-{ID}", "object": kind, "created": CREATED, "model": model_of(request)}
    return {**head, "service_tier": "default", "system_fingerprint": "fp_scripted"}


def delta_choice(delta: Json, finish: str | None) -> Json:
    """One choice of a chat chunk."""
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def message_of(request: Json, content: list[Json], stop: str | None) -> Json:
    """A message object without its usage."""
    return {
        "id": f"msg_{ID}",
        "type": "message",
        "role": "assistant",
        "model": model_of(request),
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
    }


def output_text(text: str) -> Json:
    """A text part of a responses item."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def output_item(script: Script, status: str) -> Json:
    """The one output item of a responses answer."""
    done = status == "completed"
    if script.tool:
        arguments = ARGUMENTS if done else ""
        call = {"type": "function_call", "id": f"fc_{ID}", "call_id": f"call_{ID}", "name": script.tool}
        return {**call, "arguments": arguments, "status": status}
    content = [output_text(whole_text(script))] if done else []
    return {"type": "message", "id": f"msg_{ID}", "status": status, "role": "assistant", "content": content}


def response_of(request: Json, script: Script, status: str, output: list[Json]) -> Json:
    """A response object; only a completed one states its usage."""
    usage = responses_usage(script) if script.usage and status == "completed" else None
    return {
        "id": f"resp_{ID}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model_of(request),
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


def dumped(value: object) -> bytes:
    """Compact JSON."""
    return orjson.dumps(value)


def data_event(value: object) -> bytes:
    """A server-sent event without a name."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def named_event(kind: str, members: Json) -> bytes:
    """A server-sent event whose name is also its `type`."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, **members}))
