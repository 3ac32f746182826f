"""A journal that is not what it should be is refused by its worker and set aside by the writer, by name;
nothing of it is changed or guessed, and the journals beside it are booked (J20-J24, J32, S17, holes 02, 22).
"""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from farebox.base import limits
from farebox.base.errors import JournalDamagedError, JournalLockedError, StoreRefusedError
from farebox.journal import open_journal
from farebox.journal.segments import read_epoch
from farebox.store.sqlite import SQLiteStore
from farebox.writer.recovery import recover
from farebox.writer.service import Writer

USD = 10**12
HOLD = """
import sys
from pathlib import Path
from farebox.journal import open_journal
held = open_journal(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "journals"


async def filled(world: Any, root: Path, user: str, count: int = 30) -> Path:
    """A stopped journal of several segments with settled exchanges that nobody has booked."""
    journal = await world.journal(root)
    await world.user(user, 10)
    await world.lease(user, 8, journal=journal.id)
    for _ in range(count):
        world.put(journal, world.settlement(user, 1000))
        await asyncio.sleep(0)
        while journal.synced_pos < journal.last_pos:  # later records bear witness to it
            await asyncio.sleep(0.001)
    journal.close()
    return Path(journal.directory)


@pytest.fixture
async def bad(world: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The journal that each test spoils; a good one stands beside it."""
    monkeypatch.setattr(limits, "segment_bytes_max", 2048)
    await filled(world, root, "bob")
    directory = await filled(world, root, "alice")
    assert len(segments(directory)) > 4
    return directory


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.segment"))


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "lock"}


async def taken(directory: Path, store: Any, world: Any) -> None:
    """What a worker does with a directory before it serves."""
    loop = asyncio.get_running_loop()
    journal = open_journal(directory)
    try:
        await recover(
            journal,
            store,
            now_ms=world.NOW + 1,
            host="host",
            schedule=loop.call_soon,
            wake=loop.call_soon_threadsafe,
        )
    finally:
        journal.close()


def another_version(directory: Path) -> Path:
    path = segments(directory)[0]
    data = bytearray(path.read_bytes())
    data[7] = 99
    data[40:44] = crc32(bytes(data[:40])).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    return path


def a_gap(directory: Path) -> Path:
    path = segments(directory)[2]
    path.unlink()
    return path


def the_beginning_gone(directory: Path) -> Path:
    segments(directory)[0].unlink()
    return segments(directory)[0]


def a_flipped_bit(directory: Path) -> Path:
    path = segments(directory)[2]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))
    return path


def a_renamed_copy(directory: Path) -> Path:
    """A segment of the journal beside it under this one's name."""
    other = next(path for path in directory.parent.iterdir() if path != directory and path.is_dir())
    path = segments(directory)[0]
    path.write_bytes(segments(other)[0].read_bytes())
    return path


def noise(directory: Path) -> Path:
    path = segments(directory)[0]
    path.write_bytes(bytes(range(256)) * 16)
    return path


SPOILT: dict[str, Callable[[Path], Path]] = {
    "J24 another version": another_version,
    "J22 a gap": a_gap,
    "J22 the beginning is gone": the_beginning_gone,
    "J20 a bit flipped in the middle": a_flipped_bit,
    "J22 a segment of another journal": a_renamed_copy,
    "J21 noise where a segment was": noise,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
async def test_a_spoilt_journal_is_refused_by_file_and_offset_and_stops_no_other(
    world: Any, root: Path, bad: Path, spoil: Callable[[Path], Path]
) -> None:
    spoilt = spoil(bad)
    before = content(bad)
    writer = Writer(world.store, root)
    for _ in range(6):
        await writer._round()
    told = writer.status()["damaged"]
    assert set(told) == {bad.name}, told
    assert str(spoilt.parent) in told[bad.name]
    assert "at byte " in told[bad.name]
    assert "keep a copy" in told[bad.name] or "put back" in told[bad.name]
    writer.close()
    with pytest.raises((JournalDamagedError, StoreRefusedError)) as refused:
        await taken(bad, world.store, world)
    assert bad.name in str(refused.value)
    assert content(bad) == before
    booked = [row for row in world.dump()["credit_transactions"] if row[0] == "bob" and row[1] == "spent"]
    assert len(booked) == 30
    assert await world.differences() == []


async def test_hole_02_S17_a_clone_is_refused_once_the_other_has_gone_on(
    world: Any, root: Path, bad: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "other host" / bad.name
    shutil.copytree(bad, clone)
    before = content(clone)
    await taken(bad, world.store, world)
    with pytest.raises(StoreRefusedError, match=f"{bad.name}.*clone"):
        await taken(clone, world.store, world)
    assert content(clone) == before


async def test_J32_a_second_process_on_the_directory_is_refused_by_name(world: Any, bad: Path) -> None:
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, bad, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    with pytest.raises(JournalLockedError, match=bad.name):
        await taken(bad, world.store, world)
    await holder.communicate(b"")
    await taken(bad, world.store, world)


async def test_S17_hole_22_a_restored_older_store_is_refused_and_books_nothing_twice(
    world: Any, root: Path, bad: Path, tmp_path: Path
) -> None:
    """The backup is of the same epoch, but from before the segments that are gone now were applied."""
    backup = tmp_path / "backup.db"
    with sqlite3.connect(world.path) as source, sqlite3.connect(backup) as target:
        source.backup(target)
    source.close()
    target.close()
    writer = Writer(world.store, root)
    await writer.drain()
    await writer.drain()
    await writer._round()
    writer.close()
    assert len(segments(bad)) < 3
    before = content(bad)
    restored = SQLiteStore(backup)
    await restored.open()
    with pytest.raises(StoreRefusedError, match=f"{bad.name}.*restored from a backup"):
        await taken(bad, restored, world)
    writer = Writer(restored, root)
    await writer._round()
    assert "restored from a backup" in writer.status()["damaged"][bad.name]
    writer.close()
    assert content(bad) == before
    await restored.close()


async def test_S17_a_store_that_never_saw_the_journal_is_refused(
    world: Any, new_world: Any, root: Path, bad: Path
) -> None:
    await taken(bad, world.store, world)
    other = await new_world()
    with pytest.raises(StoreRefusedError, match=f"{bad.name}.*restored from a backup or is another one"):
        await taken(bad, other.store, world)
    assert read_epoch(bad) == 2


@pytest.mark.parametrize("text", ["", "seven", "-1"])
async def test_an_epoch_file_that_says_nothing_is_refused_by_name(world: Any, bad: Path, text: str) -> None:
    (bad / "epoch").write_text(text)
    with pytest.raises(JournalDamagedError, match=f"{bad.name}.*epoch"):
        await taken(bad, world.store, world)
