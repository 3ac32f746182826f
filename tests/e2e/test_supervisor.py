"""Promise: what an operator does to a running Farebox cuts no stream and bends no price.

Prices are changed, workers are killed, stopped and replaced by new processes while streams run; every stream
that did not run in a killed worker ends whole, each charge uses one price version, and the books add up. A
configuration that cannot be served changes nothing and the reason is told.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from e2e.deployment import Customer
from e2e.storefront import GPT, USD, Storefront
from farebox.base.counters import read_counters
from farebox.run.control import ask
from farebox.run.demo.processes import free_port, wait_until
from farebox.run.paths import control_socket

WORKERS = 2
STREAM_TOKENS = 40
OLD_PICO = 100 * 1_312_500 + STREAM_TOKENS * 10_500_000
NEW_PICO = 100 * 2_625_000 + STREAM_TOKENS * 21_000_000
"""A stream at the demonstration's prices times 1.05, and at twice these prices."""
ROUNDS = int(os.environ.get("FAREBOX_ROUNDS", "2"))
"""How often prices are changed and workers replaced, killed and stopped."""


class TwoWorkers(Storefront):
    """Two workers, each with a unix socket of its own besides the port they share."""

    def amend(self, document: dict[str, Any]) -> None:
        super().amend(document)
        sockets = self.folder / "sockets"
        sockets.mkdir()
        document["worker_sockets"] = str(sockets)
        document["name"] = "shop"

    def start_farebox(self) -> None:
        command = ["farebox.run.cli", "serve", "--config", str(self.config), "--workers", str(WORKERS)]
        child = self._start("farebox", command)
        self._wait(child, "farebox", self.port, "/readyz")
        assert wait_until(lambda: "workers serve" in self.log(), 20.0)

    def log(self) -> str:
        return (self.folder / "farebox.log").read_text(encoding="utf-8")

    def signal(self, number: signal.Signals, until: str) -> None:
        """Signal the supervisor and wait for what it says about it."""
        seen = self.log().count(until)
        self.farebox.send_signal(number)
        assert wait_until(lambda: self.log().count(until) > seen, 60.0), self.log()[-3000:]

    def edit(self, change: dict[str, Any]) -> None:
        document = json.loads(self.config.read_text())
        document.update(change)
        self.config.write_text(json.dumps(document))

    def set_prices(self, times: int) -> None:
        document = json.loads(self.config.read_text())
        model = next(each for each in document["models"] if each["id"] == GPT)
        model["input_price_per_mtok"] = str(1.25 * times)
        model["output_price_per_mtok"] = str(10 * times)
        self.config.write_text(json.dumps(document))


@dataclass
class Streams:
    """A steady load of streams, each on a connection of its own, until told to stop."""

    shop: TwoWorkers
    customer: Customer
    whole: int = 0
    cut: int = 0
    refused: list[int] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._go_on) for _ in range(6)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for(self, more: int) -> None:
        """Let so many more streams end whole."""
        seen = self.whole
        assert wait_until(lambda: self.whole >= seen + more, 60.0)

    def _go_on(self) -> None:
        while not self._stop.is_set():
            status, whole = one_stream(self.shop.port, self.customer.key)
            if status != 200:
                self.refused.append(status)
            elif whole:
                self.whole += 1
            else:
                self.cut += 1


def one_stream(port: int, key: str) -> tuple[int, bool]:
    """Status of one stream of about half a second, and whether it came whole; status 0: no answer at all."""
    script = {"prompt": 100, "completion": STREAM_TOKENS, "chunks": STREAM_TOKENS, "delay_ms": 12}
    body = {
        "model": GPT,
        "stream": True,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": f"script: {json.dumps(script)}"}],
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        try:
            return answer.status, b"data: [DONE]\n\n" in answer.read()
        except (http.client.HTTPException, OSError):
            return answer.status, False
    except (http.client.HTTPException, OSError):
        return 0, False
    finally:
        connection.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[TwoWorkers]:
    with TwoWorkers(tmp_path) as shop:
        yield shop


def counted(shop: TwoWorkers, name: str) -> int:
    """A counter, summed over workers that serve and those that have gone."""
    return sum(read_counters(path)[name] for path in (shop.folder / "run").glob("worker-*.counters"))


def charges(shop: TwoWorkers, customer: Customer, count: int) -> list[int]:
    """The amounts charged, when there are so many."""
    assert wait_until(lambda: len(shop.spent_rows(customer.user)) >= count, 20.0)
    return [-row.amount_pico for row in shop.spent_rows(customer.user)]


def test_L15_prices_change_under_load_and_each_charge_has_one_version(shop: TwoWorkers) -> None:
    customer = shop.new_customer(1000 * USD)
    with Streams(shop, customer) as streams:
        for number in range(ROUNDS):
            streams.wait_for(8)
            shop.set_prices(1 + (number + 1) % 2)
            shop.signal(signal.SIGHUP, "the configuration was read anew")
        streams.wait_for(8)
    assert (streams.cut, streams.refused) == (0, [])
    amounts = charges(shop, customer, streams.whole)
    assert len(amounts) == streams.whole
    assert set(amounts) == {OLD_PICO, NEW_PICO}
    versions = {(log["priceVersion"], log["creditsCost"]) for log in shop.logs(customer.user)}
    assert len(versions) == 2
    shop.close_books()


def test_workers_are_replaced_one_after_the_other_without_a_cut(shop: TwoWorkers) -> None:
    customer = shop.new_customer(1000 * USD)
    first = set(shop.processes("worker_process"))
    with Streams(shop, customer) as streams:
        for _ in range(ROUNDS):
            streams.wait_for(6)
            shop.signal(signal.SIGUSR2, "all workers are replaced")
        streams.wait_for(6)
    assert (streams.cut, streams.refused) == (0, [])
    assert wait_until(lambda: len(shop.processes("worker_process")) == WORKERS, 30.0)
    assert first.isdisjoint(shop.processes("worker_process"))
    assert charges(shop, customer, streams.whole) == [OLD_PICO] * streams.whole
    assert wait_until(lambda: counted(shop, "exchanges_total") == streams.whole, 10.0)
    assert counted(shop, "exchanges_open") == 0
    shop.close_books()


def test_a_worker_that_hangs_is_replaced_and_one_that_is_killed_too(shop: TwoWorkers) -> None:
    customer = shop.new_customer(1000 * USD)
    with Streams(shop, customer) as streams:
        for number in [signal.SIGSTOP, signal.SIGKILL] * (ROUNDS // 2):
            streams.wait_for(6)
            before = shop.processes("worker_process")
            victim = before[0]
            os.kill(victim, number)
            assert wait_until(lambda gone=victim: gone not in shop.processes("worker_process"), 40.0)
            assert wait_until(lambda: len(shop.processes("worker_process")) == WORKERS, 40.0)
        streams.wait_for(6)
    assert "has not answered" in shop.log()
    assert set(streams.refused) <= {0, 503}
    shop.settled([customer.user], 40.0)
    served = shop.upstream_count()
    assert len(shop.spent_rows(customer.user)) == served
    shop.close_books()


def test_a_faulty_configuration_changes_nothing_and_a_worker_can_still_be_started(shop: TwoWorkers) -> None:
    customer = shop.new_customer()
    good = shop.config.read_text()
    shop.config.write_text('{"port": "eighty"')
    shop.signal(signal.SIGHUP, "the configuration stays as it was")
    assert str(shop.config) in shop.log()
    shop.kill("worker_process")
    assert wait_until(lambda: one_stream(shop.port, customer.key) == (200, True), 30.0)
    shop.config.write_text(good)
    for change in ({"port": free_port()}, {"data_dir": str(shop.folder / "elsewhere")}, {"name": "other"}):
        shop.edit(change)
        shop.signal(signal.SIGHUP, "nothing was changed")
        refusals = [line for line in shop.log().splitlines() if "needs a restart:" in line]
        assert next(iter(change)) in refusals[-1].partition("needs a restart:")[2]
        shop.config.write_text(good)
    assert one_stream(shop.port, customer.key) == (200, True)
    shop.close_books()


def test_a_missing_credential_keeps_the_old_one_in_force(shop: TwoWorkers) -> None:
    customer = shop.new_customer()
    document = json.loads(shop.config.read_text())
    for endpoint in document["endpoints"]:
        endpoint["api_key_env"] = "FAREBOX_TEST_NO_SUCH_VARIABLE"
    shop.edit({"endpoints": document["endpoints"]})
    shop.signal(signal.SIGHUP, "FAREBOX_TEST_NO_SUCH_VARIABLE is not set")
    assert one_stream(shop.port, customer.key) == (200, True)


def test_each_worker_serves_its_own_socket(shop: TwoWorkers) -> None:
    customer = shop.new_customer()
    for slot in range(WORKERS):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(shop.folder / "sockets" / f"shop-{slot}.sock"))
            head = f"GET /v1/credits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {customer.key}\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    shop.farebox.send_signal(signal.SIGTERM)
    shop.farebox.wait(40)
    assert list((shop.folder / "sockets").iterdir()) == []


def test_a_control_socket_answers_its_owner_only_and_survives_nonsense(shop: TwoWorkers) -> None:
    sockets = list((shop.folder / "run").glob("worker-*.sock"))
    assert len(sockets) == WORKERS
    for path in sockets:
        assert path.stat().st_mode & 0o777 == 0o600
        assert ask(path, {"do": "ping"}, 10.0) == {"state": "serving", "open": 0}
        assert "KeyError" in ask(path, {"do": "nothing"}, 10.0)["error"]
        assert "error" in ask(path, {"do": "reload", "files": ["/none.json"]}, 10.0)
        assert ask(path, {"do": "ping"}, 10.0)["state"] == "serving"
    assert "does not answer" in ask(shop.folder / "none.sock", {"do": "ping"}, 1.0)["error"]
    assert control_socket.__doc__


def test_sockets_handed_over_by_the_service_manager_are_used(tmp_path: Path) -> None:
    with TwoWorkers(tmp_path) as shop:
        customer = shop.new_customer()
        shop.farebox.send_signal(signal.SIGTERM)
        shop.farebox.wait(40)
        with (
            socket.create_server(("127.0.0.1", shop.port)) as listener,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        ):
            manager.bind(str(tmp_path / "notify"))
            manager.settimeout(30)
            command = ["-m", "farebox.run.cli", "serve", "--config", str(shop.config), "--workers", "2"]
            child = subprocess.Popen(
                [sys.executable, "-c", HAND_OVER, str(listener.fileno()), sys.executable, *command],
                pass_fds=[listener.fileno()],
                env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            )
            try:
                while b"READY=1" not in (said := manager.recv(4096)):
                    assert said == b"WATCHDOG=1"
                assert one_stream(shop.port, customer.key) == (200, True)
            finally:
                child.send_signal(signal.SIGTERM)
                assert child.wait(40) == 0


HAND_OVER = """
import os, sys
descriptor = int(sys.argv[1])
if descriptor != 3:
    os.dup2(descriptor, 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What a service manager does before it starts a service: the socket becomes descriptor 3."""
