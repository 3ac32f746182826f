"""Instructions of named parts of a Python program, counted by callgrind: they do not depend on what else the
machine does.

A program under `run` marks its parts with `Marks`; between the marks nothing is instrumented, so importing
costs little. Everything is told by object file, which needs no symbols (the compiled meter, the interpreter,
the C library), and by function, where there are symbols. Calls are counted where they cross from one object
into another, and where they reach an allocating or writing function of the C library.
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
METER = "_meter.abi3.so"
EXCHANGE_PATH = "hot_path__mypyc"
"""The object file of the compiled exchange path (`compile_hot_path.py`), up to its first dot."""
ALLOCATING = frozenset(
    ("malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign", "reallocarray")
)
WRITING = frozenset(
    ("write", "writev", "pwrite", "pwrite64", "pwritev", "pwritev64", "send", "sendto", "sendmsg")
)
_MARKS = "FAREBOX_CALLGRIND_MARKS"
_RUN_S_MAX = 300
_COST = re.compile(r"(?:\d+|[+*-]\d*) (\d+)")
_ALIAS = re.compile(r"(?:__libc_|__GI_|__)?(\w+?)(?:@.*|'\d+)?")


class MissingProgramError(Exception):
    """valgrind (or a C compiler for the marks) is not there; the message says what installs it."""


@dataclass(slots=True)
class Part:
    """What one part cost, all repetitions together. Objects are file names, functions those of any object."""

    instructions: Counter[str] = field(default_factory=Counter)
    """By the object that executed them."""
    functions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The same by (object, function); a function without a symbol is an address."""
    crossings: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Calls by (calling object, called object), where the two differ."""
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Calls of allocating and writing functions of the C library from other objects, by (calling object,
    function)."""

    def entries(self, called: str) -> int:
        """Calls into an object from any other."""
        return sum(count for (_, into), count in self.crossings.items() if into == called)

    def instructions_of(self, object_beginning: str) -> int:
        """Those of all objects whose names begin so."""
        return sum(count for name, count in self.instructions.items() if name.startswith(object_beginning))

    def calls_of(self, functions: frozenset[str], calling: str | None = None) -> int:
        """Calls of any of these functions, from one object or all."""
        return sum(
            count
            for (caller, function), count in self.calls.items()
            if function in functions and calling in {None, caller}
        )


class Marks:
    """The marks, in the program that is counted; they do nothing when it runs without valgrind."""

    def __init__(self) -> None:
        path = os.environ.get(_MARKS)
        self._library = ctypes.CDLL(path) if path else None

    @property
    def counting(self) -> bool:
        """Whether this runs under callgrind."""
        return self._library is not None

    def begin(self) -> None:
        """Count from here."""
        if self._library is not None:
            self._library.count_from_here()

    def end(self, name: str) -> None:
        """What was counted since `begin` belongs to this part."""
        if self._library is not None:
            self._library.end_of_part(name.encode())


def missing() -> str | None:
    """What must be installed first, if anything."""
    absent = next((name for name in ("valgrind", "cc") if shutil.which(name) is None), None)
    return absent and f"{absent} is not installed; `make system-deps` installs it"


def run(
    command: Sequence[str | Path], environment: dict[str, str], run_s_max: float = _RUN_S_MAX
) -> tuple[dict[str, Part], str]:
    """The parts of a Python program (script and arguments) run by this interpreter, and what it printed.
    Raises MissingProgramError, RuntimeError when the program fails.
    """
    absent = missing()
    if absent is not None:
        raise MissingProgramError(absent)
    with tempfile.TemporaryDirectory(prefix="farebox-callgrind-") as name:
        folder = Path(name)
        marks = folder / "marks.so"
        build = ["cc", "-O1", "-shared", "-fPIC", "-o", marks, HERE / "marks.c"]
        _finished(build, {}, "the marks for callgrind cannot be compiled", run_s_max)
        count = [
            "valgrind",
            "--tool=callgrind",
            "--quiet",
            "--instr-atstart=no",
            "--compress-strings=no",
            "--compress-pos=no",
            f"--callgrind-out-file={folder / 'out'}",
            sys.executable,
            *command,
        ]
        settings = {"PYTHONHASHSEED": "0", _MARKS: str(marks)}
        said = _finished(count, settings | environment, "the counted program failed", run_s_max)
        found: dict[str, Part] = {}
        for path in sorted(folder.glob("out.*")):
            part_name, part = _read(path)
            if part_name:
                found[part_name] = part
        return found, said


def _finished(
    command: Sequence[str | Path], environment: dict[str, str], trouble: str, run_s_max: float
) -> str:
    done = subprocess.run(
        command,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=run_s_max,
    )
    if done.returncode:
        raise RuntimeError(f"{trouble}:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def _read(path: Path) -> tuple[str, Part]:
    """One dump in callgrind's own format (without compression); its name is empty where no mark made it."""
    part = Part()
    name = ""
    here = function = callee_object = callee = ""
    count = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, equals, value = line.rstrip("\n").partition("=")
            if not equals:
                cost = None if count else _COST.match(line)
                count = 0  # the line behind a call is the cost of what was called
                if cost is not None:
                    part.instructions[here] += int(cost.group(1))
                    part.functions[here, function] += int(cost.group(1))
                elif line.startswith("desc: Trigger: Client Request: "):
                    name = line.rpartition(": ")[2].strip()
            elif key == "ob":
                here = Path(value).name
            elif key == "fn":
                function = value
            elif key == "cob":
                callee_object = Path(value).name
            elif key == "cfn":
                callee = value
            elif key == "calls":
                count = int(value.partition(" ")[0])
                if callee_object not in {"", here}:
                    part.crossings[here, callee_object] += count
                    alias = _ALIAS.fullmatch(callee)
                    plain = alias.group(1) if alias else callee
                    if callee_object.startswith("libc") and plain in ALLOCATING | WRITING:
                        part.calls[here, plain] += count
                callee_object = ""
    return name, part
