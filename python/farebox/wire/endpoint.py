"""What is known of an upstream before anything is sent to it: address, credential, bounds, and the request
head.

The constant part of a head is made once per path. It holds the operator's credential, which is revealed
here and nowhere else on the wire.
"""

import ssl
from dataclasses import dataclass, field
from typing import Literal

from farebox.base import limits
from farebox.base.redaction import Secret


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests of one upstream go, with which credential and within which bounds.

    `path_prefix` stands before every path ("" or "/x", no slash at its end). `tls` is None for plain HTTP;
    a context made here verifies the server. `credential` is None for an upstream that wants none.
    """

    name: str
    scheme: Literal["http", "https"]
    host: str
    port: int
    path_prefix: str = ""
    credential: Secret | None = None
    credential_style: Literal["bearer", "x-api-key"] = "bearer"
    user_agent: str = "farebox"
    connect_timeout_s: float = limits.upstream_connect_timeout_s
    first_byte_timeout_s: float = limits.upstream_first_byte_timeout_s
    idle_stream_timeout_s: float = limits.upstream_idle_stream_timeout_s
    total_timeout_s: float = limits.upstream_total_timeout_s
    keepalive_timeout_s: float = limits.upstream_idle_timeout_s
    connections_max: int = limits.upstream_connections_max
    idle_connections_max: int = limits.upstream_idle_connections_max
    tls: ssl.SSLContext | None = None
    _head_starts: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)

    def head_start(self, path: str) -> bytes:
        """The constant part of a POST's head, made once per path. Holds the credential: never log it."""
        start = self._head_starts.get(path)
        if start is None:
            default_port = 443 if self.scheme == "https" else 80
            host = f"[{self.host}]" if ":" in self.host else self.host
            lines = [
                f"POST {self.path_prefix}{path} HTTP/1.1",
                f"Host: {host}" if self.port == default_port else f"Host: {host}:{self.port}",
                f"User-Agent: {self.user_agent}",
                "Accept-Encoding: identity",
                "Content-Type: application/json",
            ]
            if self.credential is not None:
                bearer = self.credential_style == "bearer"
                lines.append(
                    ("Authorization: Bearer " if bearer else "X-Api-Key: ") + self.credential.reveal()
                )
            start = "".join(line + "\r\n" for line in lines).encode("ascii")
            self._head_starts[path] = start
        return start


def verifying_tls(ca_file: str | None = None) -> ssl.SSLContext:
    """A client context that verifies certificate and host name; `ca_file` replaces the system's
    authorities.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def request_head(endpoint: Endpoint, path: str, content_length: int, lines: bytes) -> bytes:
    """The head of a POST to `path` with the client's allowed headers as `lines`. Never log it: it holds the
    credential.
    """
    return b"%b%bContent-Length: %d\r\n\r\n" % (endpoint.head_start(path), lines, content_length)
