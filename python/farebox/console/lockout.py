"""Who has guessed too often: failed logins counted by name and by address, and refused for a while. Pure.

Promises: after `login_failures_max` failures within `login_lockout_s` every further try is refused, right or
wrong, for `login_lockout_s`; memory is bounded, those longest quiet are forgotten first. It lives in the
console's process: a restart forgets, which no guesser can cause.
"""

from collections import OrderedDict
from collections.abc import Iterable

from farebox.base import limits


class _Known:
    """One name: when it failed lately, and until when it is locked."""

    __slots__ = ("failures_ms", "locked_until_ms")

    def __init__(self) -> None:
        self.failures_ms: list[int] = []
        self.locked_until_ms = 0


class Attempts:
    """Failures by what they were made as: an address, a user's name."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def wait_s(self, names: Iterable[str], now_ms: int) -> int:
        """How long whoever goes by one of these names has to wait; 0: he may try."""
        found = [known.locked_until_ms for name in names if (known := self._known.get(name)) is not None]
        return max(0, -(-(max(found, default=0) - now_ms) // 1000))

    def failed(self, names: Iterable[str], now_ms: int) -> bool:
        """Count a failure; whether it was the one that locks somebody out."""
        window_ms = int(limits.login_lockout_s * 1000)
        locks = False
        for name in names:
            known = self._known.setdefault(name, _Known())
            self._known.move_to_end(name)
            recent = [moment for moment in known.failures_ms if moment > now_ms - window_ms]
            known.failures_ms = [*recent, now_ms]
            if len(known.failures_ms) >= limits.login_failures_max:
                known.failures_ms, known.locked_until_ms, locks = [], now_ms + window_ms, True
        while len(self._known) > limits.login_names_remembered_max:
            self._known.popitem(last=False)
        return locks

    def succeeded(self, name: str) -> None:
        """Forget the failures of a name that has proved itself."""
        self._known.pop(name, None)
