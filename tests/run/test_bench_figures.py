"""Promise: the benchmark's last line says what its documentation says, from medians, and never lets a busy
machine flatter one side.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def ratio(monkeypatch: pytest.MonkeyPatch) -> Any:
    """bench/ratio.py as the script imports it."""
    monkeypatch.syspath_prepend(str(BENCH))
    spec = importlib.util.spec_from_file_location("ratio", BENCH / "ratio.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ratio", module)
    spec.loader.exec_module(module)
    return module


def measured(ratio: Any, **rounds: list[Any]) -> Any:
    bench = ratio.Bench(None, 1.0)
    bench.rounds = {name.replace("_", " "): found for name, found in rounds.items()}
    return bench


def test_ratios_are_of_medians_as_measured_and_at_a_full_core(ratio: Any) -> None:
    bench = measured(
        ratio,
        nginx_plain=[ratio.Round(20_000, 20, 0.5), ratio.Round(40_000, 20, 1.0), ratio.Round(1, 20, 1.0)],
        farebox_plain=[ratio.Round(12_000, 80, 1.0)] * 3,
        worker_plain=[ratio.Round(10_000, 50, 0.5)] * 3,
        nginx_streamed=[ratio.Round(25_000, 10, 0.2)] * 3,
        farebox_streamed=[ratio.Round(25_000, 15, 0.3)] * 3,
    )
    found = ratio.figures(bench)
    assert found["plain_rps_ratio"] == 0.6
    assert found["plain_full_core_ratio"] == 0.3
    assert found["worker_full_core_ratio"] == 0.5
    assert found["worker_rps_ratio"] == 0.5
    assert found["chunk_cpu_ratio"] == 1.5
    assert found["plain_cpu_ratio"] == 4.0
    assert found["nginx_plain_rps"] == 20_000
    assert found["nginx_plain_full_core_rps"] == 40_000


def test_M7_a_run_whose_charges_are_not_what_was_served_is_void(ratio: Any) -> None:
    class Told:
        def __init__(self, charges: int, charged: str, clean: bool = True) -> None:
            self.answers = {
                "verify": {"clean": clean, "pending": {}, "parked_total": 0},
                "audit": {"clean": True, "charges": charges, "charged": charged, "mismatches": []},
            }

        def command(self, name: str, *_: str) -> dict[str, Any]:
            return self.answers[name]

    before = {"received": 10, "usage": {"input": 120, "output": 50}}
    after = {"received": 12, "usage": {"input": 144, "output": 60}}
    ratio.check_books(Told(2, "0.00013"), before, after)
    for wrong in (Told(3, "0.00013"), Told(2, "0.00014"), Told(2, "0.00013", clean=False)):
        with pytest.raises(SystemExit):
            ratio.check_books(wrong, before, after)
