"""Every store, opened and empty; the request log's expiry is far off, because tests choose their own now."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from farebox.store.base import Store
from farebox.store.mongo import MongoStore
from farebox.store.sqlite import SQLiteStore

LOG_TTL_DAYS = 100_000
ALL = ("mongo", "sqlite")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "store" in metafunc.fixturenames:
        metafunc.parametrize("store", getattr(metafunc.module, "STORES", ALL), indirect=True)


@pytest.fixture
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store = SQLiteStore(tmp_path / "store.db")
    if request.param == "mongo":
        opened = MongoStore(request.getfixturevalue("mongodb_url"), log_ttl_days=LOG_TTL_DAYS)
    await opened.open()
    yield opened
    await opened.close()
