"""Which form of the exchange path runs: compiled where it was built, the sources where they are asked for."""

import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import farebox
from farebox.base.sources_only import VARIABLES

PATH = Path(farebox.__file__).parent / "proxy" / "exchange.py"
COMPILED = [PATH.with_name("exchange" + suffix) for suffix in EXTENSION_SUFFIXES]


def loaded(**environment: str) -> Path:
    """The file that a new process has `farebox.proxy.exchange` from."""
    others = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    program = "import farebox.proxy.exchange as module; print(module.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**others, **environment},
    )
    return Path(done.stdout.strip())


def test_what_was_compiled_is_what_runs() -> None:
    expected = next((path for path in COMPILED if path.exists()), PATH)
    assert loaded() == expected


@pytest.mark.parametrize("name", VARIABLES)
def test_the_sources_run_where_they_are_asked_for(name: str, tmp_path: Path) -> None:
    assert loaded(**{name: str(tmp_path)}) == PATH
