"""Hole 43: no worker carries a store client, so that no slow database ever holds up its event loop."""

import subprocess
import sys


def test_hole_43_a_worker_process_loads_no_store_client() -> None:
    program = "import farebox.run.worker_process, sys; print({'sqlite3', 'pymongo'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
