"""One line per settlement on standard output: what was used at which price, what it cost, what is left.

Lines are gathered and written together a few times a second, so that a line costs about as much as its text.
No key, prompt or answer appears (M11); names come from configuration and the store.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence

from farebox.base.records import LotAmount
from farebox.meter import format_pico

_FLUSH_INTERVAL_S = 0.2
_STANDARD_OUTPUT = 1
_LINES_MAX = 20_000

Entry = tuple[str, str, str, str, str, str, str, int, Sequence[LotAmount], int | None]
"""Exchange, user, model, evidence, outcome, used, multiplier, amount_pico, takes, remaining_pico."""


class SettlementLog:
    """Gathers lines and writes them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int = _STANDARD_OUTPUT) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._waiting: list[Entry] = []
        self._scheduled = False

    def add(self, entry: Entry) -> None:
        """Note a settlement; its line is written soon. Beyond a bound of waiting lines it is dropped."""
        if len(self._waiting) < _LINES_MAX:
            self._waiting.append(entry)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(_FLUSH_INTERVAL_S, self.flush)

    def flush(self) -> None:
        """Write what waits. A closed or full output loses lines, never an exchange."""
        self._scheduled = False
        waiting, self._waiting = self._waiting, []
        if waiting:
            data = "".join([_line(*entry) for entry in waiting]).encode("utf-8", "replace")
            try:
                os.write(self._descriptor, data)
            except OSError:
                return


def _line(
    exchange: str,
    user: str,
    model: str,
    evidence: str,
    outcome: str,
    used: str,
    multiplier: str,
    amount_pico: int,
    takes: Sequence[LotAmount],
    remaining_pico: int | None,
) -> str:
    amount = format_pico(amount_pico)
    if len(takes) == 1 and takes[0].amount_pico == amount_pico:
        paid = f"{takes[0].pool}={amount}"
    else:
        paid = " ".join([f"{pool}={format_pico(part_pico)}" for pool, part_pico in _by_pool(takes).items()])
    left = "?" if remaining_pico is None else format_pico(remaining_pico)
    return (
        f"settled {exchange} user={user} model={model} {evidence} {outcome} {used} x{multiplier} "
        f"amount={amount} {paid} remaining~{left}\n"
    )


def _by_pool(takes: Sequence[LotAmount]) -> Mapping[str, int]:
    pools: dict[str, int] = {}
    for take in takes:
        pools[take.pool] = pools.get(take.pool, 0) + take.amount_pico
    return pools
