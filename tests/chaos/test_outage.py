"""Rows S02, S03 and S14: a store that is locked, then slow, costs nobody a request that leased money covers.

The long form, with figures of time, is `make outage SECONDS=60`.
"""

from pathlib import Path

import pytest

from chaos.outage import permitted, run
from farebox.run.failpoints import VARIABLE


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_S02_S03_S14_no_exchange_is_lost_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    phases, wrong = run(tmp_path, permitted(tmp_path), 3.0, 1)
    assert wrong == []
    assert [set(phase.statuses) for phase in phases] == [{200}] * 4
