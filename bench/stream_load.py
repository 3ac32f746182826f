"""Streamed load: so many streams at once for so many seconds; prints what was received as one JSON line.
 Own asyncio protocol, because a general client would cost more than what is measured. A stream is counted
when it ended with `[DONE]`; streams still running at the deadline are finished, so that nothing is cut.

    python bench/stream_load.py --port P --key K --streams 50 --seconds 5 --body JSON
"""

import argparse
import asyncio
import json
import sys
import time

import uvloop

from load import request_of


class Stream(asyncio.Protocol):
    """One keep-alive connection that asks for one stream after another until the deadline."""

    def __init__(
        self, request: bytes, ends_s: float, done: asyncio.Future[None], totals: dict[str, int]
    ) -> None:
        self.request = request
        self.ends_s = ends_s
        self.done = done
        self.totals = totals
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.tail = b""
        self.totals["asked"] += 1
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        totals = self.totals
        totals["bytes"] += len(data)
        totals["events"] += data.count(b"data: ")
        self.tail = (self.tail + data)[-64:]
        if not self.tail.endswith(b"\r\n0\r\n\r\n"):
            return
        totals["done" if b"data: [DONE]" in self.tail else "failed"] += 1
        if time.monotonic() < self.ends_s:
            self.ask()
        else:
            self.transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def load(port: int, request: bytes, streams: int, seconds: float) -> dict[str, int | float]:
    """Run the load; totals over all streams."""
    loop = asyncio.get_running_loop()
    totals = dict.fromkeys(("asked", "done", "failed", "events", "bytes"), 0)
    started_s = time.monotonic()
    waiting = []
    for _ in range(streams):
        done: asyncio.Future[None] = loop.create_future()
        waiting.append(done)
        stream = Stream(request, started_s + seconds, done, totals)
        await loop.create_connection(lambda made=stream: made, "127.0.0.1", port)
    await asyncio.wait_for(asyncio.gather(*waiting), seconds + 60)
    return {**totals, "seconds": time.monotonic() - started_s}


def main() -> int:
    parser = argparse.ArgumentParser(description="Streamed load.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--body", required=True)
    parser.add_argument("--header", action="append", default=[], help="one more, as NAME: VALUE")
    options = parser.parse_args()
    request = request_of(options.body.encode(), options.key, "/v1/chat/completions", options.header)
    result = uvloop.run(load(options.port, request, options.streams, options.seconds))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
