"""`farebox verify` and `farebox audit`: whether the money adds up, and every charge follows from its row.

Both only read, and are right while traffic runs. Exit 1 and the rows on any difference. What is being read
shows on standard error where that is a terminal.
"""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Self

import typer
from rich.table import Table

from farebox.base.clock import monotonic_s
from farebox.run.cli_output import answer, table
from farebox.run.cli_place import ConfigOption, JsonOption, Place, StoreOption, place_of, with_store
from farebox.store.base import Store
from farebox.writer.audit import AuditReport
from farebox.writer.audit import audit as audit_store
from farebox.writer.verify import VerifyReport
from farebox.writer.verify import verify as verify_store

_POLL_S = 0.1
_SHOW_INTERVAL_S = 0.2

JournalOption = Annotated[
    Path | None, typer.Option("--journal-dir", help="The journals of this host; default: beside the store.")
]
WaitOption = Annotated[
    float, typer.Option("--wait", min=0, help="Seconds to wait for settlements that are not booked yet.")
]
RepairOption = Annotated[
    bool, typer.Option("--repair-plan", help="Print, and do not do, what would mend each difference.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("verify")(verify)
    app.command("audit")(audit)


def verify(
    journal_dir: JournalOption = None,
    wait: WaitOption = 0,
    repair_plan: RepairOption = False,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check M1 to M4: balances, lots, leases, ledger rows and journals against each other."""
    report = verified(place_of(config, store), journal_dir, wait)
    clean = not report.differences_total
    verdict = "clean: no differences" if clean else f"{report.differences_total} differences"
    plan = _plan(report) if repair_plan else []
    answer(report.to_plain(), as_json, verify_table(report), *_findings(report), *plan, f"verify: {verdict}")
    if not clean:
        raise typer.Exit(1)


def verified(place: Place, journal_dir: Path | None, wait_s: float) -> VerifyReport:
    """Verify once, or again until nothing is pending and `wait_s` is over."""
    journals = journal_dir or place.journal_dir

    async def check(store: Store) -> VerifyReport:
        left_s = wait_s
        while True:
            with Progress() as progress:
                report = await verify_store(store, journals if journals.is_dir() else None, progress.tell)
            if not report.pending or left_s <= 0:
                return report
            await asyncio.sleep(_POLL_S)
            left_s -= _POLL_S

    return with_store(place, check)


class Progress:
    """One line on standard error that is written over; silent where nobody watches."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._next_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write("")

    def tell(self, what: str, count: int) -> None:
        """What was read last, and how many of its kind are done; a few times a second at most."""
        now_s = monotonic_s()
        if now_s >= self._next_s:
            self._next_s = now_s + _SHOW_INTERVAL_S
            self._write(f"{what} ({count:,})")

    def _write(self, text: str) -> None:
        if self._is_shown:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()


def verify_table(report: VerifyReport) -> Table:
    """What was compared, for people."""
    rows = [
        ("users: balance = rows = lots, leases <= balance", report.users),
        ("ledger rows read", report.rows),
        ("journals on disk", report.journals),
        ("applied settlements with their rows", report.records),
        ("settlements not applied yet", sum(report.pending.values())),
        ("parked, waiting for an operator", report.parked_total),
        ("differences", report.differences_total),
    ]
    return table("", ("checked", "count"), rows, right=("count",))


def _findings(report: VerifyReport) -> list[str]:
    return [
        *(f"parked: {parked}" for parked in report.parked),
        *(f"note: {note}" for note in report.notes),
        *report.differences,
    ]


def _plan(report: VerifyReport) -> list[str]:
    pairs = zip(report.differences, report.repairs, strict=True)
    plan = [f"{number}. {difference}\n   {repair}" for number, (difference, repair) in enumerate(pairs, 1)]
    parked = "look at each with `farebox quarantine list`, then `settle` or `void` it"
    return ["repair plan (nothing was changed):", *plan, *([f"parked: {parked}"] if report.parked else [])]


def audit(config: ConfigOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Recompute every charge from its own row and the price book it names."""

    async def check(store: Store) -> AuditReport:
        with Progress() as progress:
            return await audit_store(store, lambda user, count: progress.tell(f"user {user}", count))

    report = with_store(place_of(config, store), check)
    answer(report.to_plain(), as_json, *report.lines())
    if report.mismatches_total:
        raise typer.Exit(1)
