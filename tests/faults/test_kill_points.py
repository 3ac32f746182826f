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
OF_WORKERS = {point.name for point in POINTS if point.name.startswith("proxy.")}
"""Reached by workers that serve: see test_kill_serving.py."""
OF_STORE = {"sqlite": "store.", "mongodb": "mongo."}
RECOVERY = [point.name for point in POINTS if point.name.startswith("recovery.")]
TWENTY = RECOVERY if ALL else ["recovery.ended"]
CHOSEN_MONGODB = ("mongo.rows", "mongo.committing", "mongo.committed", "mongo.applied", "mongo.granted")
"""One of each kind; the others need `make failpoints`."""


def case(point: str, action: str = "kill", skip: int = 0, times: int = 1) -> dict[str, Any]:
    return {"point": point, "action": action, "skip": skip, "times": times}


def driven(cases: Sequence[dict[str, Any]], server: str = "") -> list[dict[str, Any]]:
    """Run cases in one driver; in memory, because a killed process loses nothing that it wrote. `server`: of
    MongoDB; else each case has an SQLite file.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        ended = subprocess.run(
            [sys.executable, str(DRIVER), folder, *([server] if server else [])],
            input=json.dumps(cases),
            env={
                **os.environ,
                "FAREBOX_INTERPRETED": "1",
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            },
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


@pytest.fixture(scope="module")
def undisturbed_mongodb(mongodb_server: str) -> dict[str, Any]:
    """The same on MongoDB."""
    return driven([case("", "pass", times=10**6)], mongodb_server)[0]


def times_to_kill(reached: int) -> Iterator[int]:
    """Which of the times a point is reached to kill at."""
    yield from range(reached) if ALL else [reached // 2]


def points_of(store: str) -> set[str]:
    """The points a process without workers reaches on a store."""
    others = tuple(room for name, room in OF_STORE.items() if name != store)
    return {point.name for point in POINTS if not point.name.startswith(others)} - OF_WORKERS


@pytest.mark.parametrize(
    ("store", "fixture"), [("sqlite", "undisturbed"), ("mongodb", "undisturbed_mongodb")]
)
def test_the_undisturbed_run_ends_well_and_meets_every_point(
    store: str, fixture: str, request: pytest.FixtureRequest
) -> None:
    found = request.getfixturevalue(fixture)
    state = found["state"]
    assert (state["differences"], state["pending"]) == ([], {})
    assert (state["journals"], state["folders"]) == (["retired"], [".retired"])
    assert not state["store"]["lease_lots"]
    assert points_of(store) == set(found["fired"])


def wrong_ends(found: Sequence[dict[str, Any]], undisturbed: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Cases that did not end as if nothing had happened."""
    return [
        (one["point"], one["skip"], one["lives"], one["state"])
        for one in found
        if one["state"] != undisturbed["state"] or one["lives"] != 1 + one["fired"].get(one["point"], 0)
    ]


@pytest.mark.timeout(1800 if ALL else 240)
def test_J11_J12_J13_J14_J17_killed_at_every_point_the_end_is_the_same(undisturbed: dict[str, Any]) -> None:
    cases = [
        case(point, skip=skip)
        for point, reached in sorted(undisturbed["fired"].items())
        for skip in times_to_kill(reached)
    ]
    assert wrong_ends(driven(cases), undisturbed) == []


@pytest.mark.timeout(3600 if ALL else 240)
def test_S09_J11_J17_killed_at_every_point_of_mongodb_the_end_is_the_same(
    undisturbed_mongodb: dict[str, Any], mongodb_server: str
) -> None:
    """A transaction that a killed process left open holds up nobody: its successor ends it."""
    chosen = sorted(point for point in undisturbed_mongodb["fired"] if point.startswith("mongo."))
    cases = [
        case(point, skip=skip)
        for point in (chosen if ALL else CHOSEN_MONGODB)
        for skip in times_to_kill(undisturbed_mongodb["fired"][point])
    ]
    assert wrong_ends(driven(cases, mongodb_server), undisturbed_mongodb) == []


@pytest.mark.timeout(1800 if ALL else 120)
def test_J17_recovery_killed_twenty_times_ends_the_same(undisturbed: dict[str, Any]) -> None:
    for result in driven([case(point, times=20) for point in TWENTY]):
        assert result["lives"] == 21, result
        assert result["state"] == undisturbed["state"], result["point"]
