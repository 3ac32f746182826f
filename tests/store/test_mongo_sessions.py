"""S09: what a killed process left open on the server is ended by its successor, not waited for."""

import asyncio
import contextlib
import uuid
from pathlib import Path
from typing import Any

import pytest

from farebox.base import limits
from farebox.base.errors import FaultError
from farebox.store.mongo import MongoStore
from farebox.store.mongo.connection import Place
from farebox.store.mongo.schema import USERS
from farebox.store.mongo.sessions import NotedSessions
from store.conftest import LOG_TTL_DAYS, NOW


@contextlib.asynccontextmanager
async def opened(url: str, sessions: Path) -> Any:
    store = MongoStore(url, log_ttl_days=LOG_TTL_DAYS, sessions=sessions)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def test_S09_a_transaction_left_open_is_ended_by_the_next_process(mongodb_url, tmp_path):
    noted = tmp_path / "writer.sessions"
    written, going_on = asyncio.Event(), asyncio.Event()

    async def stops_in_the_middle(place: Place) -> None:
        await place[USERS].update_one({"_id": "alice"}, {"$set": {"role": "x"}}, session=place.session)
        written.set()
        await going_on.wait()

    async with opened(mongodb_url, noted) as killed:
        await killed.create_user("alice", "user", "test", NOW)
        left_open = asyncio.create_task(killed._connection.transact(stops_in_the_middle, attempts=1))
        await written.wait()
        assert noted.read_text().splitlines()
        async with opened(mongodb_url, noted) as successor:
            assert await successor.set_user_active("alice", False, "test", NOW)
            going_on.set()
            with pytest.raises(FaultError):
                await left_open
            assert (await successor.account("alice")).is_active is False


def test_what_is_noted_is_bounded_and_junk_is_no_session(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "store_sessions_noted_max", 3)
    path = tmp_path / "noted"
    sessions = NotedSessions(path)
    assert sessions.left_behind() == []
    sessions.begin()
    ids = [uuid.uuid4() for _ in range(4)]
    for one in (ids[0], ids[0], *ids[1:]):
        sessions.note({"id": one.bytes})
    assert path.read_text().splitlines() == [str(ids[3])]
    path.write_text(f"junk\n{ids[1]}\n")
    assert [bytes(one["id"]) for one in NotedSessions(path).left_behind()] == [ids[1].bytes]
    NotedSessions(None).note({"id": ids[0].bytes})
    assert NotedSessions(None).left_behind() == []
