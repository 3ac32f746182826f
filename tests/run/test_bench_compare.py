"""Promise: the comparison with other gateways says what was measured: medians against nginx's of the same
turns, every answer nobody paid for, every lost charge; a later run of one gateway leaves the others alone;
and the committed table is generated.
"""

import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package bench/compare as `python -m compare` imports it, with what it uses of bench/."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "bench"))
    before = set(sys.modules)
    import results
    from compare import comparison, money, peer, quota_database

    yield SimpleNamespace(
        comparison=comparison, money=money, peer=peer, quota_database=quota_database, results=results
    )
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(REPOSITORY / "bench")):
            del sys.modules[name]


def cells(compare: Any, subject: str, rates: list[tuple[float, float]], chunk_us: float) -> list[Any]:
    """Rounds of (requests a second, busy), and one streamed cell."""
    cell = compare.results.Cell
    plain = [cell(subject, "plain", 64, per_s=per_s, busy=busy, cpu_us=100.0) for per_s, busy in rates]
    return [*plain, cell(subject, "streamed", 50, chunk_cpu_us=chunk_us)]


def measured(compare: Any, name: str, rates: list[tuple[float, float]], **more: Any) -> Any:
    comparison = compare.comparison
    nginx = cells(compare, comparison.baseline_of(name), [(40_000, 1.0), (20_000, 0.5), (1, 1.0)], 10.0)
    found = [*cells(compare, name, rates, 15.0), *nginx]
    return comparison.Measured(name, "v1", "everything", cells=found, **more)


def outcome(compare: Any, letter: str, answered: int, billed: int, balance: float) -> Any:
    money = compare.money
    asked = {experiment.letter: experiment for experiment in money.EXPERIMENTS}[letter]
    books = compare.peer.Books(billed, Fraction(balance))
    return money.Outcome(asked, answered, answered, {200: answered, 402: asked.sent - answered}, books)


def test_rates_are_medians_at_a_full_core_beside_nginx_of_the_same_turns(compare: Any) -> None:
    one = measured(compare, "gate", [(8000, 1.0), (5000, 0.5), (100, 1.0)], resident_bytes=150 * 2**20)
    row = compare.comparison.speed_row(one)
    assert row == ["gate", "v1", "everything", "8,000", "0.2", "100", "15.0", "1.5", "150"]


@pytest.mark.parametrize(
    ("letter", "answered", "billed", "balance", "told"),
    [
        ("A", 5, 5, 0, "5"),
        ("A", 4, 4, 1, "4"),
        ("A", 200, 200, -195, "200 (195 unpaid), balance -195.0"),
        ("B", 515, 515, -295.25, "515 (295 unpaid), balance -295.2"),
        ("B", 220, 219, 1, "220, 219 charged"),
        ("C", 500, 500, 4500, "500 of 500"),
        ("C", 500, 484, 4516, "484 of 500 (16 lost)"),
    ],
)
def test_what_is_wrong_with_the_money_is_told(
    compare: Any, letter: str, answered: int, billed: int, balance: float, told: str
) -> None:
    assert compare.money.told(outcome(compare, letter, answered, billed, balance)) == told


def test_a_later_run_replaces_the_rows_of_its_gateways_alone(compare: Any) -> None:
    comparison, result = compare.comparison, compare.results.Result
    old_run = [
        measured(compare, "one", [(100, 1.0)], outcomes=[outcome(compare, "A", 200, 200, -195)]),
        measured(compare, "two", [(200, 1.0)]),
        comparison.Measured("three", missing="does not build"),
    ]
    old = result("compare", cells=[cell for one in old_run for cell in one.cells])
    old.tables = comparison.tables(old_run)
    new_run = [measured(compare, "three", [(300, 1.0)]), measured(compare, "one", [(400, 1.0)])]
    new = result("compare", cells=[cell for one in new_run for cell in one.cells])
    new.tables = comparison.tables(new_run)

    rows = {table.title: table.rows for table in comparison.merged(old, new).tables}

    assert [(row[0], row[3]) for row in rows[comparison.SPEED]] == [
        ("one", "400"),
        ("two", "200"),
        ("three", "300"),
    ]
    assert rows[comparison.MISSING] == rows[comparison.MONEY] == rows[comparison.DETAIL] == []
    assert len([cell for cell in new.cells if cell.subject == "one"]) == 2
    assert len([cell for cell in new.cells if cell.subject == comparison.baseline_of("two")]) == 4


def test_a_failure_is_told_in_one_line_with_the_end_of_its_log(compare: Any) -> None:
    said = compare.comparison.reason("bench: gate is not ready:\nstarting\n\x1b[31mno database\x1b[0m\n")
    assert said == "gate is not ready: no database"


def test_quota_tables_tell_charges_and_the_smaller_balance(compare: Any, tmp_path: Path) -> None:
    import sqlite3

    tables = compare.quota_database
    with sqlite3.connect(tmp_path / "gateway.db") as database:
        for name, columns in {
            "users": "id INTEGER PRIMARY KEY, username, password, display_name, role, status, quota, `group`,"
            " access_token, aff_code",
            "tokens": "id INTEGER PRIMARY KEY, user_id, key, status, name, expired_time, remain_quota",
            "logs": "id INTEGER PRIMARY KEY, type, token_name",
        }.items():
            database.execute(f"CREATE TABLE {name} ({columns})")
    database.close()
    gateway = tables.QuotaDatabase(tmp_path / "gateway.db")
    key = gateway.new_key(10 * tables.QUOTA_PER_REQUEST)
    assert gateway.books(key) == compare.peer.Books(0, Fraction(10))
    with sqlite3.connect(tmp_path / "gateway.db") as database:
        database.execute("UPDATE users SET quota = quota - ?", (12 * tables.QUOTA_PER_REQUEST,))
        database.executemany(
            "INSERT INTO logs (type, token_name) VALUES (?, ?)",
            [(kind, key.removeprefix("sk-")) for kind in (1, 2, 2)],
        )
    database.close()
    assert gateway.books(key) == compare.peer.Books(2, Fraction(-2))


def test_the_committed_tables_are_generated(compare: Any) -> None:
    page = (REPOSITORY / "docs" / "BENCH.md").read_text(encoding="utf-8")
    reference = compare.results.read(REPOSITORY / "bench" / "results" / "compare.json")
    assert compare.comparison.with_tables(page, reference) == page
