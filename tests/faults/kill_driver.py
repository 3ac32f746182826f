"""A journal left by a dead worker is brought to its end by processes that are killed at failpoints.

    python kill_driver.py FOLDER [MONGODB_URL] < cases.json > results.json

Each case starts from the same store and journal: settled exchanges that are not booked, exchanges that a
crash cut off at every stage, a torn tail, leased money. A process recovers, books, credits a payment and
retires the journal; wherever its failpoint kills it, the next one begins anew, as a supervisor would. The
processes are forks of this one, which has loaded everything and holds no thread: a life costs little.
"""

import asyncio
import contextlib
import json
import os
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pymongo

from farebox.base import frames, limits
from farebox.base.records import LotAmount, Transaction
from farebox.journal import open_journal, prices_payload, progress_payload
from farebox.meter import to_plain
from farebox.meter.price_book import new_price_book
from farebox.run import failpoints
from farebox.store.base import Event
from farebox.store.mongo import MongoStore
from farebox.writer.adopt import adopt
from farebox.writer.journals import journal_paths
from farebox.writer.recovery import recover
from farebox.writer.service import Writer
from farebox.writer.verify import verify
from writer.conftest import NOW, USD, World

BOOK = new_price_book({"model-1": {"lines": {"input": "3", "output": "15"}, "multiplier": "1.05"}}, 1, 0)
LIVES_MAX = 60
LATER = NOW + 60_000
LOG_TTL_DAYS = 100_000
"""The server's clock would expire the log rows of `NOW`."""


class MongoWorld(World):
    """The same world in a database of its own, named after the case's folder."""

    def __init__(self, server: str, path: Path) -> None:
        self._server, self._name = server, path.parent.name
        sessions = path.with_name("sessions")
        url = f"{server}/{self._name}"
        super().__init__(path, MongoStore(url, log_ttl_days=LOG_TTL_DAYS, sessions=sessions))

    def dump(self) -> dict[str, list[Any]]:
        """Everything about money, logs and positions, without times, order and the journal's id."""
        left_out = {"rev", "sequence", "createdAt", "parkedAt", "journal", "epoch", "unresolved", "holders"}
        whole = {"usersNew", "credit_transactions", "request_logs", "parked_settlements"}
        with pymongo.MongoClient(self._server) as client:
            database = client[self._name]
            found = {
                name: [
                    {key: one[key] for key in sorted(one.keys() - left_out)} for one in database[name].find()
                ]
                for name in whole
            }
            sums = database.rollups.find({}, {"_id": 0, "journal": 0})
            found["rollups"] = [dict(sorted(one.items())) for one in sums]
            found["journals"] = [
                {"applied": j["applied"], "rolled": j["rolled"]} for j in database.journals.find()
            ]
            found["lease_lots"] = [user.pop("leases") for user in found["usersNew"] if user.get("leases")]
        return {name: sorted(map(str, rows)) for name, rows in found.items()}


make_world: Callable[[Path], World] = World


def main(folder: Path, server: str) -> None:
    global make_world  # noqa: PLW0603 - one store for the whole life of this process
    for point in failpoints.POINTS:  # loads their modules once, for all lives
        failpoints.resolve(point)
    limits.segment_bytes_max = 900
    limits.apply_interval_s = limits.changes_poll_interval_s = 0.02 if server else 0.002
    if server:
        limits.store_timeout_s = 60.0
        make_world = partial(MongoWorld, server)
    (folder / "start").mkdir()
    if not server:
        in_child(lambda: crash(folder / "start"))
    for case in json.loads(sys.stdin.read()):
        name = "-".join(str(case[word]) for word in ("point", "skip", "times"))
        place = folder / name.replace(".", "-")
        shutil.copytree(folder / "start", place)
        if server:
            in_child(lambda place=place: crash(place))
        sys.stdout.write(json.dumps({**case, **run(place, case)}) + "\n")
        sys.stdout.flush()
        shutil.rmtree(place)


def run(place: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Lives one after another until one reaches its end; what they leave."""
    points = place / "failpoints"
    points.mkdir()
    (points / failpoints.PERMIT).touch()
    for point in case["point"].split() or [point.name for point in failpoints.POINTS]:
        (points / point).write_text(f"{case['action']} skip={case['skip']} times={case['times']}")
    environment = {failpoints.VARIABLE: str(points)}
    lives = 1
    while not in_child(lambda: live(place, environment)):
        lives += 1
        if lives > LIVES_MAX:
            return {"lives": lives, "state": None, "fired": {}}
    in_child(lambda: look(place))
    fired = points / failpoints.FIRED
    names = Counter(line.split()[0] for line in fired.read_text().splitlines()) if fired.exists() else {}
    return {"lives": lives, "state": json.loads((place / "state.json").read_text()), "fired": dict(names)}


def in_child(work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Run `work` in a process of its own; whether it reached its end (False: it was killed)."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(work())
            status = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(ended)
    if code > 0:
        raise SystemExit(f"a process failed with status {code}; its traceback is above")
    return code == 0


# -- lives ---------------------------------------------------------------------------------------------------
async def crash(place: Path) -> None:
    """A worker's last traces: see the module."""
    world = make_world(place / "store.db")
    await world.store.open()
    for user in ("alice", "bob", "idle"):
        await world.user(user, 10)
    journal = await world.journal(place / "journals")
    for user in ("alice", "bob", "idle"):
        await world.lease(user, 5, journal=journal.id)
    journal.append(frames.PRICES, prices_payload(1, orjson.dumps(to_plain(BOOK))))
    for user in ("alice", "bob", "alice"):
        world.put(journal, world.settlement(user, USD // 2))
    opened = [world.settlement(user, USD) for user in ("alice", "bob", "alice", "bob")]
    journal.append(frames.OPEN, world.opened(opened[0], USD).encode())
    for one in opened[1:]:
        journal.append(frames.OPEN_SENT, world.opened(one, USD).encode())
    journal.append(frames.PROGRESS, progress_payload(opened[2].exchange, 100))
    await asyncio.sleep(0.05)
    journal.close()
    await world.store.close()
    last = max(journal.directory.glob("*.segment"))
    last.write_bytes(last.read_bytes() + b"half of a frame")


async def live(place: Path, environment: dict[str, str]) -> None:
    """One process's life: book, recover, lease, book, credit; then, as if no worker came, retire."""
    failpoints.weave(environment)
    world = make_world(place / "store.db")
    await world.store.open()
    root = place / "journals"
    writer = Writer(world.store, root, wall_ms=lambda: LATER)
    await writer.drain()
    for directory in journal_paths(root):
        await recovered(world, directory)
        await granted(world, directory.name)
    await writer.drain()
    running = asyncio.create_task(writer.run())
    lots = (LotAmount("feed" * 6, "credits", USD),)
    row = Transaction("bob", "earned_purchase", "payment-1", "credits", USD, lots, "test", NOW)
    await world.store.apply_event(Event((row,), None, "test", "test"), NOW)
    for directory in journal_paths(root):
        assert await adopt(directory, world.store, "host", wall_ms=lambda: LATER)
    writer.stop()
    await running
    await world.store.close()


async def recovered(world: World, directory: Path) -> None:
    loop = asyncio.get_running_loop()
    journal = open_journal(directory)
    try:
        await recover(
            journal,
            world.store,
            now_ms=LATER,
            host="host",
            schedule=loop.call_soon,
            wake=loop.call_soon_threadsafe,
        )
    finally:
        journal.close()


async def granted(world: World, journal: str) -> None:
    """Lease money as a worker would; whoever retires the journal gives it back."""
    epoch = (await world.state(journal)).epoch
    fenced = await world.store.fence("idle", journal, epoch, [], LATER)
    answer = await world.store.grant("idle", "ohmygpt", journal, epoch, fenced.op, USD, USD, LATER)
    assert answer.reason == "", answer


async def look(place: Path) -> None:
    """Write down what the store holds in the end, without what counts lives (epochs, positions)."""
    world = make_world(place / "store.db")
    await world.store.open()
    report = await verify(world.store, place / "journals")
    states = {state.state for state in await world.store.journal_states()}
    await world.store.close()
    state = world.dump()
    del state["journals"]
    found = {
        "differences": report.differences,
        "pending": report.pending,
        "journals": sorted(states),
        "folders": sorted(path.name[16:] for path in (place / "journals").iterdir()),
        "store": state,
    }
    (place / "state.json").write_text(json.dumps(found, default=str))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
