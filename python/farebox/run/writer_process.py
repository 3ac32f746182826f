"""The writer's process: opens the store, applies this host's journals, serves its workers."""

import asyncio
import sys
from pathlib import Path

import orjson

from farebox.base import limits
from farebox.config.load import load
from farebox.run.paths import store_address, store_sessions, writer_socket, writer_status_file
from farebox.run.process import StopSignals, first_of, run, tune_garbage_collection
from farebox.store import open_store
from farebox.writer.service import Writer

_STATUS_INTERVAL_S = 1.0


async def main(config: list[Path]) -> int:
    """Run until told to stop and no worker needs it any more; then apply what the journals hold."""
    settings = load(config)
    signals = StopSignals(asyncio.get_running_loop())
    store = open_store(store_address(settings), store_sessions(settings, "writer"))
    await store.open()
    try:
        writer = Writer(store, settings.journal_dir, writer_socket(settings))
        tune_garbage_collection()
        running = asyncio.create_task(writer.run())
        status = asyncio.create_task(_write_status(writer, writer_status_file(settings)))
        stopping = asyncio.create_task(signals.drain.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await first_of(lambda: _left_alone(writer), signals.now.wait, timeout_s=limits.shutdown_drain_s)
        writer.stop()
        await running
        status.cancel()
    finally:
        await store.close()
    return 0


async def _left_alone(writer: Writer) -> None:
    """Wait for the workers to go. A supervisor ends them first; without one they end when we do, or later."""
    while writer.workers:  # noqa: ASYNC110 - connections end by themselves, there is no event to wait for
        await asyncio.sleep(limits.apply_interval_s)


async def _write_status(writer: Writer, path: Path) -> None:
    """Leave the status where /metrics and people find it."""
    while True:
        temporary = path.with_suffix(".new")
        temporary.write_bytes(orjson.dumps(writer.status()))
        temporary.replace(path)
        await asyncio.sleep(_STATUS_INTERVAL_S)


def begin(arguments: list[str]) -> int:
    """Run the process; its arguments are the configuration's files."""
    return run(main([Path(name) for name in arguments]))


if __name__ == "__main__":
    raise SystemExit(begin(sys.argv[1:]))
