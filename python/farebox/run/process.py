"""What every process does first (uvloop, logging, signals), and how it fails: in one clear line."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from farebox.base.errors import FareboxError
from farebox.base.log import set_up_logging

SUPERVISOR_VARIABLE = "FAREBOX_SUPERVISOR"
"""Environment variable with the process id of the supervisor that started this process."""

_log = logging.getLogger("farebox.process")
_YOUNG_OBJECTS = 50_000
_PARENT_CHECK_S = 0.5


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a process's main coroutine to its exit status; 1 for an error of ours, whose message is logged."""
    set_up_logging(os.environ.get("FAREBOX_LOG_LEVEL", "INFO").upper())
    try:
        _allow_failpoints()
        return uvloop.run(main)
    except FareboxError as error:
        main.close()
        _log.critical("%s", error)
        return 1


def _allow_failpoints() -> None:
    """Put failpoints into this process where a test asks for them; raises UsageError where nobody may."""
    if "FAREBOX_FAILPOINTS" in os.environ:
        from farebox.run.failpoints import weave  # noqa: PLC0415 - never loaded outside of tests

        weave(os.environ)


def tune_garbage_collection() -> None:
    """Call when a process has loaded everything: what is alive now is never looked at again.

    Exchanges leave no reference cycles behind, so a rare look is enough; at the default rate the collector
    took a seventh of a worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 50, 100)


class StopSignals:
    """SIGTERM and SIGINT: the first asks to drain, the second to stop at once.

    The supervisor's death asks to drain, too: nothing would be restarted, and a new one needs the sockets.
    It may have died before this process came to look, so it says who it is (`SUPERVISOR_VARIABLE`).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.drain = asyncio.Event()
        self.now = asyncio.Event()
        self._loop = loop
        self._parent = int(os.environ.get(SUPERVISOR_VARIABLE, os.getppid()))
        self._look_for_parent()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received)

    def _look_for_parent(self) -> None:
        if os.getppid() != self._parent:
            self.drain.set()
            return
        self._loop.call_later(_PARENT_CHECK_S, self._look_for_parent)

    def _received(self) -> None:
        if self.drain.is_set():
            self.now.set()
        self.drain.set()


async def first_of(*waits: Callable[[], Coroutine[Any, Any, object]], timeout_s: float | None = None) -> None:
    """Return when the first of several waits is over, or the time is."""
    tasks = [asyncio.create_task(wait()) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
