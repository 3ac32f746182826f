"""`make profile`: where the time of a plain chat exchange goes, function by function, in worker and writer.

    python bench/hot_path.py [--seconds 5] [--lines 30]
 py-spy samples what holds the interpreter, under the load of `make bench-ratio`. `self` is time in the Python
function itself and in the native code it calls (system calls, the meter), `with callees` also in the Python
functions below it. Garbage collection counts as the function it interrupts. Folded stacks for a flame graph
are left in bench/results.
"""

import argparse
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import ratio
import rig

HERE = Path(__file__).resolve().parent
RATE = 250
"""Samples a second."""


def sample(pid: int, seconds: float, file: Path) -> subprocess.Popen[bytes]:
    """py-spy on one process, its folded stacks to `file`."""
    spy = Path(sys.executable).parent / "py-spy"
    if not spy.exists():
        rig.stop_with("py-spy is not installed; `make profile` installs it")
    command = [
        str(spy),
        "record",
        "--format",
        "raw",
        "--rate",
        str(RATE),
        "--nonblocking",
        "--function",
        "--gil",
    ]
    command += ["--duration", str(round(seconds)), "--output", str(file), "--pid", str(pid)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def show(name: str, file: Path, lines: int) -> None:
    """The hottest functions of a profile."""
    alone: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        total += int(count)
        alone[frames[-1]] += int(count)
        for frame in set(frames):
            within[frame] += int(count)
    if not total:
        print(f"\n{name}: no samples")
        return
    for order, counted in (("self", alone), ("with callees", within)):
        print(f"\n{name}, by {order}, {total} samples\n{'self':>7}{'with callees':>14}  function")
        for frame, _ in counted.most_common(lines):
            print(f"{alone[frame] / total:>7.1%}{within[frame] / total:>14.1%}  {frame[:80]}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Profile of Farebox under load.")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--lines", type=int, default=30)
    options = parser.parse_args()
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    load_core, server_core = rig.two_cores()
    with rig.Rig(load_core, server_core) as the_rig:
        farebox = the_rig.start_farebox("farebox")
        ratio.plain_load(farebox.port, farebox.key, ratio.WARM_UP_S, load_core)
        load = threading.Thread(
            target=ratio.plain_load, args=(farebox.port, farebox.key, options.seconds + 1, load_core)
        )
        load.start()
        files = {}
        spies = []
        for pid in farebox.process.tree():
            if rig.role_of(pid) in {"worker", "writer"}:
                files[rig.role_of(pid)] = results / f"{rig.role_of(pid)}.folded"
                spies.append(sample(pid, options.seconds, files[rig.role_of(pid)]))
        for spy in spies:
            _, said = spy.communicate()
            if spy.returncode:
                rig.stop_with(f"py-spy: {said.decode(errors='replace').strip()}")
        load.join()
        print("CPU seconds by process:", farebox.process.cpu_by_name())
    for name, file in files.items():
        show(name, file, options.lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
