"""Several "hosts" on one machine for the bank test: each a supervisor with its own folder and journals.

All hosts share one store and one scripted upstream, each through a network of its own that can fail. Started
as an operator would start them; processes are found by their command lines, so that orphans are seen too.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from farebox.run.demo.processes import free_port, get, packaged_config, wait_until
from faults.tcp_proxy import TcpProxy

WORKER, WRITER, CONSOLE = "worker_process", "writer_process", "console_process"
READY_S = 180.0
CREDENTIAL = "FAREBOX_DEMO_UPSTREAM_KEY"


@dataclass(slots=True)
class Host:
    """One supervisor and what it runs."""

    folder: Path
    workers: int
    store_url: str
    upstream: TcpProxy
    changes: dict[str, Any] = field(default_factory=dict)
    address: str = "127.0.0.1"
    inside: tuple[str, ...] = ()
    """Command that runs another one where this host is, such as in a network namespace."""
    port: int = 0
    config: Path = field(default_factory=Path)
    supervisor: "subprocess.Popen[bytes] | None" = None
    wanted: bool = False
    """Whether it should run; see `keep`."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def configure(self) -> None:
        """Write the configuration; call once."""
        self.folder.mkdir(parents=True)
        self.port = free_port()
        document = json.loads(packaged_config())
        document |= {"port": self.port, "data_dir": str(self.folder), "store": {"url": self.store_url}}
        document["host"] = self.address
        document["console"]["port"] = free_port()
        document["limits"] = {"requests_per_minute": 10_000_000}
        for endpoint in document["endpoints"]:
            endpoint["base_url"] = f"http://{self.upstream.host}:{self.upstream.port}"
        document |= self.changes
        self.config = self.folder / "config.json"
        self.config.write_text(json.dumps(document, indent=2))

    @property
    def journals(self) -> Path:
        """Where its journals are."""
        return self.folder / "journals"

    @property
    def base_url(self) -> str:
        """Where clients reach it."""
        return f"http://{self.address}:{self.port}"

    def start(self) -> None:
        """Start the supervisor unless it runs; it ends again where a predecessor's children hold the port."""
        self.wanted = True
        with self._lock:
            if not self.runs():
                self._start()

    def _start(self) -> None:
        with (self.folder / "farebox.log").open("ab") as log:
            self.supervisor = subprocess.Popen(
                [
                    *self.inside,
                    *(sys.executable, "-m", "farebox.run.cli", "serve"),
                    *("--config", str(self.config), "--workers", str(self.workers)),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def keep(self) -> None:
        """Start it again if it should run and does not, as a service manager does."""
        with self._lock:
            if self.wanted and not self.runs():
                self._start()

    def runs(self) -> bool:
        """Whether the supervisor is alive."""
        return self.supervisor is not None and self.supervisor.poll() is None

    def is_ready(self) -> bool:
        """Whether it takes requests."""
        return get(self.port, "/readyz", self.address)[0] == 200

    def wait_ready(self) -> bool:
        """Wait until it takes requests."""
        return wait_until(self.is_ready, READY_S)

    def processes(self, module: str) -> list[int]:
        """Process ids of its children that run a module, orphans included."""
        return [
            number for number, line in _command_lines() if f"farebox.run.{module}" in line and self.owns(line)
        ]

    def owns(self, line: str) -> bool:
        """Whether a command line is of this host."""
        return f"{self.folder}/" in line

    def kill_all(self) -> None:
        """Kill -9 the supervisor and everything it started, and wait for their end."""
        with self._lock:
            self.wanted = False
            for number, line in _command_lines():
                if self.owns(line):
                    send(number, signal.SIGKILL)
            if self.supervisor is not None:
                self.supervisor.wait()
        wait_until(lambda: not any(self.owns(line) for _, line in _command_lines()), 20.0)

    def kill_supervisor(self) -> None:
        """Kill -9 the supervisor alone; its children notice, drain and end."""
        if self.supervisor is not None:
            self.supervisor.kill()
            self.supervisor.wait()

    def stop(self, timeout_s: float = 90.0) -> None:
        """End it in order, and by force what does not end."""
        with self._lock:
            self.wanted = False
            if self.supervisor is not None and self.runs():
                self.supervisor.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.supervisor.wait(timeout_s)
        wait_until(lambda: not any(self.owns(line) for _, line in _command_lines()), timeout_s)
        self.kill_all()


def send(process: int, number: signal.Signals) -> None:
    """A signal to a process that may have gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def _command_lines() -> list[tuple[int, str]]:
    """Process id and command line of everything that runs here."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                if line:
                    found.append((int(entry.name), line))
    return found


class Upstream:
    """The scripted upstream with its log on disk."""

    def __init__(self, folder: Path) -> None:
        key = f"sk-demo-{secrets.token_hex(16)}"
        os.environ[CREDENTIAL] = key
        self.port = free_port()
        self.log = folder / "upstream.jsonl"
        command = ["--port", str(self.port), "--key", key, "--log", str(self.log)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "farebox.run.demo.upstream", *command],
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert wait_until(lambda: get(self.port, "/_log?lines=0")[0] == 200, 30.0)

    def totals(self) -> dict[str, Any]:
        """What it has served; also writes its log out."""
        totals: dict[str, Any] = json.loads(get(self.port, "/_log?lines=0")[1])
        return totals

    def lines(self) -> list[dict[str, Any]]:
        """Every exchange it saw to its end."""
        self.totals()
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


class Machines:
    """The hosts, their networks and the upstream; a context manager."""

    def __init__(
        self, folder: Path, store_url: str | list[str], hosts: int, workers: int, **changes: Any
    ) -> None:
        """`store_url`: one for all hosts, or one for each."""
        urls = [store_url] * hosts if isinstance(store_url, str) else store_url
        self.upstream = Upstream(folder)
        self.networks = [TcpProxy(self.upstream.port) for _ in range(hosts)]
        self.hosts = [
            Host(folder / f"host{number}", workers, url, network, changes)
            for number, (url, network) in enumerate(zip(urls, self.networks, strict=True))
        ]

    def __enter__(self) -> Self:
        for host in self.hosts:
            host.configure()
            host.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self.hosts:
            host.kill_all()
        for network in self.networks:
            network.close()
        self.upstream.close()
