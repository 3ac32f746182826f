"""Every kind of change of a key or an account reaches every worker on every host (A04).

Two hosts with two workers each; every worker has a socket of its own and knows the key already. The test asks
each worker until it answers as the change demands, and prints how long that took; within a second is what
operators are told.
"""

import http.client
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from chaos.hosts import Machines
from farebox.base.clock import wall_ms
from farebox.base.keys import key_digest, new_key
from farebox.base.records import KeyRecord
from farebox.credits import accounts
from farebox.credits.events import grant_event
from farebox.run.demo.processes import wait_until
from farebox.store import open_store
from farebox.store.base import Store

USD: Final = 10**12
BODY: Final = json.dumps(
    {
        "model": "gpt-5.1",
        "max_tokens": 20,
        "messages": [{"role": "user", "content": 'script: {"prompt": 10, "completion": 10}'}],
    }
)


class OnSocket(http.client.HTTPConnection):
    """An HTTP connection to one worker's unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("worker", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def ask(path: Path, key: str) -> int:
    """The status one worker answers a request with."""
    connection = OnSocket(path)
    try:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", BODY, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path, f"sqlite:///{tmp_path / 'farebox.sqlite'}", hosts=2, workers=2)
    for number, host in enumerate(made.hosts):
        sockets = tmp_path / f"s{number}"
        sockets.mkdir()
        host.changes = {**host.changes, "worker_sockets": str(sockets), "lease_wait_s": 0.2}
    with made:
        yield made


@pytest.mark.timeout(240)
async def test_A04_each_change_reaches_every_worker_on_every_host(
    machines: Machines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(host.wait_ready() for host in machines.hosts)
    workers: list[Path] = []

    def all_there() -> bool:
        workers[:] = sorted(tmp_path.glob("s*/*"))
        return len(workers) == 4

    assert wait_until(all_there, 30.0), workers
    store = open_store(f"sqlite:///{tmp_path / 'farebox.sqlite'}")
    await store.open()
    key, now_ms = new_key(), wall_ms()
    record = KeyRecord(key_digest(key), "alice", "sk-", "laptop", True, True, "user", None, None)

    async def grant(store: Store) -> None:
        event = grant_event("alice", "creditsNew", USD, "first", "test", None, "test", now_ms)
        await store.apply_event(event, now_ms)

    def limited(rpm: int | None, models: tuple[str, ...] | None) -> Callable[[Store], Awaitable[Any]]:
        return lambda store: accounts.limit_key(store, record, rpm, models, "test", now_ms)

    def active(is_active: bool) -> Callable[[Store], Awaitable[Any]]:
        return lambda store: accounts.set_user_active(store, "alice", is_active, "test", now_ms)

    changes: list[tuple[str, Callable[[Store], Awaitable[Any]], int]] = [
        ("user created", lambda store: store.create_user("alice", "user", "test", now_ms), 401),
        ("key created", lambda store: store.create_key(record, "test", now_ms), 402),
        ("top-up", grant, 200),
        ("rate limit", limited(1, None), 429),
        ("rate limit lifted", limited(None, None), 200),
        ("models", limited(None, ("other",)), 403),
        ("models lifted", limited(None, None), 200),
        ("user disabled", active(False), 401),
        ("user enabled", active(True), 200),
        ("key revoked", lambda store: accounts.revoke_key(store, record, "test", now_ms), 401),
    ]
    lines = []
    for name, change, status in changes:
        await change(store)
        began_s, answers = time.monotonic(), {}
        waiting = list(workers)

        def reached(status: int = status, answers: Any = answers, waiting: list[Path] = waiting) -> bool:
            answers.update((path, ask(path, key)) for path in waiting)
            waiting[:] = [path for path in waiting if answers[path] != status]
            return not waiting

        assert wait_until(reached, 20.0), f"{name}: {answers}"
        lines.append(f"{name}: {time.monotonic() - began_s:.2f} s")
    await store.close()
    with capsys.disabled():
        print("\nseen by 4 workers on 2 hosts after", *lines, sep="\n  ")  # noqa: T201 - for people
