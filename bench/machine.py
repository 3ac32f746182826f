"""What a benchmark ran on: processor, cores, memory, kernel, and the versions of the programs involved."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import farebox

REPOSITORY = Path(__file__).resolve().parent.parent
_SYSTEM_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def facts() -> dict[str, str | int | float]:
    """The machine, with what else it was doing before the run."""
    return {
        "processor": _line("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "virtual": "yes" if re.search(r"\bhypervisor\b", _text("/proc/cpuinfo")) else "no",
        "system": _line("/etc/os-release", r'PRETTY_NAME="?([^"\n]+)') or platform.system(),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Versions of everything that takes part; a program that is missing is left out."""
    found = {
        "python": f"{platform.python_version()} ({platform.python_compiler()})",
        "farebox": farebox.__version__,
        "commit": commit(),
        "exchange path": "compiled" if path_is_compiled() else "interpreted",
    }
    for program, arguments, pattern in (
        ("nginx", ["-v"], r"nginx/(\S+)"),
        ("wrk", ["-v"], r"wrk (?:debian/)?(\S+)"),
    ):
        said = _said(program, arguments)
        match = re.search(pattern, said)
        if match:
            found[program] = match.group(1)
    return found


def path_is_compiled() -> bool:
    """Whether the path of an exchange runs as machine code (`compile_hot_path.py`)."""
    found = importlib.util.find_spec("farebox.ledger.user_lease")
    return found is not None and not (found.origin or "").endswith(".py")


def commit() -> str:
    """The commit of the sources, marked when they were changed since; empty outside of a repository."""
    head = _said("git", ["-C", str(REPOSITORY), "rev-parse", "--short=12", "HEAD"]).strip()
    changed = _said("git", ["-C", str(REPOSITORY), "status", "--porcelain", "--untracked-files=no"]).strip()
    return f"{head} with changes" if head and changed else head


def _said(program: str, arguments: list[str]) -> str:
    path = shutil.which(program, path=_SYSTEM_PATH)
    if path is None:
        return ""
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False, timeout=30)
    return done.stdout + done.stderr if program != "git" or not done.returncode else ""


def _line(path: str, pattern: str) -> str:
    match = re.search(pattern, _text(path))
    return match.group(1).strip() if match else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
