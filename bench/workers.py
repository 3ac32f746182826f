"""What a second worker brings: exchanges a CPU second of two workers beside those of one.

Neither is kept to a core. Rates say little where generator and upstream need the same two cores, so the CPU
time of an exchange is compared: were it the same, two workers on two cores would serve twice as much.

A noisy host makes the same instructions cost up to half as much again from one cell to the next, so the time
is counted in exchanges of the upstream, whose work does not depend on the workers: a cell in which those were
dearer too says nothing of Farebox.
"""

import cells
import rig
from cells import FAREBOX, Subject
from matrix import line
from results import Cell
from workloads import PLAIN_SMALL

CONCURRENCY = 64


def measure(the_rig: rig.Rig, rounds: int, seconds: float) -> tuple[list[Cell], list[float]]:
    """All cells, and by how much two workers surpass one, once a round (2: twice as much)."""
    found: list[Cell] = []
    subjects = []
    for workers in (1, 2):
        farebox = the_rig.start_farebox(f"workers-{workers}", workers=workers, core=None)
        name = FAREBOX if workers == 1 else f"{FAREBOX}, {workers} workers"
        subjects.append(Subject(name, farebox.port, farebox.key, [farebox.process], farebox))
        cells.warm_up(the_rig, subjects[-1], PLAIN_SMALL)
    gains = []
    for _ in range(rounds):
        (one, one_cost), (two, two_cost) = (_measured(the_rig, subject, seconds) for subject in subjects)
        found += (one, two)
        if one_cost and two_cost:
            gains.append(2 * one_cost / two_cost)
    for subject in subjects:
        the_rig.stop(subject.processes[0])
    return found, gains


def _measured(the_rig: rig.Rig, subject: Subject, seconds: float) -> tuple[Cell, float]:
    """The cell, and what an exchange cost, counted in the upstream's exchanges; 0 where the cell failed."""
    assert the_rig.upstream is not None
    before_s = the_rig.upstream.cpu_s()
    cell = cells.measure(
        the_rig, subject, PLAIN_SMALL, seconds=seconds, concurrency=CONCURRENCY, store="sqlite"
    )
    print(line(cell), flush=True)
    if cell.failed or not cell.cpu_us:
        return cell, 0.0
    upstream_us = 1e6 * (the_rig.upstream.cpu_s() - before_s) / cell.exchanges
    return cell, cell.cpu_us / upstream_us
