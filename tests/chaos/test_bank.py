"""Promise M1 to M7 on two hosts that are killed, stopped and cut off: the short form of the bank test.

What befalls whom follows from the seed at the head of the test report; the verdict does not depend on it.
"""

from pathlib import Path

import pytest

from chaos.bank import Plan, run
from farebox.base import limits
from needs import SEED


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_L25_S02_bank_two_hosts_in_bad_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "store_timeout_s", limits.store_timeout_s)
    plan = Plan(seconds=7, seed=SEED, exchanges=1500, workers=1, users=8, clients=8)
    verdict = await run(plan, tmp_path)
    assert verdict.wrong == []
    assert verdict.figures["charges"]
    assert verdict.figures["trouble"]
