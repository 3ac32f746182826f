"""The matrix: every subject under every load, on SQLite and, for a part of the loads, on MongoDB.

A load has a fresh Farebox with a fresh store, behind it the same scripted upstream as behind nginx; subjects
take turns. A cell that fails says why, Farebox is replaced, and the rest goes on.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import cells
import rig
from cells import BOTH, DIRECT, FAREBOX, LARGE_BODIES, NGINX, Served, Subject
from results import Cell, Result
from workloads import CONCURRENCY, MATRIX, PLAIN_SMALL, STREAM_FAST, STREAM_PACED, Workload

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

MONGODB_LOADS = (PLAIN_SMALL, STREAM_PACED, STREAM_FAST)
QUICK_LOADS = (PLAIN_SMALL, STREAM_PACED)
MONGODB_SECONDS = 1.0
"""The database server for tests books more slowly than Farebox serves, and each cell waits for it."""
QUICK_SHARE = 0.5


class Stage:
    """The subjects of one load, running; a context manager through `staged`."""

    def __init__(self, the_rig: rig.Rig, name: str, store_url: str, *, only_farebox: bool) -> None:
        self.rig = the_rig
        self.name = name
        self.store_url = store_url
        self.only_farebox = only_farebox
        self.subjects: list[Subject] = []
        self._number = 0

    def begin(self) -> None:
        """Start everything."""
        if not self.only_farebox:
            nginx, port = self.rig.start_nginx(f"{self.name}-nginx", more=LARGE_BODIES)
            self.subjects += [
                Subject(DIRECT, self.rig.upstream_port, "none", []),
                Subject(NGINX, port, "none", [nginx]),
            ]
        self.subjects += self._fareboxes()

    def _fareboxes(self) -> list[Subject]:
        self._number += 1
        url = f"{self.store_url}{self._number}" if self.store_url else ""
        farebox = self.rig.start_farebox(f"{self.name}-{self._number}", url)
        front, port = self.rig.start_nginx(
            f"{self.name}-{self._number}-front", farebox.port, "/readyz", LARGE_BODIES
        )
        served = Served()
        return [
            Subject(FAREBOX, farebox.port, farebox.key, [farebox.process], farebox, served),
            Subject(BOTH, port, farebox.key, [farebox.process, front], farebox, served),
        ]

    def renew(self) -> None:
        """Another Farebox with another store in the place of one that failed."""
        kept = [subject for subject in self.subjects if subject.farebox is None]
        self.end([subject for subject in self.subjects if subject.farebox is not None])
        self.subjects = [*kept, *self._fareboxes()]

    def end(self, subjects: list[Subject]) -> None:
        """Stop what runs for these subjects."""
        processes = [process for subject in subjects for process in subject.processes]
        for process in {id(process): process for process in processes}.values():
            self.rig.stop(process)


@contextlib.contextmanager
def staged(
    the_rig: rig.Rig, name: str, store_url: str = "", *, only_farebox: bool = False
) -> Iterator[Stage]:
    """Subjects that run until the end of the block."""
    stage = Stage(the_rig, name, store_url, only_farebox=only_farebox)
    stage.begin()
    try:
        yield stage
    finally:
        stage.end(stage.subjects)


def run(the_rig: rig.Rig, result: Result, *, quick: bool) -> None:
    """All cells on SQLite, then some on MongoDB; each is in the result once it is measured."""
    for workload in QUICK_LOADS if quick else MATRIX:
        _run_load(the_rig, result, workload, "sqlite", workload.seconds * (QUICK_SHARE if quick else 1.0))
    if quick:
        result.notes.append("A short look: fewer loads, none on MongoDB.")
        return
    with mongodb(the_rig, result) as url:
        for workload in MONGODB_LOADS if url else ():
            _run_load(
                the_rig, result, workload, "mongodb", MONGODB_SECONDS, f"{url}/bench{len(result.cells)}-"
            )


def _run_load(
    the_rig: rig.Rig, result: Result, workload: Workload, store: str, seconds: float, store_url: str = ""
) -> None:
    name = f"{store}-{MATRIX.index(workload)}"
    try:
        with staged(the_rig, name, store_url, only_farebox=bool(store_url)) as stage:
            for subject in stage.subjects:
                cells.warm_up(the_rig, subject, workload)
            for concurrency in CONCURRENCY:
                for number in range(len(stage.subjects)):
                    cell = _measured(the_rig, stage, number, workload, store, seconds, concurrency)
                    result.cells.append(cell)
                    print(line(cell), flush=True)
    except SystemExit as error:
        result.notes.append(f"{workload.name} on {store} ended early: {error}")
        print(f"  {result.notes[-1]}", flush=True)


def _measured(
    the_rig: rig.Rig,
    stage: Stage,
    number: int,
    workload: Workload,
    store: str,
    seconds: float,
    concurrency: int,
) -> Cell:
    subject = stage.subjects[number]
    try:
        cell = cells.measure(
            the_rig, subject, workload, seconds=seconds, concurrency=concurrency, store=store
        )
    except SystemExit as error:
        cell = Cell(subject.name, workload.name, concurrency, store=store, failed=str(error)[:1000])
    if cell.failed and subject.farebox is not None:
        stage.renew()
    return cell


@contextlib.contextmanager
def mongodb(the_rig: rig.Rig, result: Result) -> Iterator[str]:
    """The tests' MongoDB-wire server, on the generator's core; empty, with a note, where it is missing."""
    if not Path(sys.executable).with_name("secantusd-py").exists():
        result.notes.append("MongoDB left out: secantusdb is not installed.")
        yield ""
        return
    from mongodb import MongoDBServer  # noqa: PLC0415 - needs the packages of the tests

    folder = the_rig.folder / "mongodb"
    folder.mkdir()
    server = MongoDBServer(folder)
    with rig.on_core(the_rig.load_core):
        server.start()
    result.notes.append(
        f"On MongoDB: {', '.join(workload.name for workload in MONGODB_LOADS)}; the server is the one of the"
        " tests (SecantusDB over WiredTiger), on the generator's core."
    )
    try:
        yield server.url
    finally:
        server.kill()


def line(cell: Cell) -> str:
    """A cell for people."""
    what = f"  {cell.subject:<19}{cell.load:<21}{cell.concurrency:>5} {cell.store:<8}"
    if cell.failed:
        return f"{what}FAILED: {cell.failed[:200]}"
    cost = f"{cell.cpu_us:>9.1f} µs CPU, core {cell.busy:>4.0%}" if cell.cpu_us is not None else ""
    first = cell.first_byte_ms
    times = f"first byte p50 {first.p50:.2f} p99 {first.p99:.2f} ms" if first else ""
    return f"{what}{cell.per_s:>9.0f}/s  {times}  {cost}  {cell.books}"
