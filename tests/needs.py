"""What a test needs from outside the repository, and what happens without it: a skip with the reason.

Under CI (environment variable CI=true) nothing may be missing: there the skip is a failure (see conftest.py).
"""

import os
import random
import shutil
from pathlib import Path

import pytest

SEED = int(os.environ.get("FAREBOX_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
"""Of tests that disturb at random moments; named at the head of the test report."""
os.environ["FAREBOX_SEED"] = str(SEED)  # for the processes that share the tests out

REPOSITORY = Path(__file__).resolve().parent.parent


def needs_program(name: str) -> str:
    """The path of a program of a system package; skips the test where it is not installed."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed; `make system-deps` installs it")
    return path


def shared_directory() -> Path:
    """The folder of reference facts and recorded bodies; skips the test where it is absent."""
    named = os.environ.get("FAREBOX_SHARED")
    path = Path(named) if named else REPOSITORY.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"no reference folder at {path}; name it in FAREBOX_SHARED")
    return path
