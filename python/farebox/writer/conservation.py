"""The writer's own slow look at M1 and M2: every account now and then, in the background, for an alarm.

Promises: it takes at most a small share of the time, and reports the money in question of the last full round
(`delta_pico`); journals are left to `farebox verify`, which says what is wrong and what would mend it.
"""

import logging
from collections.abc import Awaitable, Callable

from farebox.base import clock, limits
from farebox.store.base import Store
from farebox.writer.verify import AccountCheck, VerifyReport, states_of

_log = logging.getLogger(__name__)

Pause = Callable[[float], Awaitable[object]]
"""Wait some seconds, or less where there is a reason to end."""


class ConservationCheck:
    """What the last full round over all accounts found."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.delta_pico = 0
        self.written_off_pico = 0
        self.leased_pico = 0
        self.differences = 0
        self.users = 0
        self.rounds = 0

    async def round(self, pause: Pause, is_stopping: Callable[[], bool]) -> None:
        """Look at every account once, resting after each for a multiple of the time it took.

        Raises FaultError when the store cannot be read; what the last full round found stays.
        """
        report = VerifyReport()
        accounts = AccountCheck(self._store, await states_of(self._store))
        written_off_pico = leased_pico = 0
        async for account in self._store.accounts():
            began_s = clock.monotonic_s()
            await accounts.check(account.user, report)
            written_off_pico += account.written_off_pico
            leased_pico += sum(lot.leased_pico for lot in account.lots)
            await pause((clock.monotonic_s() - began_s) * (limits.conservation_share - 1))
            if is_stopping():
                return
        self.written_off_pico, self.leased_pico = written_off_pico, leased_pico
        self._publish(report)

    def _publish(self, report: VerifyReport) -> None:
        for difference in report.differences if report.differences_total != self.differences else ():
            _log.error("conservation: %s; see `farebox verify --repair-plan`", difference)
        self.delta_pico, self.differences = report.delta_pico, report.differences_total
        self.users, self.rounds = report.users, self.rounds + 1

    def status(self) -> dict[str, int]:
        """For /metrics."""
        return {
            "delta_pico": self.delta_pico,
            "differences": self.differences,
            "users": self.users,
            "rounds": self.rounds,
            "written_off_pico": self.written_off_pico,
            "leased_pico": self.leased_pico,
        }
