"""One line per settlement on standard output: what was used at which price, what it cost, what is left.

Lines are gathered and written together a few times a second, so that a line costs about as much as its text. No key,
prompt or answer appears (M11); names come from configuration and the store.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence

from farebox.base.records import LotAmount, Settlement
from farebox.meter import format_pico
from farebox.proxy.verdict import Verdict

_FLUSH_INTERVAL_S = 0.2
_STANDARD_OUTPUT = 1
_LINES_MAX = 20_000


class SettlementLog:
    """Gathers lines and writes them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int = _STANDARD_OUTPUT) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._waiting: list[tuple[Settlement, Sequence[tuple[str, int, str, str]], int | None]] = []
        self._scheduled = False

    def add(self, settlement: Settlement, verdict: Verdict, remaining_pico: int | None) -> None:
        """Note a settlement; its line is written soon. Beyond a bound of waiting lines it is dropped."""
        if len(self._waiting) < _LINES_MAX:
            self._waiting.append((settlement, verdict.lines, remaining_pico))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(_FLUSH_INTERVAL_S, self.flush)

    def flush(self) -> None:
        """Write what waits. A closed or full output loses lines, never an exchange."""
        self._scheduled = False
        waiting, self._waiting = self._waiting, []
        if waiting:
            data = "".join(_line(*entry) for entry in waiting).encode("utf-8", "replace")
            try:
                os.write(self._descriptor, data)
            except OSError:
                return


def _line(
    settlement: Settlement, lines: Sequence[tuple[str, int, str, str]], remaining_pico: int | None
) -> str:
    used = " ".join([f"{kind}={count}@{price}" for kind, count, price, _ in lines])
    paid = " ".join([f"{pool}={format_pico(amount)}" for pool, amount in _by_pool(settlement.takes).items()])
    left = "?" if remaining_pico is None else format_pico(remaining_pico)
    return (
        f"settled {settlement.exchange} user={settlement.user} model={settlement.model} "
        f"{settlement.evidence} {settlement.outcome} {used} x{settlement.multiplier} "
        f"amount={format_pico(settlement.amount_pico)} {paid} remaining~{left}\n"
    )


def _by_pool(takes: Sequence[LotAmount]) -> Mapping[str, int]:
    if len(takes) == 1:
        return {takes[0].pool: takes[0].amount_pico}
    pools: dict[str, int] = {}
    for take in takes:
        pools[take.pool] = pools.get(take.pool, 0) + take.amount_pico
    return pools
