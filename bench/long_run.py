"""`make long-run`: ten million exchanges through journal, writer and SQLite at full speed, without HTTP.

Shows that journal disk use is bounded, recovery time flat and the memory of `verify` flat, however many
exchanges there were. Users' money is leased in slices and topped up as they spend it; some exchanges stay
open for a long time; at every checkpoint the worker is gone with exchanges open, its journal is recovered,
and `farebox verify` looks at everything in a process of its own. Prints a row for each checkpoint; the last
line is one JSON object. Exit 1 when anything is not clean or not bounded.

    python bench/long_run.py [--count 10000000] [--users 100] [--checkpoints 10] [--folder DIR]
                             [--segment-bytes N] [--step N]
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "python"))

from farebox.base import frames, limits  # noqa: E402
from farebox.base.ids import ExchangeIds  # noqa: E402
from farebox.base.records import LotAmount  # noqa: E402
from farebox.base.units import PICO_PER_USD  # noqa: E402
from farebox.credits.accounts import create_user  # noqa: E402
from farebox.credits.moves import Move  # noqa: E402
from farebox.credits.transfers import perform  # noqa: E402
from farebox.journal import Journal, create, open_journal, progress_payload  # noqa: E402
from farebox.meter.price_book import new_price_book, to_plain  # noqa: E402
from farebox.run.process import tune_garbage_collection  # noqa: E402
from farebox.store.sqlite import SQLiteStore  # noqa: E402
from farebox.writer.recovery import recover  # noqa: E402
from farebox.writer.service import Writer  # noqa: E402
from journal_load import CHARGE_PICO, MODEL, NOW_MS, POOL, WALLET, bytes_in, opened, settled  # noqa: E402

TURN = 64
STAYS_OPEN_EVERY = 997
"""One exchange in so many is a long stream."""
STAYS_OPEN_FOR = 50_000
"""Exchanges that end before a long stream does."""
SEGMENTS_MAX = 4
"""Segments of a journal that is applied as it is written: the one being written, the one being read, and what
carries open exchanges between them.
"""
EXCHANGE_BYTES_MAX = 1000
"""Journal bytes of one exchange."""
VERIFY_BYTES_MAX = 128 * 2**20
"""Memory of verify beside two segments of a journal, whatever it looks at."""


@dataclass(slots=True)
class Checkpoint:
    """What was measured since the checkpoint before; CPU is of this process (apply) or of verify's."""

    exchanges: int
    cpu_us: float
    journal_bytes_max: int
    journal_segments_max: int
    recovery_s: float
    recovery_cpu_s: float
    recovered_open: int
    verify_s: float
    verify_cpu_s: float
    verify_peak_bytes: int
    store_bytes: int
    is_clean: bool


@dataclass(slots=True)
class Purse:
    """One user's leased money as his worker knows it."""

    user: str
    lots: deque[list[Any]] = field(default_factory=deque)
    """[lot, pico left], oldest first."""
    top_ups: int = 0

    @property
    def left_pico(self) -> int:
        return sum(left for _, left in self.lots)

    def take(self) -> tuple[LotAmount, ...]:
        """The charge of one exchange, out of as many lots as it needs."""
        takes = []
        needed = CHARGE_PICO
        while needed:
            lot = self.lots[0]
            part = min(needed, lot[1])
            takes.append(LotAmount(lot[0], POOL, part))
            lot[1] -= part
            needed -= part
            if not lot[1]:
                self.lots.popleft()
        return tuple(takes)


class LongRun:
    """One worker's journal, the writer, and the store, in one process and one folder."""

    def __init__(self, folder: Path, users: int, step: int) -> None:
        """`step`: exchanges between two looks at leases, disk and writer."""
        self.folder = folder
        self._step_max = step
        self.store = SQLiteStore(folder / "farebox.sqlite")
        self.writer = Writer(self.store, folder / "journals")
        self.made = 0
        self._purses = [Purse(f"user-{number}") for number in range(users)]
        self._ids = ExchangeIds()
        self._streams: deque[tuple[int, str, Purse]] = deque()
        self._journal: Journal
        self._epoch = 0
        self._cpu_s = 0.0
        self._bytes_max = 0
        self._segments_max = 0

    async def begin(self) -> None:
        """Users without money, a price book, a journal under its first epoch."""
        await self.store.open()
        book = new_price_book({MODEL: {"lines": {"input": "1.25", "output": "10"}, "multiplier": "1"}}, 1, 0)
        await self.store.put_price_book(to_plain(book), book.content_hash, NOW_MS)
        for purse in self._purses:
            await create_user(self.store, purse.user, "user", "bench", NOW_MS)
        journal = create(self.folder / "journals")
        await self._recover(journal)
        tune_garbage_collection()

    async def run(self, count: int) -> Checkpoint:
        """Make and apply `count` more exchanges, lose the worker, recover, verify."""
        self._cpu_s, self._bytes_max, self._segments_max = 0.0, 0, 0
        ends_at = self.made + count
        while self.made < ends_at:
            await self._step(min(self._step_max, ends_at - self.made))
        cpu_us = 1e6 * self._cpu_s / count
        directory = self._journal.directory
        still_open = len(self._streams)
        self._journal.close()
        self._streams.clear()
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        await self._recover(open_journal(directory))
        recovery_s, recovery_cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
        await self.writer.drain()
        seen = await asyncio.to_thread(verify_apart, self.folder)
        return Checkpoint(
            exchanges=self.made,
            cpu_us=round(cpu_us, 1),
            journal_bytes_max=self._bytes_max,
            journal_segments_max=self._segments_max,
            recovery_s=round(recovery_s, 3),
            recovery_cpu_s=round(recovery_cpu_s, 3),
            recovered_open=still_open,
            store_bytes=bytes_in(self.folder, "farebox.sqlite*"),
            is_clean=seen.pop("is_clean") and seen.pop("rows") == self._rows_due(),
            **seen,
        )

    async def close(self) -> None:
        """Release everything."""
        self.writer.close()
        self._journal.close()
        await self.store.close()

    def _rows_due(self) -> int:
        """Ledger rows there must be, where no charge came out of two lots of two pools."""
        return self.made + sum(purse.top_ups for purse in self._purses)

    async def _step(self, count: int) -> None:
        for purse in self._purses:
            await self._lease(purse, 2 * CHARGE_PICO * (count // len(self._purses) + 2))
        began_cpu_s = time.process_time()
        for start in range(0, count, TURN):
            for _ in range(min(TURN, count - start)):
                self._exchange()
            await asyncio.sleep(0)
        self._look_at_disk()
        await self.writer.drain()
        self._cpu_s += time.process_time() - began_cpu_s
        self._look_at_disk()

    def _exchange(self) -> None:
        purse = self._purses[self.made % len(self._purses)]
        now_ms = NOW_MS + self.made // 10
        exchange = self._ids.new(now_ms)
        self.made += 1
        append = self._journal.append
        append(frames.OPEN_SENT, opened(exchange, purse.user, now_ms))
        if self.made % STAYS_OPEN_EVERY:
            append(frames.SETTLE, settled(exchange, purse.user, purse.take(), now_ms))
        else:
            append(frames.PROGRESS, progress_payload(exchange, 9))
            self._streams.append((self.made + STAYS_OPEN_FOR, exchange, purse))
        while self._streams and self._streams[0][0] <= self.made:
            _, ended, owner = self._streams.popleft()
            append(frames.SETTLE, settled(ended, owner.user, owner.take(), now_ms))

    async def _lease(self, purse: Purse, need_pico: int) -> None:
        """Lease a slice; where the user has too little left, he buys some first."""
        if purse.left_pico >= need_pico:
            return
        account = await self.store.account(purse.user)
        assert account is not None
        entry = account.leases.get(self._journal.id)
        arguments = (purse.user, WALLET, self._journal.id, self._epoch, 0 if entry is None else entry.op)
        answer = await self.store.grant(*arguments, need_pico, 4 * need_pico, NOW_MS)
        if answer.reason == "short":
            purse.top_ups += 1
            bought_pico = 100 * need_pico // PICO_PER_USD * PICO_PER_USD + PICO_PER_USD
            key = f"{purse.user}-{purse.top_ups}"
            await perform(
                self.store, Move("grant", key, purse.user, POOL, bought_pico, "bench", "bench"), NOW_MS
            )
            answer = await self.store.grant(*arguments, need_pico, 4 * need_pico, NOW_MS)
        if answer.reason:
            raise SystemExit(f"no lease for {purse.user}: {answer.reason}")
        purse.lots.extend([part.lot, part.amount_pico] for part, _ in answer.added)

    async def _recover(self, journal: Journal) -> None:
        """Make the journal ready again, as a new worker would; leases have gone back."""
        loop = asyncio.get_running_loop()
        recovered = await recover(
            journal,
            self.store,
            now_ms=NOW_MS + self.made // 10,
            host="bench",
            schedule=loop.call_soon,
            wake=loop.call_soon_threadsafe,
        )
        self._journal, self._epoch = journal, recovered.epoch
        for purse in self._purses:
            purse.lots.clear()

    def _look_at_disk(self) -> None:
        segments = list(self._journal.directory.glob("*.segment"))
        self._segments_max = max(self._segments_max, len(segments))
        self._bytes_max = max(self._bytes_max, sum(segment.stat().st_size for segment in segments))


def verify_apart(folder: Path) -> dict[str, Any]:
    """`farebox verify` in a process of its own: its verdict, time, CPU and peak memory."""
    command = [sys.executable, "-m", "farebox.run.cli", "verify", "--json"]
    where = ["--store", f"sqlite:///{folder}/farebox.sqlite", "--journal-dir", str(folder / "journals")]
    path = os.pathsep.join([str(REPOSITORY / "python"), os.environ.get("PYTHONPATH", "")])
    began_s = time.monotonic()
    child = subprocess.Popen(
        [*command, *where], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    assert child.stdout is not None
    said = child.stdout.read()
    child.stdout.close()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    report = json.loads(said)
    for difference in report["differences"]:
        print(difference)
    return {
        "verify_s": round(time.monotonic() - began_s, 2),
        "verify_cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "verify_peak_bytes": usage.ru_maxrss * 1024,
        "is_clean": report["clean"] and not report["pending"] and not report["parked_total"],
        "rows": report["rows"],
    }


def faults(found: list[Checkpoint], step: int) -> list[str]:
    """What is not as it must be."""
    bound = SEGMENTS_MAX * limits.segment_bytes_max + step * EXCHANGE_BYTES_MAX
    wrong = [f"at {one.exchanges} exchanges the store is not clean" for one in found if not one.is_clean]
    wrong += [
        f"at {one.exchanges} exchanges the journal took {one.journal_bytes_max} bytes, more than {bound}"
        for one in found
        if one.journal_bytes_max > bound
    ]
    memory_bound = VERIFY_BYTES_MAX + 2 * limits.segment_bytes_max
    wrong += [
        f"at {one.exchanges} exchanges verify took {one.verify_peak_bytes} bytes, more than {memory_bound}"
        for one in found
        if one.verify_peak_bytes > memory_bound
    ]
    return wrong


HEAD = (
    "exchanges   us CPU   journal MB (segments)   recovery s (CPU, open)   verify s (CPU, peak MB)   store MB"
)


def row(one: Checkpoint) -> str:
    """A checkpoint for people."""
    return (
        f"{one.exchanges:>9,}  {one.cpu_us:>7.1f}  {one.journal_bytes_max / 1e6:>11.1f} "
        f"({one.journal_segments_max})"
        f"  {one.recovery_s:>16.2f} ({one.recovery_cpu_s:.2f}, {one.recovered_open})"
        f"  {one.verify_s:>12.1f} ({one.verify_cpu_s:.1f}, {one.verify_peak_bytes / 1e6:.0f})"
        f"  {one.store_bytes / 1e6:>14.0f}"
    )


async def run(folder: Path, count: int, users: int, checkpoints: int, step: int) -> list[Checkpoint]:
    """All of it; a line for each checkpoint."""
    long_run = LongRun(folder, users, step)
    await long_run.begin()
    print(HEAD, flush=True)
    found = []
    for number in range(1, checkpoints + 1):
        found.append(await long_run.run(count * number // checkpoints - long_run.made))
        print(row(found[-1]), flush=True)
    await long_run.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--segment-bytes", type=int, default=limits.segment_bytes_max)
    parser.add_argument("--step", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="where the files go; default: a temporary folder")
    arguments = parser.parse_args()
    limits.segment_bytes_max = arguments.segment_bytes
    with tempfile.TemporaryDirectory(prefix="farebox-long-run-", dir=arguments.folder) as folder:
        how = (arguments.count, arguments.users, arguments.checkpoints, arguments.step)
        found = asyncio.run(run(Path(folder), *how))
    wrong = faults(found, arguments.step)
    for fault in wrong:
        print(fault)
    print(json.dumps({"ok": not wrong, "wrong": wrong, "checkpoints": [asdict(one) for one in found]}))
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
