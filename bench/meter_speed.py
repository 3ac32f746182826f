"""What the compiled meter reads in a second: a long prompt's scan, and usage at the end of a long line."""

import json
import time
from collections.abc import Callable

from farebox._meter import Pipe, scan
from workloads import CODE, long_prompt

READ_BYTES = 64 * 1024
"""A long answer comes in reads of this size."""
REPETITIONS = 5
"""Of each round; its best counts, because whatever else the machine does only adds."""


def best_s(work: Callable[[], None]) -> float:
    """The shortest of a few repetitions."""
    times = []
    for _ in range(REPETITIONS):
        began_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - began_s)
    return min(times)


def scan_gigabytes_per_s(rounds: int, text: str = CODE) -> list[float]:
    """Scanning a 5 MB chat request, once a round."""
    body = long_prompt(text=text)
    return [len(body) / best_s(lambda: _scan(body)) / 1e9 for _ in range(rounds)]


def _scan(body: bytes) -> None:
    if scan(body, "chat").message_count != 2:
        raise SystemExit("bench: the scan misread the prompt")


def usage_gigabytes_per_s(size: int, rounds: int) -> list[float]:
    """Reading the usage at the end of one `response.completed` line of `size` bytes."""
    stream = completed_line(size)
    size = len(stream)
    reads = [stream[at : at + READ_BYTES] for at in range(0, len(stream), READ_BYTES)]
    return [size / best_s(lambda: _read(reads, size)) / 1e9 for _ in range(rounds)]


def _read(reads: list[bytes], size: int) -> None:
    pipe = Pipe("responses", size)
    for data in reads:
        pipe.feed(data)
    if pipe.reading().counts != {"input": 36, "output": 87}:
        raise SystemExit(f"bench: usage misread: {pipe.reading().counts}")


def completed_line(size: int) -> bytes:
    """An event that repeats a long answer and states its usage after it."""
    usage = {
        "input_tokens": 36,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 87,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 123,
    }
    text = 'He said: "line one"\n\tand then ünïcode. '
    part = {"type": "output_text", "annotations": [], "text": text * (size // len(json.dumps(text)))}
    item = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    response = {"id": "resp_1", "object": "response", "status": "completed", "model": "gpt-5.1"}
    event = {
        "type": "response.completed",
        "sequence_number": 9,
        "response": {**response, "output": [item], "usage": usage},
    }
    return b"event: response.completed\ndata: " + json.dumps(event).encode() + b"\n\n"
