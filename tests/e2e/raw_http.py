"""A client that sends exactly the bytes it is given and shows exactly what comes back."""

import socket
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True)
class Answer:
    """Status, headers by lower-case name, and the unframed body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> Any:
        """The error object of either format."""
        return orjson.loads(self.body)["error"]


def exchange(port: int, *parts: bytes, timeout_s: float = 20.0) -> Answer:
    """Send `parts` on a connection of its own and read one answer. A peer that stops reading is no fault."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:
            pass
        return _answer(connection)


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request with a length; `headers` with underscores for hyphens, "" leaves a default out."""
    lines = {"host": "localhost", "content-type": "application/json", "connection": "close"}
    if body or method == "POST":
        lines["content-length"] = str(len(body))
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def _answer(connection: socket.socket) -> Answer:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            break
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines[1:])
    }
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        more = connection.recv(65536)
        if not more:
            break
        body += more
    status = int(lines[0].split(" ")[1]) if data else 0
    return Answer(status, headers, body)
