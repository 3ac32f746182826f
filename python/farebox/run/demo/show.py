"""The demonstration itself: charged exchanges, each explained, then verify's verdict, then a person's own
turn.
 Everything shown is checked on the way: what the upstream says it served is what was charged for, the charge
follows from the price lines, and the balance fell by exactly that. Anything else ends it with status 1.
"""

import asyncio
import shutil
import signal
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from farebox.base.clock import monotonic_s, wall_ms
from farebox.base.errors import UsageError
from farebox.base.units import PICO_PER_USD, usd_from_pico
from farebox.credits.accounts import create_key, create_user
from farebox.credits.admins import create_admin
from farebox.credits.explained import explained
from farebox.credits.moves import Move
from farebox.credits.transfers import perform
from farebox.run.cli_output import table
from farebox.run.cli_place import Place, place_of, with_store
from farebox.run.cli_verify import verified, verify_table
from farebox.run.demo.exchanges import Answered, Exchange, exchanges, send
from farebox.run.demo.processes import DemoError, Processes
from farebox.store.base import Store
from farebox.writer.audit import audit

USER: Final = "demo"
POOL: Final = "creditsNew"
CREDIT_PICO: Final = 5 * PICO_PER_USD
BOOKED_TIMEOUT_S: Final = 15.0
WIDTH: Final = 100

_POLL_S = 0.05


def run(*, once: bool) -> int:
    """Show everything; the process's exit status. Without `once`, stay up until interrupted."""
    out = Console(width=WIDTH, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="farebox-demo-"))
    for number in (signal.SIGTERM, signal.SIGINT):  # children are stopped too, also where SIGINT came ignored
        signal.signal(number, signal.default_int_handler)
    try:
        with Processes(folder) as processes:
            return _shown(processes, out, once)
    except (DemoError, UsageError) as error:
        out.print(f"demo failed: {error}", markup=False, style="bold red")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _shown(processes: Processes, out: Console, once: bool) -> int:
    with out.status("starting the scripted upstream"):
        processes.start_upstream()
    processes.write_config()
    place = place_of([processes.config], None)
    key = with_store(place, _make_account, create=True)
    out.print(f"user [bold]{USER}[/] has {usd_from_pico(CREDIT_PICO)} USD in {POOL}, and one key")
    with out.status("starting Farebox: supervisor, worker, writer"):
        processes.start_farebox()
    out.print(f"Farebox is ready at {processes.base_url}, its upstream is scripted\n")
    try:
        for number, exchange in enumerate(exchanges(), start=1):
            _show_exchange(processes, place, key, number, exchange, out)
    except DemoError as error:
        raise DemoError(f"{error}\n{processes.log_tail('farebox')}") from None
    is_clean = _show_verdict(place, out)
    if is_clean:
        _show_own_turn(processes, key, with_store(place, _make_operator), out)
        if not once:
            _wait_for_interrupt(out)
    return 0 if is_clean else 1


async def _make_account(store: Store) -> str:
    """The same steps as `farebox user add`, `wallet grant` and `key create`."""
    now_ms = wall_ms()
    await create_user(store, USER, "user", "demo", now_ms)
    await perform(
        store, Move("grant", "demo", USER, POOL, CREDIT_PICO, "credit to try Farebox", "demo"), now_ms
    )
    return (await create_key(store, USER, "demo", "demo", now_ms)).key


def _show_exchange(
    processes: Processes, place: Place, key: str, number: int, exchange: Exchange, out: Console
) -> None:
    before_pico = with_store(place, _balance)
    answered = send(processes.port, key, exchange)
    charge, after_pico = with_store(place, lambda store: _booked(store, answered))
    served = processes.upstream_log()["lines"][-1]
    out.print(f"[bold]{number}. {exchange.title}[/]  POST {exchange.path}  {charge['model']}")
    rows = [(line["kind"], f"{line['count']:,}", line["price"], line["amount"]) for line in charge["lines"]]
    columns = ("   used", "tokens", "USD per million", "USD")
    out.print(table("", columns, [(f"   {row[0]}", *row[1:]) for row in rows], right=columns[1:]))
    out.print(
        f"   x {charge['multiplier']} = [bold]{charge['amount']} USD[/] charged ({charge['evidence']});"
        f" balance {usd_from_pico(before_pico)} -> {usd_from_pico(after_pico)}\n"
    )
    _check(exchange, charge, served, before_pico - after_pico)


def _check(exchange: Exchange, charge: Mapping[str, Any], served: Mapping[str, Any], fell_pico: int) -> None:
    """Raise DemoError when upstream, charge and balance do not agree."""
    if charge["counts"] != served["usage"]:
        raise DemoError(
            f"{exchange.title}: the upstream served {served['usage']}, charged {charge['counts']}"
        )
    if charge["recomputed"] != charge["amount"]:
        raise DemoError(f"{exchange.title}: charged {charge['amount']}, recomputed {charge['recomputed']}")
    if usd_from_pico(fell_pico) != charge["amount"]:
        raise DemoError(
            f"{exchange.title}: charged {charge['amount']}, the balance fell by {usd_from_pico(fell_pico)}"
        )
    if charge["evidence"] != "exact":
        raise DemoError(f"{exchange.title}: evidence {charge['evidence']}, exact was expected")


async def _balance(store: Store) -> int:
    account = await store.account(USER)
    return account.balances.get(POOL, 0) if account is not None else 0


async def _booked(store: Store, answered: Answered) -> tuple[dict[str, Any], int]:
    """The exchange's charge once the writer has booked it, and the balance then."""
    ends_s = monotonic_s() + BOOKED_TIMEOUT_S
    while True:
        try:
            return await explained(store, answered.exchange, USER), await _balance(store)
        except UsageError as error:
            if monotonic_s() > ends_s:
                raise DemoError(f"not booked after {BOOKED_TIMEOUT_S:.0f} s: {error}") from None
        await asyncio.sleep(_POLL_S)


def _show_verdict(place: Place, out: Console) -> bool:
    report = verified(place, None, BOOKED_TIMEOUT_S)
    audited = with_store(place, audit)
    out.print(verify_table(report))
    is_clean = not report.differences_total and not audited.mismatches_total and not report.parked_total
    for finding in (*report.differences, *report.parked, *audited.mismatches):
        out.print(finding, markup=False, style="red")
    verdict = "[bold green]verify: clean[/]" if is_clean else "[bold red]verify: NOT clean[/]"
    out.print(f"{verdict}; {audited.charges} charges recomputed from their rows\n")
    return is_clean


async def _make_operator(store: Store) -> str:
    """The same as `farebox admin`: a token for the console's pages."""
    return (await create_admin(store, "demo", "admin", None, "demo", wall_ms())).token


def _show_own_turn(processes: Processes, key: str, token: str, out: Console) -> None:
    body = '{"model": "gpt-5.1", "messages": [{"role": "user", "content": "Hello"}]}'
    for line in (
        f"base URL  {processes.base_url}/v1   (Anthropic clients: {processes.base_url})",
        f"key       {key}",
        f"pages     {processes.wait_for_console()}   (log in with that key, or as the operator)",
        f"operator  {token}",
        f"store     FAREBOX_CONFIG={processes.config} farebox wallet show {USER}",
        "",
        f"curl -s {processes.base_url}/v1/chat/completions \\",
        f"  -H 'authorization: Bearer {key}' \\",
        f"  -H 'content-type: application/json' -d '{body}'",
        "",
    ):
        out.print(line, markup=False, soft_wrap=True)


def _wait_for_interrupt(out: Console) -> None:
    out.print("running until Ctrl-C")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        out.print("stopping")
