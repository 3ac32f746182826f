"""The processes of a demonstration: the scripted upstream and Farebox, with their data in one folder.
 Real processes on free ports, started as an operator would start them. Whatever ends the demonstration ends
them too; a child that fails is shown by the end of its own log.
"""

import contextlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from farebox.base.errors import FareboxError

READY_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 40.0
LOG_TAIL_LINES: Final = 20

_POLL_S = 0.05
_SERVICE_PORTS: Final = range(10_000, 32_000)
"""Below the ports of outgoing connections (32768 on, by default)."""
_given: Final[deque[int]] = deque(maxlen=1000)


class DemoError(FareboxError):
    """The demonstration cannot go on; the message holds what the failing process said last."""


@dataclass(slots=True)
class Processes:
    """The running demonstration; a context manager that stops what it started."""

    folder: Path
    port: int = 0
    upstream_port: int = 0
    console_port: int = 0
    config: Path = field(default_factory=Path)
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self._children):
            _stop(child)

    @property
    def base_url(self) -> str:
        """Where clients reach Farebox."""
        return f"http://127.0.0.1:{self.port}"

    def start_upstream(self) -> None:
        """Start the scripted upstream with a credential only Farebox gets."""
        key = f"sk-demo-{secrets.token_hex(16)}"
        os.environ["FAREBOX_DEMO_UPSTREAM_KEY"] = key
        self.upstream_port = free_port()
        command = ["farebox.run.demo.upstream", "--port", str(self.upstream_port), "--key", key]
        child = self._start("upstream", command)
        self._wait(child, "upstream", self.upstream_port, "/_log?lines=0")

    def write_config(self) -> None:
        """The packaged configuration with this demonstration's ports and folder."""
        self.port = free_port()
        document = json.loads(packaged_config())
        document["port"] = self.port
        self.console_port = document["console"]["port"] = free_port()
        document["data_dir"] = str(self.folder)
        for endpoint in document["endpoints"]:
            endpoint["base_url"] = f"http://127.0.0.1:{self.upstream_port}"
        self.config = self.folder / "config.json"
        self.config.write_text(json.dumps(document, indent=2), encoding="utf-8")

    def start_farebox(self) -> None:
        """Start supervisor, worker and writer, and wait until they take requests."""
        child = self._start(
            "farebox", ["farebox.run.cli", "serve", "--config", str(self.config), "--workers", "1"]
        )
        self._wait(child, "farebox", self.port, "/readyz")

    def wait_for_console(self) -> str:
        """Where the console's pages are, once it serves them: it starts after everything else."""
        self._wait(self._children[-1], "farebox", self.console_port, "/healthz")
        return f"http://127.0.0.1:{self.console_port}"

    def upstream_log(self) -> dict[str, Any]:
        """What the scripted upstream says it served."""
        status, body = get(self.upstream_port, "/_log")
        if status != 200:
            raise DemoError(f"the scripted upstream answers {status}")
        log: dict[str, Any] = json.loads(body)
        return log

    def log_tail(self, name: str) -> str:
        """The last lines a child wrote."""
        try:
            lines = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(f"  | {line}" for line in lines[-LOG_TAIL_LINES:])

    def _start(self, name: str, module_and_arguments: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            child = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
                [sys.executable, "-m", *module_and_arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._children.append(child)
        return child

    def _wait(self, child: subprocess.Popen[bytes], name: str, port: int, path: str) -> None:
        ended = wait_until(lambda: child.poll() is not None or get(port, path)[0] == 200, READY_TIMEOUT_S)
        if child.poll() is not None:
            raise DemoError(f"{name} ended with status {child.returncode}:\n{self.log_tail(name)}")
        if not ended:
            said = get(port, path)
            late = f"{name} is not ready after {READY_TIMEOUT_S:.0f} s ({path} answers {said[0]})"
            raise DemoError(f"{late}:\n{self.log_tail(name)}")


def packaged_config() -> str:
    """The demonstration's configuration as installed with the package."""
    return (files("farebox.run.demo") / "config.json").read_text(encoding="utf-8")


def free_port() -> int:
    """A port nobody listens on now, that the system gives to no connection going out meanwhile, and that this
    process was not given lately: it may not listen there yet.
    """
    while True:
        port = secrets.choice(_SERVICE_PORTS)
        if port in _given:
            continue
        _given.append(port)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
    """Status and body of a GET; status 0 while nobody listens."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Ask until the condition holds; False when it does not in time."""
    ends_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > ends_s:
            return False
        time.sleep(_POLL_S)
    return True


def _stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
