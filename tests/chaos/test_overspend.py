"""M2, hole 35: a wallet worth 20 answers serves at least 19 and never 21, at four workers on two hosts.

Requests may wait long here, so that a slow machine changes nothing; `make overspend` waits as in production.
"""

from pathlib import Path

import pytest

from chaos.overspend import run

LONG_WAIT_S = 30.0


@pytest.mark.timeout(240)
async def test_M2_hole_35_never_more_than_affordable_and_hardly_less(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'farebox.sqlite'}"
    report = await run(
        tmp_path, url, rounds=2, hosts=2, workers=2, parallel=300, affordable=20, lease_wait_s=LONG_WAIT_S
    )
    assert report.wrong == []


@pytest.mark.timeout(240)
async def test_M2_hole_35_the_same_on_mongodb(tmp_path: Path, mongodb_url: str) -> None:
    report = await run(
        tmp_path, mongodb_url, rounds=1, hosts=2, workers=1, parallel=200, affordable=20,
        lease_wait_s=LONG_WAIT_S,
    )  # fmt: skip
    assert report.wrong == []
