"""Clients that ask afresh all the time, and how long each of them was refused.

Each request is a small paid one on a connection of its own, begun at a fixed pace whatever became of those
before it. A stretch of refusals reaches from the beginning of a request that was refused to the beginning of
the next one that was served: so long a client that tries again at once would have been without service.
A request that runs in a process which is killed is lost with it and is no refusal: the client had been taken.
"""

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

IN_FLIGHT_MAX: Final = 1000
ANSWER_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. Status 0: its connection was refused or ended before a whole answer had come."""

    began_s: float
    ended_s: float
    status: int

    @property
    def served(self) -> bool:
        return self.status == 200


@dataclass(slots=True)
class Prober:
    """Asks one address, a TCP port or a unix socket, every `pace_s` until it is left."""

    address: int | Path
    key: str
    model: str
    pace_s: float
    asked: list[Asked] = field(default_factory=list)
    killed_s: list[float] = field(default_factory=list)
    """When a process was killed or stopped: requests that had begun by then may have run in it."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(default_factory=threading.Thread)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._go_on()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2 * ANSWER_TIMEOUT_S)

    # -- what was seen -----------------------------------------------------------------------------------
    def refused(self) -> list[Asked]:
        """Requests that were refused, without those that were lost with a process."""
        return [each for each in self.asked if not each.served and not self._was_lost(each)]

    def lost(self) -> list[Asked]:
        """Requests that ran in a process which was killed."""
        return [each for each in self.asked if self._was_lost(each)]

    def served_count(self) -> int:
        """How many were served."""
        return sum(each.served for each in self.asked)

    def longest_refusal_s(self) -> float:
        """The longest stretch of refusals."""
        longest_s, since_s = 0.0, None
        for each in sorted(self.asked, key=lambda each: each.began_s):
            if each.served:
                longest_s = max(longest_s, each.began_s - since_s if since_s is not None else 0.0)
                since_s = None
            elif since_s is None and not self._was_lost(each):
                since_s = each.began_s
        return max(longest_s, self.asked[-1].ended_s - since_s) if since_s is not None else longest_s

    def longest_wait_s(self) -> float:
        """The longest time that a request took which was served."""
        return max((each.ended_s - each.began_s for each in self.asked if each.served), default=0.0)

    def _was_lost(self, asked: Asked) -> bool:
        return asked.status == 0 and any(asked.began_s <= at_s < asked.ended_s for at_s in self.killed_s)

    # -- asking ------------------------------------------------------------------------------------------
    async def _go_on(self) -> None:
        running: set[asyncio.Task[None]] = set()
        while not self._stop.is_set():
            if len(running) < IN_FLIGHT_MAX:
                task = asyncio.create_task(self._ask())
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.sleep(self.pace_s)
        await asyncio.gather(*running)

    async def _ask(self) -> None:
        began_s = time.monotonic()
        try:
            status = await asyncio.wait_for(self._status(), ANSWER_TIMEOUT_S)
        except (OSError, TimeoutError):
            status = 0
        self.asked.append(Asked(began_s, time.monotonic(), status))

    async def _status(self) -> int:
        if isinstance(self.address, Path):
            reader, writer = await asyncio.open_unix_connection(self.address)
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.address)
        try:
            writer.write(self._request())
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        finally:
            writer.close()
        return int(head.split(b" ", 2)[1]) if body.endswith(b"}") else 0

    def _request(self) -> bytes:
        script = 'script: {"prompt": 10, "completion": 1}'
        asked = {"model": self.model, "max_tokens": 4, "messages": [{"role": "user", "content": script}]}
        body = json.dumps(asked).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body
