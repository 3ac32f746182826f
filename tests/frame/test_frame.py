"""Promise: dependencies are locked by hash and name no host, CI skips nothing, help lists every command."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from needs import REPOSITORY

LOCKS = sorted((REPOSITORY / "requirements").glob("*.txt"))
LOCK_OF_EXTRA = {"test": "test.txt", "check": "check.txt", "bench": "bench.txt"}


def pinned(lock: str) -> set[str]:
    """Normalised names of the packages a lock pins."""
    text = (REPOSITORY / "requirements" / lock).read_text()
    return {
        name.lower().replace("_", "-") for name in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)
    }


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_has_a_hash_and_no_line_names_a_host(lock: Path) -> None:
    requirements = re.split(r"^(?=[A-Za-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]
    assert requirements
    for requirement in requirements:
        assert re.match(r"[A-Za-z0-9._-]+==\S+ ", requirement)
        assert "--hash=sha256:" in requirement
    assert "://" not in lock.read_text()
    assert not re.search(r"^\s*--?(index|extra-index|find-links|f|i|trusted)", lock.read_text(), re.MULTILINE)


def test_every_declared_dependency_is_locked() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    groups = {"run.txt": project["dependencies"]}
    groups |= {LOCK_OF_EXTRA[extra]: names for extra, names in project["optional-dependencies"].items()}
    for lock, requirements in groups.items():
        declared = {re.split(r"[<>=!~\[]", requirement)[0].lower() for requirement in requirements}
        assert declared <= pinned(lock)
        assert pinned("run.txt") <= pinned(lock)


def test_help_names_every_command() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    commands = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE)) - {"tools"}
    shown = subprocess.run(
        ["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert commands <= set(re.findall(r"make (\S+)", shown))


def test_missing_tool_is_one_clear_line() -> None:
    command = ["make", "--no-print-directory", "tools", "PYTHON=/nonexistent/python"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    (line,) = result.stdout.splitlines()
    assert line.startswith("Missing: Python 3.11 or newer. Install python3")


SKIPPING = """
import pytest
def test_skips(needs_program):
    needs_program("no-such-program")
@pytest.mark.xfail
def test_expected_to_fail():
    assert False
"""


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped, 1 xfailed"), ("true", "1 failed, 1 xfailed")])
def test_skip_is_a_failure_in_ci(tmp_path: Path, ci: str, outcome: str) -> None:
    (tmp_path / "conftest.py").write_text((REPOSITORY / "tests" / "conftest.py").read_text())
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    environment = {"CI": ci, "PATH": "", "PYTHONPATH": f"{REPOSITORY / 'tests'}{os.pathsep}{REPOSITORY}"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", str(tmp_path)]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout.splitlines()[-1].startswith(outcome)


def test_ci_calls_exactly_the_three_targets() -> None:
    lines = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line.startswith("make")] == [
        "make system-deps",
        "make check",
        "make test",
    ]


def test_locks_agree_because_they_share_an_environment() -> None:
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE):
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
