"""Hole 40: a worker that has not been heard for ten minutes admits nothing, whatever stopped it meanwhile."""

import asyncio
from typing import Any

import pytest

from farebox.base import clock, limits
from farebox.base.errors import StoreDownError
from farebox.run.worker_process import _Beats


class Heard:
    """A store that takes beats, or does not."""

    def __init__(self) -> None:
        self.is_away = False
        self.beats = 0

    async def beat(self, journal: str, epoch: int, now_ms: int) -> bool:
        self.beats += 1
        if self.is_away:
            raise StoreDownError("away")
        return True


class Taken:
    """What beats need of a journal."""

    id, epoch, broken = "a" * 16, 1, None


async def test_hole_40_silence_ends_admission_and_the_next_beat_begins_it_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(clock, "boot_s", lambda: now_s)
    monkeypatch.setattr(limits, "beat_interval_s", 0.001)
    store, journal = Heard(), Taken()
    beats: Any = _Beats(store, journal)  # type: ignore[arg-type]
    running = asyncio.create_task(beats.run())

    async def beat_twice() -> None:
        seen = store.beats
        while store.beats < seen + 2:
            await asyncio.sleep(0.001)

    await beat_twice()
    assert beats.trouble() == ""
    store.is_away = True
    await beat_twice()
    now_s += limits.fence_after_s
    assert beats.trouble() == ""
    now_s += 1.0
    assert "too long" in beats.trouble()
    await beat_twice()
    assert "too long" in beats.trouble()
    store.is_away = False
    await beat_twice()
    assert beats.trouble() == ""
    journal.broken = "disk"  # type: ignore[assignment]
    assert "disk" in beats.trouble()
    running.cancel()
