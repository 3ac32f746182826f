"""Rows S07 and S22 of the fault matrix: durability cannot be configured away, one suite holds both stores."""

import ast
from pathlib import Path

import pytest

from farebox.base.errors import StoreRefusedError
from farebox.store import open_store

STORE_TESTS = Path(__file__).parents[1] / "store"


@pytest.mark.parametrize("option", ["w=1", "journal=false", "readConcernLevel=local", "retryWrites=false"])
async def test_S07_a_url_that_would_acknowledge_what_may_be_lost_is_refused(option: str) -> None:
    with pytest.raises(StoreRefusedError, match=option.split("=", maxsplit=1)[0].lower()):
        await open_store(f"mongodb://127.0.0.1:1/farebox?{option}").open()


def test_S22_every_store_passes_the_same_contract_suite() -> None:
    """The suite's fixture is made for each implementation there is, and its tests know none of them."""
    folders = Path(open_store.__code__.co_filename).parent
    implementations = {path.parent.name for path in folders.glob("*/store.py")}
    tree = ast.parse((STORE_TESTS / "conftest.py").read_text(encoding="utf-8"))
    factories = next(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "FACTORIES"
    )
    assert isinstance(factories, ast.Dict)
    assert {key.value for key in factories.keys if isinstance(key, ast.Constant)} == implementations
    for file in STORE_TESTS.glob("test_contract_*.py"):
        named = [name for name in ("SQLiteStore", "MongoStore") if name in file.read_text(encoding="utf-8")]
        assert named == [], file
