"""An upstream that answers with exactly the bytes a test gives it, and keeps what it was sent."""

import socketserver
import threading
from types import TracebackType
from typing import Self


class RawUpstream:
    """Answers each request with `answer`; closes after it where `close` is set. `received`: heads and
    bodies.
    """

    def __init__(self) -> None:
        self.answer = b""
        self.close = True
        self.received: list[tuple[bytes, bytes]] = []
        upstream = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while upstream.take(self):
                    self.wfile.write(upstream.answer)
                    if upstream.close:
                        return

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def take(self, handler: socketserver.StreamRequestHandler) -> bool:
        """Read one request; False when the connection ended."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = handler.rfile.readline()
            if not line:
                return False
            head += line
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        self.received.append((head, handler.rfile.read(length)))
        return True

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.server_address[1]
        return port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def http_answer(
    body: bytes,
    *,
    status: int = 200,
    content_type: str = "application/json",
    declared: int | None = None,
    lines: tuple[str, ...] = (),
) -> bytes:
    """An answer with a Content-Length (a wrong one if `declared`); streams are sent chunked, a chunk an
    event.
    """
    head = [f"HTTP/1.1 {status} Scripted", f"Content-Type: {content_type}", *lines]
    if content_type == "text/event-stream":
        events = [event + b"\n\n" for event in body.split(b"\n\n") if event]
        head.append("Transfer-Encoding: chunked")
        whole = declared is None
        body = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n" * whole
    else:
        head.append(f"Content-Length: {len(body) if declared is None else declared}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
