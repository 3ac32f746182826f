"""What nginx in front adds to a stream: the time from Farebox writing an event to the client having it.

Usage: front.py [STREAMS]. Both domains as shipped (TLS, hash over worker sockets, two services); between
nginx and each worker's socket stands a tap that notes when an event comes from Farebox, so its own forwarding
counts against nginx. Every second stream goes to a tap directly, without nginx and TLS: what that takes is
the machine's own noise. Exits 1 where the median of the first event is more than 1 ms above it, or one event
in twenty came with another from which Farebox had sent it apart.
"""

import contextlib
import itertools
import json
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from e2e.domains import CHAT, CHAT2, Domains, request_head, write_nginx_config

EVENTS, DELAY_MS = 10, 20
MARK = b"\ndata: "
FIRST_MS_MAX = 1.0
NAMES = ("first event by nginx", "first event directly", "later events by nginx", "later events directly")


class Events:
    """The moments at which the events of one answer were seen."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._seen = b""

    def add(self, data: bytes) -> None:
        """Bytes that have come just now."""
        now_s = time.perf_counter()
        self._seen += data
        self.times += [now_s] * (self._seen.count(MARK) - len(self.times))


class Tap:
    """Forwards one worker's socket; `events` are those of the latest answer, as they came from Farebox."""

    def __init__(self, listen_on: Path, worker: Path) -> None:
        self._worker = worker
        self.events = Events()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(listen_on))
        listen_on.chmod(0o666)
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(str(self._worker))
                threading.Thread(target=self._up, args=(near, far), daemon=True).start()
                threading.Thread(target=self._down, args=(far, near), daemon=True).start()

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(65536):
                far.sendall(data)
        far.close()

    def _down(self, far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                self.events.add(data)
                near.sendall(data)
        with contextlib.suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)


class Tapped(Domains):
    """Both domains, with a tap before every worker socket."""

    def __init__(self, folder: Path, nginx: str) -> None:
        self.taps: list[Tap] = []
        super().__init__(folder, nginx)

    def _start_nginx(self) -> None:
        (self.folder / "taps").mkdir()
        for worker in sorted((self.folder / "sockets").iterdir()):
            self.taps.append(Tap(self.folder / "taps" / worker.name, worker))
        super()._start_nginx()

    def write_nginx(self) -> None:
        write_nginx_config(self.nginx_config, self.folder, self.tls_port, self.http_port)
        text = self.nginx_config.read_text(encoding="utf-8")
        self.nginx_config.write_text(text.replace(f"{self.folder}/sockets", f"{self.folder}/taps"))


def direct(domains: Tapped) -> socket.socket:
    """A connection to a worker through its tap alone."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(domains.folder / "taps" / "chat-0.sock"))
    return connection


def one_stream(
    domains: Tapped, domain: str, key: str, connection: socket.socket
) -> tuple[list[float], list[float]]:
    """When Farebox sent each event, and when the client had it."""
    script = {"prompt": 10, "completion": EVENTS, "chunks": EVENTS, "delay_ms": DELAY_MS, "first_delay_ms": 5}
    messages = [{"role": "user", "content": f"script: {json.dumps(script)}"}]
    body = json.dumps({"model": "gpt-5.1", "max_tokens": 50, "stream": True, "messages": messages}).encode()
    for tap in domains.taps:
        tap.events = Events()
    received = Events()
    with connection:
        connection.sendall(request_head(domain, "POST", "/v1/chat/completions", len(body), key) + body)
        while data := connection.recv(65536):
            received.add(data)
    (sent,) = [tap.events.times for tap in domains.taps if tap.events.times]
    return sent, received.times


def _joined(times: list[float]) -> int:
    """How many events came together with the one before."""
    return sum(after - before < DELAY_MS / 10_000 for before, after in itertools.pairwise(times))


def main() -> int:
    streams = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin")
    if nginx is None:
        sys.exit("nginx is not installed; `make system-deps` installs it")
    added: dict[str, list[float]] = {name: [] for name in NAMES}
    merged = 0
    with tempfile.TemporaryDirectory(prefix="f-") as folder, Tapped(Path(folder), nginx) as domains:
        customer = domains.customer("bench", 100 * 10**12)
        domains.top_up("bench", 100 * 10**12, "credits", "bench")
        for number in range(2 * streams):
            domain = (CHAT, CHAT2)[number // 2 % 2]
            connection = direct(domains) if number % 2 else domains.open(domain)
            sent, received = one_stream(domains, domain, customer.key, connection)
            times_ms = [1000 * (there - here) for here, there in zip(sent, received, strict=True)]
            way = "directly" if number % 2 else "by nginx"
            added[f"first event {way}"].append(times_ms[0])
            added[f"later events {way}"] += times_ms[1:]
            if not number % 2:
                merged += _joined(received[:-2]) - _joined(sent[:-2])
    medians = {name: statistics.median(values) for name, values in added.items()}
    for name, values in added.items():
        values.sort()
        print(
            f"{name}: median {medians[name]:.3f} ms, 90 % {values[int(0.9 * len(values))]:.3f} ms, "
            f"99 % {values[int(0.99 * len(values))]:.3f} ms, max {values[-1]:.3f} ms ({len(values)})"
        )
    count = len(added["later events by nginx"])
    print(f"{merged} of {count} events came together that Farebox had sent apart")
    nginx_ms = medians["first event by nginx"] - medians["first event directly"]
    print(f"nginx and TLS add {nginx_ms:.3f} ms to the first event (medians)")
    return int(nginx_ms > FIRST_MS_MAX or merged > count // 20)


if __name__ == "__main__":
    sys.exit(main())
