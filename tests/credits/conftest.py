"""A store with a shop in front of it: users, orders, payments as providers tell them, and the clock.

`store` is every implementation; a file whose tests do not depend on it may name one (`STORES`).
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from credits.shop import Shop
from credits.tampering import TamperMongoDB, TamperSQLite
from farebox.store.base import Store
from farebox.store.mongo import MongoStore
from farebox.store.sqlite import SQLiteStore

Tamper = TamperSQLite | TamperMongoDB
ALL = ("mongo", "sqlite")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "implementation" in metafunc.fixturenames:
        stores = getattr(metafunc.module, "STORES", ALL)
        metafunc.parametrize("implementation", stores, indirect=True)


@pytest.fixture
def implementation(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Tamper]:
    if request.param == "sqlite":
        path = tmp_path / "store.db"
        return SQLiteStore(path), TamperSQLite(path)
    database = request.getfixturevalue("mongodb_database")
    return MongoStore(request.getfixturevalue("mongodb_url")), TamperMongoDB(database)


@pytest.fixture
async def store(implementation: tuple[Store, Tamper]) -> AsyncIterator[Store]:
    opened, _ = implementation
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def tamper(implementation: tuple[Store, Tamper]) -> Tamper:
    """Changes of the store's data that Farebox did not make."""
    return implementation[1]


@pytest.fixture
def shop(store: Store) -> Shop:
    return Shop(store)


@pytest.fixture
async def sound(shop):
    """Alice shops, and at the end her rows, lots and balances add up."""
    await shop.user("alice")
    yield
    await shop.sound()
