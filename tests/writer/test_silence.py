"""Holes 6, 40, 41: leases are abandoned when one observer saw no beat for 15 minutes by its own clock."""

import asyncio
from pathlib import Path
from typing import Any

from farebox.base import limits
from farebox.store.base import JournalState
from farebox.writer.service import Writer
from farebox.writer.silence import Silence

LOOK_S = 30.0


def state(journal: str, beat_ms: int, *, epoch: int = 1, ended: str = "live") -> JournalState:
    return JournalState(journal, epoch, 0, 0, ended, "host", beat_ms)


def test_hole_41_a_beat_unchanged_for_long_enough_is_silence_whatever_its_time() -> None:
    silence = Silence()
    far_ahead, looks = 1 << 50, int(limits.abandon_after_s // LOOK_S)
    for look in range(looks):
        assert silence.look([state("a", far_ahead), state("b", look)], look * LOOK_S) == []
    assert silence.look([state("a", far_ahead), state("b", looks)], looks * LOOK_S) == [state("a", far_ahead)]
    assert silence.look([state("a", far_ahead + 1), state("b", looks)], (looks + 1) * LOOK_S) == []


def test_hole_40_what_was_not_looked_at_counts_for_nobody() -> None:
    silence = Silence()
    assert silence.look([state("a", 1)], 0.0) == []
    assert silence.look([state("a", 1)], limits.abandon_after_s) == []
    for look in range(1, int(limits.abandon_after_s // LOOK_S)):
        assert silence.look([state("a", 1)], limits.abandon_after_s + look * LOOK_S) == []
    assert silence.look([state("a", 1)], 2 * limits.abandon_after_s) == [state("a", 1)]


def test_an_ended_journal_is_not_watched_and_a_new_epoch_begins_anew() -> None:
    silence = Silence()
    for look in range(int(limits.abandon_after_s // LOOK_S) + 9):
        now_s = look * LOOK_S
        assert silence.look([state("a", 1, ended="lost"), state("b", 1, epoch=look)], now_s) == []


async def test_hole_40_a_host_that_comes_back_while_it_is_given_up_keeps_its_leases(
    world: Any, tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    await world.user("alice", 10)
    await world.lease("alice", 8)
    (seen,) = await world.store.journal_states()

    class Silent:
        def look(self, *_: object) -> list[JournalState]:
            return [seen]

    assert await world.store.beat(world.J, 1, world.NOW + 5000)
    await Writer(world.store, tmp_path)._abandon_silent(Silent())  # type: ignore[arg-type]
    assert [one.state for one in await world.store.journal_states()] == ["live"]
    assert [lot.leased_pico for lot in (await world.store.account("alice")).lots] == [8 * 10**12]
    assert "abandoned" not in caplog.text


async def test_hole_06_a_silent_hosts_leases_are_abandoned_and_its_money_serves_others(
    world: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(limits, "abandon_after_s", 0.1)
    monkeypatch.setattr(limits, "beat_look_interval_s", 0.02)
    await world.user("alice", 10)
    await world.lease("alice", 8)
    writer = Writer(world.store, tmp_path, wall_ms=lambda: world.NOW)
    running = asyncio.create_task(writer.run())
    while (await world.store.journal_states())[0].state != "lost":
        await asyncio.sleep(0.01)
    account = await world.store.account("alice")
    assert [lot.leased_pico for lot in account.lots] == [0]
    assert account.leases[world.J].dead
    assert not await world.store.beat(world.J, 1, world.NOW)
    writer.stop()
    await running
