"""One kept process: started, watched, started again after a pause that grows while it keeps dying."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farebox.base import limits
from farebox.run.control import Pulse
from farebox.run.process import SUPERVISOR_VARIABLE

_log = logging.getLogger("farebox.supervisor")

_PAUSE_FIRST_S = 0.1
_PAUSE_MAX_S = 2.0
_HEALTHY_AFTER_S = 10.0


@dataclass(slots=True)
class Child:
    """One process that is kept running.

    `command` gives module and arguments as they are at each start; `control` is the socket on which it
    answers pings, if it has one.
    """

    name: str
    command: Callable[[], list[str]]
    descriptors: tuple[int, ...] = ()
    control: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    pulse: Pulse | None = None
    started_s: float = 0.0
    pause_s: float = 0.0
    start_at_s: float = 0.0

    def start(self) -> None:
        """Start it now. Raises OSError when the system has no room for another process."""
        self.started_s = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
            [sys.executable, "-m", "farebox.run.start", *self.command()],
            pass_fds=self.descriptors,
            start_new_session=True,
            env={**os.environ, SUPERVISOR_VARIABLE: str(os.getpid())},
        )
        self.pulse = Pulse(self.control) if self.control is not None else None

    def try_to_start(self) -> None:
        """Start it, or try again later when the system has no room for another process."""
        try:
            self.start()
        except OSError as error:
            self.start_at_s = time.monotonic() + _PAUSE_MAX_S
            _log.error("%s cannot be started: %s", self.name, error)

    def look(self) -> None:
        """Notice its death, and start it again when its pause is over; replace it when it hangs."""
        now_s = time.monotonic()
        if self.process is not None:
            status = self.process.poll()
            if status is None:
                self._feel_pulse(now_s)
                return
            self._ended(status, now_s)
        if now_s >= self.start_at_s:
            self.try_to_start()

    def _ended(self, status: int, now_s: float) -> None:
        lived_s = now_s - self.started_s
        self.pause_s = (
            _PAUSE_FIRST_S
            if lived_s > _HEALTHY_AFTER_S
            else min(_PAUSE_MAX_S, max(_PAUSE_FIRST_S, self.pause_s * 2))
        )
        self.start_at_s = now_s + self.pause_s
        self.forget()
        _log.error("%s ended with status %d; starting it again in %.1f s", self.name, status, self.pause_s)

    def _feel_pulse(self, now_s: float) -> None:
        """Kill a child whose event loop has stood still for too long: its journal is recovered by the next.

        Its lock goes with the process, so a child that merely slept can never write again (hole 38).
        """
        if self.pulse is None:
            return
        self.pulse.look(now_s)
        if self.pulse.silent_s(now_s) > limits.hung_after_s:
            _log.error("%s has not answered for %.0f s; killing it", self.name, limits.hung_after_s)
            self.signal(signal.SIGKILL)

    def state(self) -> str:
        """What it last said of itself: starting, serving, retiring; empty before that."""
        return self.pulse.state if self.pulse is not None else ""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def runs(self) -> bool:
        """Whether it is alive."""
        return self.process is not None and self.process.poll() is None

    def forget(self) -> None:
        """Its process is gone."""
        if self.pulse is not None:
            self.pulse.close()
        self.process, self.pulse = None, None
