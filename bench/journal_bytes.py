"""Journal bytes of an exchange in service: what the segments grew by, over the exchanges there were.

Few enough that the worker begins no second segment, of which the first would be removed once it is booked.
"""

from pathlib import Path

import cells
import rig
from cells import FAREBOX, Subject
from workloads import PLAIN_SMALL, Workload, chat

SECONDS = 0.7
STREAMED = Workload(
    "stream 20", chat({"chunks": 20, "delay_ms": 5, "prompt": 40, "completion": 20}, streamed=True), ""
)


def measure(the_rig: rig.Rig, rounds: int) -> dict[str, list[float]]:
    """Bytes an exchange, once a round, by the name of a bar."""
    farebox = the_rig.start_farebox("journal-bytes")
    subject = Subject(FAREBOX, farebox.port, farebox.key, [farebox.process], farebox)
    found: dict[str, list[float]] = {"journal plain": [], "journal streamed": []}
    for _ in range(rounds):
        for name, workload in zip(found, (PLAIN_SMALL, STREAMED), strict=True):
            before = _segment_bytes(farebox)
            cell = cells.measure(the_rig, subject, workload, seconds=SECONDS, concurrency=16, store="sqlite")
            if cell.failed:
                rig.stop_with(f"{workload.name}: {cell.failed}")
            found[name].append((_segment_bytes(farebox) - before) / cell.exchanges)
    the_rig.stop(farebox.process)
    return found


def _segment_bytes(farebox: rig.FareboxUnderTest) -> int:
    folder: Path = farebox.config.parent
    return sum(file.stat().st_size for file in folder.glob("journals/*/*.segment"))
