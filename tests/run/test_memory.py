"""Promise O06: memory in use is what the kernel counts; steps rise at once and fall with distance."""

from pathlib import Path

import pytest

from farebox.run.memory import next_step, used_share

GIB = 2**30


def machine(root: Path, total: int, available: int) -> None:
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal: {total // 1024} kB\nMemAvailable: {available // 1024} kB\n"
    )


def group(folder: Path, files: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")


def test_O06_without_a_limit_the_machine_counts(tmp_path: Path) -> None:
    machine(tmp_path, 8 * GIB, 2 * GIB)
    group(tmp_path / "sys/fs/cgroup/a", {"memory.max": "max", "memory.current": 7 * GIB})
    (tmp_path / "proc/self/cgroup").write_text("0::/a\n")
    assert used_share(tmp_path) == 0.75


@pytest.mark.parametrize("path", ["/system.slice/farebox.service", "/"], ids=["host", "container"])
def test_O06_the_group_with_the_least_room_counts_without_its_cache(tmp_path: Path, path: str) -> None:
    machine(tmp_path, 8 * GIB, 8 * GIB)
    own = tmp_path / "sys/fs/cgroup" / path.lstrip("/")
    group(own, {"memory.max": GIB, "memory.current": GIB, "memory.stat": f"inactive_file {GIB // 8}"})
    (tmp_path / "proc/self/cgroup").write_text(f"0::{path}\n")
    assert used_share(tmp_path) == 0.875


def test_O06_a_group_above_counts_too(tmp_path: Path) -> None:
    machine(tmp_path, 8 * GIB, 8 * GIB)
    top = tmp_path / "sys/fs/cgroup/top"
    group(top, {"memory.max": 2 * GIB, "memory.current": GIB})
    group(top / "own", {"memory.max": 8 * GIB, "memory.current": GIB})
    (tmp_path / "proc/self/cgroup").write_text("0::/top/own\n")
    assert used_share(tmp_path) == 0.5


def test_O06_groups_of_the_first_version_count_as_well(tmp_path: Path) -> None:
    machine(tmp_path, 8 * GIB, 8 * GIB)
    files = {"memory.limit_in_bytes": GIB, "memory.usage_in_bytes": GIB // 2, "memory.stat": ""}
    group(tmp_path / "sys/fs/cgroup/memory/a", files)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/a\n1:cpu:/\n0::/\n")
    assert used_share(tmp_path) == 0.5


def test_O06_a_system_that_does_not_tell_is_taken_for_roomy(tmp_path: Path) -> None:
    assert used_share(tmp_path) == 0.0


def test_O06_this_machine_tells() -> None:
    assert 0.0 < used_share(Path("/")) < 1.0


@pytest.mark.parametrize(
    ("step", "share", "expected"),
    [
        (0, 0.79, 0), (0, 0.80, 1), (0, 0.90, 2), (0, 0.95, 3), (0, 1.0, 3),
        (1, 0.78, 1), (1, 0.76, 0), (2, 0.88, 2), (2, 0.86, 1), (3, 0.93, 3), (3, 0.91, 2), (3, 0.1, 0),
    ],
)  # fmt: skip
def test_O06_steps(step: int, share: float, expected: int) -> None:
    assert next_step(step, share) == expected
