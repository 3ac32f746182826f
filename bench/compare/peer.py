"""What is compared: a gateway that can be installed, started on the measured core, given keys, and audited.

A quota is counted in prices of `MONEY_REQUEST`, so that gateways with different units of money answer the
same question: how many such requests does a key pay for.
"""

import json
import os
import signal
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol, runtime_checkable

import rig

PROMPT_TOKENS = 40
COMPLETION_TOKENS = 100
ANSWER_DELAY_MS = 100
"""No model answers at once; requests sent together are in flight together."""

MONEY_REQUEST = json.dumps(
    {
        "model": rig.MODEL,
        "max_tokens": COMPLETION_TOKENS,
        "messages": [
            {
                "role": "user",
                "content": f'script: {{"prompt": {PROMPT_TOKENS}, "completion": {COMPLETION_TOKENS},'
                f' "first_delay_ms": {ANSWER_DELAY_MS}}}',
            }
        ],
    }
)
"""The request of the experiments with money: its limit is what its answer uses."""

INPUT_USD_PER_MTOK = Fraction("1.25")
OUTPUT_USD_PER_MTOK = Fraction(10)
MONEY_REQUEST_USD = (PROMPT_TOKENS * INPUT_USD_PER_MTOK + COMPLETION_TOKENS * OUTPUT_USD_PER_MTOK) / 1_000_000


class CannotRunError(Exception):
    """This peer does not install, start or answer on this machine; the message is the reason to print."""


@dataclass(frozen=True, slots=True)
class Books:
    """What a gateway's own records say about one key."""

    billed: int
    """Requests it has a charge for."""
    balance: Fraction
    """What is left of the key's money, in prices of one request; below 0: overspent."""


@dataclass(slots=True)
class Running:
    """A started gateway."""

    process: rig.Process
    port: int
    key: str
    """A key with money for every load."""
    headers: dict[str, str] = field(default_factory=dict)
    """What its clients must send beside the key."""


class Peer(Protocol):
    """A gateway without money: it is measured under load only."""

    name: str
    switched_on: str
    """What it does for a request in this set-up, for the table."""
    connections: int
    """Plain requests at once; a slow gateway gets fewer, so that none times out."""

    def install(self, cache: Path) -> str:
        """Fetch and build it under `cache` unless that was done; its version. Raises CannotRunError."""

    def start(self, the_rig: rig.Rig) -> Running:
        """Start it in the rig's folder on the measured core; again on the same data after it was killed."""


@runtime_checkable
class MeteredPeer(Peer, Protocol):
    """A gateway that takes money for requests: the experiments with money are made with it too."""

    books_lag_s: float
    """How long after the last request its books may still change."""

    def new_key(self, affordable: int) -> str:
        """A key of a new user whose money pays for so many requests."""

    def books(self, key: str) -> Books:
        """What its records say now."""


def kill_everything(the_rig: rig.Rig, process: rig.Process) -> None:
    """SIGKILL to the whole tree, parents first, so that nobody mends or writes anything any more."""
    for pid in process.tree():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    the_rig.stop(process)


def resident_bytes(process: rig.Process) -> int:
    """Memory of the whole tree; pages that several processes share count once (proportional set size)."""
    return sum(_proportional_bytes(pid) for pid in process.tree())


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
