"""Whose key a request carries, and what headers of our own may hold.

What passes from client to upstream and back is decided by allow-lists in the compiled module
(`request_lines`, `Head.facts`). To the upstream goes what describes the request (accept, protocol versions
and betas, the W3C trace it belongs to) and nothing that names a caller: no credential, cookie, organisation,
address or hop-by-hop header. To the client comes what describes the body (type, encoding) and Retry-After.
Everything else an upstream says is about the operator's account: rate-limit headers, organisation ids,
cookies, server names, and its request id, which is kept for the request log instead.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import hdrs
from multidict import istr

from farebox.base import limits
from farebox.base.errors import Refusal, Refused

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

    from farebox._meter import Head

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


def header_value(head: "Head", name: bytes) -> bytes:
    """The first value of a lower-case header name, or empty."""
    for candidate, value in head.headers:
        if candidate == name:
            return value
    return b""


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
