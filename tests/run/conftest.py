"""The command `farebox` as a person runs it: a process of its own, on a store of the test's own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Farebox:
    """Runs commands on the store `path`, which is there from the first command that makes one."""

    path: Path

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"FAREBOX_STORE": f"sqlite:///{self.path}", "PATH": "/usr/bin:/bin"}
        environment |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        command = [sys.executable, "-m", "farebox.run.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    def document(self, *arguments: str, status: int = 0) -> Any:
        """What a command prints for programs."""
        done = self(*arguments, "--json")
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout)

    def refusal(self, *arguments: str) -> str:
        """The one clear line of a command that fails."""
        done = self(*arguments)
        assert done.returncode != 0
        assert done.stdout == ""
        assert done.stderr.startswith("farebox: ")
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr


@pytest.fixture
def farebox(tmp_path: Path) -> Farebox:
    return Farebox(tmp_path / "farebox.sqlite")
