"""Promise: what an operator does to a running Farebox cuts no stream and bends no price.

Prices are changed, workers are killed, stopped and replaced by new processes while streams run; every stream
that did not run in a killed worker ends whole, each charge uses one price version, and the books add up. A
configuration that cannot be served changes nothing and the reason is told.

`make supervisor-rounds ROUNDS=20` does each disturbance so often, prints the longest stretch in which fresh
requests were refused, and fails when it is over a second. Here, where the machine may be slow, no time is
looked at: prices and replacements may refuse nothing at all; of killed and stopped workers only what may be
answered is checked. A worker that is stopped takes no new connection: the others of the shared port do, and
those of its own unix socket wait in its queue until it is found out (`limits.hung_after_s`, 5 s) and its
successor has started (a second or two); they are served then. What it had taken already is lost with it.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from e2e.deployment import Customer
from e2e.refusals import Asked, Prober
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
"""How often prices are changed and workers replaced."""
LOSSES = int(os.environ.get("FAREBOX_ROUNDS", "1"))
"""How often a worker is stopped, and how often one is killed."""
REFUSED_MAX_S = float(os.environ.get("FAREBOX_REFUSED_MAX_S", "inf"))
"""The longest stretch of refusals that passes; only a machine of one's own is fast enough to set it."""
PING = {"do": "ping"}
SHARED_PACE_S, OWN_PACE_S = 0.02, 0.1


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


def test_a_stretch_of_refusals_reaches_to_the_next_request_that_is_served() -> None:
    """Of the measure itself: a request that was lost with its worker neither begins nor ends a stretch."""
    prober = Prober(0, "", GPT, SHARED_PACE_S, killed_s=[5.0])
    prober.asked = [
        Asked(3.5, 4.0, 200),
        Asked(0.0, 1.5, 200),
        Asked(1.0, 1.0, 503),
        Asked(2.0, 2.0, 0),
        Asked(4.0, 9.0, 0),
        Asked(6.0, 6.5, 200),
    ]
    assert (len(prober.refused()), len(prober.lost()), prober.served_count()) == (2, 1, 3)
    assert (prober.longest_refusal_s(), prober.longest_wait_s()) == (2.5, 1.5)
    prober.asked += [Asked(7.0, 7.0, 503), Asked(10.0, 11.0, 503)]
    assert prober.longest_refusal_s() == 4.0


class Probers(ExitStack):
    """Fresh requests at the shared port and at each worker's own socket, by a customer of their own."""

    def __init__(self, shop: TwoWorkers) -> None:
        super().__init__()
        self.customer = shop.new_customer(1000 * USD)
        sockets = [shop.folder / "sockets" / f"shop-{slot}.sock" for slot in range(WORKERS)]
        places = [(shop.port, SHARED_PACE_S), *((path, OWN_PACE_S) for path in sockets)]
        self.all = [Prober(address, self.customer.key, GPT, pace_s) for address, pace_s in places]

    def __enter__(self) -> Self:
        for prober in self.all:
            self.enter_context(prober)
        return self

    def statuses(self) -> set[int]:
        """Of all that were refused."""
        return {each.status for prober in self.all for each in prober.refused()}

    def served_count(self) -> int:
        return sum(prober.served_count() for prober in self.all)

    def process_ends(self) -> None:
        """Note that a process is killed or stopped now."""
        for prober in self.all:
            prober.killed_s.append(time.monotonic())

    def report(self, kind: str) -> None:
        """Say how long was refused and waited; fails over `REFUSED_MAX_S`."""
        for place, probers in {"the shared port": self.all[:1], "workers' own sockets": self.all[1:]}.items():
            refused_s = max(prober.longest_refusal_s() for prober in probers)
            counts = [sum(len(getattr(prober, name)()) for prober in probers) for name in ("refused", "lost")]
            print(  # noqa: T201 - what `make supervisor-rounds` is for
                f"\n{kind}, {place}: {sum(len(prober.asked) for prober in probers)} requests, "
                f"{counts[0]} refused, for {refused_s:.3f} s at the longest; {counts[1]} lost in the worker; "
                f"longest wait of one served {max(prober.longest_wait_s() for prober in probers):.3f} s",
                end="",
            )
            assert refused_s <= REFUSED_MAX_S


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
    with Streams(shop, customer) as streams, Probers(shop) as probers:
        for number in range(ROUNDS):
            streams.wait_for(8)
            shop.set_prices(1 + (number + 1) % 2)
            shop.signal(signal.SIGHUP, "the configuration was read anew")
        streams.wait_for(8)
    assert (streams.cut, streams.refused, probers.statuses()) == (0, [], set())
    probers.report("prices changed")
    amounts = charges(shop, customer, streams.whole)
    assert len(amounts) == streams.whole
    assert set(amounts) == {OLD_PICO, NEW_PICO}
    versions = {(log["priceVersion"], log["creditsCost"]) for log in shop.logs(customer.user)}
    assert len(versions) == 2
    shop.close_books()


def test_workers_are_replaced_one_after_the_other_without_a_cut(shop: TwoWorkers) -> None:
    customer = shop.new_customer(1000 * USD)
    first = set(shop.processes("worker_process"))
    with Streams(shop, customer) as streams, Probers(shop) as probers:
        for _ in range(ROUNDS):
            streams.wait_for(6)
            shop.signal(signal.SIGUSR2, "all workers are replaced")
        streams.wait_for(6)
    assert (streams.cut, streams.refused, probers.statuses()) == (0, [], set())
    probers.report("workers replaced")
    assert wait_until(lambda: len(shop.processes("worker_process")) == WORKERS, 30.0)
    assert first.isdisjoint(shop.processes("worker_process"))
    assert charges(shop, customer, streams.whole) == [OLD_PICO] * streams.whole
    exchanges = streams.whole + probers.served_count()
    assert wait_until(lambda: counted(shop, "exchanges_total") == exchanges, 10.0)
    assert counted(shop, "exchanges_open") == 0
    shop.close_books()


def test_a_retiring_worker_sheds_kept_connections_with_their_next_answers(shop: TwoWorkers) -> None:
    """Until then a key's requests on them go to the old worker: once more, not on and on."""
    customer = shop.new_customer()
    with ExitStack() as connections:

        def connected() -> socket.socket:
            made = connections.enter_context(socket.socket(socket.AF_UNIX))
            made.settimeout(60)
            made.connect(str(shop.folder / "sockets" / "shop-0.sock"))
            return made

        kept = {stream: connected() for stream in (False, True)}
        for stream, connection in kept.items():
            assert answer_on(connection, customer.key, stream) == (200, "")
        shop.signal(signal.SIGUSR2, "all workers are replaced")
        assert wait_until(lambda: "retiring: 0 exchanges still run" in shop.log(), 20.0)
        for stream, connection in kept.items():
            assert answer_on(connection, customer.key, stream) == (200, "close")
            assert connection.recv(1) == b""
        assert answer_on(connected(), customer.key, stream=False) == (200, "")
    assert wait_until(lambda: len(shop.processes("worker_process")) == WORKERS, 30.0)
    shop.close_books()


def answer_on(connection: socket.socket, key: str, stream: bool) -> tuple[int, str]:
    """Status of a small paid request on a connection that stays, and what its answer says of the latter."""
    script = 'script: {"prompt": 10, "completion": 2, "chunks": 2}'
    asked = {"model": GPT, "max_tokens": 4, "stream": stream}
    body = json.dumps({**asked, "messages": [{"role": "user", "content": script}]}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    assert answer.read()
    return answer.status, answer.headers.get("connection", "")


@pytest.mark.parametrize("ending", [signal.SIGSTOP, signal.SIGKILL])
def test_a_worker_that_hangs_is_replaced_and_one_that_is_killed_too(
    shop: TwoWorkers, ending: signal.Signals
) -> None:
    customer = shop.new_customer(1000 * USD)
    with Streams(shop, customer) as streams, Probers(shop) as probers:
        for number in range(LOSSES):
            streams.wait_for(6)
            victim = shop.processes("worker_process")[0]
            os.kill(victim, ending)
            probers.process_ends()
            assert wait_until(lambda gone=victim: gone not in shop.processes("worker_process"), 40.0)
            starts = WORKERS + number + 1
            assert wait_until(lambda starts=starts: shop.log().count("serves with journal") == starts, 40.0)
        streams.wait_for(6)
    assert ("has not answered" in shop.log()) is (ending is signal.SIGSTOP)
    assert set(streams.refused) | probers.statuses() <= {0, 503}
    probers.report(f"workers ended by {ending.name}")
    users = [customer.user, probers.customer.user]
    shop.settled(users, 40.0)
    served = shop.upstream_count()
    rows = [log for user in users for log in shop.logs(user)]
    unsure = sum("unsure" in log["flags"] for log in rows)
    """Killed between its journal's `sent` and the upstream: charged, as the journal cannot tell."""
    assert served <= sum(len(shop.spent_rows(user)) for user in users) <= served + unsure
    shop.close_books()


def test_L15_workers_that_start_while_prices_change_serve_the_new_ones(shop: TwoWorkers) -> None:
    customer = shop.new_customer()
    (writer,) = shop.processes("writer_process")
    os.kill(writer, signal.SIGSTOP)  # no worker comes to serve without it
    shop.kill("worker_process")
    controls = [shop.folder / "run" / f"worker-{number}.sock" for number in range(WORKERS)]
    for control in controls:
        assert wait_until(lambda asked=control: ask(asked, PING, 1.0).get("state") == "starting", 30.0)
    starting = shop.processes("worker_process")
    shop.set_prices(2)
    shop.signal(signal.SIGHUP, "the configuration was read anew")
    os.kill(writer, signal.SIGCONT)
    told = "has the configuration that was read anew meanwhile"
    assert wait_until(lambda: shop.log().count(told) == WORKERS, 40.0), shop.log()[-3000:]
    for slot in range(WORKERS):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(shop.folder / "sockets" / f"shop-{slot}.sock"))
            assert answer_on(connection, customer.key, stream=False)[0] == 200
    assert charges(shop, customer, WORKERS) == [10 * 2_625_000 + 2 * 21_000_000] * WORKERS
    assert shop.processes("worker_process") == starting
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
        assert ask(path, PING, 10.0) == {"state": "serving", "open": 0}
        assert "KeyError" in ask(path, {"do": "nothing"}, 10.0)["error"]
        assert "error" in ask(path, {"do": "reload", "files": ["/none.json"]}, 10.0)
        assert ask(path, PING, 10.0)["state"] == "serving"
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
