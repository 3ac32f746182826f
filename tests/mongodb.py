"""A MongoDB-wire server for tests: SecantusDB as a process of its own, or the server named in
FAREBOX_TEST_MONGODB_URI.

SecantusDB keeps its data in WiredTiger and speaks the real protocol over a real connection. What it does
otherwise than mongod stands in docs/DECISIONS.md.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo import DeleteMany
from pymongo.errors import PyMongoError

from farebox.run.demo.processes import free_port

NAMED_SERVER = os.environ.get("FAREBOX_TEST_MONGODB_URI", "")
_START_S = 60.0


class MongoDBServer:
    """SecantusDB on a free port of loopback; it can be killed and started again on the same data.

    It is started without `--sync-on-commit`: that a write is on disk when it is acknowledged is for the store
    to ask for.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and return when it answers."""
        command = [program(), "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--storage-path", str(self.folder / "data"), "--log-level", "WARNING", *self.options]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while not answers(self.url):
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def fast_folder(otherwise: Path) -> Iterator[Path]:
    """A folder in memory, where a sync costs nothing, for tests that do not look at disks."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="mongodb-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def program() -> str:
    """The server's program; skips the test where it is not installed."""
    beside = Path(sys.executable).with_name("secantusd-py")
    found = str(beside) if beside.exists() else shutil.which("secantusd-py")
    if found is None:
        pytest.skip("secantusd-py is not installed; `make test` installs it")
    return found


def answers(url: str) -> bool:
    """Whether a server at this address answers."""
    with pymongo.MongoClient(url, serverSelectionTimeoutMS=500) as client:
        try:
            client.admin.command("hello")
        except PyMongoError:
            return False
        return True


def empty(database: Any) -> None:
    """Remove what a test left, and keep what opening a store makes: that takes longer than the test."""
    removals = [
        DeleteMany(
            {"_id": {"$ne": "schema"}} if name == "farebox_meta" else {}, namespace=f"{database.name}.{name}"
        )
        for name in database.list_collection_names()
    ]
    if removals:
        database.client.bulk_write(removals)
