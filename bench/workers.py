"""What a second worker brings: exchanges a CPU second of two workers beside those of one.

Neither is kept to a core. Rates say little where generator and upstream need the same two cores, so the CPU
time of an exchange is compared: were it the same, two workers on two cores would serve twice as much.
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
        one, two = (
            cells.measure(
                the_rig, subject, PLAIN_SMALL, seconds=seconds, concurrency=CONCURRENCY, store="sqlite"
            )
            for subject in subjects
        )
        for cell in (one, two):
            found.append(cell)
            print(line(cell), flush=True)
        if one.cpu_us and two.cpu_us and not one.failed and not two.failed:
            gains.append(2 * one.cpu_us / two.cpu_us)
    for subject in subjects:
        the_rig.stop(subject.processes[0])
    return found, gains
