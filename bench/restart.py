"""Starts: to the first request served, and after kill -9 with a full journal.

    python bench/restart.py make FOLDER COUNT     a store, and the journal of a worker that was killed

The journal is a killed worker's whose writer had not booked anything: COUNT settled exchanges of an ordinary
size, made by the journal's own code. What is timed is `farebox serve` from its start to its first answer.
"""

import asyncio
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import journal_load
import rig
from farebox.base.clock import wall_ms
from farebox.meter.price_book import new_price_book, to_plain
from farebox.run.demo.processes import free_port
from farebox.store import open_store

USERS = 100
_SERVED_WITHIN_S = 300.0
_LOOK_EVERY_S = 0.005


@dataclass(frozen=True, slots=True)
class Recovery:
    """A start on a full journal."""

    records: int
    served_s: float
    journal_bytes: int
    booked: int
    """Charges in the store afterwards, the first request's among them."""


def first_request_s(the_rig: rig.Rig, rounds: int) -> list[float]:
    """Seconds from the start of `farebox serve` to its first answer, on a store that is there."""
    farebox = the_rig.start_farebox("start", core=None)
    the_rig.stop(farebox.process)
    found = []
    for number in range(rounds):
        process, served_s = _timed(the_rig, f"start-{number}", farebox.config, farebox.port, farebox.key)
        found.append(served_s)
        the_rig.stop(process)
    return found


def _timed(the_rig: rig.Rig, name: str, config: Path, port: int, key: str) -> tuple[rig.Process, float]:
    began_s = time.monotonic()
    process = the_rig.serve(name, config, None)
    while not _answered(port, key):
        if process.child.poll() is not None or time.monotonic() - began_s > _SERVED_WITHIN_S:
            rig.stop_with(f"farebox serve answered nothing:\n{process.tail()}")
        time.sleep(_LOOK_EVERY_S)
    return process, time.monotonic() - began_s


def _answered(port: int, key: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    try:
        connection.request("POST", rig.PATH, rig.PLAIN_BODY, headers)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def recovery(the_rig: rig.Rig, count: int) -> Recovery:
    """A start on the journal of a killed worker with `count` settled exchanges; all must be booked."""
    folder = the_rig.folder / "recovery"
    folder.mkdir()
    made = subprocess.run(
        [sys.executable, str(rig.HERE / "restart.py"), "make", str(folder), str(count)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != -signal.SIGKILL:
        rig.stop_with(f"no journal was made: {made.stderr.strip()[-1000:]}")
    journal_bytes = sum(file.stat().st_size for file in folder.glob("journals/*/*.segment"))
    port = free_port()
    config = folder / "config.json"
    config.write_text(json.dumps({**rig.farebox_config(port, folder, the_rig.upstream_port), "workers": 1}))
    key = asyncio.run(rig.make_account(store_url(folder)))
    process, served_s = _timed(the_rig, "recovery", config, port, key)
    farebox = rig.FareboxUnderTest(process, port, key, config)
    verified, audited = farebox.command("verify", "--wait", "300"), farebox.command("audit")
    if not verified["clean"] or verified["pending"] or not audited["clean"]:
        rig.stop_with(f"void after recovery: {_short(verified)} {_short(audited)}")
    if audited["charges"] != count + 1:
        rig.stop_with(f"void: {audited['charges']} charges are booked, {count} settled and one came after")
    the_rig.stop(process)
    shutil.rmtree(folder)
    return Recovery(count, served_s, journal_bytes, audited["charges"])


def _short(document: dict[str, Any]) -> str:
    return json.dumps(document)[:1000]


def store_url(folder: Path) -> str:
    """The store of a data folder, where its configuration names none."""
    return f"sqlite:///{folder / 'farebox.sqlite'}"


async def make(folder: Path, count: int) -> None:
    """A store with users, and a journal of their settled exchanges that nobody has booked; then kill -9."""
    journal_load.NOW_MS = wall_ms() - 3_600_000  # the rows' own age must not be beyond what logs are kept
    store = open_store(store_url(folder))
    await store.open()
    lines = {journal_load.MODEL: {"lines": {"input": "1.25", "output": "10"}, "multiplier": "1"}}
    book = new_price_book(lines, 1, 0)
    await store.put_price_book(to_plain(book), book.content_hash, journal_load.NOW_MS)
    journal = await journal_load.begin_journal(store, folder / "journals")
    usd_each = 1 + count // USERS // 1000
    lots = await journal_load.make_users(store, USERS, usd_each)
    await journal_load.lease_all(store, journal.id, lots, usd_each)
    load = journal_load.Load(journal, lots)
    await load.make(count)
    await load.synced()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _, _, where, how_many = sys.argv
    asyncio.run(make(Path(where), int(how_many)))
