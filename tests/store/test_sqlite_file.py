"""The file: durable, shared between processes, refused by name when it is damaged, locked, foreign or too
new.
"""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from farebox.base import limits
from farebox.base.errors import InvariantBrokenError, StoreDownError, StoreRefusedError, StoreUnknownError
from farebox.base.records import Claim
from farebox.store import open_store
from farebox.store.base import Event, EventResult
from farebox.store.sqlite import SQLiteStore, logs, moves, schema, single
from farebox.store.sqlite.connection import Lane, _keep_write_ahead_log, fault, is_row_error, savepoint

PYTHON = Path(__file__).resolve().parents[2] / "python"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    opened = SQLiteStore(path)
    await opened.open()
    yield opened
    await opened.close()


async def opens(path: Path) -> None:
    store = SQLiteStore(path)
    try:
        await store.open()
    finally:
        await store.close()


async def test_M6_what_was_written_is_there_after_opening_again(store, scene, path):
    await scene.user("alice", usd=5)
    await store.close()
    again = SQLiteStore(path)
    await again.open()
    assert (await again.account("alice")).balances["credits"] == 5 * scene.USD
    await again.close()


async def test_M6_commits_survive_the_kill_of_their_process(path):
    script = f"""
import asyncio, os, signal, sys
sys.path.insert(0, {str(PYTHON)!r})
from farebox.store.sqlite import SQLiteStore
async def main():
    store = SQLiteStore({str(path)!r})
    await store.open()
    for number in range(50):
        await store.create_user(f"user{{number:02d}}", "user", "test", 1)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], check=False)
    assert done.returncode == -9
    store = SQLiteStore(path)
    await store.open()
    assert len([one async for one in store.accounts()]) == 50
    await store.close()


async def test_S16_every_commit_is_synced(store, by_hand):
    connection = store._writer._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_readers_cannot_write(store):
    with pytest.raises(StoreRefusedError, match="readonly"):
        await store._reader.run(lambda connection: connection.execute("DELETE FROM users"))


async def test_two_stores_on_one_file_see_each_other_and_stay_sound(store, scene, path):
    await scene.user("alice", usd=5)
    await scene.journal()
    await scene.journal(scene.K)
    other = SQLiteStore(path)
    await other.open()
    (mine,) = await scene.lease("alice", scene.USD)
    theirs = (await other.grant("alice", "ohmygpt", scene.K, 1, 0, 1, scene.USD, scene.NOW)).added[0][0]
    charges = [scene.settlement("alice", 1000, (mine._replace(amount_pico=1000),)) for _ in range(40)]
    others = [scene.settlement("alice", 7, (theirs._replace(amount_pico=7),)) for _ in range(40)]
    await asyncio.gather(
        *(store.book(scene.J, 1, charges[i : i + 5], scene.NOW) for i in range(0, 40, 5)),
        *(other.book(scene.K, 1, others[i : i + 5], scene.NOW) for i in range(0, 40, 5)),
        *(other.book(scene.J, 1, charges[i : i + 5], scene.NOW) for i in range(0, 40, 5)),
    )
    assert await scene.balance("alice") == 5 * scene.USD - 40 * 1007
    await scene.sound()
    await other.close()


async def test_M4_two_processes_booking_the_same_records_book_them_once(store, scene, path, tmp_path):
    await scene.user("alice", usd=5)
    await scene.journal()
    (part,) = await scene.lease("alice", scene.USD)
    charges = [scene.settlement("alice", 1000, (part._replace(amount_pico=1000),)) for _ in range(200)]
    (tmp_path / "records").write_bytes(b"\n".join(charge.encode() for charge in charges))
    script = f"""
import asyncio, sys
sys.path.insert(0, {str(PYTHON)!r})
from farebox.base.records import Settlement
from farebox.store.sqlite import SQLiteStore
async def main():
    store = SQLiteStore({str(path)!r})
    await store.open()
    lines = open({str(tmp_path / "records")!r}, "rb").read().split(b"\\n")
    records = [Settlement.decode(line) for line in lines]
    booked = 0
    for start in range(0, 200, 10):
        results = await store.book({scene.J!r}, 1, records[start:start + 10], {scene.NOW})
        booked += sum(result.value == "booked" for result in results)
    print(booked)
    await store.close()
asyncio.run(main())
"""
    both = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [(await one.communicate())[0] for one in both]
    assert sum(int(output) for output in outputs) == 200
    assert await scene.balance("alice") == 5 * scene.USD - 200_000
    await scene.sound()


async def test_S14_a_locked_file_is_down_not_gone(store, scene, path, monkeypatch):
    await scene.user("alice", usd=5)
    await store.close()
    monkeypatch.setattr(limits, "sqlite_busy_timeout_s", 0.05)
    again = SQLiteStore(path)
    await again.open()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as backup:
        backup.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreDownError, match=r"store\.db: locked.*backup"):
            await again.create_user("bob", "user", "test", 1)
        assert await again.account("alice")
        backup.execute("ROLLBACK")
    assert await again.create_user("bob", "user", "test", 1)
    await again.close()


async def test_S14_a_file_locked_at_the_start_is_down(path, monkeypatch):
    await opens(path)
    monkeypatch.setattr(limits, "sqlite_busy_timeout_s", 0.05)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as backup:
        backup.execute("PRAGMA locking_mode = EXCLUSIVE")
        backup.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreDownError, match="locked"):
            await opens(path)


async def test_S15_a_damaged_file_is_refused_by_name(store, scene, path):
    for number in range(40):
        await scene.store.put_price_book({"x": "y" * 500}, f"hash{number}", 1)
    await store.close()
    data = bytearray(path.read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(StoreRefusedError, match=r"store\.db: .*damaged"):
        await opens(path)


@pytest.fixture
async def damaged(store, path):
    """The file with damage that only a look at all of it finds."""
    for number in range(40):
        await store.put_price_book({"x": "y" * 500}, f"hash{number}", 1)
    await store.close()
    data = bytearray(path.read_bytes())
    data[-2048:] = bytes(2048)
    data[-4096:-4088] = bytes(8)
    path.write_bytes(data)
    return path


async def test_S15_damage_within_a_page_is_found_by_the_check(damaged):
    with pytest.raises(StoreRefusedError, match="recover"):
        await opens(damaged)


async def test_S15_the_check_is_skipped_above_its_limit(damaged, monkeypatch):
    monkeypatch.setattr(limits, "sqlite_check_bytes_max", 10)
    monkeypatch.setattr(schema, "migrate", lambda connection, _: connection.execute("SELECT 1"))
    await opens(damaged)


async def test_S15_a_file_of_something_else_is_refused(path):
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StoreRefusedError, match="damaged, or not an SQLite database"):
        await opens(path)


async def test_a_database_of_another_program_is_refused(path):
    for statement in ("CREATE TABLE notes (text)", "CREATE TABLE meta (name, value)"):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
        with pytest.raises(StoreRefusedError, match="another program"):
            await opens(path)


async def test_S19_a_newer_schema_is_refused(path, by_hand):
    await opens(path)
    by_hand("UPDATE meta SET value = '999' WHERE name = 'schema_version'")
    with pytest.raises(StoreRefusedError, match="newer Farebox"):
        await opens(path)


def as_version_1(by_hand):
    by_hand("DROP TABLE records")
    by_hand("DROP TABLE claims")
    by_hand(
        "CREATE TABLE claims (user TEXT NOT NULL, reference TEXT NOT NULL, pool TEXT NOT NULL, lot TEXT, "
        "amount_pico INTEGER NOT NULL, PRIMARY KEY (user, reference)) STRICT, WITHOUT ROWID"
    )
    by_hand("INSERT INTO claims VALUES ('alice', 'r1', 'credits', NULL, 5)")
    by_hand("UPDATE meta SET value = '1' WHERE name = 'schema_version'")


async def test_S19_a_file_of_the_first_version_is_brought_up_to_date(path, by_hand):
    await opens(path)
    as_version_1(by_hand)
    store = SQLiteStore(path)
    await store.open()
    assert await store.records("payment", limit=1) == []
    assert await store.claims(9) == [("alice", Claim("r1", "credits", None, 5))]
    await store.close()
    assert by_hand("SELECT value FROM meta WHERE name = 'schema_version'") == [(str(schema.VERSION),)]


async def test_S19_a_layout_no_release_had_is_refused_with_the_file(path, by_hand):
    await opens(path)
    by_hand("ALTER TABLE request_log_records RENAME TO logs_of_old")
    with pytest.raises(StoreRefusedError, match=r"store\.db.*older than the first release"):
        await opens(path)


async def test_S19_an_interrupted_upgrade_leaves_the_old_version(path, by_hand, monkeypatch):
    await opens(path)
    as_version_1(by_hand)
    monkeypatch.setattr(schema, "_STEPS", schema._STEPS | {2: (*schema._STEPS[2], "CREATE NONSENSE")})
    with pytest.raises(StoreDownError, match="syntax"):
        await opens(path)
    assert by_hand("SELECT value FROM meta WHERE name = 'schema_version'") == [("1",)]
    monkeypatch.undo()
    await opens(path)


async def test_S19_an_interrupted_creation_leaves_nothing_behind(path, monkeypatch):
    monkeypatch.setattr(schema, "_TABLES", (*schema._TABLES, "CREATE NONSENSE"))
    with pytest.raises(StoreDownError, match="syntax"):
        await opens(path)
    monkeypatch.undo()
    await opens(path)


async def test_S19_two_processes_creating_the_schema_at_once_agree(path):
    for attempt in range(25):
        new_file = path.with_name(f"{attempt}.db")
        await asyncio.gather(*(opens(new_file) for _ in range(8)))


async def test_an_old_library_is_refused(path, monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 9))
    with pytest.raises(StoreRefusedError, match="too old"):
        await opens(path)


async def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StoreRefusedError, match="check the folder"):
        await opens(tmp_path / "none" / "store.db")


async def test_a_place_without_write_ahead_log_is_refused(monkeypatch):
    lane = Lane(Path(":memory:"), name="write", writes=True)
    with pytest.raises(StoreRefusedError, match="local disk"):
        await lane.open()
    await lane.close()


def test_S14_the_switch_to_a_write_ahead_log_waits_for_whoever_is_quicker():
    class Busy:
        """A file that two others are switching at this moment."""

        asked = 0

        def execute(self, _statement: str) -> "Busy":
            self.asked += 1
            if self.asked < 3:
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error
            return self

        def fetchone(self) -> tuple[str]:
            return ("wal",)

    file = Busy()
    assert _keep_write_ahead_log(file) == "wal"
    assert file.asked == 3


async def test_a_store_not_open_or_closed_says_so(path):
    store = SQLiteStore(path)
    with pytest.raises(StoreDownError, match="not open"):
        await store.account("alice")
    await store.close()
    await store.close()
    with pytest.raises(StoreDownError, match="closed"):
        await store.account("alice")


async def test_calls_waiting_at_the_close_fail_as_not_begun(store):
    calls = [asyncio.ensure_future(store.create_user(f"user{n}", "user", "t", 1)) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} <= {bool, StoreDownError}
    assert StoreDownError in {type(result) for result in results}


async def test_a_cancelled_caller_is_cancelled_not_told_a_fault(store):
    calls = [asyncio.ensure_future(store.create_user(f"user{n}", "user", "t", 1)) for n in range(20)]
    await asyncio.sleep(0)
    calls[-1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[-1]
    assert all(await asyncio.gather(*calls[:-1]))


async def test_a_fault_inside_an_operation_leaves_no_trace(store, scene):
    await scene.user("alice", usd=1)

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE pools SET balance_pico = 0, seen_pico = 0")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        await store._writer.run(half)
    await scene.sound()


@pytest.mark.parametrize(
    ("code", "committing", "kind"),
    [
        (sqlite3.SQLITE_BUSY, False, StoreDownError),
        (sqlite3.SQLITE_FULL, True, StoreDownError),
        (sqlite3.SQLITE_IOERR, False, StoreDownError),
        (sqlite3.SQLITE_IOERR_FSYNC, True, StoreUnknownError),
        (sqlite3.SQLITE_CORRUPT, False, StoreRefusedError),
        (sqlite3.SQLITE_READONLY, False, StoreRefusedError),
    ],
)
def test_every_error_says_whether_something_may_have_happened(code, committing, kind):
    error = sqlite3.OperationalError("from the library")
    error.sqlite_errorcode = code
    made = fault(error, Path("store.db"), committing=committing)
    assert type(made) is kind
    assert "store.db" in str(made)


def test_a_savepoint_does_not_mind_a_transaction_that_is_gone():
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("BEGIN")
        with pytest.raises(sqlite3.OperationalError), savepoint(connection):
            connection.executescript("ROLLBACK; SELECT nothing")
        assert not connection.in_transaction


async def test_a_user_who_vanishes_inside_a_transaction_is_a_broken_invariant(store):
    with pytest.raises(InvariantBrokenError, match="vanished"):
        await store._writer.run(moves.loaded, "ghost")


def test_poison_is_told_from_trouble_of_the_store():
    assert is_row_error(OverflowError())
    assert not is_row_error(sqlite3.OperationalError("disk"))


async def test_a_disk_that_fails_while_committing_leaves_the_outcome_unknown(store, scene):
    class Failing:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection

        def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
            if statement == "COMMIT":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                raise error
            return self._connection.execute(statement, *values)

        def __getattr__(self, name: str) -> object:
            return getattr(self._connection, name)

    await scene.user("alice")
    whole = store._writer._connection
    store._writer._connection = Failing(whole)
    with pytest.raises(StoreUnknownError, match="during a commit"):
        await store.set_user_active("alice", False, "test", 1)
    store._writer._connection = whole
    assert (await store.account("alice")).is_active


async def test_trouble_while_a_record_is_booked_alone_is_not_a_bad_record(store, scene, monkeypatch):
    await scene.user("alice", usd=1)
    await scene.journal()

    def failing(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(single, "_book", failing)
        with pytest.raises(StoreDownError, match="disk I/O error"):
            await store.book(scene.J, 1, [scene.settlement("alice", 9)], scene.NOW)
    assert await store.parked() == []
    assert await scene.balance("alice") == scene.USD


@pytest.mark.parametrize("operation", ["book", "book one by one", "log", "apply_event"])
async def test_trouble_of_the_store_is_never_taken_for_a_bad_record(store, scene, by_hand, operation):
    await scene.user("alice", usd=1)
    await scene.journal()
    (part,) = await scene.lease("alice", 50)
    charges = [scene.settlement("alice", 5, (part._replace(amount_pico=5),)) for _ in range(2)]
    by_hand("ALTER TABLE credit_transactions RENAME COLUMN cause TO gone")
    by_hand("ALTER TABLE request_log_records RENAME COLUMN created_ms TO gone")
    event = Event((scene.row("alice", "adjustment", "credits", -5),))
    calls = {
        "book": lambda: store.book(scene.J, 1, charges, scene.NOW),
        "book one by one": lambda: store.book(scene.J, 1, [scene.settlement("alice", 9)], scene.NOW),
        "log": lambda: store.log(charges, {}),
        "apply_event": lambda: store.apply_event(event, scene.NOW),
    }
    with pytest.raises(StoreDownError):
        await calls[operation]()
    by_hand("ALTER TABLE credit_transactions RENAME COLUMN gone TO cause")
    assert await store.parked() == []
    await scene.sound()


async def test_trouble_while_log_rows_go_one_by_one_is_not_a_bad_row(store, scene, monkeypatch):
    verdicts = iter([True, False])
    monkeypatch.setattr(logs, "is_row_error", lambda _: next(verdicts))
    with pytest.raises(OverflowError):
        await store.log([scene.settlement("alice", 2**63)], {})


async def test_open_store_by_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = open_store("sqlite:///store%20one.db")
    await relative.open()
    await relative.close()
    assert (tmp_path / "store one.db").exists()
    assert open_store(f"sqlite:///{tmp_path}/x.db").path == tmp_path / "x.db"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mongodb://host/db?w=1", "take w out"),
        ("mongodb+srv://host/db?readPreference=secondary", "take readpreference out"),
        ("sqlite:///", "is named as"),
        ("sqlite://host/x", "is named as"),
        ("postgres://x", "is named as"),
        ("sqlite:///x.db?synchronous=off", "no options"),
    ],
)
def test_S16_any_other_url_is_refused(url, says):
    with pytest.raises(StoreRefusedError, match=says):
        open_store(url)


async def test_hole_41_expiry_is_by_the_callers_store_time_not_by_ours(store, scene):
    await scene.user("alice")
    await scene.credit("alice", 5, expires=scene.NOW + 1)
    await scene.journal()
    assert (await store.grant("alice", "ohmygpt", scene.J, 1, 0, 5, 5, scene.NOW)).reason == ""
    event = Event((scene.row("alice", "adjustment", "credits", 0),))
    assert await store.apply_event(event, scene.NOW + 5) is EventResult.DONE
    await scene.sound()
