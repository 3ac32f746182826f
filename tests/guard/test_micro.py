"""Promise: `make micro` measures every part of the Python rooms and writes one result that says on what and
by what. Criterion's half is compiled by that command alone, never by a test.
"""

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"
ROOMS = {"meter", "ledger", "journal", "writer", "worker"}


def test_a_short_look_at_the_rooms_times_every_part(tmp_path: Path) -> None:
    file = tmp_path / "micro.json"
    asked = ["--only", "rooms", "--seconds", "0.01", "--out", str(file)]
    done = subprocess.run(
        [sys.executable, BENCH / "micro.py", *asked], capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(file.read_text(encoding="utf-8"))
    assert {timing["part"].partition(":")[0] for timing in told["timings"]} == ROOMS
    assert all(timing["median_ns"] > 0 for timing in told["timings"])
    said = {program for program, version in told["versions"].items() if version}
    assert {"pytest-benchmark", "criterion", "rustc", "exchange path"} <= said
    assert told["machine"]["cores"]
    assert all(timing["part"] in done.stdout for timing in told["timings"])
