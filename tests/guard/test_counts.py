"""Promise: an exchange never comes to cost more unnoticed. What the compiled meter, Farebox's Python, the
allocator and the kernel are asked to do for it is counted under callgrind and compared with the committed
baseline (`bench/guard_baseline.json`, written by `make guard-baseline`). Counts do not depend on how busy the
machine is, and to need less never fails.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
ISA = "x86_64 with avx2"


def scan_of(instructions: float) -> dict[str, dict[str, float]]:
    """Figures of one part that the meter alone executes."""
    return {"scan": {"meter_instructions": instructions}}


pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def guard() -> Any:
    """bench/guard.py, imported as the script that it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        patch.delitem(sys.modules, "guard", raising=False)
        return importlib.import_module("guard")


@pytest.fixture(scope="module")
def counted(guard: Any) -> Any:
    """Everything counted once; skips where valgrind is missing."""
    try:
        return guard.measure()
    except guard.callgrind.MissingProgramError as error:
        pytest.skip(str(error))


def exceeding(guard: Any, counted: Any, *kinds: str) -> list[str]:
    found = guard.rows(counted, guard.Baseline.read(), guard.instruction_set())
    compared = [row for row in found if row.kind in kinds]
    assert compared
    return [str(row) for row in compared if row.exceeds]


def test_scan_tap_price_frames_and_the_compiled_path_take_no_more_instructions_than_the_baseline(
    guard: Any, counted: Any
) -> None:
    if guard.instruction_set() not in guard.Baseline.read().instructions:
        pytest.skip(f"the baseline has no instructions of {guard.instruction_set()}")
    assert exceeding(guard, counted, "meter_instructions", "path_instructions") == []


def test_hold_and_settle_and_exchanges_run_no_more_python_than_the_baseline(guard: Any, counted: Any) -> None:
    assert exceeding(guard, counted, "python_lines") == []


def test_no_more_allocations_than_the_baseline(guard: Any, counted: Any) -> None:
    assert exceeding(guard, counted, "allocations", "meter_allocations") == []


def test_no_more_calls_into_the_meter_and_no_more_writes_than_the_baseline(guard: Any, counted: Any) -> None:
    assert exceeding(guard, counted, "meter_entries", "socket_writes", "file_writes") == []


def test_a_streamed_chunk_is_one_call_into_the_meter_and_one_write(counted: Any) -> None:
    chunk = counted["exchange, each streamed chunk"]
    assert (round(chunk["meter_entries"]), round(chunk["socket_writes"])) == (1, 1)
    assert "file_writes" not in chunk


def test_large_bodies_cost_the_meter_no_call_and_no_allocation_for_each_kibibyte(counted: Any) -> None:
    for part in ("scan, KiB of a large prompt", "tap, KiB of a large usage line"):
        assert counted[part].get("meter_entries", 0) < 0.1
        assert counted[part].get("meter_allocations", 0) < 0.1


COMPARED = {
    "as the baseline": (100.0, 1.0, []),
    "within the tolerance": (109.0, 1.4, []),
    "more instructions": (111.0, 1.0, ["meter_instructions"]),
    "one call more": (100.0, 2.0, ["meter_entries"]),
    "less of everything": (10.0, 0.0, []),
}


@pytest.mark.parametrize(("instructions", "entries", "exceed"), COMPARED.values(), ids=COMPARED)
def test_more_than_the_tolerance_fails_and_less_never_does(
    guard: Any, instructions: float, entries: float, exceed: list[str]
) -> None:
    baseline = guard.Baseline({ISA: scan_of(100.0)}, {"scan": {"meter_entries": 1.0}})
    figures = {"scan": {"meter_instructions": instructions, "meter_entries": entries}}
    rows = guard.rows(figures, baseline, ISA)
    assert [row.kind for row in rows if row.exceeds] == exceed
    assert [row.is_stale for row in rows] == ([True, True] if instructions == 10 else [False, False])


def test_a_part_without_a_baseline_fails_and_another_instruction_set_compares_counts_alone(
    guard: Any,
) -> None:
    figures = {"scan": {"meter_instructions": 5.0, "meter_entries": 1.0}}
    new = guard.rows(figures, guard.Baseline({ISA: {}}, {}), ISA)
    assert [row.exceeds for row in new] == [True, True]
    elsewhere = guard.rows(
        figures,
        guard.Baseline({ISA: scan_of(1.0)}, {"scan": {"meter_entries": 1.0}}),
        "riscv64",
    )
    assert [(row.kind, row.exceeds) for row in elsewhere] == [("meter_entries", False)]


def test_a_renewed_baseline_keeps_other_instruction_sets(guard: Any, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    kept = guard.Baseline({"aarch64": {"scan": {"path_instructions": 9.0}}}, {"gone": {"allocations": 1.0}})
    kept.renewed({"scan": {"meter_instructions": 5.0, "allocations": 2.0}}, ISA).write(path)
    assert guard.Baseline.read(path) == guard.Baseline(
        {"aarch64": {"scan": {"path_instructions": 9.0}}, ISA: scan_of(5.0)},
        {"scan": {"allocations": 2.0}},
    )
    assert guard.Baseline.read(tmp_path / "absent") == guard.Baseline({}, {})
