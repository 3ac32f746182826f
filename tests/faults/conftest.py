"""The writer's world of one store and one journal, for the rows of the fault matrix."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from writer.conftest import JOURNAL, NOW, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "store.db")
    await made.store.open()
    await made.store.claim_epoch(JOURNAL, 1, "host", NOW)
    yield made
    await made.store.close()
