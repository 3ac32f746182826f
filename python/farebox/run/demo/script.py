"""A script: how the scripted upstream answers one request, written by whoever sends the request.

It stands in the text of the request's last user message (or in `prompt`, or `input`):

    script: {"prompt": 12, "completion": 5, "chunks": 100, "delay_ms": 2}

Without one the defaults below apply. Counts are in Farebox's normal form: `prompt` is uncached input; the
wire format decides whether cached tokens are shown inside it (OpenAI) or beside it (Anthropic).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

Json = dict[str, Any]

_SCRIPT = re.compile(r"script:\s*(?=\{)")


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
