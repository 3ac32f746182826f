"""The console's process: administration, self-service, payment webhooks and /metrics on a port of its own.

It answers from the start; while the store cannot be opened, whatever needs it is a 503.
"""

import asyncio
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from farebox.base import limits
from farebox.base.errors import StoreDownError, StoreRefusedError
from farebox.config.load import load
from farebox.config.secrets import payment_secrets
from farebox.config.settings import Settings
from farebox.console.access import LOOPBACK_HOSTS
from farebox.console.server import Console, start_console
from farebox.credits.notices import Provider
from farebox.credits.sepay import SepayProvider
from farebox.credits.stripe_events import StripeProvider
from farebox.run.control import ask
from farebox.run.paths import (
    control_sockets,
    counters_files,
    store_address,
    store_sessions,
    writer_status_file,
)
from farebox.run.process import StopSignals, first_of, run
from farebox.store import open_store
from farebox.store.base import Store

_log = logging.getLogger(__name__)


async def main(config: list[Path]) -> int:
    """Serve until told to stop."""
    settings = load(config)
    signals = StopSignals(asyncio.get_running_loop())
    store = open_store(store_address(settings), store_sessions(settings, "console"))
    console = Console(
        store=store,
        settings=settings.credits,
        providers=providers(settings),
        counters=lambda: counters_files(settings),
        writer_status=writer_status_file(settings),
        hosts=LOOPBACK_HOSTS | settings.console_hosts,
        zone=settings.console_zone,
        live=lambda: asyncio.to_thread(_live, settings),
    )
    close = await start_console(console, settings.console_host, settings.console_port)
    try:
        await first_of(signals.drain.wait, lambda: _open(store))
        await signals.drain.wait()
    finally:
        await close()
        await store.close()
    return 0


def providers(settings: Settings) -> Mapping[str, Provider]:
    """The payment providers that are configured. Raises ConfigError where a secret is missing."""
    found: dict[str, Provider] = {}
    secrets = payment_secrets(settings)
    shop = settings.credits
    if shop.sepay is not None:
        found["sepay"] = SepayProvider(shop.sepay, secrets["sepay"], shop.order_prefix)
    if shop.stripe is not None:
        found["stripe"] = StripeProvider(shop.stripe, secrets["stripe"], frozenset(shop.rates))
    return found


def _live(settings: Settings) -> list[Mapping[str, object]]:
    """The exchanges under way in all workers that answer, oldest first, up to a bound."""
    found: list[Mapping[str, object]] = []
    for path in control_sockets(settings):
        found += ask(path, {"do": "live"}, limits.console_figures_wait_s).get("exchanges", [])
    found.sort(key=lambda one: str(one["exchange"]))
    return found[: limits.live_exchanges_max]


async def _open(store: Store) -> None:
    """Open the store, as often as it takes."""
    while True:
        try:
            await store.open()
        except StoreRefusedError as error:
            _log.critical("the console goes without the store: %s", error)
            return
        except StoreDownError as error:
            _log.warning("the console waits for the store: %s", error)
            await asyncio.sleep(limits.console_store_retry_s)
        else:
            return


def begin(arguments: list[str]) -> int:
    """Run the process; its arguments are the configuration's files."""
    return run(main([Path(name) for name in arguments]))


if __name__ == "__main__":
    raise SystemExit(begin(sys.argv[1:]))
