"""What an exchange costs each thread, and how long each of them waits for a core: a part of `make profile`.

Nobody is sampled or slowed down: the kernel's own counters of every thread (/proc/PID/task) before a load and
after it. The same loads as the bars: nginx and Farebox on one core as fast as they go, Farebox at half load,
and two workers on any core.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import cells
import latency
import rig
from cells import NGINX, Subject
from results import Table
from workloads import PLAIN_SMALL

CONCURRENCY = 64
MOST_PER_S = 20_000.0
SHOWN_US = 0.5
"""Threads that take less of an exchange are left out."""

HEAD = ["load", "threads", "CPU µs", "of it kernel", "waits for the core µs", "sleeps", "gives way"]


@dataclass(slots=True)
class Spent:
    """What some threads took so far: times in microseconds, and how often they slept or had to give way."""

    cpu_us: float = 0.0
    user_us: float = 0.0
    kernel_us: float = 0.0
    waited_us: float = 0.0
    slept: float = 0.0
    gave_way: float = 0.0

    def add(self, other: "Spent", times: float = 1.0) -> None:
        """Count another's in, so many times."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + times * getattr(other, field.name))


def measure(the_rig: rig.Rig, seconds: float) -> Table:
    """The table, each exchange; cells whose books differ say so in their first column."""
    rows: list[list[str]] = []
    process, port = the_rig.start_nginx("threads-nginx")
    nginx = Subject(NGINX, port, "", [process])
    rows += _rows(the_rig, nginx, "nginx, one core, 64 at once", seconds)
    the_rig.stop(process)
    one = _farebox(the_rig, 1, -1)
    rows += _rows(the_rig, one, "Farebox, one core, 64 at once", seconds)
    half_per_s = latency.half_load(the_rig, one, PLAIN_SMALL, MOST_PER_S)
    rows += _rows(the_rig, one, f"Farebox, one core, {half_per_s:,.0f} a second", seconds, half_per_s)
    the_rig.stop(one.processes[0])
    two = _farebox(the_rig, 2, None)
    rows += _rows(the_rig, two, "Farebox, two workers, any core, 64 at once", seconds)
    the_rig.stop(two.processes[0])
    return Table("Threads, each plain exchange", HEAD, rows)


def _farebox(the_rig: rig.Rig, workers: int, core: int | None) -> Subject:
    farebox = the_rig.start_farebox(f"threads-{workers}", workers=workers, core=core)
    subject = Subject(f"farebox, {workers}", farebox.port, farebox.key, [farebox.process], farebox)
    cells.warm_up(the_rig, subject, PLAIN_SMALL)
    return subject


def _rows(
    the_rig: rig.Rig, subject: Subject, name: str, seconds: float, rate_per_s: float = 0.0
) -> Iterator[list[str]]:
    """One row for each kind of thread, the upstream's last."""
    assert the_rig.upstream is not None
    processes = [*subject.processes, the_rig.upstream]
    before = [_threads(process) for process in processes]
    cell = cells.measure(
        the_rig,
        subject,
        PLAIN_SMALL,
        seconds=seconds,
        concurrency=latency.CONNECTIONS_MAX if rate_per_s else CONCURRENCY,
        rate_per_s=round(rate_per_s),
    )
    if cell.failed:
        yield [f"{name}: void, {cell.failed[:200]}", *[""] * (len(HEAD) - 1)]
        return
    for process, earlier in zip(processes, before, strict=True):
        for kind, spent in _threads(process).items():
            spent.add(earlier.get(kind, Spent()), -1.0)
            if spent.cpu_us / cell.exchanges >= SHOWN_US:
                label = kind if subject.farebox is not None else subject.name
                label = "upstream" if process is the_rig.upstream else label
                yield [name, label, *_figures(spent, cell.exchanges)]


def _figures(spent: Spent, exchanges: int) -> list[str]:
    kernel_share = spent.kernel_us / max(1.0, spent.user_us + spent.kernel_us)
    return [
        f"{spent.cpu_us / exchanges:.1f}",
        f"{kernel_share:.0%}",
        f"{spent.waited_us / exchanges:.1f}",
        f"{spent.slept / exchanges:.3f}",
        f"{spent.gave_way / exchanges:.3f}",
    ]


def _threads(process: rig.Process) -> dict[str, Spent]:
    """What the threads of a process tree took so far, by role: first threads and the others."""
    found: dict[str, Spent] = {}
    for pid in process.tree():
        role = rig.role_of(pid)
        for thread in Path(f"/proc/{pid}/task").iterdir():
            kind = role if thread.name == str(pid) else f"{role}, its other threads"
            spent = _spent(thread)
            if spent is not None:
                found.setdefault(kind, Spent()).add(spent)
    return found


def _spent(thread: Path) -> Spent | None:
    """From the thread's files (proc_pid_stat(5), the kernel's sched-stats); None when it is gone."""
    try:
        ran_ns, waited_ns, _ = (thread / "schedstat").read_text().split()
        stat = (thread / "stat").read_text().rpartition(")")[2].split()
        status = dict(line.split(":", 1) for line in (thread / "status").read_text().splitlines())
    except OSError:
        return None
    tick_us = 1e6 / rig.TICKS
    return Spent(
        int(ran_ns) / 1e3,
        int(stat[11]) * tick_us,
        int(stat[12]) * tick_us,
        int(waited_ns) / 1e3,
        int(status["voluntary_ctxt_switches"]),
        int(status["nonvoluntary_ctxt_switches"]),
    )
