"""What every test shares: reference folder, programs, hypothesis profiles, and that CI skips nothing."""

import os
import tempfile
from collections.abc import Callable, Generator
from importlib import import_module
from pathlib import Path
from typing import Any

import compile_hot_path
import hypothesis
import pymongo
import pytest

import mongodb
import needs
from farebox.base import limits
from farebox.base.sources_only import VARIABLES

BENCH = Path(__file__).resolve().parents[1] / "bench"
IN_CI = os.environ.get("CI", "").lower() == "true"

hypothesis.settings.register_profile(
    "fast", max_examples=60, deadline=None, derandomize=IN_CI, print_blob=True
)
hypothesis.settings.register_profile("thorough", max_examples=5000, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("FAREBOX_HYPOTHESIS", "fast"))


def pytest_configure() -> None:
    if any(os.environ.get(name) for name in VARIABLES) or compile_hot_path.is_fresh():
        return
    if compile_hot_path.is_compiled():
        trouble = "the compiled path of an exchange is older than its sources: run `make build`"
    elif IN_CI:
        trouble = "the path of an exchange is not compiled: run `make system-deps build`"
    else:
        return
    pytest.exit(trouble, returncode=pytest.ExitCode.USAGE_ERROR)


def pytest_report_header() -> str:
    return f"seed of random disturbances: {needs.SEED} (FAREBOX_SEED repeats it)"


@pytest.fixture(scope="session")
def shared_path() -> Path:
    """The folder of reference facts and recorded bodies."""
    return needs.shared_directory()


@pytest.fixture
def short_path() -> Generator[Path, None, None]:
    """A folder whose path leaves room for folders and unix sockets below it: 107 bytes are allowed."""
    with tempfile.TemporaryDirectory(prefix="f-") as folder:
        yield Path(folder)


@pytest.fixture
def socketless(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`bench/socketless.py`: a worker whose clients and upstreams are calls."""
    monkeypatch.syspath_prepend(str(BENCH))
    return import_module("socketless")


@pytest.fixture(scope="session")
def needs_program() -> Callable[[str], str]:
    """A function from a program's name to its path, which skips the test where there is none."""
    return needs.needs_program


@pytest.fixture(scope="session")
def mongodb_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[str, None, None]:
    """The address of a MongoDB-wire server that lives as long as the tests."""
    if mongodb.NAMED_SERVER:
        yield mongodb.NAMED_SERVER
        return
    with mongodb.fast_folder(tmp_path_factory.mktemp("mongodb")) as folder:
        server = mongodb.MongoDBServer(folder)
        server.start()
        yield server.url
        server.kill()


@pytest.fixture(scope="session")
def mongodb_client(mongodb_server: str) -> Generator[Any, None, None]:
    """An operator's shell on that server."""
    with pymongo.MongoClient(mongodb_server) as client:
        yield client


@pytest.fixture
def mongodb_database(mongodb_client: Any) -> Any:
    """An empty database, as an operator with a shell sees it."""
    database = mongodb_client.get_database(f"farebox_test_{os.getpid()}")
    mongodb.empty(database)
    return database


@pytest.fixture
def mongodb_url(mongodb_server: str, mongodb_database: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty database; calls to it may take long, because this machine may be busy."""
    monkeypatch.setattr(limits, "store_timeout_s", 60.0)
    monkeypatch.setattr(limits, "store_select_timeout_s", 30.0)
    base, _, options = mongodb_server.partition("?")
    return f"{base.rstrip('/')}/{mongodb_database.name}" + (f"?{options}" if options else "")


def _skip_is_failure(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not IN_CI or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: a skip is a failure in CI: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _skip_is_failure(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _skip_is_failure(report)
    return report
