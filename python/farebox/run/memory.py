"""What a worker gives up, step by step, before the kernel kills for want of memory (O06).

| memory in use | what follows, until it is `memory_relief_share` below again |
|---|---|
| `memory_connections_share` | no connection is kept between requests; idle ones are closed |
| `memory_refuse_share` | new exchanges are refused with 503, and readyz says so |
| `memory_cut_share` | at each look the streams that run longest are cut, and settled by what was sent |

Nothing is lost by any of them: what was admitted ends in its settlement. The memory counted is that of the
control group with the least room, this process's own or one above it, or the machine's where none is limited.
"""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from farebox.base import limits
from farebox.base.counters import INDEX
from farebox.proxy.relayed import OVERLOADED
from farebox.proxy.worker import Worker
from farebox.wire.server import Server

ROOT_VARIABLE: Final = "FAREBOX_SYSTEM_ROOT"
"""Environment variable naming the folder in which proc and sys are found, where it is not the root."""

_STEP: Final = INDEX["memory_step"]
_CUT: Final = INDEX["cut_for_memory_total"]
_log = logging.getLogger("farebox.memory")


class MemoryWatch:
    """Looks at memory and puts one worker and its servers into the step that fits."""

    def __init__(self, worker: Worker, servers: list[Server], root: Path) -> None:
        self._worker = worker
        self._servers = servers
        self._root = root
        self._step = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look(used_share(self._root))
            await asyncio.sleep(limits.memory_look_interval_s)

    def look(self, share: float) -> None:
        """Act on the share of memory that is in use."""
        step = next_step(self._step, share)
        if step != self._step:
            _log.warning("memory is %d %% full: step %d of 3 (was %d)", int(share * 100), step, self._step)
            self._step = step
            self._worker.counters[_STEP] = step
            self._worker.memory_short = step >= 2
            for server in self._servers:
                server.keep_connections(step == 0)
        if step == 3:
            self._cut_longest()

    def _cut_longest(self) -> None:
        streams = self._worker.streams.longest(limits.memory_cuts_at_once_share)
        for stream in streams:
            stream.cut(OVERLOADED)
        self._worker.counters[_CUT] += len(streams)
        if streams:
            _log.warning("%d streams are cut for want of memory", len(streams))


def next_step(step: int, share: float) -> int:
    """The step that follows: up at once, down only when there is clearly more room."""
    marks = (limits.memory_connections_share, limits.memory_refuse_share, limits.memory_cut_share)
    up = sum(share >= mark for mark in marks)
    down = sum(share >= mark - limits.memory_relief_share for mark in marks)
    return max(up, min(step, down))


def used_share(root: Path) -> float:
    """The share of memory in use, 0 to 1; 0 where the system does not tell."""
    return max((used / limit for used, limit in _uses(root) if limit > 0), default=0.0)


def _uses(root: Path) -> Iterator[tuple[int, int]]:
    """Bytes in use and their limit, for the machine and every control group this process is in."""
    machine = _named_numbers(root / "proc/meminfo")
    total = 1024 * machine.get("MemTotal:", 0)
    yield total - 1024 * machine.get("MemAvailable:", 0), total
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _groups(root / "sys/fs/cgroup", path, "memory.current", "memory.max", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")
            yield from _groups(root / "sys/fs/cgroup/memory", path, *names)


def _groups(mounted: Path, path: str, used: str, limit: str, reclaimable: str) -> Iterator[tuple[int, int]]:
    """Each group from `path` up; in a container its own group is mounted at the top."""
    below = Path(path.lstrip("/"))
    for group in (mounted / below, *(mounted / each for each in below.parents)):
        limit_text = _text(group / limit).strip()
        if limit_text.isdecimal():
            cached = _named_numbers(group / "memory.stat").get(reclaimable, 0)
            yield int(_text(group / used) or 0) - cached, int(limit_text)


def _named_numbers(path: Path) -> dict[str, int]:
    """Lines `name number ...` of a file."""
    words = (line.split() for line in _text(path).splitlines())
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdecimal()}


def _text(path: Path) -> str:
    """What a file says; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
