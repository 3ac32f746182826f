"""Promise M1, M2: two hosts in networks of their own, one database; one host is cut off and back.

The short form of `make cut-off`, on a MongoDB-wire server.
"""

from pathlib import Path

import pytest

import mongodb
from chaos.cut_off import run
from needs import SEED


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_M2_two_hosts_one_database_and_one_of_them_cut_off(tmp_path: Path) -> None:
    if mongodb.NAMED_SERVER:
        pytest.skip("the network before a named server is not ours to cut")
    verdict = await run(tmp_path, seconds=6, cuts=1, seed=SEED, workers=1)
    assert verdict.wrong == []
    assert verdict.figures["charges"]
