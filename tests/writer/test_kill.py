"""The writer's process killed with kill -9 while a journal grows: afterwards each exchange is booked once
(J12, M4, M6).

The writer runs as a process of its own on the same SQLite file; the test is the worker that appends.
"""

import asyncio
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from farebox.writer.audit import audit
from farebox.writer.service import Writer
from farebox.writer.verify import verify

USD = 10**12
USERS = ("alice", "bob", "carol", "dave")
KILLS = 8

WRITER = """
import asyncio, sys
from pathlib import Path
from farebox.base import limits
from farebox.store.sqlite import SQLiteStore
from farebox.writer.service import Writer

limits.apply_interval_s = 0.001
limits.users_per_transaction_max = 2

async def main() -> None:
    store = SQLiteStore(Path(sys.argv[1]))
    await store.open()
    await Writer(store, Path(sys.argv[2]), wall_ms=lambda: int(sys.argv[3])).run()

asyncio.run(main())
"""


def start(world: Any, root: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", WRITER, str(world.path), str(root), str(world.NOW)])


async def append_until_books(world: Any, journal: Any, source: random.Random, made: list[Any]) -> None:
    """Exchanges of random users and amounts, some beyond what is leased, until the writer is amidst them."""
    before, booked = len(made), len(world.dump()["request_logs"])
    more = source.randrange(1, 200)
    while len(made) < before + more or len(world.dump()["request_logs"]) == booked:
        for _ in range(source.randrange(1, 20)):
            one = world.settlement(source.choice(USERS), source.randrange(USD // 50))
            made.append(one)
            world.put(journal, one)
        await asyncio.sleep(source.random() * 0.01)


async def test_J12_hole_28_killed_at_random_moments_each_exchange_is_booked_once(
    world: Any, tmp_path: Path
) -> None:
    root = tmp_path / "journals"
    source = random.Random(12)
    journal = await world.journal(root)
    for user in USERS:
        await world.user(user, 20)
        await world.lease(user, 3, journal=journal.id)
    made: list[Any] = []
    for _ in range(KILLS):
        process = start(world, root)
        await append_until_books(world, journal, source, made)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    journal.close()
    writer = Writer(world.store, root)
    await writer.drain()
    writer.close()
    report = await verify(world.store, root)
    assert (report.differences, report.pending, report.parked) == ([], {}, [])
    spent = {user: sum(one.amount_pico for one in made if one.user == user) for user in USERS}
    for user in USERS:
        account = await world.store.account(user)
        assert 20 * USD - account.balances["credits"] + account.written_off_pico == spent[user]
    assert len(world.dump()["request_logs"]) == len(made)
    assert sum(row[3] for row in world.dump()["rollups"]) == len(made)
    assert (await audit(world.store)).charges == len(made)
