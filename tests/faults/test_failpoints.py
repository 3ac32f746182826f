"""Failpoints cost nothing where nobody asks, are refused where no test allows them, and act as armed."""

import errno
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from farebox.base.errors import StoreDownError, UsageError
from farebox.run import failpoints
from farebox.run.failpoints import FIRED, PERMIT, POINTS, VARIABLE, Point

SHORT = """
import sys
from farebox.run.process import run

async def main() -> int:
    print(sorted(name for name in sys.modules if name.endswith("failpoints")))
    return 0

raise SystemExit(run(main()))
"""


def start(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.run(
        [sys.executable, "-c", SHORT],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_normal_process_does_not_even_load_them() -> None:
    ended = start({})
    assert (ended.returncode, ended.stdout.strip()) == (0, "[]")


def test_they_are_refused_where_no_test_allows_them(tmp_path: Path) -> None:
    ended = start({VARIABLE: str(tmp_path)})
    assert ended.returncode == 1
    assert f"{VARIABLE} is set, which is for tests alone" in ended.stderr
    assert "Traceback" not in ended.stderr
    with pytest.raises(UsageError, match="for tests alone"):
        failpoints.permitted({VARIABLE: str(tmp_path / "nowhere")})


def test_a_point_that_would_never_be_reached_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / PERMIT).touch()
    compiled = Point("clock.read", "before", "farebox.base.clock:time.time", "nothing")
    monkeypatch.setattr(failpoints, "POINTS", (compiled,))
    with pytest.raises(UsageError, match="which is compiled"):
        failpoints.weave({VARIABLE: str(tmp_path)})


def test_a_process_that_has_them_says_so(tmp_path: Path) -> None:
    (tmp_path / PERMIT).touch()
    ended = start({VARIABLE: str(tmp_path)})
    assert (ended.returncode, ended.stdout.strip()) == (0, "['farebox.run.failpoints']")
    assert "this process may kill itself" in ended.stderr


def test_every_point_of_the_table_has_its_function_in_the_code() -> None:
    assert [name for name, count in Counter(point.name for point in POINTS).items() if count > 1] == []
    for point in POINTS:
        owner, name = failpoints.resolve(point)
        assert callable(getattr(owner, name)), point
        assert point.stands_for


def reaching(folder: Path, where: str = "before") -> list[str]:
    """A function of this module with a point around it; what it did is in the list it gives."""
    point = Point("here.now", where, f"{__name__}:unused", "a test")  # type: ignore[arg-type]
    seen: list[str] = []
    wrapped = failpoints._wrapped(seen.append, point, folder)
    for name in ("a", "b", "c", "d"):
        try:
            wrapped(name)
        except (OSError, StoreDownError) as error:
            seen.append(type(error).__name__)
    return seen


def test_a_point_raises_at_its_turn_and_so_often(tmp_path: Path) -> None:
    (tmp_path / "here.now").write_text("raise StoreDownError skip=1 times=2")
    assert reaching(tmp_path) == ["a", "StoreDownError", "StoreDownError", "d"]
    assert (tmp_path / FIRED).read_text().split() == ["here.now", str(os.getpid())] * 2


def test_a_point_behind_a_function_lets_it_finish(tmp_path: Path) -> None:
    (tmp_path / "here.now").write_text("raise OSError EIO")
    assert reaching(tmp_path, "after") == ["a", "OSError", "b", "c", "d"]
    (tmp_path / "here.now").write_text("delay 1")
    assert reaching(tmp_path, "after") == ["a", "b", "c", "d"]
    (tmp_path / "here.now").write_text("explode")
    with pytest.raises(UsageError, match="no action"):
        reaching(tmp_path)


async def test_a_point_around_a_coroutine_waits_without_blocking(tmp_path: Path) -> None:
    async def work() -> int:
        return 7

    for where in ("before", "after"):
        (tmp_path / "here.now").write_text("delay 1")
        point = Point("here.now", where, "", "a test")  # type: ignore[arg-type]
        assert await failpoints._wrapped(work, point, tmp_path)() == 7
        assert not (tmp_path / "here.now").exists()


def test_a_point_within_a_write_halves_it(tmp_path: Path) -> None:
    def pwrite(_files: object, _descriptor: int, data: bytes, _offset: int) -> int:
        return len(data)

    (tmp_path / "here.now").write_text("raise OSError ENOSPC")
    wrapped = failpoints._wrapped(pwrite, Point("here.now", "within", "", "a test"), tmp_path)
    with pytest.raises(OSError, match="No space") as raised:
        wrapped(None, 3, b"12345678", 0)
    assert raised.value.errno == errno.ENOSPC
    (tmp_path / "here.now").write_text("delay 0")
    assert wrapped(None, 3, b"12345678", 0) == 4
    (tmp_path / "here.now").write_text("pass")
    assert wrapped(None, 3, b"12345678", 0) == 8


@pytest.mark.parametrize(("action", "status"), [("kill", -signal.SIGKILL), ("stop", -signal.SIGSTOP)])
def test_a_point_kills_and_stops_its_own_process(tmp_path: Path, action: str, status: int) -> None:
    (tmp_path / "here.now").write_text(action)
    reach = (
        "failpoints._Reach(failpoints.Point('here.now', 'before', '', ''), pathlib.Path(sys.argv[1])).now()"
    )
    program = f"import pathlib, sys; from farebox.run import failpoints; {reach}; sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE)
    try:
        _, ended = os.waitpid(child.pid, os.WUNTRACED)
        assert os.waitstatus_to_exitcode(ended) == status if os.WIFSIGNALED(ended) else os.WIFSTOPPED(ended)
        assert os.WIFSTOPPED(ended) == (action == "stop")
    finally:
        child.kill()
        child.communicate()
