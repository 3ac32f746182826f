"""`make profile`: where the time and the instructions of an exchange go.

    python bench/hot_path.py [--seconds 5] [--lines 15] [--no-counts] [--out FILE]

Under the load of `make bench-ratio` py-spy samples worker and writer, with native frames where the system
lets it (else Python functions alone, a function's native callees counted as itself): a flame graph of each
and its hottest functions. strace, where it is installed and allowed, counts the worker's system calls of a
plain exchange, and the kernel's own counters say what an exchange costs each thread and how long it waits
for a core (`threads.py`). Without sockets callgrind counts instructions by object file, calls into the meter,
allocations and writes of an exchange and of a streamed chunk; these do not depend on the machine's mood.
Everything is kept as one result (`results.py`), its page and the flame graphs beside it in bench/results.
"""

import argparse
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import callgrind
import compiled_names
import flame
import guard
import machine
import ratio
import report
import rig
import threads
from results import Result, Table

RATE = 250
"""Samples a second."""
COUNTED_S = 2.0
"""How long system calls are counted."""
OBJECTS_SHOWN = 8
_ADDRESS = re.compile(r"0x[0-9a-f]+ \(([^)]*)\)")
WHOLE = ("exchange, plain", "exchange, stream without chunks", "exchange, each streamed chunk")
"""The parts of `guard_parts.py` that are whole exchanges."""
METHOD = """\
Samples: py-spy, 250 a second, of what holds the interpreter; one worker and its writer under 64 connections \
of small plain exchanges. An address without a symbol is told by its object file.
Functions of the compiled exchange path are told by their Python names.
Instructions: callgrind, in user space, all threads, a whole worker without sockets; so the kernel and the \
event loop's own work are left out.
Calls into the meter: all calls into its object file, attributes and ends of objects included."""


# ---- samples -----------------------------------------------------------------------------------------------


def sample(pid: int, seconds: float, file: Path, *, native: bool) -> str:
    """Folded stacks of one process to `file`; why there are none, else empty."""
    spy = Path(sys.executable).parent / "py-spy"
    if not spy.exists():
        rig.stop_with("py-spy is not installed; `make profile` installs it")
    command = [str(spy), "record", "--format", "raw", "--rate", str(RATE), "--function", "--gil"]
    command += ["--native"] if native else ["--nonblocking"]
    command += ["--duration", str(round(seconds)), "--output", str(file), "--pid", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if not done.returncode and file.exists() else (done.stdout + done.stderr).strip()[-300:]


def sampled(pid: int, seconds: float, file: Path) -> bool:
    """The same, with native frames if they can be had; whether they were."""
    if not sample(pid, seconds, file, native=True):
        return True
    trouble = sample(pid, seconds, file, native=False)
    if trouble:
        rig.stop_with(f"py-spy: {trouble}")
    return False


def hottest(name: str, folded: str, lines: int) -> Table:
    """The functions of a profile that take most."""
    alone: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        alone[frames[-1]] += int(count)
        for frame in set(frames):
            within[frame] += int(count)
    total = max(1, alone.total())
    rows = [
        [f"{count / total:.1%}", f"{within[frame] / total:.1%}", frame[:90]]
        for frame, count in alone.most_common(lines)
    ]
    return Table(f"Hottest functions: {name}", ["self", "with callees", "function"], rows)


def system_calls(pid: int, counter: "ExchangeCount") -> tuple[list[list[str]], str]:
    """Calls of the worker for each exchange it ends meanwhile, most frequent first; why not, else empty."""
    if shutil.which("strace") is None:
        return [], "system calls were not counted: strace is not installed"
    before = counter.now()
    tracer = subprocess.Popen(
        ["strace", "-f", "-c", "-U", "calls,name", "-p", str(pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(COUNTED_S)
    tracer.terminate()
    _, said = tracer.communicate(timeout=30)
    exchanges = counter.now() - before
    found = re.findall(r"^\s*(\d+)\s+(\w+)$", said, re.MULTILINE)
    if not found or not exchanges:
        return [], f"system calls were not counted: {said.strip()[-200:]}"
    rows = [
        [name, f"{int(count) / exchanges:.2f}"]
        for count, name in sorted(found, key=lambda call: -int(call[0]))
        if name != "total" and int(count) / exchanges >= 0.005
    ]
    return rows, ""


class ExchangeCount:
    """Exchanges the upstream has served."""

    def __init__(self, the_rig: rig.Rig) -> None:
        self._rig = the_rig

    def now(self) -> int:
        return int(self._rig.served()["received"])


def under_load(result: Result, seconds: float, lines: int, folder: Path) -> None:
    """Everything that needs a running Farebox."""
    load_core, server_core = rig.two_cores()
    with rig.Rig(load_core, server_core) as the_rig:
        farebox = the_rig.start_farebox("farebox")
        pids = {rig.role_of(pid): pid for pid in farebox.process.tree()}
        pids = {role: pids[role] for role in ("worker", "writer")}
        for role, pid in pids.items():
            load = _load(farebox, 2 * seconds + 2, load_core)
            file = the_rig.folder / f"{role}.folded"
            native = sampled(pid, seconds, file)
            load.join()
            folded = compiled_names.one_frame_each(_ADDRESS.sub(r"\1", file.read_text(encoding="utf-8")))
            drawing = folder / f"{role}.svg"
            title = f"Farebox {role}, plain exchanges{'' if native else ', Python functions alone'}"
            drawing.write_text(flame.draw(flame.tree(folded), title), encoding="utf-8")
            result.tables.append(hottest(role, folded, lines))
            result.notes.append(f"{drawing.name}: flame graph of the {role}")
            if not native:
                result.notes.append(f"{role}: py-spy got no native frames here")
        load = _load(farebox, COUNTED_S + 2, load_core)
        rows, trouble = system_calls(pids["worker"], ExchangeCount(the_rig))
        load.join()
        result.notes += [trouble] if trouble else []
        if rows:
            result.tables.append(
                Table("System calls of the worker, each plain exchange", ["call", "each"], rows)
            )
        the_rig.stop(farebox.process)
        result.tables.append(threads.measure(the_rig, seconds))


def _load(farebox: rig.FareboxUnderTest, seconds: float, core: int) -> threading.Thread:
    load = threading.Thread(target=ratio.plain_load, args=(farebox.port, farebox.key, seconds, core))
    load.start()
    return load


# ---- counts ------------------------------------------------------------------------------------------------


def counted(result: Result, lines: int) -> None:
    """What callgrind counts. Raises callgrind.MissingProgramError."""
    parts, told = guard.count({})
    objects: Counter[str] = Counter()
    for name in WHOLE:
        objects.update(parts[name].instructions)
    shown = [name for name, _ in objects.most_common(OBJECTS_SHOWN)]
    rows = []
    for name in WHOLE:
        each = told[name]["times"]
        spent = parts[name].instructions
        rest = spent.total() - sum(spent[one] for one in shown)
        figures = [spent.total(), *(spent[one] for one in shown), rest]
        rows.append([name, *(f"{figure / each:,.0f}" for figure in figures)])
    head = ["", "all", *(one.partition(".cpython")[0] for one in shown), "others"]
    result.tables.append(Table("Instructions by object file, each time", head, rows))
    plain, times = parts[WHOLE[0]], told[WHOLE[0]]["times"]
    result.tables.append(by_function(WHOLE[0], plain.functions, times, lines))
    path = {at: count for at, count in plain.functions.items() if at[0].startswith(callgrind.EXCHANGE_PATH)}
    result.tables.append(by_function(f"compiled exchange path, {WHOLE[0]}", path, times, lines))
    kinds = [kind for kind in guard.KINDS if kind not in guard.INSTRUCTIONS]
    figures_of = guard.measure()
    result.tables.append(
        Table(
            "Counts, each time",
            ["", *(guard.KINDS[kind].what for kind in kinds)],
            [[name, *(f"{figures_of[name].get(kind, 0):,.2f}" for kind in kinds)] for name in WHOLE],
        )
    )


def by_function(name: str, functions: Mapping[tuple[str, str], int], times: float, lines: int) -> Table:
    """The functions that execute most instructions; those without symbols by their object file."""
    spent: Counter[str] = Counter()
    for (where, symbol), count in functions.items():
        spent[where if symbol.startswith("0x") else compiled_names.legible(symbol)] += count
    total = max(1, spent.total())
    rows = [
        [f"{count / times:,.0f}", f"{count / total:.1%}", function[:90]]
        for function, count in spent.most_common(lines)
    ]
    return Table(f"Instructions by function, {name}", ["each", "share", "function"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="Profile of Farebox: samples under load, and counts.")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--lines", type=int, default=15, help="functions in each table")
    parser.add_argument("--no-counts", action="store_true", help="samples alone")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = Result("profile", machine=machine.facts(), versions=machine.versions())
    result.method = METHOD.splitlines()
    path = options.out or result.default_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    under_load(result, options.seconds, options.lines, path.parent)
    if not options.no_counts:
        try:
            counted(result, options.lines)
        except callgrind.MissingProgramError as error:
            result.notes.append(f"nothing was counted: {error}")
    print("\n".join([*(report.as_text(table) for table in result.tables), "", *result.notes]))
    print(f"\n{result.write(path)}")
    print(report.write_page(result, path.with_suffix(".html")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
