"""Promise M3, M4, M5: a client may leave at any moment; its exchange is settled once and nothing is left
open.

Raw sockets end with RST or FIN at chosen points of streamed and plain answers, 500 streams in all; the seed
is printed. What the scripted upstream saw is held against the store.
"""

import asyncio
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from e2e.deployment import Customer, Deployment
from farebox.run.demo.processes import wait_until
from needs import SEED

USD = 10**12
AT_ONCE = 32
LAST_CHUNK = b"0\r\n\r\n"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

ROUTES = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}
MODELS = {"chat": "gpt-5.1", "messages": "claude-sonnet-4-5"}
CHARGE_PICO = {
    "chat": 120 * 1_312_500 + 60 * 10_500_000,
    "messages": 120 * 3_150_000 + 60 * 15_750_000,
}
"""120 input and 60 output tokens at each model's prices times 1.05."""
USAGE_SEEN = {"chat": b'"completion_tokens":60', "messages": b'"output_tokens":60'}
ALL_SEEN = {"chat": b"[DONE]", "messages": b"message_stop"}
DRAINS_MAX = 64


@dataclass
class Caller:
    """Sends one request over a raw socket and leaves when told."""

    deployment: Deployment
    customer: Customer
    statuses: Counter[str] = field(default_factory=Counter)

    def request(self, wire_format: str, stream: bool, script: dict[str, Any]) -> bytes:
        content = f"script: {json.dumps({'prompt': 120, 'completion': 60, **script})}"
        asked = {
            "model": MODELS[wire_format],
            "max_tokens": 200,
            "stream": stream,
            "messages": [{"role": "user", "content": content}],
        }
        if wire_format == "chat" and stream:
            asked["stream_options"] = {"include_usage": True}
        body = json.dumps(asked).encode()
        head = (
            f"POST {ROUTES[wire_format]} HTTP/1.1\r\nHost: farebox\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.customer.key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def leave_when(
        self, request: bytes, seen: bytes, bytes_min: int, delay_s: float, *, reset: bool
    ) -> None:
        """Send; leave `delay_s` after `seen` and `bytes_min` bytes have come, or when the answer ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.deployment.port)
        writer.write(request)
        got = b""
        while (seen not in got or len(got) < bytes_min) and not got.endswith(LAST_CHUNK):
            data = await asyncio.wait_for(reader.read(4096), 20.0)
            assert data, "Farebox closed first"
            got += data
        self.statuses[got[9:12].decode()] += 1
        await asyncio.sleep(delay_s)
        if reset:
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def no_upstream_left(deployment: Deployment, connections_max: int) -> None:
    """Nothing open at the upstream any more, and no more idle connections than there ever were at once."""
    assert wait_until(lambda: deployment.upstream_log()["open"] == 0, 30.0)
    assert deployment.upstream_log()["connections"] <= connections_max + 1


def every_one_settled_once(
    deployment: Deployment, user: str, timeout_s: float = 40.0
) -> list[dict[str, Any]]:
    """The user's log rows: one for each exchange the upstream saw, each with its ledger row; no hold is
    left.
    """
    deployment.settled([user], timeout_s)
    report = deployment.verified()
    assert report.differences == []
    assert report.parked == []
    logs = deployment.logs(user)
    charges = Counter(row.reference for row in deployment.spent_rows(user))
    assert set(charges.values()) <= {1}
    assert {row["_id"] for row in logs} == set(charges)
    assert len(logs) == deployment.upstream_log()["received"]
    assert all(row["evidence"] in {"exact", "partial", "estimated"} for row in logs)
    return logs


def leaving_points(rng: random.Random) -> Iterator[tuple[str, bytes, int, float]]:
    """500 streams: wire format, what must have been seen, how many bytes, and how much later to leave."""
    for number in range(500):
        wire_format = ("chat", "messages")[number % 2]
        match number // 2 % 5:
            case 0:
                yield wire_format, b"", 0, rng.uniform(0.0, 0.02)
            case 1:
                yield wire_format, b"\r\n\r\n", 0, 0.0
            case 2:
                yield wire_format, b"\r\n\r\n", rng.randrange(400, 5000), rng.uniform(0.0, 0.01)
            case 3:
                yield wire_format, USAGE_SEEN[wire_format], 0, 0.0
            case _:
                yield wire_format, ALL_SEEN[wire_format], 0, 0.0


@pytest.mark.timeout(120)
def test_C04_C05_C08_C11_500_streams_left_at_random_points_are_each_settled_once(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    with Deployment(tmp_path) as deployment:
        caller = Caller(deployment, deployment.customer("alice", 100 * USD))
        waiting = asyncio.Semaphore(AT_ONCE)

        async def one(wire_format: str, seen: bytes, bytes_min: int, delay_s: float) -> None:
            script = {"chunks": 12, "delay_ms": rng.choice((0, 1, 4)), "first_delay_ms": rng.choice((0, 8))}
            request = caller.request(wire_format, True, script)
            async with waiting:
                await caller.leave_when(request, seen, bytes_min, delay_s, reset=rng.random() < 0.5)

        async def all_of_them() -> None:
            await asyncio.gather(*(one(*point) for point in leaving_points(rng)))

        asyncio.run(all_of_them())
        assert set(caller.statuses) <= {"200", ""}
        no_upstream_left(deployment, AT_ONCE + DRAINS_MAX)
        logs = every_one_settled_once(deployment, "alice")
        exact = [row for row in logs if row["evidence"] == "exact"]
        assert len(exact) > 0.9 * len(logs)
        expected = {
            MODELS["chat"]: CHARGE_PICO["chat"],
            "claude-sonnet-4-5-20250929": CHARGE_PICO["messages"],
        }
        charged = {row.reference: -row.amount_pico for row in deployment.spent_rows("alice")}
        assert [row for row in exact if charged[row["_id"]] != expected[row["model"]]] == []


@pytest.mark.timeout(60)
def test_C09_plain_requests_left_before_their_answer_are_billed_as_answered(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    with Deployment(tmp_path) as deployment:
        caller = Caller(deployment, deployment.customer("alice", 100 * USD))

        async def one(number: int) -> None:
            request = caller.request(("chat", "messages")[number % 2], False, {"first_delay_ms": 400})
            await caller.leave_when(request, b"", 0, rng.uniform(0.0, 0.35), reset=number % 4 < 2)

        async def all_of_them() -> None:
            await asyncio.gather(*(one(number) for number in range(60)))

        asyncio.run(all_of_them())
        no_upstream_left(deployment, 60)
        logs = every_one_settled_once(deployment, "alice")
        assert len(logs) > 30
        assert {(row["outcome"], row["evidence"]) for row in logs} == {("client_gone", "exact")}
        models = Counter(row["model"] for row in logs)
        due_pico = models["gpt-5.1"] * CHARGE_PICO["chat"]
        due_pico += models["claude-sonnet-4-5-20250929"] * CHARGE_PICO["messages"]
        assert deployment.account("alice").balances["creditsNew"] == 100 * USD - due_pico


@pytest.mark.timeout(60)
def test_C03_a_client_that_leaves_before_its_request_is_sent_pays_nothing(tmp_path: Path) -> None:
    with Deployment(tmp_path) as deployment:
        caller = Caller(deployment, deployment.customer("alice", 100 * USD))

        async def half_a_body() -> None:
            request = caller.request("chat", True, {})
            await asyncio.gather(
                *(
                    caller.leave_when(request[:-size], b"", 0, 0.05, reset=size % 2 == 0)
                    for size in range(1, 40)
                )
            )

        asyncio.run(half_a_body())
        deployment.settled(["alice"])
        assert deployment.upstream_log()["received"] == 0
        assert deployment.account("alice").balances["creditsNew"] == 100 * USD
        assert deployment.verified().differences == []


@pytest.mark.timeout(60)
def test_C10_no_more_than_so_many_upstreams_are_read_on_for_clients_that_left(tmp_path: Path) -> None:
    with Deployment(tmp_path) as deployment:
        caller = Caller(deployment, deployment.customer("alice", 100 * USD))
        total = DRAINS_MAX + 40

        async def all_of_them() -> None:
            request = caller.request("messages", True, {"chunks": 30, "delay_ms": 100})
            await asyncio.gather(
                *(caller.leave_when(request, b"word0", 0, 0.0, reset=True) for _ in range(total))
            )

        asyncio.run(all_of_them())
        assert wait_until(lambda: deployment.upstream_log()["open"] <= DRAINS_MAX, 1.5)
        no_upstream_left(deployment, DRAINS_MAX)
        logs = every_one_settled_once(deployment, "alice")
        ends = Counter((row["outcome"], row["evidence"]) for row in logs)
        assert ends == {
            ("client_gone", "exact"): DRAINS_MAX,
            ("client_gone_cut", "partial"): total - DRAINS_MAX,
        }
