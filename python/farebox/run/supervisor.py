"""`farebox serve`: binds the sockets, keeps them, and keeps a writer, workers and a console running behind
them.

A child that dies is started again, after a pause that grows while it keeps dying; a worker that hangs is
killed first. Signals: SIGTERM or Ctrl-C drains the workers and then the writer, so that everything settled is
booked, and a second one cuts. SIGHUP takes prices, models, limits, endpoints and credentials from the files
anew, on all workers or on none. SIGUSR2 replaces the workers one after the other by processes of the code
that is installed now.
"""

import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from farebox.base import limits
from farebox.base.counters import retire_counters
from farebox.base.errors import FareboxError, UsageError
from farebox.base.log import set_up_logging
from farebox.config.certificates import check_certificates
from farebox.config.load import load
from farebox.config.secrets import credentials, payment_secrets, store_url
from farebox.config.settings import Settings
from farebox.config.table import check_table
from farebox.run import notify
from farebox.run.children import Child
from farebox.run.control import ask
from farebox.run.listeners import Listeners, listen
from farebox.run.paths import (
    control_socket,
    counters_file,
    counters_files,
    prepare,
    retired_counters_file,
    writer_socket,
)
from farebox.run.snapshot import Snapshot
from farebox.run.workforce import Workforce

_log = logging.getLogger("farebox.supervisor")

_POLL_S = 0.05
_WRITER_START_S = 30.0
_CONSOLE_AFTER_S = 0.5
"""The console may load once the workers have: they serve sooner."""
_STOP_S = limits.shutdown_drain_s + 15.0
_PROGRESS_EVERY_S = 5.0
_ALIVE_EVERY_S = 1.0
_WORKER = "farebox.run.worker_process"
_NUMBER_MAX = 99_999
"""Of worker processes in a supervisor's life: room for it is made in the paths of sockets."""


class Supervisor:
    """The children of one deployment and what the operator asks of them."""

    def __init__(self, settings: Settings, paths: list[Path], listeners: Listeners, workers: int) -> None:
        self._settings = settings
        self._snapshot = Snapshot(settings, paths)
        self._listeners = listeners
        self._count = workers
        self._numbers: Iterator[int] = itertools.count()
        self._known_files: dict[str, list[str]] = {}
        """The copies that each worker process was started with or has taken since, by its name."""
        self._stops = 0
        self._asked: set[int] = set()
        self._ready_told = False
        self._alive_told_s = 0.0
        self.writer = Child("writer", lambda: ["farebox.run.writer_process", *self._files()])
        self.console = Child("console", lambda: ["farebox.run.console_process", *self._files()])
        self.workforce = Workforce(self._new_worker, self._retired)

    def run(self) -> int:
        """Keep everything running until asked to stop; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop_asked)
        for number in (signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, self._change_asked)
        self.writer.start()
        self.workforce.start(self._count)
        if not self._writer_came_up():
            self._stop(self.workforce.children)
            self._stop(lambda: [self.writer])
            return 1
        self.console.start_at_s = time.monotonic() + _CONSOLE_AFTER_S
        while not self._stops:
            self._look()
            time.sleep(_POLL_S)
        _log.info("stopping: draining the workers (again to cut)")
        notify.notify("STOPPING=1", "STATUS=draining")
        self._stop(self.workforce.children)
        self._stop(lambda: [self.writer, self.console])
        _log.info("stopped")
        return 0

    # -- while it runs ---------------------------------------------------------------------------------------
    def _look(self) -> None:
        self.writer.look()
        self.console.look()
        self.workforce.look()
        if signal.SIGHUP in self._asked:
            self._asked.discard(signal.SIGHUP)
            self._reload()
        if signal.SIGUSR2 in self._asked:
            self._asked.discard(signal.SIGUSR2)
            self.workforce.replace_all()
        self._tell_latecomers()
        if not self._ready_told and self.workforce.serving():
            self._ready_told = True
            _log.info("ready: %d workers serve", self._count)
            notify.notify("READY=1", f"STATUS={self._count} workers serve")
        if time.monotonic() - self._alive_told_s >= _ALIVE_EVERY_S:
            self._alive_told_s = time.monotonic()
            notify.notify("WATCHDOG=1")

    def _new_worker(self, slot: int) -> Child:
        number = next(self._numbers)
        descriptors = [[each.fileno() for each in service] for service in self._listeners.of_slot(slot)]
        listening = ";".join(",".join(map(str, each)) for each in descriptors)
        name = f"worker {number}"

        def command() -> list[str]:
            self._known_files[name] = self._files()
            return [_WORKER, str(number), str(self._silent_start_s(name)), listening, *self._files()]

        return Child(
            name,
            command,
            tuple(itertools.chain.from_iterable(descriptors)),
            control_socket(self._settings, number),
        )

    def _silent_start_s(self, name: str) -> float:
        """How long a worker may leave its clients waiting before it refuses them: others serve beside it."""
        coming = self.workforce.successor
        is_successor = coming is not None and coming.name == name
        return limits.replacement_start_s if is_successor else limits.silent_start_s

    def _retired(self, child: Child) -> None:
        _log.info("%s has gone", child.name)
        self._known_files.pop(child.name, None)
        number = int(child.name.removeprefix("worker "))
        if counters_file(self._settings, number).exists():
            retire_counters(counters_file(self._settings, number), retired_counters_file(self._settings))

    def _files(self) -> list[str]:
        return [str(path) for path in self._snapshot.files]

    # -- what the operator asks ------------------------------------------------------------------------------
    def _stop_asked(self, number: int, frame: object) -> None:
        del number, frame
        self._stops += 1

    def _change_asked(self, number: int, frame: object) -> None:
        del frame
        self._asked.add(number)

    def _reload(self) -> None:
        """Put the files in force as they are now: on every worker, or on none with the reason told."""
        notify.reloading()
        try:
            settings = self._snapshot.next(self._settings)
        except (FareboxError, OSError) as error:
            _log.error("the configuration stays as it was: %s", error)
            notify.notify("READY=1")
            return
        refusals = self._tell_workers()
        if refusals:
            self._snapshot.go_back()
            self._tell_workers()
            _log.error("the configuration stays as it was: %s", "; ".join(refusals))
        else:
            self._snapshot.keep()
            self._settings = settings
            _log.info("the configuration was read anew")
            announce(settings)
        notify.notify("READY=1")

    def _tell_workers(self) -> list[str]:
        """Tell every worker that serves which files are in force; what each that cannot serve them said.

        One that still starts is told once it serves (`_tell_latecomers`).
        """
        return [refusal for child in self._serving_workers() if (refusal := self._tell(child))]

    def _tell_latecomers(self) -> None:
        """Tell workers that came to serve with files that a reload has replaced since.

        One that cannot serve those that the others serve is ended, and so started anew with them.
        """
        for child in self._serving_workers():
            if self._known_files.get(child.name) == self._files():
                continue
            if refusal := self._tell(child):
                _log.error("%s; it is started anew with the configuration in force", refusal)
                self._known_files[child.name] = self._files()
                child.signal(signal.SIGTERM)
            else:
                _log.info("%s has the configuration that was read anew meanwhile", child.name)

    def _serving_workers(self) -> list[Child]:
        return [child for child in self.workforce.children() if child.state() == "serving"]

    def _tell(self, child: Child) -> str:
        """Tell one worker which files are in force; why it cannot serve them, empty where it can."""
        if child.control is None:
            return ""
        answer = ask(child.control, {"do": "reload", "files": self._files()}, limits.control_answer_s)
        if "error" in answer:
            self._known_files.pop(child.name, None)
            return f"{child.name}: {answer['error']}"
        self._known_files[child.name] = self._files()
        return ""

    # -- start and stop --------------------------------------------------------------------------------------
    def _writer_came_up(self) -> bool:
        """Wait for the writer; the workers load meanwhile. False, with the reason said, when it fails."""
        deadline_s = time.monotonic() + _WRITER_START_S
        ready = writer_socket(self._settings)
        while not ready.exists() and not self._stops:
            if not self.writer.runs():
                _log.critical("the writer could not start; see its message above")
                return False
            if time.monotonic() > deadline_s:
                _log.critical("the writer did not come up in %d s", int(_WRITER_START_S))
                return False
            time.sleep(_POLL_S)
        return True

    def _stop(self, children: Callable[[], list[Child]]) -> None:
        """Ask children to end, insist on a second request, kill what does not end in time."""
        seen = self._stops
        for child in children():
            child.signal(signal.SIGTERM)
        started_s = said_s = time.monotonic()
        deadline_s = started_s + _STOP_S
        while running := [child for child in children() if child.runs()]:
            now_s = time.monotonic()
            if self._stops > seen:
                seen = self._stops
                for child in running:
                    child.signal(signal.SIGTERM)
            if now_s > deadline_s:
                for child in running:
                    child.signal(signal.SIGKILL)
                deadline_s += _STOP_S
            if now_s - said_s >= _PROGRESS_EVERY_S:
                said_s = now_s
                names = ", ".join(child.name for child in running)
                _log.info("still draining after %.0f s: %s", now_s - started_s, names)
            time.sleep(_POLL_S)


def serve(paths: list[Path], *, workers: int | None = None) -> int:
    """Serve configurations until stopped; the exit status. Raises ConfigError, UsageError."""
    set_up_logging()
    settings = load(paths)
    credentials(settings)
    check_certificates(settings)
    payment_secrets(settings)
    store_url(settings.store, settings.services[0].file)
    try:
        prepare(settings)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise UsageError(f"data_dir {settings.data_dir} cannot be used: {reason}") from None
    _check_socket_paths(settings)
    count = workers or settings.workers or os.cpu_count() or 1
    listeners = listen(settings, count)
    announce(settings)
    for stale in counters_files(settings):
        stale.unlink(missing_ok=True)
    writer_socket(settings).unlink(missing_ok=True)
    try:
        return Supervisor(settings, paths, listeners, count).run()
    finally:
        listeners.close()


def _check_socket_paths(settings: Settings) -> None:
    excess = len(os.fsencode(control_socket(settings, _NUMBER_MAX))) - limits.unix_path_bytes_max
    if excess > 0:
        raise UsageError(
            f"data_dir {settings.data_dir} is {excess} bytes too long for the sockets in it; "
            "choose a shorter one"
        )


def announce(settings: Settings) -> None:
    """Log every warning and each model's upstream, wallet, pools and prices."""
    for warning in settings.warnings:
        _log.warning("%s", warning)
    for row in check_table(settings):
        _log.info("%s", row.line())
