"""Promise: on real sockets a streamed chunk costs one call into the meter and one write, and nothing is kept
back for later company: while a stream is idle each chunk is passed on when it comes, under load those that
come together leave together.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "stream_writes.py"
CHUNKS = 100


@pytest.fixture(scope="module")
def counted() -> Any:
    """Calls into the meter and writes of the worker's thread, by stretches of a stream."""
    if not Path("/proc/self/io").exists():
        pytest.skip("this kernel keeps no account of writes (/proc/PID/io)")
    done = subprocess.run(
        [sys.executable, SCRIPT, "--chunks", str(CHUNKS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def least(counted: Any, manner: str, what: str) -> int:
    """Of several stretches the least: the worker also writes to its journal, now and then and not for a
    chunk.
    """
    return min(int(stretch[what]) for stretch in counted[manner])


def test_a_chunk_that_comes_alone_leaves_at_once_with_one_call_and_one_write(counted: Any) -> None:
    assert least(counted, "lock_step", "crossings") == CHUNKS
    assert least(counted, "lock_step", "writes") == CHUNKS


def test_chunks_that_come_together_leave_together(counted: Any) -> None:
    assert least(counted, "burst", "crossings") <= CHUNKS // 10
    assert least(counted, "burst", "writes") <= CHUNKS // 10
