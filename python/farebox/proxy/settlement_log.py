"""One line per settlement on standard output: what was used at which price, what it cost, what is left.

Lines are gathered and written together a few times a second.
No key, prompt or answer appears (M11); names come from configuration and the store.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from farebox.base.log import settlement_as_json
from farebox.base.records import LotAmount
from farebox.meter import format_pico

if TYPE_CHECKING:
    from farebox.proxy.verdict import Verdict

_FLUSH_INTERVAL_S = 0.2
_STANDARD_OUTPUT = 1
_LINES_MAX = 20_000


class SettlementLog:
    """Gathers lines and writes them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_flush: Callable[[], None],
        descriptor: int = _STANDARD_OUTPUT,
        *,
        as_json: bool = False,
    ) -> None:
        """`on_flush` is called a moment after each line, once for all of them."""
        self._as_json = as_json
        self._loop = loop
        self._on_flush = on_flush
        self._descriptor = descriptor
        self._waiting: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def add(self, line: str) -> None:
        """Write a settlement's line soon. Beyond a bound of waiting lines it is dropped."""
        if len(self._waiting) < _LINES_MAX:
            self._waiting.append(line)
        if self._is_closed:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(_FLUSH_INTERVAL_S, self.flush)

    def close(self) -> None:
        """Write what waits; from now on each line is written as it comes, as nobody will wait for a timer."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.flush()

    def flush(self) -> None:
        """Write what waits. A closed or full output loses lines, never an exchange."""
        self._timer = None
        self._on_flush()
        waiting, self._waiting = self._waiting, []
        if waiting:
            if self._as_json:
                now_s = time.time()
                waiting = [settlement_as_json(line, now_s) for line in waiting]
            data = "".join(waiting).encode("utf-8", "replace")
            try:
                os.write(self._descriptor, data)
            except OSError:
                return


def settlement_line(
    exchange: str,
    user: str,
    model: str,
    verdict: "Verdict",
    outcome: str,
    multiplier: str,
    takes: Sequence[LotAmount],
    remaining_pico: int | None,
) -> str:
    """The line of a settlement; the compiled module writes the same for plain ones (`PlainCharge`)."""
    amount = format_pico(verdict.amount_pico)
    paid = " ".join([f"{pool}={format_pico(part_pico)}" for pool, part_pico in _by_pool(takes).items()])
    left = "?" if remaining_pico is None else format_pico(remaining_pico)
    return (
        f"settled {exchange} user={user} model={model} {verdict.evidence} {outcome} {verdict.used} "
        f"x{multiplier} amount={amount} {paid} remaining~{left}\n"
    )


def _by_pool(takes: Sequence[LotAmount]) -> Mapping[str, int]:
    pools: dict[str, int] = {}
    for take in takes:
        pools[take.pool] = pools.get(take.pool, 0) + take.amount_pico
    return pools
