"""Promise: a replacement that fails is tried again; given up in the end, the workers that run are kept."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from farebox.base import limits
from farebox.run.workforce import Workforce


@dataclass
class Process:
    """A child that serves, or dies at its start."""

    name: str
    serves: bool
    signals: list[int] = field(default_factory=list)
    control: None = None
    pulse: None = None
    started_s: float = 0.0

    def start(self) -> None:
        """It starts."""

    try_to_start = look = forget = start

    def state(self) -> str:
        return "serving" if self.serves else ""

    def runs(self) -> bool:
        return self.serves and not self.signals

    def signal(self, number: int) -> None:
        self.signals.append(number)


def replaced(fates: list[bool]) -> tuple[list[str], list[str]]:
    """The workers that run and those that have gone, after replacing two; `fates`: of successors."""
    made: Iterator[Process] = (
        Process(f"worker {number}", serves) for number, serves in enumerate([True, True, *fates])
    )
    gone: list[str] = []
    workforce = Workforce(lambda _: cast("Any", next(made)), lambda child: gone.append(child.name))
    workforce.start(2)
    workforce.replace_all()
    for _ in range(4 * len(fates)):
        workforce.look()
        for child in workforce._retiring:
            child.signal(9)  # type: ignore[arg-type]
    return [child.name for child in workforce.current], gone


def test_two_are_replaced_one_after_the_other() -> None:
    assert replaced([True, True]) == (["worker 2", "worker 3"], ["worker 0", "worker 1"])


def test_a_successor_that_dies_is_tried_again() -> None:
    current, gone = replaced([False, True, False, False, True])
    assert current == ["worker 3", "worker 6"]
    assert sorted(gone) == [f"worker {number}" for number in (0, 1, 2, 4, 5)]


def test_asked_again_while_a_successor_starts_every_slot_gets_a_worker_of_its_own() -> None:
    made: list[tuple[int, Process]] = []

    class Starting(Process):
        """It runs, and does not serve at first."""

        is_ready = False

        def state(self) -> str:
            return "serving" if self.is_ready else ""

    def make(slot: int) -> Any:
        kind = Starting if len(made) == 3 else Process
        made.append((slot, kind(f"worker {len(made)}", serves=True)))
        return made[-1][1]

    workforce = Workforce(make, lambda _: None)
    workforce.start(2)
    workforce.replace_all()
    for _ in range(3):
        workforce.look()
    slot, starting = made[-1]
    assert (slot, starting.state()) == (1, "")
    assert isinstance(starting, Starting)
    workforce.replace_all()
    starting.is_ready = True
    for _ in range(6):
        workforce.look()
        for child in workforce._retiring:
            child.signal(9)  # type: ignore[arg-type]
    slots = {process.name: slot for slot, process in made}
    assert [slots[child.name] for child in workforce.current] == [0, 1]
    assert starting.signals


@pytest.mark.parametrize("more", [[], [True, True]])
def test_after_three_in_a_row_the_workers_that_run_stay(more: list[bool]) -> None:
    current, gone = replaced([False] * limits.replacement_attempts_max + more)
    assert current == ["worker 0", "worker 1"]
    assert sorted(gone) == ["worker 2", "worker 3", "worker 4"]
