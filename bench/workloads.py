"""The loads of the matrix: what a client asks, and what the scripted upstream answers to it."""

import json
from dataclasses import dataclass
from typing import Any

import rig

PROMPT_BYTES = 5_000_000
CODE = '''
    async def settle(self, exchange: Exchange, usage: Usage) -> Charge:
        """Price the usage and post the hold."""
        charge = self.price_book.charge(usage, exchange.model)
        if charge.amount_pico > exchange.hold_pico:
            raise LookupError(f"hold of {exchange.id} is too small: {charge}")
        return await self.journal.append("settle", charge)  # ünïcode
'''
"""What agents send: escaped line ends and quotes in every line."""
PROSE = "The quick brown fox jumps over the lazy dog, and the dog lets it. "


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of exchange; `body` is the request's."""

    name: str
    body: bytes
    what: str
    """For the report."""
    seconds: float = 2.0
    """How long a closed loop of it runs."""
    spread_s: float = 0.0
    """Over how long the first exchanges of a closed loop begin."""
    events: int = 0
    """Server-sent events that carry content; 0: not streamed."""


def chat(script: dict[str, Any], streamed: bool) -> bytes:
    """A chat request that carries the script of its answer."""
    messages = [{"role": "user", "content": f"script: {json.dumps(script)}"}]
    return json.dumps({"model": rig.MODEL, "stream": streamed, "messages": messages}).encode()


def long_prompt(size: int = PROMPT_BYTES, text: str = CODE) -> bytes:
    """A chat request of `size` bytes: one turn full of a text repeated, then a question."""
    escaped = json.dumps(text, ensure_ascii=False)[1:-1].encode()
    head = b'{"model":"%s","messages":[{"role":"user","content":"' % rig.MODEL.encode()
    tail = b'"},{"role":"user","content":"Say hello."}]}'
    times, rest = divmod(size - len(head) - len(tail), len(escaped))
    return head + escaped * times + b" " * rest + tail


def streamed(events: int, delay_ms: float) -> bytes:
    """A streamed chat request of so many content events."""
    return chat({"chunks": events, "delay_ms": delay_ms, "prompt": 40, "completion": events}, streamed=True)


PLAIN_SMALL = Workload("plain 0.5 KB", rig.PLAIN_BODY.encode(), "small question, answer of 0.5 KB")
PLAIN_LARGE = Workload(
    "plain 500 KB",
    chat({"chunks": 50_000, "prompt": 40, "completion": 1000}, streamed=False),
    "small question, answer of 500 KB in one piece",
)
STREAM_PACED = Workload(
    "stream 100 x 50/s",
    streamed(100, 20.0),
    "streamed answer of 100 chunks, 20 ms apart",
    seconds=3.0,
    spread_s=1.0,
    events=100,
)
STREAM_FAST = Workload(
    "stream 2,000 at once",
    streamed(2000, 0.0),
    "streamed answer of 2,000 chunks, as fast as it goes",
    events=2000,
)
PROMPT_LARGE = Workload("prompt 5 MB", long_prompt(), "question of 5 MB, answer of 0.5 KB")

MATRIX = (PLAIN_SMALL, PLAIN_LARGE, STREAM_PACED, STREAM_FAST, PROMPT_LARGE)
CONCURRENCY = (1, 200)
