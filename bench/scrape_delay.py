"""Whether a scrape of /metrics delays streams: the gaps between a stream's chunks, with scrapes and without.

    python bench/scrape_delay.py [--workers 4] [--streams 16] [--rounds 10]

Streams of one chunk every 5 ms run through all workers while windows of two seconds alternate: in every
second one the console is scraped ten times a second, 150 times as often as Prometheus does it by default.
Prints the medians of the windows' mean and 99th-percentile gaps as one JSON line; the difference is what the
scrapes add.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from farebox.base.clock import wall_ms
from farebox.base.units import PICO_PER_USD
from farebox.credits.accounts import create_key, create_user
from farebox.credits.moves import Move
from farebox.credits.transfers import perform
from farebox.run.demo.processes import Processes
from farebox.store import open_store

CHUNK_EVERY_MS = 5
WINDOW_S = 2.0
SCRAPE_EVERY_S = 0.1


class Deployment(Processes):
    """The demonstration's upstream and a Farebox of several workers."""

    def __init__(self, folder: Path, workers: int) -> None:
        super().__init__(folder)
        self._workers = str(workers)
        self.start_upstream()
        self.write_config()
        self.start_farebox()

    def start_farebox(self) -> None:
        command = ["farebox.run.cli", "serve", "--config", str(self.config), "--workers", self._workers]
        self._wait(self._start("farebox", command), "farebox", self.port, "/readyz")

    async def key(self) -> str:
        """A user with enough money, and his key."""
        store = open_store(f"sqlite:///{self.folder / 'farebox.sqlite'}")
        await store.open()
        now_ms = wall_ms()
        await create_user(store, "bench", "user", "bench", now_ms)
        await perform(
            store, Move("grant", "b", "bench", "creditsNew", 10_000 * PICO_PER_USD, "b", "b"), now_ms
        )
        made = await create_key(store, "bench", "b", "bench", now_ms, requests_per_minute=10**6)
        await store.close()
        return made.key


async def stream(port: int, key: str, chunks: int, gaps: list[tuple[float, float]]) -> None:
    """One stream; notes when each chunk came and how long after the one before."""
    script = json.dumps({"prompt": 9, "completion": chunks, "chunks": chunks, "delay_ms": CHUNK_EVERY_MS})
    body = {
        "model": "gpt-5.1",
        "stream": True,
        "max_tokens": chunks,
        "messages": [{"role": "user", "content": f"script: {script}"}],
    }
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    before_s = 0.0
    while await reader.read(65_536):
        now_s = time.monotonic()
        if before_s:
            gaps.append((now_s, now_s - before_s))
        before_s = now_s
    writer.close()


async def scrape(port: int) -> None:
    """One scrape."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    if b"farebox_exchanges_total" not in await reader.read(-1):
        raise SystemExit("the console does not answer")
    writer.close()


async def measure(port: int, console_port: int, key: str, streams: int, rounds: int) -> dict[str, float]:
    """The medians over all windows, milliseconds."""
    chunks = int(rounds * 2 * WINDOW_S * 1000 / CHUNK_EVERY_MS)
    gaps: list[tuple[float, float]] = []
    running = [asyncio.create_task(stream(port, key, chunks, gaps)) for _ in range(streams)]
    await asyncio.sleep(1)
    windows: dict[bool, list[list[float]]] = {False: [], True: []}
    for number in range(rounds * 2):
        scraping = bool(number % 2)
        begin_s = time.monotonic()
        while time.monotonic() < begin_s + WINDOW_S:
            if scraping:
                await scrape(console_port)
            await asyncio.sleep(SCRAPE_EVERY_S)
        windows[scraping].append([gap_s * 1000 for at_s, gap_s in gaps if at_s >= begin_s])
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    found: dict[str, float] = {}
    for scraping, name in ((False, "without"), (True, "with")):
        found[f"{name}_mean_ms"] = statistics.median(statistics.fmean(one) for one in windows[scraping])
        found[f"{name}_p99_ms"] = statistics.median(
            statistics.quantiles(one, n=100)[98] for one in windows[scraping]
        )
    return {name: round(value, 3) for name, value in found.items()}


def main() -> int:
    """Measure and print; 1 where a scrape adds a millisecond to the mean gap or more."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--workers", type=int, default=4)
    arguments.add_argument("--streams", type=int, default=16)
    arguments.add_argument("--rounds", type=int, default=10)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="f-") as name, Deployment(Path(name), options.workers) as served:
        console_port = json.loads(served.config.read_text())["console"]["port"]
        key = asyncio.run(served.key())
        found = asyncio.run(measure(served.port, console_port, key, options.streams, options.rounds))
    print(json.dumps(found))
    return int(found["with_mean_ms"] - found["without_mean_ms"] >= 1)


if __name__ == "__main__":
    sys.exit(main())
