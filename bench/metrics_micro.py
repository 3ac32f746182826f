"""What metrics cost: recording them on the hot path, an exchange, and a scrape in the console.

    python bench/metrics_micro.py [--workers 4]

Recording is what `proxy/exchange.py` and `proxy/settle.py` do of it in a plain exchange: a histogram, the
tally, the byte and open counters, and of one exchange in 16 four looks at the clock and one more histogram.
Best of many rounds, an empty loop taken off. A scrape only reads the workers' files, in another process, so
no worker takes part in it.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from time import monotonic_ns
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

import farebox.run.demo
from farebox.base.counters import ADDED, ADDED_CELLS, FIRST_BYTE, FIRST_BYTE_CELLS, INDEX, Counters
from farebox.config.load import load
from farebox.console.metrics import FareboxCollector
from farebox.meter import Pipe, PlainCharge, plain_charge
from farebox.proxy.offer import compile_book
from farebox.proxy.plain import plain_terms

CONFIG = Path(farebox.run.demo.__file__).with_name("config.json")
COUNT = 20_000
ROUNDS = 15
BOUND_US = 3.0
_FIRST_BYTE_MS = INDEX[FIRST_BYTE.sum_name]
_ADDED_US = INDEX[ADDED.sum_name]
_OPEN = INDEX["exchanges_open"]
_BYTES_UP = INDEX["bytes_up_total"]
REQUEST = b'{"model":"gpt-5.1","messages":[{"role":"user","content":"hello"}]}'
ANSWER = (
    b'{"model":"gpt-5.1","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}'
)


class Stopwatch:
    """Stands for the exchange: it carries the time, and what is charged."""

    __slots__ = ("added_ns", "charge", "tally")

    def __init__(self, counters: Counters) -> None:
        self.tally = counters.tally
        self.charge = charge()


def charge() -> PlainCharge:
    """A plain answer of the demonstration's model, charged."""
    service = load([CONFIG]).services[0]
    model = next(model for model in service.models if model.id == "gpt-5.1")
    terms = plain_terms(model, "chat", compile_book(service, 1, 0).models[model.id])
    tap = Pipe("chat", len(ANSWER))
    tap.feed(ANSWER)
    found = None if terms is None else plain_charge(terms, tap)
    if found is None:
        raise SystemExit("the demonstration's answer is not plain any more")
    return found


def record(counters: Any, exchange: Stopwatch, exchange_id: str) -> None:
    """Everything of one plain exchange."""
    exchange.added_ns = -monotonic_ns() if exchange_id[-1] == "0" else 0
    counters[_OPEN] += 1
    if exchange.added_ns:
        exchange.added_ns += monotonic_ns()
    counters[_BYTES_UP] += 117
    first_byte_ms = 431
    counters[_FIRST_BYTE_MS] += first_byte_ms
    counters[FIRST_BYTE_CELLS[first_byte_ms.bit_length()]] += 1
    if exchange.added_ns:
        exchange.added_ns -= monotonic_ns()
    counters[_OPEN] -= 1
    exchange.tally.settled(exchange.charge, first_byte_ms)
    if exchange.added_ns:
        added_us = (exchange.added_ns + monotonic_ns()) // 1000
        counters[_ADDED_US] += added_us
        counters[ADDED_CELLS[added_us.bit_length()]] += 1


def nothing(counters: Any, exchange: Stopwatch, exchange_id: str) -> None:
    """The call itself."""


def best_us(work: Any, counters: Counters) -> float:
    """Microseconds a call, in the best round."""
    exchange = Stopwatch(counters)
    ids = [f"{number:032x}" for number in range(COUNT)]
    best_s = float("inf")
    for _ in range(ROUNDS):
        began_s = time.perf_counter()
        for exchange_id in ids:
            work(counters.values, exchange, exchange_id)
        best_s = min(best_s, time.perf_counter() - began_s)
    return best_s / COUNT * 1e6


def scrape_ms(folder: Path, workers: int) -> float:
    """CPU milliseconds of one scrape."""
    paths = [folder / f"worker-{number}.counters" for number in range(workers)]
    kept = [Counters(path) for path in paths]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FareboxCollector(lambda: paths, folder / "none.json"))
    began_s = time.process_time()
    for _ in range(100):
        generate_latest(registry)
    cpu_s = time.process_time() - began_s
    for counters in kept:
        counters.close()
    return cpu_s * 10


def main() -> int:
    """Measure and print; 1 when recording costs more than its bound."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--workers", type=int, default=4)
    workers = arguments.parse_args().workers
    with tempfile.TemporaryDirectory() as name:
        counters = Counters(Path(name) / "own.counters")
        record_us = best_us(record, counters) - best_us(nothing, counters)
        counters.close()
        found = {"record_us": round(record_us, 3), "scrape_cpu_ms": round(scrape_ms(Path(name), workers), 2)}
    print(json.dumps(found))
    return int(record_us > BOUND_US)


if __name__ == "__main__":
    raise SystemExit(main())
