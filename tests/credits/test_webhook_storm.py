"""P1: deliveries in any order, doubled, in parallel, at a process killed again and again, credit once.

`make webhook-storm` runs the long form: 1,000 deliveries and 100 kills.
"""

from pathlib import Path

import pytest

import needs
from credits.webhook_storm import storm


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_P1_whatever_is_killed_when_every_payment_is_credited_once(tmp_path: Path) -> None:
    found = await storm(tmp_path, deliveries=60, kills=3, seed=needs.SEED)
    assert found["wrong"] == [], found
    assert found["killed"] == 3
    assert found["outcomes"]["credited"] > 0
