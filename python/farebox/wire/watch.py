"""Deadlines of many things that are silent most of the time: what a silent one costs does not grow with time.

A thing that stirs is looked at in the next sweep. The look acts on what is overdue and says when the thing
may be overdue if it stays as it is; until then it sleeps, and no sweep touches it. So deadlines are noticed
exactly when a sweep over everything would have noticed them, at the cost of those that stir.
"""

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

AT_NEXT_SWEEP: Final = 0.0
"""What a look says of a thing that must be looked at again in the next sweep."""
NEVER: Final = float("inf")
"""What a look says of a thing for which no deadline runs."""
_NO_PERIOD: Final = -1


class Watched:
    """One thing's place in a `Watch`: whoever makes the thing stir says so here."""

    __slots__ = ("_period", "_watch", "asleep")

    def __init__(self, watch: "Watch[Any]") -> None:
        self._watch = watch
        self._period = _NO_PERIOD
        self.asleep = False
        """No sweep looks at it before its time."""

    def stir(self) -> None:
        """Something happened to it that may matter for its deadlines."""
        if self.asleep:
            self._watch.wake(self)

    def end(self) -> None:
        """Look at it no more."""
        self._watch.discard(self)


class Watch(Generic[T]):
    """The things of one kind, swept every `interval_s` by their owner.

    `look(thing, now_s)` acts on its deadlines and returns the time at which it must be looked at again
    unless it stirs: `AT_NEXT_SWEEP`, a time, or `NEVER`.
    """

    def __init__(self, look: Callable[[T, float], float], interval_s: float) -> None:
        self.interval_s: Final = interval_s
        self._look = look
        self._awake: dict[Watched, T] = {}
        self._asleep: dict[int, dict[Watched, T]] = {}
        """Those that sleep, by the period of `interval_s` in which they must be looked at."""
        self._swept_period = _NO_PERIOD

    def __len__(self) -> int:
        return len(self._awake) + sum(len(sleepers) for sleepers in self._asleep.values())

    def add(self, watched: Watched, thing: T) -> None:
        """Look at a thing from now on."""
        self._awake[watched] = thing

    def sweep(self, now_s: float) -> None:
        """Look at those that stirred or may be overdue."""
        period = int(now_s / self.interval_s)
        self._wake_due(period)
        for watched in list(self._awake):
            thing = self._awake.get(watched)
            if thing is None:  # a look before this one ended it
                continue
            again_s = self._look(thing, now_s)
            again_period = _NO_PERIOD if again_s == NEVER else int(again_s / self.interval_s)
            if again_period > period or again_s == NEVER:
                self._put_to_sleep(watched, again_period)

    def _wake_due(self, period: int) -> None:
        since, self._swept_period = self._swept_period, period
        if not self._asleep:
            return
        for due_period in range(since + 1, period + 1):
            for watched, thing in self._asleep.pop(due_period, {}).items():
                watched.asleep = False
                self._awake[watched] = thing

    def _put_to_sleep(self, watched: Watched, period: int) -> None:
        thing = self._awake.pop(watched, None)
        if thing is None:  # its own look ended it
            return
        watched._period = period
        watched.asleep = True
        self._asleep.setdefault(period, {})[watched] = thing

    def wake(self, watched: Watched) -> None:
        """Look at one that sleeps in the next sweep."""
        thing = self._take_from_sleep(watched)
        if thing is not None:
            self._awake[watched] = thing

    def discard(self, watched: Watched) -> None:
        """Look at it no more; harmless when it is not looked at."""
        if watched.asleep:
            self._take_from_sleep(watched)
        else:
            self._awake.pop(watched, None)

    def _take_from_sleep(self, watched: Watched) -> T | None:
        watched.asleep = False
        sleepers = self._asleep.get(watched._period)
        if sleepers is None:
            return None
        thing = sleepers.pop(watched, None)
        if not sleepers:
            del self._asleep[watched._period]
        return thing
