"""Export: lines that fit their schema and add up, complete and without doubles, whatever interrupts it."""

import base64
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from credits.legacy_data import LegacyData, write_dump
from farebox.base import limits
from farebox.base.errors import UsageError
from farebox.base.records import LotAmount
from farebox.credits.export import Export
from farebox.credits.export_schema import SCHEMAS
from farebox.credits.import_legacy import Import
from farebox.credits.import_report import ImportReport
from farebox.store.base import Event, Store
from farebox.store.legacy import open_source

NOW = 1_770_000_000_000
STORES = ("sqlite",)


@pytest.fixture(autouse=True)
async def filled(store, tmp_path):
    """Users with opening balances and old logs."""
    write_dump(tmp_path / "dump", LegacyData(120, 400))
    await Import(store, open_source(str(tmp_path / "dump")), ImportReport(False), NOW).run()


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr(limits, "export_page_rows", 50)


def lines(folder: Path, table: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{table}.ndjson").read_bytes().splitlines()]


async def export(store: Store, folder: Path, stop_at: int = 10**9) -> None:
    calls = 0

    def on_progress(what: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls > stop_at:
            raise KeyboardInterrupt

    with Export(folder) as files:
        await files.run(store, on_progress)


async def test_M1_an_export_adds_up(store, tmp_path):
    await export(store, tmp_path / "out")
    sums: dict[tuple[str, str], Decimal] = {}
    for row in lines(tmp_path / "out", "transactions"):
        where = row["user_id"], row["pool"]
        sums[where] = sums.get(where, Decimal(0)) + Decimal(row["amount"])
        assert sum(Decimal(part["amount"]) for part in row["lots"]) == Decimal(row["amount"])
    balances = lines(tmp_path / "out", "balances")
    assert len(balances) == 120
    for user in balances:
        for pool in ("credits", "refCredits", "creditsNew", "credits_permanent", "credits_monthly"):
            assert Decimal(user[pool]) == sums.get((user["user_id"], pool), 0)
    assert len({row["_id"] for row in lines(tmp_path / "out", "request_logs")}) == 400


@pytest.mark.parametrize("stop_at", [0, 1, 5, 7, 11])
async def test_an_interrupted_export_ends_the_same(store, tmp_path, stop_at):
    await export(store, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        await export(store, tmp_path / "cut", stop_at)
    for table in SCHEMAS:
        with (tmp_path / "cut" / f"{table}.ndjson").open("ab") as file:
            file.write(b'{"half a li')
    await export(store, tmp_path / "cut")
    for table in SCHEMAS:
        name = f"{table}.ndjson"
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


_READ = {
    "STRING": lambda value: isinstance(value, str),
    "BIGNUMERIC": lambda value: isinstance(value, str) and Decimal(value).is_finite(),
    "INT64": lambda value: type(value) is int,
    "BOOL": lambda value: isinstance(value, bool),
    "TIMESTAMP": lambda value: value.endswith("Z") and datetime.fromisoformat(value) is not None,
    "JSON": lambda value: isinstance(value, dict),
}


def fits(value: object, column: dict) -> bool:
    if column["mode"] == "REPEATED":
        return all(fits(part, {**column, "mode": "REQUIRED"}) for part in value)
    if value is None:
        return column["mode"] == "NULLABLE"
    if column["type"] == "RECORD":
        return fits_all(value, column["fields"])
    return _READ[column["type"]](value)


def fits_all(row: dict, columns: list[dict]) -> bool:
    return set(row) == {column["name"] for column in columns} and all(
        fits(row[column["name"]], column) for column in columns
    )


async def test_every_line_fits_the_schema_beside_it(store, tmp_path):
    part = LotAmount("5" * 24, "credits_monthly", 7)
    (row,) = (await store.transactions("user-000001", 1))[:1]
    row = type(row)("user-000001", "earned_subscription", "inv", part.pool, 7, (part,), "renewal", NOW)
    await store.apply_event(Event((row,)), NOW)
    await export(store, tmp_path / "out")
    for table in SCHEMAS:
        schema = json.loads((tmp_path / "out" / f"{table}.schema.json").read_bytes())
        rows = lines(tmp_path / "out", table)
        assert rows
        assert [row for row in rows if not fits_all(row, schema)] == []
    names = {column["name"] for column in SCHEMAS["balances"]}
    assert {"credits_monthly", "credits_permanent"} <= names
    assert {row["pool"] for row in lines(tmp_path / "out", "transactions")} >= {"credits_monthly"}


async def test_a_folder_of_something_else_is_left_alone(store, tmp_path):
    (tmp_path / "balances.ndjson").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        Export(tmp_path)
    await export(store, tmp_path / "out")
    with pytest.raises(UsageError, match="is complete"):
        Export(tmp_path / "out")


async def test_files_that_lost_their_end_are_not_continued(store, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        await export(store, tmp_path / "out", 3)
    (tmp_path / "out" / "balances.ndjson").write_bytes(b"")
    with pytest.raises(UsageError, match="shorter"):
        Export(tmp_path / "out")
    (tmp_path / "out" / "export.state.json").write_text(base64.b64encode(b"x").decode())
    with pytest.raises(UsageError, match="damaged"):
        Export(tmp_path / "out")
