"""Four workers on two hosts act as one: every change of a key or an account reaches each of them (A04), and a
small wallet serves its last cent whichever of them is asked (hole 35).

Every worker has a socket of its own. For changes each worker is asked until it answers as the change demands;
how long that took is printed, within a second is what operators are told.
"""

import http.client
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from chaos import overspend
from chaos.hosts import Machines
from farebox.base.clock import wall_ms
from farebox.base.keys import key_digest, new_key
from farebox.base.records import KeyRecord
from farebox.base.units import pico_from_usd
from farebox.credits import accounts
from farebox.credits.moves import Move
from farebox.credits.transfers import perform
from farebox.run.demo.processes import wait_until
from farebox.store import open_store
from farebox.store.base import EventResult, Store

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


def ask(path: Path, key: str, body: str = BODY) -> tuple[int, bytes]:
    """Status and body one worker answers a request with."""
    connection = OnSocket(path)
    try:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="module")
def workers(folder: Path) -> Iterator[list[Path]]:
    """The sockets of two workers on each of two hosts, which serve."""
    machines = Machines(folder, f"sqlite:///{folder / 'farebox.sqlite'}", hosts=2, workers=2)
    for number, host in enumerate(machines.hosts):
        sockets = folder / f"s{number}"
        sockets.mkdir()
        host.changes = {**host.changes, "worker_sockets": str(sockets), "lease_wait_s": 30.0}
    with machines:
        assert all(host.wait_ready() for host in machines.hosts)
        assert wait_until(lambda: len(list(folder.glob("s*/*"))) == 4, 30.0)
        yield sorted(folder.glob("s*/*"))


@pytest.fixture
async def store(folder: Path) -> AsyncIterator[Store]:
    opened = open_store(f"sqlite:///{folder / 'farebox.sqlite'}")
    await opened.open()
    yield opened
    await opened.close()


async def grant(store: Store, user: str, amount_pico: int) -> None:
    move = Move("grant", f"first-{user}", user, "creditsNew", amount_pico, "test", "test")
    assert (await perform(store, move, wall_ms())).result is EventResult.DONE


@pytest.mark.timeout(240)
async def test_A04_each_change_reaches_every_worker_on_every_host(
    workers: list[Path], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    key, now_ms = new_key(), wall_ms()
    record = KeyRecord(key_digest(key), "alice", "sk-", "laptop", True, True, "user", None, None)

    def limited(rpm: int | None, models: tuple[str, ...] | None) -> Callable[[Store], Awaitable[Any]]:
        return lambda store: accounts.limit_key(store, record, rpm, models, "test", now_ms)

    def active(is_active: bool) -> Callable[[Store], Awaitable[Any]]:
        return lambda store: accounts.set_user_active(store, "alice", is_active, "test", now_ms)

    changes: list[tuple[str, Callable[[Store], Awaitable[Any]], int]] = [
        ("user created", lambda store: store.create_user("alice", "user", "test", now_ms), 401),
        ("key created", lambda store: store.create_key(record, "test", now_ms), 402),
        ("top-up", lambda store: grant(store, "alice", USD), 200),
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
            answers.update((path, ask(path, key)[0]) for path in waiting)
            waiting[:] = [path for path in waiting if answers[path] != status]
            return not waiting

        assert wait_until(reached, 20.0), f"{name}: {answers}"
        lines.append(f"{name}: {time.monotonic() - began_s:.2f} s")
    with capsys.disabled():
        print("\nseen by 4 workers on 2 hosts after", *lines, sep="\n  ")  # noqa: T201 - for people


@pytest.mark.timeout(240)
async def test_hole_35_a_dime_is_not_cut_into_four(workers: list[Path], store: Store) -> None:
    key, body = new_key(), json.dumps(overspend.BODY)
    await store.create_user("dime", "user", "test", wall_ms())
    record = KeyRecord(key_digest(key), "dime", "sk-", "", True, True, "user", None, None)
    await store.create_key(record, "test", wall_ms())

    def refusal() -> Any:
        status, said = ask(workers[0], key, body)
        return status == 402 and json.loads(said)["error"]

    assert wait_until(lambda: bool(refusal()), 20.0)
    hold_pico = pico_from_usd(refusal()["needed"])
    assert hold_pico > overspend.PRICE_PICO
    await grant(store, "dime", 3 * overspend.PRICE_PICO + hold_pico)
    assert wait_until(lambda: ask(workers[0], key, body)[0] == 200, 20.0)
    seen: list[int] = []

    def answered(path: Path) -> bool:
        """Whether a worker that has started answered; one that has not says 503 at once and costs nothing."""
        seen.append(ask(path, key, body)[0])
        return seen[-1] != 503

    assert all(wait_until(lambda path=path: answered(path), 20.0) for path in workers[1:])
    assert [status for status in seen if status != 503] == [200] * 3
    assert ask(workers[0], key, body)[0] == 402
