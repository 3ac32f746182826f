"""`farebox verify` and `farebox audit`: whether the money adds up, and every charge follows from its row.

Both only read, and are right while traffic runs. Exit 1 and the rows on any difference.
"""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from farebox.run.cli_output import answer, table
from farebox.run.cli_place import ConfigOption, JsonOption, Place, StoreOption, place_of, with_store
from farebox.store.base import Store
from farebox.writer.audit import AuditReport
from farebox.writer.audit import audit as audit_store
from farebox.writer.verify import VerifyReport
from farebox.writer.verify import verify as verify_store

_POLL_S = 0.1

JournalOption = Annotated[
    Path | None, typer.Option("--journal-dir", help="The journals of this host; default: beside the store.")
]
WaitOption = Annotated[
    float, typer.Option("--wait", min=0, help="Seconds to wait for settlements that are not booked yet.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("verify")(verify)
    app.command("audit")(audit)


def verify(
    journal_dir: JournalOption = None,
    wait: WaitOption = 0,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check M1 to M4: balances, lots, leases, ledger rows and journals against each other."""
    report = verified(place_of(config, store), journal_dir, wait)
    clean = not report.differences_total
    verdict = "clean: no differences" if clean else f"{report.differences_total} differences"
    answer(report.to_plain(), as_json, verify_table(report), *_findings(report), f"verify: {verdict}")
    if not clean:
        raise typer.Exit(1)


def verified(place: Place, journal_dir: Path | None, wait_s: float) -> VerifyReport:
    """Verify once, or again until nothing is pending and `wait_s` is over."""
    journals = journal_dir or place.journal_dir

    async def check(store: Store) -> VerifyReport:
        left_s = wait_s
        while True:
            report = await verify_store(store, journals if journals.is_dir() else None)
            if not report.pending or left_s <= 0:
                return report
            await asyncio.sleep(_POLL_S)
            left_s -= _POLL_S

    return with_store(place, check)


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


def audit(config: ConfigOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Recompute every charge from its own row and the price book it names."""
    report: AuditReport = with_store(place_of(config, store), audit_store)
    answer(report.to_plain(), as_json, *report.lines())
    if report.mismatches_total:
        raise typer.Exit(1)
