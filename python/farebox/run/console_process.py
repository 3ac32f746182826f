"""The console's process: serves /metrics on its own port, for this host's workers and writer."""

import asyncio
import sys
from pathlib import Path

from farebox.config.load import load
from farebox.console.metrics import start_console
from farebox.run.paths import counters_files, writer_status_file
from farebox.run.process import StopSignals, run


async def main(config: list[Path]) -> int:
    """Serve until told to stop."""
    settings = load(config)
    signals = StopSignals(asyncio.get_running_loop())
    close = await start_console(
        settings.console_host,
        settings.console_port,
        lambda: counters_files(settings),
        writer_status_file(settings),
    )
    await signals.drain.wait()
    await close()
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main([Path(name) for name in sys.argv[1:]])))
