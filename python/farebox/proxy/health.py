"""Where the next request of an upstream goes: its places (address and credential), their weights and health.

Pure: times come from the caller. A place that fails rests and is tried again; the longer it keeps failing the
longer it rests. With one place there is nothing to choose, and it never rests: refusing by ourselves what the
upstream might serve helps nobody.

| what the place did | what follows |
|---|---|
| answered below 400, or 4xx that the request itself caused | its failures are forgotten |
| 429, 503, 529 | rests as long as Retry-After says, else longer each time |
| 401, 402, 403: its credential is refused or spent | rests a minute at least: an operator has to act |
| another 5xx, `BREAK_AFTER_FAILURES` times running | rests, longer each time |
| no connection | rests, longer each time |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from farebox.base import limits

T = TypeVar("T")

BUSY: Final = frozenset((429, 503, 529))
CREDENTIAL: Final = frozenset((401, 402, 403))
BREAK_AFTER_FAILURES: Final = 5
_FIRST_REST_S: Final = 0.5
_CREDENTIAL_REST_S: Final = 60.0


def may_go_elsewhere(status: int) -> bool:
    """Whether a place that answered so did nothing with the request, so that another may be asked.

    Any other failure may have been worked on, and paid for by the operator: it is never sent again.
    """
    return status in BUSY or status in CREDENTIAL


@dataclass(slots=True)
class Place(Generic[T]):
    """One address and credential. `target` is the caller's; `current` is the weighing's own."""

    target: T
    weight: int = 1
    failures: int = 0
    rests_until_s: float = 0.0
    current: int = 0

    def answered(self, status: int, retry_after_s: int | None, now_s: float) -> None:
        """Note an answer's status and its Retry-After, if it had one."""
        if status in CREDENTIAL:
            self._rest(max(_CREDENTIAL_REST_S, self._growing_s()), now_s)
        elif status in BUSY:
            rest_s = self._growing_s() if retry_after_s is None else float(retry_after_s)
            self._rest(rest_s, now_s)
        elif status >= 500:
            self.failures += 1
            if self.failures >= BREAK_AFTER_FAILURES:
                self._rest(self._growing_s(BREAK_AFTER_FAILURES), now_s)
        else:
            self.failures = 0

    def unreachable(self, now_s: float) -> None:
        """Note that no connection could be had."""
        self._rest(self._growing_s(), now_s)

    def _growing_s(self, from_failures: int = 0) -> float:
        doublings = min(max(0, self.failures - from_failures), 16)
        return min(limits.upstream_rest_max_s, _FIRST_REST_S * (1 << doublings))

    def _rest(self, rest_s: float, now_s: float) -> None:
        self.failures += 1
        self.rests_until_s = max(self.rests_until_s, now_s + min(rest_s, limits.upstream_rest_max_s))


def choose(places: Sequence[Place[T]], now_s: float, tried: Sequence[Place[T]] = ()) -> Place[T] | None:
    """The place for the next request: by weight among those awake and not `tried`; None: nowhere left to go.

    The first attempt always has a place: where all rest, the one that wakes first. Weights are kept exactly:
    each time every place gains its weight, and the one chosen pays the sum of all.
    """
    awake = [place for place in places if place.rests_until_s <= now_s and place not in tried]
    if not awake:
        return None if tried else min(places, key=lambda place: place.rests_until_s)
    chosen, total = awake[0], 0
    for place in awake:
        total += place.weight
        place.current += place.weight
        if place.current > chosen.current:
            chosen = place
    chosen.current -= total
    return chosen
