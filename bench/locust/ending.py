"""The end of a distributed run: the master waits until its workers have finished and told their last figures.

Of itself locust's master leaves half a second after the time is up. Exchanges that still run then, and up to
three seconds of figures, would be missing from thresholds and report.
"""

import time

import gevent
from locust.env import Environment
from locust.rpc import Message
from locust.runners import MasterRunner

GRACE_S = 15.0
"""Beside --stop-timeout, for a busy worker's last message."""


def watch(environment: Environment, **_: object) -> None:
    """Have the end of a run without a page wait; a page stays, and shows what comes later."""
    runner, options = environment.runner, environment.parsed_options
    if isinstance(runner, MasterRunner) and options and options.headless:
        environment.events.test_stopping.add_listener(_Ending(runner).wait)


class _Ending:
    """Ends the workers once, although their leaving ends the run again."""

    def __init__(self, runner: MasterRunner) -> None:
        self._runner = runner
        self._has_begun = False

    def wait(self, environment: Environment, **_: object) -> None:
        """Tell the workers to quit, which they do after their users, and wait for their goodbyes."""
        if self._has_begun:
            return
        self._has_begun = True
        for client in self._runner.clients.all:
            self._runner.server.send_to_client(Message("quit", None, client.id))
        ends_s = time.monotonic() + (environment.stop_timeout or 0) + GRACE_S
        while self._runner.clients.all and time.monotonic() < ends_s:
            gevent.sleep(0.1)
