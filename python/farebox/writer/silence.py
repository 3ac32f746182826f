"""Which journals have shown no sign of life for so long that their leases are abandoned (MONEY section 6).

One observer's monotonic clock decides, never a difference of wall clocks (hole 41). A beat counts as
unchanged only while it is looked at: where looks are missing (the store was away, this process was stopped)
the wait begins anew, for nobody could beat, or be seen to, meanwhile.
"""

from collections.abc import Iterable

from farebox.base import limits
from farebox.store.base import JournalState


class Silence:
    """What one observer has seen of all journals' beats."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, int, float]] = {}
        self._looked_s = float("-inf")

    def look(self, states: Iterable[JournalState], now_s: float) -> list[JournalState]:
        """The live journals whose beat has not changed for `limits.abandon_after_s`; call regularly."""
        if now_s - self._looked_s > limits.beat_looks_gap_max_s:
            self._since.clear()
        self._looked_s = now_s
        live = [state for state in states if state.state == "live"]
        before, self._since = self._since, {}
        for state in live:
            old = before.get(state.journal)
            is_same = old is not None and old[:2] == (state.epoch, state.beat_ms)
            since_s = old[2] if old is not None and is_same else now_s
            self._since[state.journal] = (state.epoch, state.beat_ms, since_s)
        return [state for state in live if now_s - self._since[state.journal][2] >= limits.abandon_after_s]
