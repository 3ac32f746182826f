"""Promise: a benchmark's result is read back as it was written, and its percentiles are latencies that were
measured, none of them too small.
"""

import json
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Any:
    """bench/results.py as the scripts import it."""
    monkeypatch.syspath_prepend(str(BENCH))
    import results

    return results


@pytest.mark.parametrize(
    ("count", "p50", "p90", "p99", "p999"),
    [
        (1, 1, 1, 1, 1),
        (2, 1, 2, 2, 2),
        (100, 50, 90, 99, 100),
        (1000, 500, 900, 990, 999),
        (1001, 501, 901, 991, 1000),
    ],
)
def test_percentiles_are_the_smallest_values_that_enough_do_not_exceed(
    results: Any, count: int, p50: int, p90: int, p99: int, p999: int
) -> None:
    found = results.Percentiles.of(float(value) for value in range(count, 0, -1))
    assert (found.p50, found.p90, found.p99, found.p999) == (p50, p90, p99, p999)
    assert (found.max, found.count) == (count, count)


def test_there_are_no_percentiles_of_nothing(results: Any) -> None:
    assert results.Percentiles.of([]) is None


def test_a_result_is_read_as_it_was_written(results: Any, tmp_path: Path) -> None:
    written = results.Result("bench", quick=True, machine={"cores": 2}, versions={"nginx": "1"})
    cell = results.Cell(
        "nginx", "plain 0.5 KB", 200, per_s=45_000.5, whole_ms=results.Percentiles.of([1.5, 2])
    )
    written.cells = [cell, results.Cell("farebox", "plain 0.5 KB", 1, failed="void: charges differ")]
    written.bars = [results.Bar("start", "≤ 0.7 s", value=0.6, rounds=[0.6, 0.5], verdict=results.MET)]
    written.tables = [results.Table("money", ["gateway"], [["one"]])]
    written.series = [results.Series("memory", "MB", [0, 1], {"worker": [1, 2]})]
    path = written.write(tmp_path / "folder" / "one.json")
    assert results.read(path) == written
    assert [file.name for file in path.parent.iterdir()] == ["one.json"]
    assert results.find(written.cells, "nginx", "plain 0.5 KB", 200) == cell
    assert results.find(written.cells, "farebox", "plain 0.5 KB", 1) is None, "a void cell has no figures"


def test_another_format_is_refused(results: Any, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(json.dumps({"format": 0}))
    with pytest.raises(ValueError, match="no benchmark result of format 1"):
        results.read(tmp_path / "old.json")
