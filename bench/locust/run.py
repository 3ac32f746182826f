"""`make locust`: the locust files, headless, against Farebox on the benchmark's rig; void unless the books
are right.

python bench/locust/run.py [--seconds 5] [--users 20]
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The folder of the rig comes last: it holds this folder too, which must not hide the package locust.
sys.path.append(str(HERE.parent))

import ratio  # noqa: E402
import rig  # noqa: E402

FILES = ("chat_plain.py", "chat_streamed.py")


def run_file(file: str, farebox: rig.FareboxUnderTest, users: int, seconds: int, core: int) -> int:
    """One locust file; its status."""
    command = [sys.executable, "-m", "locust", "-f", str(HERE / file), "--headless", "--only-summary"]
    command += ["--users", str(users), "--spawn-rate", str(users), "--run-time", f"{seconds}s"]
    command += ["--stop-timeout", "10", "--host", f"http://127.0.0.1:{farebox.port}"]
    environment = {**os.environ, "FAREBOX_KEY": farebox.key, "FAREBOX_MODEL": rig.MODEL}
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return subprocess.run(command, env=environment, cwd=HERE, check=False).returncode
    finally:
        os.sched_setaffinity(0, allowed)


def main() -> int:
    parser = argparse.ArgumentParser(description="Locust against Farebox.")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--users", type=int, default=20)
    options = parser.parse_args()
    load_core, server_core = rig.two_cores()
    status = 0
    with rig.Rig(load_core, server_core) as the_rig:
        before = the_rig.served()
        farebox = the_rig.start_farebox("farebox")
        for file in FILES:
            print(f"== {file}, {options.users} users, {options.seconds} s", flush=True)
            status |= run_file(file, farebox, options.users, options.seconds, load_core)
        rig.settle(farebox.process)
        ratio.check_books(farebox, before, the_rig.served())
        print("verify clean, charges agree with the upstream's log")
    return status


if __name__ == "__main__":
    sys.exit(main())
