"""Error bodies in the shape each family of clients expects, for whole answers and inside running streams.

OpenAI: `{"error":{"message","type"[,"code"],...}}`. Anthropic:
`{"type":"error","error":{"type","message",...}}`. Statuses, types and codes come from the table in
base/errors.py; faults of an upstream are mapped here, so that what an upstream says about the operator's
account never reaches a user.
"""

from dataclasses import dataclass
from typing import Final

import orjson

from farebox.base import limits
from farebox.base.errors import Refusal, Refused
from farebox.wire.headers import encode_headers
from farebox.wire.routes import Family

JSON_LINE: Final = b"Content-Type: application/json\r\n"

Answer = tuple[int, bytes, bytes]
"""Status, header lines each ending in CRLF, body: what `Incoming.answer` takes."""


def render(refused: Refused, family: Family, request_id: str) -> Answer:
    """A refusal as a whole answer. 405 names the allowed method and 429 the time to wait in their headers."""
    kind = refused.refusal.value
    details = dict(refused.details)
    headers = [("Content-Type", "application/json")]
    if refused.refusal is Refusal.METHOD:
        headers.append(("Allow", str(details.pop("allow", "POST"))))
    if refused.retry_after_s is not None:
        headers.append(("Retry-After", str(refused.retry_after_s)))
    if request_id:
        headers.append(("x-request-id", request_id))
    error = _error(family, kind.openai_type, kind.openai_code, kind.anthropic_type, refused.message, details)
    return kind.status, encode_headers(headers), orjson.dumps(error)


def protocol_fault(status: int, message: str, family: Family = "openai") -> Answer:
    """An answer to bytes that are no acceptable HTTP; without a path that can be read nobody knows the
    family.
    """
    error = _error(family, "invalid_request_error", None, "invalid_request_error", message, {})
    return status, JSON_LINE, orjson.dumps(error)


def _error(
    family: Family,
    openai_type: str,
    openai_code: str | None,
    anthropic_type: str,
    message: str,
    details: dict[str, object],
) -> dict[str, object]:
    if family == "anthropic":
        return {"type": "error", "error": {"type": anthropic_type, "message": message, **details}}
    error: dict[str, object] = {"message": message, "type": openai_type}
    if openai_code is not None:
        error["code"] = openai_code
    return {"error": {**error, **details}}


# ---- faults of an upstream -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fault:
    status: int
    openai_type: str
    openai_code: str | None
    anthropic_type: str
    message: str


_PASSED: Final = frozenset((400, 413, 422))
_NOT_FOUND: Final = _Fault(
    404,
    "not_found_error",
    "not_found",
    "not_found_error",
    "The upstream provider does not know what was asked for.",
)
_RATE_LIMIT: Final = _Fault(
    429,
    "rate_limit_error",
    None,
    "rate_limit_error",
    "The upstream provider limits requests; try again later.",
)
_OVERLOADED: Final = _Fault(
    529, "overloaded_error", "service_overloaded", "overloaded_error", "The upstream provider is overloaded."
)
_UNAVAILABLE: Final = _Fault(
    502, "upstream_error", None, "api_error", "The upstream provider did not accept this service's request."
)
_FAULTS: Final = {404: _NOT_FOUND, 429: _RATE_LIMIT, 529: _OVERLOADED}


def upstream_fault(status: int, family: Family, request_id: str, retry_after: bytes = b"") -> Answer | None:
    """Our own answer to an upstream's error status; None where its body passes unchanged (M9).

    The body passes for what the request itself caused: 400, 413, 422. Credential, quota and payment faults
    (401, 402, 403, 407), redirects and anything unexpected are the operator's and become 502. 404, 429, 529
    and 5xx keep their status. `retry_after` is the upstream's header; it is kept when it is a plausible
    number of seconds.
    """
    if status in _PASSED:
        return None
    fault = _FAULTS.get(status)
    if fault is None and 500 <= status <= 599:
        fault = _Fault(status, "server_error", None, "api_error", "The upstream provider failed.")
    if fault is None:
        fault = _UNAVAILABLE
    headers = [("Content-Type", "application/json")]
    if (
        fault.status in {429, 503, 529}
        and retry_after.isdigit()
        and int(retry_after[:9]) <= limits.retry_after_s_max
    ):
        headers.append(("Retry-After", retry_after.decode("ascii")))
    if request_id:
        headers.append(("x-request-id", request_id))
    error = _error(family, fault.openai_type, fault.openai_code, fault.anthropic_type, fault.message, {})
    return fault.status, encode_headers(headers), orjson.dumps(error)


# ---- inside a stream -------------------------------------------------------------------------------


def error_event(wire_format: str, refused: Refused, sequence_number: int = 0) -> bytes:
    """A fault inside a stream already begun, as an event its clients raise as an error. Unframed bytes."""
    kind = refused.refusal.value
    if wire_format == "messages":
        error = _error("anthropic", "", None, kind.anthropic_type, refused.message, dict(refused.details))
        return b"event: error\ndata: " + orjson.dumps(error) + b"\n\n"
    if wire_format == "responses":
        event = {
            "type": "error",
            "code": kind.openai_code or kind.openai_type,
            "message": refused.message,
            "param": None,
            "sequence_number": sequence_number,
        }
        return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"
    error = _error("openai", kind.openai_type, kind.openai_code, "", refused.message, dict(refused.details))
    return b"data: " + orjson.dumps(error) + b"\n\n"


def cut_event(
    wire_format: str,
    reason: str,
    *,
    response_id: str = "",
    model: str = "",
    created_s: int = 0,
    output_tokens: int = 0,
    sequence_number: int = 0,
) -> bytes:
    """The end of a stream whose wallet ran dry, valid in its wire format: as if the output limit had been
    reached.

    `reason` stands in an extra member `farebox_cut`. The other arguments repeat what the stream said of
    itself before, as far as known; clients need none of them. Unframed bytes, to be sent between two
    events.
    """
    if wire_format == "messages":
        delta = {
            "type": "message_delta",
            "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
            "usage": {"output_tokens": output_tokens},
            "farebox_cut": reason,
        }
        return (
            b"event: message_delta\ndata: " + orjson.dumps(delta) + b"\n\n"
            b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
        )
    if wire_format == "responses":
        response = {
            "id": response_id,
            "object": "response",
            "created_at": created_s,
            "status": "incomplete",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"},
            "model": model,
            "output": [],
        }
        event = {
            "type": "response.incomplete",
            "sequence_number": sequence_number,
            "response": response,
            "farebox_cut": reason,
        }
        return b"event: response.incomplete\ndata: " + orjson.dumps(event) + b"\n\n"
    choice: dict[str, object] = {"index": 0, "finish_reason": "length"}
    if wire_format == "completions":
        choice["text"] = ""
    else:
        choice["delta"] = {}
    chunk = {
        "id": response_id,
        "object": "text_completion" if wire_format == "completions" else "chat.completion.chunk",
        "created": created_s,
        "model": model,
        "choices": [choice],
        "farebox_cut": reason,
    }
    return b"data: " + orjson.dumps(chunk) + b"\n\ndata: [DONE]\n\n"
