"""Killed at any failpoint and begun anew, recovery, booking and retirement end as if nothing had happened
(J11 to J17, M4, M5, M6): the same rows, balances, lots and logs.

A deterministic part runs here; `FAREBOX_FAULTS=all` (`make failpoints`) takes every point at every time it is
reached, each also twenty times in a row.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from farebox.run.failpoints import POINTS

DRIVER = Path(__file__).with_name("kill_driver.py")
MEMORY = Path("/dev/shm")
ALL = os.environ.get("FAREBOX_FAULTS") == "all"
OF_WORKERS = {
    *(point.name for point in POINTS if point.name.startswith("proxy.")),
    "store.grant",
}
"""Reached by workers that serve: see tests/e2e/test_failpoints.py."""
RECOVERY = [point.name for point in POINTS if point.name.startswith("recovery.")]
TWENTY = RECOVERY if ALL else ["recovery.ended"]


def case(point: str, action: str = "kill", skip: int = 0, times: int = 1) -> dict[str, Any]:
    return {"point": point, "action": action, "skip": skip, "times": times}


def driven(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run cases in one driver; in memory, because a killed process loses nothing that it wrote."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        ended = subprocess.run(
            [sys.executable, str(DRIVER), folder],
            input=json.dumps(cases),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """The run in which points only count."""
    return driven([case("", "pass", times=10**6)])[0]


def times_to_kill(reached: int) -> Iterator[int]:
    """Which of the times a point is reached to kill at."""
    yield from range(reached) if ALL else [reached // 2]


def test_the_undisturbed_run_ends_well_and_meets_every_point(undisturbed: dict[str, Any]) -> None:
    state = undisturbed["state"]
    assert (state["differences"], state["pending"]) == ([], {})
    assert (state["journals"], state["folders"]) == (["retired"], [".retired"])
    assert not state["store"]["lease_lots"]
    assert {point.name for point in POINTS} - OF_WORKERS == set(undisturbed["fired"])


@pytest.mark.timeout(1800 if ALL else 240)
def test_J11_J12_J13_J14_J17_killed_at_every_point_the_end_is_the_same(undisturbed: dict[str, Any]) -> None:
    cases = [
        case(point, skip=skip)
        for point, reached in sorted(undisturbed["fired"].items())
        for skip in times_to_kill(reached)
    ]
    wrong = []
    for result in driven(cases):
        killed = result["fired"].get(result["point"], 0)
        if result["state"] != undisturbed["state"] or result["lives"] != 1 + killed:
            wrong.append((result["point"], result["skip"], result["lives"], result["state"]))
    assert wrong == []


@pytest.mark.timeout(1800 if ALL else 120)
def test_J17_recovery_killed_twenty_times_ends_the_same(undisturbed: dict[str, Any]) -> None:
    for result in driven([case(point, times=20) for point in TWENTY]):
        assert result["lives"] == 21, result
        assert result["state"] == undisturbed["state"], result["point"]
