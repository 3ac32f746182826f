"""Workers over the socket: the same answers as the store itself, and never a doubt about what a failure
means.
"""

import asyncio
import contextlib
import stat
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest

from farebox.base import limits
from farebox.base.errors import (
    InvariantBrokenError,
    StoreDownError,
    StoreRefusedError,
    StoreUnknownError,
    UsageError,
)
from farebox.store import wire_form
from farebox.store.remote import RemoteStore
from farebox.store.server import StoreServer
from farebox.store.sqlite import SQLiteStore


class Host:
    """A writer's socket and a worker on it; `pushes` is what the worker was told."""

    def __init__(self, store: Any, path: Path) -> None:
        self.path = path
        self.store = store
        self.server = StoreServer(store, path)
        self.pushes: list[Any] = []
        self.remote = RemoteStore(path, self.pushes.append)

    async def pushed(self, message: dict[str, Any]) -> None:
        while message not in self.pushes:
            await asyncio.sleep(0.001)


@pytest.fixture
async def store(tmp_path) -> AsyncIterator[SQLiteStore]:
    """The wire does not depend on what is behind it."""
    opened = SQLiteStore(tmp_path / "store.db")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def host(store, tmp_path) -> AsyncIterator[Host]:
    made = Host(store, tmp_path / "writer.sock")
    await made.server.start()
    await made.remote.open()
    yield made
    await made.remote.close()
    await made.server.close()


async def frames_until_end(reader: asyncio.StreamReader) -> int:
    """How many messages came before the connection ended."""
    count = 0
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        while True:
            await wire_form.read(reader)
            count += 1
    return count


class Scripted:
    """A socket whose every connection is handled by one function of the test."""

    def __init__(self, path: Path, handle: Callable[..., Any]) -> None:
        self.path = path
        self._handle = handle
        self._handlers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._accept, self.path)
        return self

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def run() -> None:
            await self._handle(reader, writer)
            await wire_form.close(writer)

        self._handlers.append(asyncio.create_task(run()))

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._handlers)
        await self._server.wait_closed()


async def test_every_operation_answers_as_the_store_does(host, scene):
    await scene.user("alice", usd=10)
    remote = host.remote
    assert await remote.claim_epoch(scene.J, 1, "host", 7) == (await host.store.journal_states())[0]
    assert await remote.journal_states() == await host.store.journal_states()
    assert await remote.beat(scene.J, 1, 9) is True
    assert await remote.beat(scene.J, 2, 9) is False

    grant = await remote.grant("alice", "ohmygpt", scene.J, 1, 0, 5, 100, scene.NOW)
    assert grant.op == 1
    ((part, expires),) = grant.added
    assert (part.amount_pico, part.pool, expires) == (100, "credits", None)
    assert await remote.give_back("alice", scene.J, 1, 1, [part._replace(amount_pico=40)], scene.NOW) == 2
    assert await remote.give_back("alice", scene.J, 1, 1, [part], scene.NOW) is None
    fenced = await remote.fence("alice", scene.J, 1, ["e" * 32], scene.NOW)
    assert (fenced.op, fenced.dead) == (3, False)
    assert fenced.lots == ((part._replace(amount_pico=60), None),)
    assert fenced.booked == frozenset()
    assert await remote.fence("nobody", scene.J, 1, [], scene.NOW) is None
    await remote.want("alice", scene.K, True)
    assert await remote.leases_of(scene.J) == ["alice"]
    account = await remote.account("alice")
    assert account == await host.store.account("alice")
    assert account.wants == {scene.K}
    assert await remote.account("nobody") is None


async def test_keys_and_price_books_cross_the_wire_equal(host, scene):
    await scene.user("alice")
    key = scene.key("alice", allowed_models=("sonnet", "opus"), requests_per_minute=60, expires_at_ms=5)
    await host.store.create_key(key, "test", scene.NOW)
    await host.store.create_key(scene.key("alice", "d2"), "test", scene.NOW)
    assert await host.remote.key("d1") == key
    assert await host.remote.key("d2") == scene.key("alice", "d2")
    assert await host.remote.key("d3") is None
    version = await host.remote.put_price_book({"models": {"a": "3.75"}}, "hash", scene.NOW)
    book = await host.remote.price_book(version)
    assert book is not None
    assert book["models"] == {"a": "3.75"}
    assert await host.remote.price_book(version + 1) is None


async def test_an_account_with_everything_in_it_crosses_the_wire_equal(host, scene, by_hand):
    await scene.user("alice", usd=10)
    await scene.journal()
    (part,) = await scene.lease("alice", 500)
    await scene.book(scene.settlement("alice", 0, (part._replace(amount_pico=200),), quarantine="unpriced"))
    by_hand("INSERT INTO claims (user, reference, pool, amount_pico) VALUES ('alice', 'r1', 'credits', 5)")
    account = await host.remote.account("alice")
    assert account == await host.store.account("alice")
    assert account.reserved
    assert account.claims
    assert account.leases[scene.J].lots


async def test_hole_35_wants_and_the_money_they_bring_are_told_within_the_host_at_once(
    host, scene, monkeypatch
):
    await scene.user("alice", usd=10)
    await scene.journal()
    (part,) = await scene.lease("alice", 500)
    some = part._replace(amount_pico=100)
    assert await host.remote.give_back("alice", scene.J, 1, 1, [some], scene.NOW) == 2
    await host.remote.want("alice", scene.K, False)
    assert not any("change" in push for push in host.pushes)
    await host.remote.want("alice", scene.K, True)
    await host.pushed({"change": [0, "want", "alice", scene.K]})
    assert await host.remote.give_back("alice", scene.J, 1, 2, [some], scene.NOW) == 3
    await host.pushed({"change": [0, "freed", "alice", ""]})
    assert await host.remote.give_back("alice", scene.J, 1, 2, [some], scene.NOW) is None
    monkeypatch.setattr(limits, "lease_wait_s", 0.0)
    assert await host.remote.give_back("alice", scene.J, 1, 3, [some], scene.NOW) == 4
    monkeypatch.setattr(limits, "wants_remembered_max", 0)
    await host.remote.want("bob", scene.K, True)
    assert [push["change"][1:3] for push in host.pushes if "change" in push] == [
        ["want", "alice"],
        ["freed", "alice"],
        ["want", "bob"],
    ]


async def test_many_calls_at_once_each_get_their_own_answer(host, scene):
    await scene.user("alice", usd=10)
    await scene.journal()
    names = ["alice", "nobody"] * 100
    answers = await asyncio.gather(*(host.remote.account(name) for name in names))
    assert [answer is not None for answer in answers] == [name == "alice" for name in names]


async def test_errors_cross_the_wire_by_type_and_message(host, scene):
    with pytest.raises(StoreRefusedError, match="epoch 1"):
        await host.remote.fence("alice", scene.J, 1, [], scene.NOW)
    with pytest.raises(StoreRefusedError, match="backup"):
        await host.remote.claim_epoch(scene.J, 5, "host", 1)


@pytest.mark.parametrize(
    ("raised", "arrives"),
    [
        (UsageError("say it so"), UsageError),
        (InvariantBrokenError("M1"), InvariantBrokenError),
        (KeyError("x"), StoreUnknownError),
    ],
)
async def test_any_fault_in_the_writer_is_an_answer_and_the_connection_lives(
    store, tmp_path, raised, arrives
):
    async def fail(*_: object) -> None:
        raise raised

    store.want = fail
    host = Host(store, tmp_path / "writer.sock")
    await host.server.start()
    await host.remote.open()
    with pytest.raises(arrives):
        await host.remote.want("alice", "j", True)
    assert await host.remote.account("alice") is None
    await host.remote.close()
    await host.server.close()


async def test_M11_only_what_workers_need_can_be_called(host):
    reader, writer = await asyncio.open_unix_connection(host.path)
    for message in ([1, "apply_event", [{}]], [2, "book", []], [3, "account"], [4, "close", []], [5, 7, 8]):
        writer.write(wire_form.encode(message))
        answer = await wire_form.read(reader)
        assert answer[:2] == [message[0], None]
        assert answer[2] in {"StoreRefusedError", "StoreUnknownError"}
    await wire_form.close(writer)


async def test_M11_the_socket_is_for_its_owner_alone(host):
    assert stat.S_IMODE(host.path.stat().st_mode) == 0o600


async def test_pushes_reach_every_worker_and_a_connection_is_announced(host):
    second: list[Any] = []
    other = RemoteStore(host.path, second.append)
    await other.open()
    await other.account("x")
    await host.remote.account("x")
    host.server.push({"applied": ["j", 5]})
    host.server.push({"change": [1, "user", "alice", ""]})
    await host.remote.account("x")
    await other.account("x")
    expected = [{"connected": []}, {"applied": ["j", 5]}, {"change": [1, "user", "alice", ""]}]
    assert host.pushes == expected
    assert second == expected
    await other.close()


async def test_a_listener_that_fails_does_not_stop_the_answers(store, tmp_path):
    def fail(_: object) -> None:
        raise RuntimeError("listener")

    host = Host(store, tmp_path / "writer.sock")
    remote = RemoteStore(host.path, fail)
    await host.server.start()
    await remote.open()
    host.server.push({"fence": ["j", "alice"]})
    assert await remote.account("alice") is None
    await remote.close()
    await host.server.close()


async def test_S01_without_a_writer_a_call_says_that_nothing_was_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "rpc_connect_wait_s", 0.01)
    remote = RemoteStore(tmp_path / "none.sock", lambda _: None)
    await remote.open()
    with pytest.raises(StoreDownError):
        await remote.account("alice")
    await remote.close()
    with pytest.raises(StoreDownError):
        await remote.account("alice")


async def test_a_worker_may_start_before_its_writer(store, tmp_path):
    host = Host(store, tmp_path / "writer.sock")
    await host.remote.open()
    call = asyncio.ensure_future(host.remote.account("alice"))
    await asyncio.sleep(0.05)
    await host.server.start()
    assert await call is None
    await host.remote.close()
    await host.server.close()


async def test_what_was_never_opened_can_be_closed(store, tmp_path):
    host = Host(store, tmp_path / "writer.sock")
    await host.remote.close()
    await host.server.close()


async def test_a_call_that_ended_as_the_connection_broke_keeps_its_own_end(host):
    await host.remote.account("alice")
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    over.set_result(None)
    host.remote._waiting[999] = over
    await host.server.close()
    while host.remote._writer is not None:
        await asyncio.sleep(0.001)
    assert over.result() is None


async def test_a_call_whose_worker_gave_up_waiting_is_not_begun_any_more(host, scene, monkeypatch):
    await scene.user("alice", usd=10)
    await scene.journal()
    busy, free = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def occupy(_: object) -> None:
        loop.call_soon_threadsafe(busy.set)
        free.wait(60)

    occupied = asyncio.ensure_future(host.store._writer.run(occupy))
    await busy.wait()
    monkeypatch.setattr(limits, "store_timeout_s", 0.1)
    with pytest.raises(StoreUnknownError):
        await host.remote.grant("alice", "ohmygpt", scene.J, 1, 0, 5, 100, scene.NOW)
    while host.server._tasks:
        await asyncio.sleep(0.001)
    monkeypatch.undo()
    free.set()
    await occupied
    assert await scene.leased("alice") == 0, "nobody waits for this money"
    fenced = await host.remote.fence("alice", scene.J, 1, [], scene.NOW)
    assert (fenced.op, fenced.lots) == (1, ())


async def test_the_worker_finds_the_writer_again_after_its_restart(host, store):
    assert await host.remote.account("alice") is None
    await host.server.close()
    host.server = StoreServer(store, host.path)
    await host.server.start()
    await host.pushed({"connected": []})
    while host.pushes.count({"connected": []}) < 2:
        await asyncio.sleep(0.001)
    assert await host.remote.account("alice") is None


async def test_a_socket_left_by_a_dead_writer_is_replaced(store, tmp_path):
    path = tmp_path / "writer.sock"
    dead = Host(store, path)
    await dead.server.start()
    second = Host(store, path)
    await second.server.start()
    await second.remote.open()
    assert await second.remote.account("alice") is None
    await second.remote.close()
    await second.server.close()
    await dead.server.close()


async def test_a_path_that_cannot_be_bound_is_a_clear_refusal(store, tmp_path):
    with pytest.raises(StoreRefusedError, match="another folder"):
        await StoreServer(store, tmp_path / ("x" * 120)).start()


async def test_S05_a_connection_cut_after_the_call_was_sent_leaves_the_outcome_unknown(tmp_path):
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with Scripted(tmp_path / "s.sock", cut) as peer:
        remote = RemoteStore(peer.path, lambda _: None)
        await remote.open()
        with pytest.raises(StoreUnknownError, match="broke"):
            await remote.want("alice", "j", True)
        await remote.close()


async def test_S04_a_writer_that_never_answers_leaves_the_outcome_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "store_timeout_s", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with Scripted(tmp_path / "s.sock", silent) as peer:
        remote = RemoteStore(peer.path, lambda _: None)
        await remote.open()
        with pytest.raises(StoreUnknownError, match="no answer"):
            await remote.want("alice", "j", True)
        await remote.close()


async def test_an_answer_nobody_waits_for_any_more_is_dropped(tmp_path):
    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = (await wire_form.read(reader))[0]
        writer.write(wire_form.encode([number + 100, "stray"]))
        writer.write(wire_form.encode([number, None]))
        writer.write(wire_form.encode([number, "late"]))
        await reader.read()

    async with Scripted(tmp_path / "s.sock", twice) as peer:
        remote = RemoteStore(peer.path, lambda _: None)
        await remote.open()
        assert await remote.account("alice") is None
        await remote.close()


@pytest.mark.parametrize("junk", [b"\x00\x00\x00\x02{}", b"\x00\x00\x00\x03abc", b"\xff\xff\xff\xff"])
async def test_M10_junk_from_the_writer_costs_the_connection_not_the_worker(tmp_path, junk):
    served = 0

    async def first_junk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        number = (await wire_form.read(reader))[0]
        writer.write(junk if served == 1 else wire_form.encode([number, None]))
        await reader.read()

    async with Scripted(tmp_path / "s.sock", first_junk) as peer:
        remote = RemoteStore(peer.path, lambda _: None)
        await remote.open()
        with pytest.raises(StoreUnknownError):
            await remote.account("alice")
        assert await remote.account("alice") is None
        await remote.close()


@pytest.mark.parametrize("junk", [b"\x00\x00\x00\x02{}", b"\xff\xff\xff\xff", b"\x00\x00\x00\x09[true,1]x"])
async def test_M10_junk_from_a_worker_costs_its_connection_alone(host, junk):
    reader, writer = await asyncio.open_unix_connection(host.path)
    writer.write(junk)
    assert await reader.read() == b""
    await wire_form.close(writer)
    assert await host.remote.account("alice") is None


async def test_M10_waiting_calls_are_bounded(host, monkeypatch):
    await host.remote.account("alice")
    monkeypatch.setattr(limits, "rpc_pending_max", 2)
    calls = [asyncio.ensure_future(host.remote.account("alice")) for _ in range(3)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), type(None), StoreDownError]


async def test_M10_a_call_too_long_is_refused_before_it_is_sent(host, monkeypatch):
    monkeypatch.setattr(limits, "rpc_message_bytes_max", 1000)
    with pytest.raises(InvariantBrokenError, match="above"):
        await host.remote.put_price_book({"x": "y" * 2000}, "hash", 1)
    assert await host.remote.account("alice") is None


async def test_M10_an_answer_too_long_is_an_error_for_that_call_alone(host, monkeypatch):
    await host.store.put_price_book({"x": "y" * 2000}, "hash", 1)
    monkeypatch.setattr(limits, "rpc_message_bytes_max", 1000)
    with pytest.raises(StoreUnknownError):
        await host.remote.price_book(1)
    assert await host.remote.account("alice") is None


async def test_M10_more_workers_than_the_limit_are_turned_away(host, monkeypatch):
    await host.remote.account("alice")
    monkeypatch.setattr(limits, "rpc_connections_max", 1)
    reader, writer = await asyncio.open_unix_connection(host.path)
    assert await reader.read() == b""
    await wire_form.close(writer)
    assert await host.remote.account("alice") is None


async def test_M10_a_worker_that_does_not_read_is_disconnected(host, monkeypatch):
    reader, writer = await asyncio.open_unix_connection(host.path)
    writer.write(wire_form.encode([1, "account", ["x"]]))
    await wire_form.read(reader)
    monkeypatch.setattr(limits, "rpc_message_bytes_max", 100_000)
    reader._transport.pause_reading()
    for _ in range(100):
        host.server.push({"x": "y" * 50_000})
    await asyncio.sleep(0)
    reader._transport.resume_reading()
    assert await frames_until_end(reader) < 100
    await wire_form.close(writer)


async def test_closing_the_server_fails_what_is_under_way_as_unknown(store, tmp_path):
    began = asyncio.Event()

    async def hang(*_: object) -> None:
        began.set()
        await asyncio.Event().wait()

    store.want = hang
    host = Host(store, tmp_path / "writer.sock")
    await host.server.start()
    await host.remote.open()
    call = asyncio.ensure_future(host.remote.want("alice", "j", True))
    await began.wait()
    await host.server.close()
    with pytest.raises(StoreUnknownError):
        await call
    await host.remote.close()


async def test_a_writer_that_ends_late_leaves_its_successor_s_socket_alone(store, tmp_path):
    path = tmp_path / "writer.sock"
    old, new = StoreServer(store, path), StoreServer(store, path)
    await old.start()
    await new.start()
    await old.close()
    remote = RemoteStore(path, lambda _: None)
    await remote.open()
    assert await remote.journal_states() == []
    assert (old.workers, new.workers) == (0, 1)
    await remote.close()
    path.unlink()
    await new.close()


async def test_closing_the_worker_side_fails_waiting_calls(store, tmp_path):
    began = asyncio.Event()

    async def hang(*_: object) -> None:
        began.set()
        await asyncio.Event().wait()

    store.want = hang
    host = Host(store, tmp_path / "writer.sock")
    await host.server.start()
    await host.remote.open()
    call = asyncio.ensure_future(host.remote.want("alice", "j", True))
    await began.wait()
    await host.remote.close()
    with pytest.raises(StoreUnknownError):
        await call
    await host.server.close()


def test_what_has_no_wire_form_is_an_error():
    with pytest.raises(TypeError):
        wire_form.encode([1, object()])
