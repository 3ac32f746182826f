"""Who has guessed too often: failed logins counted by name and by address, and refused for a while. Pure.

Promises: after `login_failures_max` failures within `login_lockout_s` every further try is refused, right or
wrong, for `login_lockout_s`; tries that are being checked count as if they failed; memory is bounded, those
longest quiet are forgotten first. It lives in the console's process: a restart forgets, which no guesser can
cause.
"""

from collections import OrderedDict
from collections.abc import Iterable

from farebox.base import limits

_WINDOW_MS = int(limits.login_lockout_s * 1000)
_TRY_AGAIN_S = 1


class _Known:
    """One name: when it failed lately, until when it is locked, and how many tries are being checked."""

    __slots__ = ("failures_ms", "locked_until_ms", "tries")

    def __init__(self) -> None:
        self.failures_ms: list[int] = []
        self.locked_until_ms = 0
        self.tries = 0

    def lately_ms(self, now_ms: int) -> list[int]:
        """The failures that still count."""
        return [moment for moment in self.failures_ms if moment > now_ms - _WINDOW_MS]


class Attempts:
    """Failures by what they were made as: an address, a user's name."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def wait_s(self, names: Iterable[str], now_ms: int) -> int:
        """How long whoever goes by one of these names has to wait; 0: he may try."""
        found = [known for name in names if (known := self._known.get(name)) is not None]
        locked_until_ms = max((known.locked_until_ms for known in found), default=0)
        if locked_until_ms > now_ms:
            return -(-(locked_until_ms - now_ms) // 1000)
        tried = (len(known.lately_ms(now_ms)) + known.tries for known in found)
        return _TRY_AGAIN_S if max(tried, default=0) >= limits.login_failures_max else 0

    def begin(self, names: Iterable[str]) -> None:
        """A try is being checked: until `end` it counts as one that may fail."""
        for name in names:
            self._named(name).tries += 1

    def end(self, names: Iterable[str]) -> None:
        """The try is checked; one that failed must be said to have `failed` in the same turn."""
        for name in names:
            known = self._known.get(name)
            if known is not None:
                known.tries = max(0, known.tries - 1)

    def failed(self, names: Iterable[str], now_ms: int) -> bool:
        """Count a failure; whether it was the one that locks somebody out."""
        locks = False
        for name in names:
            known = self._named(name)
            known.failures_ms = [*known.lately_ms(now_ms), now_ms]
            if len(known.failures_ms) >= limits.login_failures_max:
                known.failures_ms, known.locked_until_ms, locks = [], now_ms + _WINDOW_MS, True
        return locks

    def succeeded(self, name: str) -> None:
        """Forget the failures of a name that has proved itself. An address proves nothing by one login."""
        known = self._known.get(name)
        if known is not None:
            known.failures_ms = []

    def _named(self, name: str) -> _Known:
        known = self._known.setdefault(name, _Known())
        self._known.move_to_end(name)
        if len(self._known) > limits.login_names_remembered_max:
            self._known.popitem(last=False)
        return known
