"""What a streamed chunk costs in calls into the compiled meter and in writes, on real sockets.

    python bench/stream_writes.py [--chunks 100] [--stretches 3]

A whole worker under uvloop in a thread; client and upstream are two blocking sockets of the main thread.
Lock-step: the upstream sends a chunk only when the client has the one before, so each chunk is a read of its
own, and a chunk that was withheld for later company would stop everything. Burst: all chunks of a stretch are
sent at once. Calls are those the interpreter tells a profiler of; writes are the kernel's account of the
worker's thread (`/proc/self/task/ID/io`).
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

os.environ["FAREBOX_INTERPRETED"] = "1"  # a profiler is told of no call that compiled modules make

import uvloop

import farebox._meter
from socketless import STREAM_BODY, STREAM_END, make_worker, request_of
from wire_calls import CHUNK, EVENT, STREAM_HEAD

_TIMEOUT_S = 30.0
_BY_NAME = vars(farebox._meter)
_TYPES = frozenset(value for value in _BY_NAME.values() if isinstance(value, type))


class ServedWorker(threading.Thread):
    """A worker that listens on a socket of its own, and what it has done so far."""

    def __init__(self, folder: Path, upstream_port: int) -> None:
        super().__init__(daemon=True)
        self.crossings = 0
        self.key = ""
        self.port = 0
        self.ready = threading.Event()
        self._folder = folder
        self._upstream_port = upstream_port

    def run(self) -> None:
        uvloop.run(self._serve())

    async def _serve(self) -> None:
        _, server, _, self.key = await make_worker(self._folder, self._upstream_port)
        sock = socket.create_server(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        await server.start(sock)
        sys.setprofile(self._see)
        self.ready.set()
        await asyncio.Event().wait()

    def _see(self, frame: FrameType, event: str, called: Any) -> None:  # noqa: ARG002 - a profiler's signature
        if event == "c_call":
            owner = called.__self__
            self.crossings += type(owner) in _TYPES or (
                isinstance(owner, ModuleType) and owner.__name__ == farebox._meter.__name__
            )

    def writes(self) -> int:
        """Writing system calls of the thread."""
        told = Path(f"/proc/self/task/{self.native_id}/io").read_text(encoding="ascii")
        return int(told.partition("syscw: ")[2].partition("\n")[0])


def receive(sock: socket.socket, text: bytes, times: int = 1) -> None:
    """Read until the text has come so often."""
    got = b""
    while got.count(text) < times:
        data = sock.recv(1 << 20)
        if not data:
            raise SystemExit(f"the connection ended after {got[-200:]!r}")
        got += data


def measure(chunks: int, stretches: int) -> dict[str, list[dict[str, int]]]:
    """One stream: stretches in lock-step, then as many in bursts."""
    found: dict[str, list[dict[str, int]]] = {"lock_step": [], "burst": []}
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_TIMEOUT_S)
        worker = ServedWorker(Path(folder), listener.getsockname()[1])
        worker.start()
        if not worker.ready.wait(_TIMEOUT_S):
            raise SystemExit("the worker did not start")
        client = socket.create_connection(("127.0.0.1", worker.port), timeout=_TIMEOUT_S)
        client.sendall(request_of(worker.key, STREAM_BODY))
        upstream, _ = listener.accept()
        upstream.settimeout(_TIMEOUT_S)
        receive(upstream, b"\r\n\r\n")
        upstream.sendall(STREAM_HEAD)
        receive(client, b"\r\n\r\n")
        for manner, at_once in (("lock_step", 1), ("burst", chunks)):
            for _ in range(stretches):
                calls, writes = worker.crossings, worker.writes()
                for _ in range(chunks // at_once):
                    upstream.sendall(CHUNK * at_once)
                    receive(client, EVENT, at_once)
                found[manner].append(
                    {"crossings": worker.crossings - calls, "writes": worker.writes() - writes}
                )
        upstream.sendall(STREAM_END)
        receive(client, b"0\r\n\r\n")
        client.close()
        upstream.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--chunks", type=int, default=100)
    parser.add_argument("--stretches", type=int, default=3)
    options = parser.parse_args()
    print(json.dumps(measure(options.chunks, options.stretches)), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)
