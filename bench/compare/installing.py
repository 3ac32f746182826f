"""Peers from the package registries, each into a folder of its own under the cache; nothing is global.

A finished installation is not repeated. Whatever fails becomes one CannotRunError that quotes the tool's last
lines.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from compare.peer import CannotRunError

INSTALL_LIMIT_S = 1800
LAST_LINES = 3


def python_packages(cache: Path, name: str, requirements: Sequence[str]) -> Path:
    """A virtual environment with `requirements`; its folder of programs."""
    folder = cache / name
    if not (folder / "installed").exists():
        run([sys.executable, "-m", "venv", "--clear", str(folder)], folder.parent)
        run([str(folder / "bin" / "pip"), "install", "--quiet", *requirements], folder)
        (folder / "installed").write_text("\n".join(requirements))
    return folder / "bin"


def node_package(cache: Path, name: str, package: str) -> Path:
    """A folder with `package` (`name@version`) and what it needs in `node_modules`."""
    folder = cache / name
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        run(
            [
                "npm",
                "install",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--prefix",
                str(folder),
                package,
            ],
            folder,
        )
        (folder / "installed").write_text(package)
    return folder


def go_program(cache: Path, name: str, module: str, version: str, stub: str) -> Path:
    """The program of a Go module. `stub`: a page of its web front end, which registries do not have; an empty
    one is embedded in its place.
    """
    folder = cache / name
    program = folder / name
    if not program.exists():
        source = folder / "source"
        shutil.rmtree(source, ignore_errors=True)
        copied = shutil.copytree(go_module(cache, module, version), source)
        run(["chmod", "-R", "u+w", str(copied)], folder)
        page = source / stub
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("<html></html>\n")
        build = ["go", "build", "-p", "1", "-ldflags", f"-X {module}/common.Version={version}"]
        run([*build, "-o", str(program), "."], source, GOMAXPROCS="1")
    return program


def go_module(cache: Path, module: str, version: str) -> Path:
    """The read-only folder of a module's sources."""
    cache.mkdir(parents=True, exist_ok=True)
    said = run(["go", "mod", "download", "-json", f"{module}@{version}"], cache)
    return Path(json.loads(said)["Dir"])


def run(command: Sequence[str], folder: Path, **environment: str) -> str:
    """Run one step, niced; what it printed. Raises CannotRunError."""
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.which(command[0]) is None:
        raise CannotRunError(f"{command[0]} is not installed")
    try:
        done = subprocess.run(
            ["nice", "-n", "10", *command],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_LIMIT_S,
            env={**os.environ, **environment},
        )
    except subprocess.TimeoutExpired:
        raise CannotRunError(f"`{' '.join(command[:3])}` took more than {INSTALL_LIMIT_S} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing was said").splitlines()
        raise CannotRunError(f"`{' '.join(command[:3])}` failed: {' '.join(said[-LAST_LINES:])}")
    return done.stdout
