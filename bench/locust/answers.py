"""What an answer must look like to a client of an LLM API: pure, no I/O, no locust.

A stream is read line by line: when its first token came, how far apart its events are, whether it ended as
its wire format ends. Wire formats: chat, messages, responses.
"""

import json
from typing import Any

_TERMINAL_TYPES = {
    "messages": ("message_stop",),
    "responses": ("response.completed", "response.incomplete"),
}
_ERROR_TYPES = ("error", "response.failed")
_CONTENT_MEMBERS = ("content", "reasoning_content", "tool_calls", "refusal")


class Stream:
    """One streamed answer, fed with its lines and the moments (seconds) at which they came.

    `first_token_s` counts from `started_s`. `error` is the code of an error in the stream, empty without one.
    """

    __slots__ = ("_last_s", "_started_s", "_wire_format", "error", "events", "first_token_s", "is_ended")

    def __init__(self, wire_format: str, started_s: float) -> None:
        self._wire_format = wire_format
        self._started_s = started_s
        self._last_s: float | None = None
        self.first_token_s: float | None = None
        self.events = 0
        self.is_ended = False
        self.error = ""

    def take(self, line: bytes, now_s: float) -> float | None:
        """Take the next line; the seconds since the event before, None where there is no such two."""
        if not line.startswith(b"data:"):
            return None
        gap_s = None if self._last_s is None else now_s - self._last_s
        self._last_s = now_s
        self.events += 1
        self._look_into(line[5:].strip(), now_s)
        return gap_s

    def problem(self) -> str:
        """Why this is no whole answer; empty when it is one."""
        if self.error:
            return f"error in the stream: {self.error}"
        return "" if self.is_ended else "ended without its terminal event"

    def _look_into(self, data: bytes, now_s: float) -> None:
        """Decode an event only while its meaning matters: most are text after the first token."""
        if data == b"[DONE]":
            self.is_ended = self.is_ended or self._wire_format == "chat"
            return
        may_end = any(kind.encode() in data for kind in _TERMINAL_TYPES.get(self._wire_format, ()))
        if self.first_token_s is not None and not may_end and b"error" not in data and b"failed" not in data:
            return
        event = _decoded(data)
        if self.first_token_s is None and _holds_token(self._wire_format, event):
            self.first_token_s = now_s - self._started_s
        kind = event.get("type")
        if kind in _ERROR_TYPES or event.get("error"):
            self.error = error_code(data)
        elif may_end and kind in _TERMINAL_TYPES[self._wire_format]:
            self.is_ended = True


def plain_problem(body: bytes) -> str:
    """Why a whole answer is none a client could use; empty when it states its usage."""
    usage = _decoded(body).get("usage")
    if not isinstance(usage, dict):
        return "no usage in the answer"
    is_counted = usage.get("prompt_tokens") or usage.get("input_tokens")
    return "" if is_counted else "no input tokens in the answer's usage"


def error_code(body: bytes) -> str:
    """What an error body calls itself: its code, else its type, in every wire format."""
    document = _decoded(body)
    holder = document.get("response") if isinstance(document.get("response"), dict) else document
    error = holder.get("error") if isinstance(holder, dict) else None
    if not isinstance(error, dict):
        error = document
    return str(error.get("code") or error.get("type") or "no error body")


def _holds_token(wire_format: str, event: dict[str, Any]) -> bool:
    if wire_format == "chat":
        choices = event.get("choices") or [{}]
        delta = choices[0].get("delta") or {}
        return any(delta.get(member) for member in _CONTENT_MEMBERS)
    kind = str(event.get("type"))
    return kind == "content_block_delta" if wire_format == "messages" else kind.endswith(".delta")


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
