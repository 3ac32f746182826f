"""A store with a shop in front of it: users, orders, payments as providers tell them, and the clock."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from credits.shop import Shop
from farebox.store.base import Store
from farebox.store.sqlite import SQLiteStore

FACTORIES: dict[str, Callable[[Path], Store]] = {"sqlite": lambda folder: SQLiteStore(folder / "store.db")}


@pytest.fixture(params=sorted(FACTORIES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = FACTORIES[request.param](tmp_path)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def shop(store: Store) -> Shop:
    return Shop(store)
