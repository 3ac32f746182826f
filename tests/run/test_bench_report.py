"""Promise: what a benchmark says of itself follows from what it measured: verdicts from medians, what Farebox
adds from like percentiles, the README's table from the committed result, and a page that needs nobody else.
"""

import dataclasses
import re
from html import escape
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.mark.parametrize(
    ("name", "rounds", "verdict"),
    [
        ("plain one core", [0.39, 0.41, 0.40], "met"),
        ("plain one core", [0.60, 0.10, 0.39], "not met"),
        ("plain one core", [0.55], "met, stretch too"),
        ("start", [0.70], "met"),
        ("start", [0.71], "not met"),
        ("plain p99", [0.75, 9.0, 0.1], "met, stretch too"),
        ("recovery", [], "not measured"),
    ],
)
def test_a_bar_is_judged_by_the_median_of_its_rounds(name: str, rounds: list[float], verdict: str) -> None:
    import bars

    assert bars.judge(name, rounds).verdict == verdict


def test_what_farebox_adds_is_the_difference_of_like_percentiles_of_one_round() -> None:
    import latency
    from results import Cell, Percentiles

    def cell(subject: str, p50: float, p99: float, failed: str = "") -> Cell:
        times = Percentiles(p50, p50, p99, p99 + 1, p99 + 9, 1000)
        return Cell(subject, "plain 0.5 KB", 9, 1000.0, first_byte_ms=times, failed=failed)

    rounds = [cell("direct", 1, 2), cell("farebox", 1.25, 4), cell("direct", 2, 3), cell("farebox", 2.5, 3.5)]
    found = latency.added([*rounds, cell("nginx", 9, 9), cell("direct", 0, 0), cell("farebox", 7, 7, "void")])
    assert (found["plain p50"], found["plain p99"]) == ([0.25, 0.5], [2, 0.5])
    assert found["streamed p50"] == []


def test_the_readme_states_what_the_committed_result_says() -> None:
    import report
    from results import REFERENCE, read

    text = report.README.read_text(encoding="utf-8")
    assert text == report.with_table(text, read(REFERENCE)), "run `make bench-reference RESULT=...`"


def test_the_page_tells_everything_and_fetches_nothing() -> None:
    import report
    from results import REFERENCE, Series, read

    result = read(REFERENCE)
    result = dataclasses.replace(
        result,
        notes=["<script>alert(1)</script>"],
        series=[Series("Memory", "MB", [0, 1, 2], {"worker": [50, 51, 51]})],
    )
    page = report.page(result)
    assert not re.findall(r"(?:src|href|url)\s*[=(]|@import|<script|https?://", page)
    assert "&lt;script&gt;" in page
    assert page.count("<svg") > 5
    for bar in result.bars:
        assert escape(bar.what) in page
    for cell in result.cells:
        assert escape(cell.load) in page


@pytest.mark.parametrize(
    ("megabytes", "descriptors", "seconds", "memory", "kept"),
    [
        ([50] * 20, 40, 3600, "met", "met"),
        ([1, 20, 40, *[50] * 17], 40, 3600, "met", "met"),
        ([50 + 2 * number for number in range(20)], 40, 3600, "not met", "met"),
        ([50 + 2 * number for number in range(20)], 40, 60, "not measured", "met"),
        ([50] * 20, 4000, 3600, "met", "not met"),
    ],
    ids=["flat", "the beginning is forgiven", "growth", "too short", "descriptors kept"],
)
def test_a_soak_sees_growth(
    megabytes: list[int], descriptors: int, seconds: float, memory: str, kept: str
) -> None:
    import soak

    at_s = [seconds * number / 21 for number in range(22)]
    sizes = [1e6 * value for value in [1, *megabytes, 1]]
    samples = soak.Samples(at_s, {"worker": sizes}, {"worker": [40.0, *[900.0] * 20, float(descriptors)]})
    found = {bar.what.split()[0]: bar.verdict for bar in soak.judged(samples)}
    assert (found["memory"], found["descriptors"]) == (memory, kept)
