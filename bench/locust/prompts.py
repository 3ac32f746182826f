"""The requests of the scenarios, in three wire formats: pure, no locust.

A script (python/farebox/run/demo/script.py) tells the scripted upstream what to answer. It is added to the
last user message only when such an upstream is there; a real model gets the question and the output limit.
"""

import json
from typing import Any

Json = dict[str, Any]
Turns = list[Json]

PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}
"""Wire format -> route."""

_LIMIT_MEMBERS = {
    "chat": "max_completion_tokens",
    "messages": "max_tokens",
    "responses": "max_output_tokens",
}
_TOOL_NAMES = ("read_file", "write_file", "list_folder", "search", "run_command", "fetch_page", "ask_user")
_PARAMETERS = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "description": "Where to look, relative to the project's folder."},
        "pattern": {"type": "string", "description": "What to look for; a regular expression."},
        "limit": {"type": "integer", "description": "How many results at most."},
    },
    "required": ["path"],
}


def question(text: str, script: Json, *, is_scripted: bool) -> Json:
    """A user's turn, valid in every wire format."""
    said = f"{text}\nscript: {json.dumps(script)}" if is_scripted else text
    return {"role": "user", "content": said}


def request(wire_format: str, model: str, turns: Turns, *, output_tokens: int, is_streamed: bool) -> Json:
    """A request body of `turns` with an output limit."""
    member = "input" if wire_format == "responses" else "messages"
    body: Json = {"model": model, member: turns, _LIMIT_MEMBERS[wire_format]: output_tokens}
    return {**body, "stream": True} if is_streamed else body


def with_system(wire_format: str, body: Json, text: str) -> Json:
    """The body with a long prefix in front, marked for the prompt cache where the format marks it."""
    if wire_format == "messages":
        part = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
        return {**body, "system": [part]}
    if wire_format == "responses":
        return {**body, "instructions": text}
    return {**body, "messages": [{"role": "system", "content": text}, *body["messages"]]}


def with_tools(wire_format: str, body: Json) -> Json:
    """The body with an agent's tools, which the client itself runs."""
    described = [(name, f"The project's {name.replace('_', ' ')}.") for name in _TOOL_NAMES]
    if wire_format == "messages":
        tools = [{"name": n, "description": d, "input_schema": _PARAMETERS} for n, d in described]
    else:
        functions = [{"name": n, "description": d, "parameters": _PARAMETERS} for n, d in described]
        is_nested = wire_format == "chat"
        tools = [
            {"type": "function", "function": f} if is_nested else {"type": "function", **f} for f in functions
        ]
    return {**body, "tools": tools}


def tool_turns(wire_format: str, number: int, result: str) -> Turns:
    """What an agent adds after the model asked for a tool: the call and its result."""
    call, name, arguments = f"call_{number}", "read_file", {"path": f"src/part_{number}.py"}
    if wire_format == "messages":
        used = {"type": "tool_use", "id": call, "name": name, "input": arguments}
        told = {"type": "tool_result", "tool_use_id": call, "content": result}
        return [{"role": "assistant", "content": [used]}, {"role": "user", "content": [told]}]
    text = json.dumps(arguments)
    if wire_format == "responses":
        return [
            {"type": "function_call", "call_id": call, "name": name, "arguments": text},
            {"type": "function_call_output", "call_id": call, "output": result},
        ]
    used = {"id": call, "type": "function", "function": {"name": name, "arguments": text}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [used]},
        {"role": "tool", "tool_call_id": call, "content": result},
    ]


def filler(size_bytes: int) -> str:
    """So many bytes of text with the same beginning every time, as a cached prefix has."""
    sentence = "The quick brown fox jumps over the lazy dog while the meter counts what it says. "
    return (sentence * (size_bytes // len(sentence) + 1))[:size_bytes]
