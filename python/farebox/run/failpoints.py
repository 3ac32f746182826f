"""Failpoints: named places in journal, writer, store and proxy where a test may make a process die or fail.

Normal builds pay nothing: no failpoint stands in the code. A process whose environment names a folder in
`FAREBOX_FAILPOINTS` wraps the functions of the table below as it starts, and only if a test has put a file
named `allowed` into that folder; else it refuses to start. Without the variable this module is not loaded.

A file in the folder arms the point of its name, at any time, in whichever process gets there first. It holds
an action and options: `kill`, `stop` (SIGSTOP), `delay 500` (milliseconds), `raise StoreDownError`, `raise
OSError EIO`, or `pass`, which only counts; `skip=2` lets the first two pass, `times=20` does it twenty times.
Each time is a line in `fired`.
"""

import asyncio
import builtins
import errno
import functools
import importlib
import inspect
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from farebox.base import errors
from farebox.base.errors import UsageError

VARIABLE: Final = "FAREBOX_FAILPOINTS"
PERMIT: Final = "allowed"
FIRED: Final = "fired"

_log = logging.getLogger("farebox.failpoints")

Where = Literal["before", "after", "within"]


@dataclass(frozen=True, slots=True)
class Point:
    """A place: before or after `target` (`module:name`), or within it after half of what it was to write."""

    name: str
    where: Where
    target: str
    stands_for: str


def _points(room: str, rows: str) -> tuple[Point, ...]:
    found = []
    for row in rows.strip().splitlines():
        name, where, target, stands_for = row.strip().split(maxsplit=3)
        assert where in {"before", "after", "within"}  # noqa: S101 - the table below, checked by its test
        found.append(Point(f"{room}.{name}", where, f"farebox.{target}", stands_for))  # type: ignore[arg-type]
    return tuple(found)


POINTS: Final = (
    *_points(
        "journal",
        """
  turn       before  journal.appender:Appender._flush    records are queued, none is written
  write      within  journal.files:Files.pwrite          half of a write is in the file
  written    after   journal.tail:Tail.write             a turn is written, nobody knows, nothing is synced
  sync       before  journal.sync:SyncThread._sync       written and acted upon, not synced
  synced     after   journal.sync:SyncThread._sync       on disk, not published as synced
  directory  before  journal.files:Files.sync_directory  a name was made or removed, not durably
  rotated    after   journal.appender:Appender._rotate   a new segment stands, nothing is carried into it
  delete     before  journal.files:Files.unlink          a segment nobody needs is about to go
  cut        before  journal.journal:cut_tail            a torn tail was found
  noted      after   journal.journal:write_epoch         the epoch to be claimed is noted in the folder
  begun      after   journal.appender:Appender.begin     the epoch's first segment stands
""",
    ),
    *_points(
        "proxy",
        """
  hold       before  proxy.service:begin_sending                money is held, nothing is recorded
  sending    before  proxy.exchange:send_recorded               open and sent are recorded, no byte has left
  sent       after   proxy.sending:_was_sent                    the request has left
  answered   before  proxy.exchange:Exchange.on_head            the upstream has begun to answer
  whole      before  proxy.exchange:Exchange.take_whole         the usual plain answer may have come
  chunk      after   wire.relay:Relay.on_data                   a part of a stream was passed on
  settle     before  proxy.exchange:record_settlement           usage is known, nothing of it is recorded
  settling   after   proxy.exchange:record_settlement           the settlement is queued
  recorded   before  proxy.exchange:Exchange.recorded           recorded, the client has not seen the end
  delivered  after   proxy.exchange:Exchange.recorded           recorded, and the client's end is sent
  void       before  proxy.sending:record_void                  a hold was given up, the void is not recorded
  grant      before  proxy.lease_calls:LeaseCalls._grant        money is about to be leased
  granted    after   proxy.lease_calls:LeaseCalls._grant        money was leased
  return     before  proxy.lease_calls:LeaseCalls._return_free  free money is about to go back
  returned   after   proxy.lease_calls:LeaseCalls._return_free  free money went back
  fence      before  proxy.lease_calls:LeaseCalls.fence         a lease in doubt is about to be read anew
""",
    ),
    *_points(
        "writer",
        """
  read      after   writer.journals:JournalSource.read_synced     records are read, none is booked
  book      before  writer.apply:JournalApplier._book             the same, about to be booked
  booked    after   writer.apply:JournalApplier._book             booked, nothing is logged
  finished  after   writer.apply:JournalApplier._finish           logged, rolled up and marked applied
  deleting  before  writer.journals:JournalSource.delete_applied  applied segments are about to go
  put_away  before  writer.adopt:_put_away                        a journal is retired, its folder stands
""",
    ),
    *_points(
        "store",
        """
  begin      before  store.sqlite.connection:Lane._transact  an operation has not begun
  committed  after   store.sqlite.connection:Lane._transact  committed, and nobody was told
  claim      after   store.sqlite.journals:claim_epoch       an epoch is claimed, not committed
  grant      after   store.sqlite.leases:grant               a lease is granted, not committed
  give_back  after   store.sqlite.leases:give_back           a return is made, not committed
  fence      after   store.sqlite.leases:fence               a lease is fenced, not committed
  book       after   store.sqlite.booking:book               a batch is booked, not committed
  log        after   store.sqlite.logs:log                   request logs are inserted, not committed
  roll_up    after   store.sqlite.logs:roll_up               rollups are raised, not committed
  applied    after   store.sqlite.journals:advance_applied   the low-water mark is raised, not committed
  event      after   store.sqlite.events:apply_event         a money event is applied, not committed
  ended      after   store.sqlite.journals:end_journal       a journal is ended, not committed
""",
    ),
    *_points(
        "mongo",
        """
  begin       before  store.mongo.connection:Connection._attempt  a transaction has not begun
  committing  before  store.mongo.connection:Connection._commit   all is written, nothing is committed
  committed   after   store.mongo.connection:Connection._commit   committed, and nobody was told
  claim       after   store.mongo.journals:claim_epoch            an epoch is claimed, not committed
  granting    before  store.mongo.leases:_lease_out               slices are chosen, nothing is written
  granted     after   store.mongo.leases:_lease_out               a lease is granted, nobody was told
  give_back   after   store.mongo.leases:give_back                a return is made, nobody was told
  fence       after   store.mongo.leases:fence                    a lease is fenced, not committed
  rows        after   store.mongo.rows:insert                     ledger rows are inserted, no money has moved
  book        after   store.mongo.booking:_write                  a batch is booked, not committed
  look        before  store.mongo.careful:_Batch.write            a batch with a look is decided
  looked      after   store.mongo.careful:_Batch.write            it is booked or parked, not committed
  saved       after   store.mongo.accounts:save_many              users are written, no change is told
  log         after   store.mongo.logs:log                        request logs stand, rollups do not
  roll_up     after   store.mongo.logs:roll_up                    rollups are raised, not committed
  applied     after   store.mongo.journals:advance_applied        the low-water mark is raised, not committed
  event       after   store.mongo.events:apply_in                 a money event is applied, not committed
  number      after   store.mongo.feed:_give_numbers              changes are numbered, not committed
  ended       after   store.mongo.journals:_end_some              a journal is ended, not committed
""",
    ),
    *_points(
        "recovery",
        """
  scanned   after   journal.journal:Journal.scan         the journal is checked and cut
  claimed   before  journal.journal:Journal.begin_epoch  the epoch is claimed, no segment is made for it
  begun     after   journal.journal:Journal.begin_epoch  nothing that a crash cut off has an end yet
  ended     after   writer.recovery:_end_open_exchanges  open exchanges have their ends, synced
  returned  after   writer.recovery:_return_free_money   leases are fenced, free money is back
""",
    ),
)


# -- weaving -------------------------------------------------------------------------------------------------
def weave(environment: Mapping[str, str]) -> None:
    """Put the points into this process if the environment asks for it. Raises UsageError where it may not."""
    directory = permitted(environment)
    if directory is None:
        return
    _log.critical("failpoints are woven in from %s: this process may kill itself; for tests only", directory)
    for point in POINTS:
        owner, name = resolve(point)
        function = getattr(owner, name)
        if not inspect.isfunction(function):
            raise UsageError(
                f"failpoint {point.name} cannot be woven around {point.target}, which is compiled: set "
                f"{VARIABLE} or FAREBOX_INTERPRETED=1 before the process starts"
            )
        setattr(owner, name, _wrapped(function, point, directory))


def permitted(environment: Mapping[str, str]) -> Path | None:
    """The folder of armed points, or None. Raises UsageError where no test has allowed them."""
    named = environment.get(VARIABLE)
    if not named:
        return None
    directory = Path(named)
    if not (directory / PERMIT).is_file():
        raise UsageError(
            f"{VARIABLE} is set, which is for tests alone: processes would kill themselves. Unset it "
            f"(a test allows it by a file {directory / PERMIT})"
        )
    return directory


def resolve(point: Point) -> tuple[Any, str]:
    """Who holds a point's function, and under which name. Raises AttributeError, ImportError."""
    module, _, path = point.target.partition(":")
    *outer, name = path.split(".")
    owner = functools.reduce(getattr, outer, importlib.import_module(module))
    getattr(owner, name)
    return owner, name


def _wrapped(function: Callable[..., Any], point: Point, directory: Path) -> Callable[..., Any]:
    reach = _Reach(point, directory)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def waiting(*arguments: Any, **named: Any) -> Any:
            if point.where == "before":
                await reach.wait()
                return await function(*arguments, **named)
            result = await function(*arguments, **named)
            await reach.wait()
            return result

        return waiting

    @functools.wraps(function)
    def plain(*arguments: Any, **named: Any) -> Any:
        if point.where == "before":
            reach.now()
            return function(*arguments, **named)
        if point.where == "within":
            return reach.within(function, *arguments, **named)
        result = function(*arguments, **named)
        reach.now()
        return result

    return plain


class _Reach:
    """What happens when a process reaches a point."""

    def __init__(self, point: Point, directory: Path) -> None:
        self._name = point.name
        self._directory = directory
        self._armed = directory / point.name

    def now(self) -> None:
        """Act, if this is the time; delays block the thread."""
        time.sleep(self._act(self._claim()))

    async def wait(self) -> None:
        """Act, if this is the time; delays let others run."""
        delay_s = self._act(self._claim())
        if delay_s:
            await asyncio.sleep(delay_s)

    def within(
        self, write: Callable[..., int], files: object, descriptor: int, data: bytes, offset: int
    ) -> int:
        """Write all, or if this is the time only half, and act then."""
        order = self._claim()
        is_whole = order is None or order == ["pass"]
        written = write(files, descriptor, data if is_whole else data[: len(data) // 2], offset)
        time.sleep(self._act(order))
        return written

    def _act(self, order: list[str] | None) -> float:
        """Kill, stop or raise; the seconds to wait otherwise."""
        if order is None or order == ["pass"]:
            return 0.0
        action, *arguments = order
        _log.critical("failpoint %s: %s", self._name, " ".join(order))
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif action == "raise":
            raise _error(self._name, *arguments)
        elif action == "delay":
            return int(arguments[0]) / 1000
        else:
            raise UsageError(f"failpoint {self._name}: there is no action {action!r}")
        return 0.0

    def _claim(self) -> list[str] | None:
        """The armed action, for one who gets here at the right time; one claimant at a time."""
        mine = self._directory / f".{self._name}.{os.getpid()}.{threading.get_ident()}"
        try:
            self._armed.rename(mine)
        except FileNotFoundError:
            return None
        words = mine.read_text().split()
        options = dict(word.split("=") for word in words if "=" in word)
        skip, times = int(options.get("skip", 0)), int(options.get("times", 1))
        order = [word for word in words if "=" not in word]
        if skip or times > 1:
            left = times if skip else times - 1
            mine.write_text(f"{' '.join(order)} skip={max(0, skip - 1)} times={left}")
            mine.rename(self._armed)
        else:
            mine.unlink()
        if skip:
            return None
        with (self._directory / FIRED).open("a") as fired:
            fired.write(f"{self._name} {os.getpid()}\n")
        return order


def _error(name: str, kind: str, code: str = "") -> BaseException:
    if code:
        number = getattr(errno, code)
        return OSError(number, os.strerror(number))
    found = getattr(errors, kind, None) or getattr(builtins, kind)
    error: BaseException = found(f"failpoint {name}")
    return error
