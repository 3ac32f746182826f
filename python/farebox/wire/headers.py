"""What may pass in headers, in both directions, decided by allow-lists; and whose key a request carries.

To the upstream goes what describes the request (accept, protocol versions and betas) and nothing that names
a caller: no credential, cookie, organisation, address or hop-by-hop header. To the client comes what
describes the body (type, encoding) and Retry-After. Everything else an upstream says is about the
operator's account: rate-limit headers, organisation ids, cookies, server names, and its request id, which
is kept for the request log instead.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import hdrs
from multidict import istr

from farebox.base import limits
from farebox.base.errors import Refusal, Refused

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

    from farebox._meter import Head

ANTHROPIC_VERSION = b"2023-06-01"
"""Sent where a client of a messages route names none."""

_TO_UPSTREAM = {
    b"accept": b"Accept: ",
    b"anthropic-version": b"Anthropic-Version: ",
    b"anthropic-beta": b"Anthropic-Beta: ",
    b"openai-beta": b"OpenAI-Beta: ",
}
_CONTENT_TYPE = b"Content-Type: "
_CONTENT_ENCODING = b"Content-Encoding: "
_REQUEST_ID = b"request id, for the log only"
_FROM_UPSTREAM = {
    b"content-type": _CONTENT_TYPE,
    b"content-encoding": _CONTENT_ENCODING,
    b"retry-after": b"Retry-After: ",
    b"x-request-id": _REQUEST_ID,
    b"request-id": _REQUEST_ID,
}
_BARE_KEY_HEADERS = (istr("x-api-key"), istr("api-key"), istr("x-goog-api-key"))
_KEY_PARAMETERS = frozenset(("key", "api_key", "api-key", "apikey", "access_token", "token", "x-api-key"))
_JSON_TYPES = frozenset((
    "application/json",
    "application/json; charset=utf-8",
    "application/json;charset=utf-8",
))  # fmt: skip


def encode_headers(headers: Iterable[tuple[str, str]]) -> bytes:
    """Header lines for the wire. Raises ValueError on control or non-ASCII characters: nothing injects a
    line.
    """
    lines = []
    for name, value in headers:
        line = f"{name}: {value}"
        if not line.isascii() or not line.isprintable():
            msg = f"header {name!r} holds characters that may not be sent"
            raise ValueError(msg)
        lines.append(line)
    lines.append("")
    return "\r\n".join(lines).encode("ascii")


def request_lines(raw_headers: Sequence[tuple[bytes, bytes]], default_anthropic_version: bool) -> bytes:
    """The client's headers that go to the upstream, as lines."""
    lines = b""
    for name, value in raw_headers:
        start = _TO_UPSTREAM.get(name.lower())
        if start is not None:
            lines += start + value + b"\r\n"
            if start is _TO_UPSTREAM[b"anthropic-version"]:
                default_anthropic_version = False
    if default_anthropic_version:
        lines += b"Anthropic-Version: " + ANTHROPIC_VERSION + b"\r\n"
    return lines


class AnswerFacts(NamedTuple):
    """What an answer's head says that matters here, read in one pass."""

    lines: bytes
    """Header lines for the client. Streams are marked not to be buffered on the way."""
    event_stream: bool
    content_encoding: str
    request_id: str
    """The upstream's id of the request for the log: visible ASCII and short, else empty."""


def answer_facts(head: "Head") -> AnswerFacts:
    """Sort an answer's headers: some go to the client, some decide how it is read, the rest stays here."""
    lines, event_stream, content_encoding, request_id = b"", False, "", ""
    for name, value in head.headers:
        start = _FROM_UPSTREAM.get(name)
        if start is None:
            continue
        if start is _REQUEST_ID:
            request_id = request_id or _loggable(value)
            continue
        lines += start + value + b"\r\n"
        if start is _CONTENT_TYPE:
            if value[:17].lower() == b"text/event-stream":
                event_stream = True
                lines += b"Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
        elif start is _CONTENT_ENCODING:
            content_encoding = value.decode("latin-1")
    return AnswerFacts(lines, event_stream, content_encoding, request_id)


def header_value(head: "Head", name: bytes) -> bytes:
    """The first value of a lower-case header name, or empty."""
    for candidate, value in head.headers:
        if candidate == name:
            return value
    return b""


def _loggable(value: bytes) -> str:
    if len(value) > limits.upstream_request_id_bytes_max or not value.isascii():
        return ""
    text = value.decode("ascii")
    return text if text.isprintable() else ""


def require_json(headers: "CIMultiDictProxy[str]") -> None:
    """Raise Refused BODY_TYPE unless the body is declared as JSON in UTF-8."""
    declared = headers.get(hdrs.CONTENT_TYPE)
    if declared is None or (declared not in _JSON_TYPES and declared.lower() not in _JSON_TYPES):
        raise Refused(Refusal.BODY_TYPE, "Send the body as Content-Type: application/json.")


def client_key(headers: "CIMultiDictProxy[str]", query: str = "") -> str:
    """The API key of a request, from `Authorization: Bearer` or a key header.

    Several credentials must be identical. Raises Refused KEY_MISSING (none, or none that could be a key;
    one text for all cases) or KEY_AMBIGUOUS (different ones, or one in the query string, where proxies
    would log it).
    """
    if query and not _KEY_PARAMETERS.isdisjoint(part.partition("=")[0].lower() for part in query.split("&")):
        raise Refused(Refusal.KEY_AMBIGUOUS, "Send the API key in a header, not in the URL.")
    found = ""
    for value in headers.getall(hdrs.AUTHORIZATION, ()):
        scheme, _, key = value.partition(" ")
        found = _same(found, key if scheme.lower() == "bearer" else "")
    for name in _BARE_KEY_HEADERS:
        if name in headers:
            for value in headers.getall(name):
                found = _same(found, value)
    if not found:
        raise _key_missing()
    return found


def _same(found: str, key: str) -> str:
    if (
        not key
        or len(key) > limits.api_key_bytes_max
        or " " in key
        or not (key.isascii() and key.isprintable())
    ):
        raise _key_missing()
    if found and found != key:
        raise Refused(Refusal.KEY_AMBIGUOUS, "The request carries different API keys; send one.")
    return key


def _key_missing() -> Refused:
    return Refused(
        Refusal.KEY_MISSING, "Send your API key as Authorization: Bearer <key> or x-api-key: <key>."
    )
