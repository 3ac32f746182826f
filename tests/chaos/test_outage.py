"""Rows S02, S03 and S14: a store that is away, then slow, costs nobody a request that leased money covers.

The long form, with figures of time, is `make outage SECONDS=60`.
"""

from pathlib import Path

import pytest

from chaos.outage import run
from farebox.base import limits
from farebox.run.failpoints import VARIABLE


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("store", ["sqlite", "mongodb"])
def test_S02_S03_S14_no_exchange_is_lost_or_refused(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setattr(limits, "store_timeout_s", limits.store_timeout_s)
    _, wrong = run(tmp_path, store, 1.0, 1)
    assert wrong == []
