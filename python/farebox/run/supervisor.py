"""`farebox serve`: binds the sockets, keeps them, and keeps a writer, workers and a console running behind
them.

A child that dies is started again, after a pause that grows while it keeps dying. SIGTERM or Ctrl-C drains
the workers first and then the writer, so that everything settled is booked; a second one cuts.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from farebox.base import limits
from farebox.base.errors import UsageError
from farebox.base.log import set_up_logging
from farebox.config.load import load
from farebox.config.secrets import credentials, store_url
from farebox.config.settings import Service, Settings
from farebox.config.table import check_table
from farebox.run.paths import counters_files, prepare, writer_socket

_log = logging.getLogger("farebox.supervisor")

_POLL_S = 0.05
_PAUSE_FIRST_S = 0.1
_PAUSE_MAX_S = 2.0
_HEALTHY_AFTER_S = 10.0
_WRITER_START_S = 30.0
_CONSOLE_AFTER_S = 0.5
"""The console may load once the workers have: they serve sooner."""
_STOP_S = limits.shutdown_drain_s + 15.0
_BACKLOG = 2048


@dataclass(slots=True)
class Child:
    """One process that is kept running."""

    name: str
    command: list[str]
    descriptors: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    pause_s: float = 0.0
    start_at_s: float = 0.0

    def start(self) -> None:
        """Start it now."""
        self.started_s = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
            [sys.executable, "-m", *self.command], pass_fds=self.descriptors, start_new_session=True
        )

    def try_to_start(self) -> None:
        """Start it, or try again later when the system has no room for another process."""
        try:
            self.start()
        except OSError as error:
            self.start_at_s = time.monotonic() + _PAUSE_MAX_S
            _log.error("%s cannot be started: %s", self.name, error)

    def look(self) -> None:
        """Notice its death, and start it again when its pause is over."""
        now_s = time.monotonic()
        if self.process is not None:
            status = self.process.poll()
            if status is None:
                return
            lived_s = now_s - self.started_s
            self.pause_s = (
                _PAUSE_FIRST_S
                if lived_s > _HEALTHY_AFTER_S
                else min(_PAUSE_MAX_S, max(_PAUSE_FIRST_S, self.pause_s * 2))
            )
            self.start_at_s = now_s + self.pause_s
            self.process = None
            _log.error(
                "%s ended with status %d; starting it again in %.1f s", self.name, status, self.pause_s
            )
        if now_s >= self.start_at_s:
            self.try_to_start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def runs(self) -> bool:
        """Whether it is alive."""
        return self.process is not None and self.process.poll() is None


@dataclass(slots=True)
class Supervisor:
    """The children, in the order in which they start."""

    writer: Child
    workers: list[Child]
    console: Child
    stops: int = field(default=0)

    def children(self) -> list[Child]:
        """All of them."""
        return [self.writer, *self.workers, self.console]

    def request_stop(self, number: int, frame: object) -> None:
        """Signal handler: the first stop drains, the second cuts."""
        del number, frame
        self.stops += 1

    def run(self, ready: Callable[[], bool]) -> int:
        """Keep everything running until asked to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.request_stop)
        for child in [self.writer, *self.workers]:
            child.start()
        if not self._writer_came_up(ready):
            self.stop(self.workers)
            self.stop([self.writer])
            return 1
        self.console.start_at_s = time.monotonic() + _CONSOLE_AFTER_S
        while not self.stops:
            for child in self.children():
                child.look()
            time.sleep(_POLL_S)
        _log.info("stopping: draining the workers (again to cut)")
        self.stop(self.workers)
        self.stop([self.writer, self.console])
        _log.info("stopped")
        return 0

    def _writer_came_up(self, ready: Callable[[], bool]) -> bool:
        """Wait for the writer; the workers load meanwhile. False, with the reason said, when it fails."""
        deadline_s = time.monotonic() + _WRITER_START_S
        while not ready() and not self.stops:
            if not self.writer.runs():
                _log.critical("the writer could not start; see its message above")
                return False
            if time.monotonic() > deadline_s:
                _log.critical("the writer did not come up in %d s", int(_WRITER_START_S))
                return False
            time.sleep(_POLL_S)
        return True

    def stop(self, children: list[Child]) -> None:
        """Ask children to end, insist on a second request, kill what does not end in time."""
        seen = self.stops
        for child in children:
            child.signal(signal.SIGTERM)
        deadline_s = time.monotonic() + _STOP_S
        while any(child.runs() for child in children):
            if self.stops > seen:
                seen = self.stops
                for child in children:
                    child.signal(signal.SIGTERM)
            if time.monotonic() > deadline_s:
                for child in children:
                    child.signal(signal.SIGKILL)
                deadline_s += _STOP_S
            time.sleep(_POLL_S)


def serve(paths: list[Path], *, workers: int | None = None) -> int:
    """Serve configurations until stopped; the exit status. Raises ConfigError, UsageError."""
    set_up_logging()
    settings = load(paths)
    credentials(settings)
    store_url(settings.store, settings.services[0].file)
    try:
        prepare(settings)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise UsageError(f"data_dir {settings.data_dir} cannot be used: {reason}") from None
    listeners = [_bound(service) for service in settings.services]
    _announce(settings)
    for stale in counters_files(settings):
        stale.unlink(missing_ok=True)
    writer_socket(settings).unlink(missing_ok=True)
    files = [str(path.absolute()) for path in paths]
    descriptors = tuple(listener.fileno() for listener in listeners)
    count = workers or settings.workers or os.cpu_count() or 1
    supervisor = Supervisor(
        writer=Child("writer", ["farebox.run.writer_process", *files]),
        workers=[
            Child(
                f"worker {number}",
                ["farebox.run.worker_process", str(number), ",".join(map(str, descriptors)), *files],
                descriptors,
            )
            for number in range(count)
        ],
        console=Child("console", ["farebox.run.console_process", *files]),
    )
    try:
        return supervisor.run(writer_socket(settings).exists)
    finally:
        for listener in listeners:
            listener.close()


def _bound(service: Service) -> socket.socket:
    try:
        listener = socket.create_server((service.host, service.port), backlog=_BACKLOG)
    except OSError as error:
        raise UsageError(
            f"{service.file}: port {service.port} on {service.host} cannot be bound: {_reason(error)}; "
            "stop what uses it or change `port`"
        ) from None
    listener.set_inheritable(True)
    return listener


def _reason(error: OSError) -> str:
    """What the system says, without what the socket module adds to it."""
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)


def _announce(settings: Settings) -> None:
    for warning in settings.warnings:
        _log.warning("%s", warning)
    for row in check_table(settings):
        _log.info("%s", row.line())
