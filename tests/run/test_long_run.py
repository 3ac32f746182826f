"""Promise: the long run of bench/ measures what it says and finds nothing wrong where nothing is (M1, M10).

Counts and bytes are bounded here, time is not; `make long-run` does the same with ten million exchanges.
"""

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"


def test_M10_journal_and_verify_stay_bounded_however_many_exchanges(tmp_path: Path) -> None:
    how = ["--count", "4000", "--users", "10", "--checkpoints", "2", "--step", "500"]
    done = subprocess.run(
        [sys.executable, BENCH / "long_run.py", *how, "--segment-bytes", "262144", "--folder", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_, last = done.stdout.splitlines()
    first, second = json.loads(last)["checkpoints"]
    assert (first["exchanges"], second["exchanges"]) == (2000, 4000)
    assert first["recovered_open"] == second["recovered_open"] == 2
    assert 0 < second["journal_bytes_max"] <= 4 * 262_144 + 500 * 1000
    assert second["verify_peak_bytes"] < first["verify_peak_bytes"] + 32 * 2**20
    assert first["is_clean"]
    assert second["is_clean"]
    assert list(tmp_path.iterdir()) == []
