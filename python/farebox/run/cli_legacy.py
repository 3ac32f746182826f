"""`farebox import-legacy` and `farebox rollback-legacy`: from the system this replaces, and back to it."""

import asyncio
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from farebox.base.clock import wall_ms
from farebox.base.errors import UsageError
from farebox.base.units import usd_from_pico
from farebox.credits.import_legacy import Import
from farebox.credits.import_report import ImportReport
from farebox.credits.rollback import RollbackReport, check_all_is_home, write_documents
from farebox.credits.rollback_in_place import give_back
from farebox.ledger.opening import fine_usd
from farebox.run.cli_output import answer, table
from farebox.run.cli_place import (
    ConfigOption,
    JsonOption,
    Place,
    StoreOption,
    actor,
    place_of,
    sqlite_path,
    with_store,
)
from farebox.run.cli_progress import OnProgress, progress
from farebox.store.base import Store
from farebox.store.legacy import open_source
from farebox.store.legacy.source import LegacySource
from farebox.store.legacy.writing import DumpWriter


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("import-legacy")(import_legacy)
    app.command("rollback-legacy")(rollback_legacy)


def import_legacy(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A mongodump or export folder, or mongodb://HOST/DATABASE."),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would happen, change nothing.")
    ] = False,
    admin: Annotated[
        list[str] | None, typer.Option(help="A user who becomes an administrator; may be repeated.")
    ] = None,
    usd_per_credit: Annotated[str, typer.Option(help="What a credit of users_credits is worth.")] = "",
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Bring users, keys, balances, logs and payments of the replaced system over; safe to repeat.

    Exit status 1 when something has to be looked at: it is named, everything else is imported.
    """
    place = place_of(config, store)
    if is_same_database(place.url, source):
        raise UsageError("the store is the replaced system's database itself; import a dump of it instead")
    opened = open_source(source)
    try:
        report = _imported(place, opened, dry_run, frozenset(admin or ()), _rate(usd_per_credit))
    finally:
        opened.close()
    _show(report, as_json)
    return 1 if report.problems_total or not report.adds_up() else 0


def rollback_legacy(
    to: Annotated[
        Path | None, typer.Option(help="A new folder: documents as the replaced system keeps them.")
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Into the store's MongoDB itself: it is the old database.")
    ] = False,
    original: Annotated[
        str, typer.Option("--from", help="The dump they came from: it has passwords and the text of keys.")
    ] = "",
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write every balance back as doubles, for `mongorestore` or in place; refused while money is in use."""
    place = place_of(config, store)
    if in_place == (to is not None) or (in_place and original):
        raise UsageError("say where to: --to FOLDER (with --from DUMP), or --in-place alone")
    if in_place and not place.url.startswith("mongodb"):
        raise UsageError("only a store in MongoDB can be the old database; write a folder: --to FOLDER")
    target = "the database" if to is None else str(to)

    async def write(s: Store) -> RollbackReport:
        await check_all_is_home(s, place.journal_dir)
        with progress() as on_progress:
            if to is None:
                report = await _given_back(s, place.url, on_progress)
            else:
                source = open_source(original) if original else None
                with DumpWriter(to) as dump:
                    report = await write_documents(s, source, dump, on_progress)
        await s.audit(actor(), "rollback.legacy", target, {"users": report.users}, wall_ms())
        return report

    report = with_store(place, write)
    rows = [(pool, usd_from_pico(amount)) for pool, amount in sorted(report.pools.items())]
    rounding = fine_usd(report.rounding)
    lines = [f"{report.users} users written to {target}; rounded by {rounding} USD in all"]
    if report.keys_missing:
        lines.append(f"{report.keys_missing} active keys exist only as digests: their owners need new ones")
    document = {
        "folder": None if to is None else str(to),
        "users": report.users,
        "pools": dict(rows),
        "rounding": rounding,
        "keys_missing": report.keys_missing,
    }
    answer(document, as_json, table("", ("pool", "USD"), rows, right=("USD",)), *lines)


async def _given_back(s: Store, url: str, on_progress: OnProgress) -> RollbackReport:
    from farebox.store.legacy.in_place import DatabaseInPlace  # noqa: PLC0415 - the driver, only where it is used

    database = DatabaseInPlace(url)
    try:
        return await give_back(s, database, on_progress)
    finally:
        database.close()


def _imported(
    place: Place, source: LegacySource, dry_run: bool, admins: frozenset[str], rate: Decimal | None
) -> ImportReport:
    report = ImportReport(dry_run)

    async def run(store: Store | None, on_progress: OnProgress) -> None:
        await Import(store, source, report, wall_ms(), admins, rate, on_progress).run()
        if store is not None and not dry_run:
            details = {"counts": report.counts, "problems": report.problems_total}
            await store.audit(actor(), "import.legacy", source.name, details, wall_ms())

    path = sqlite_path(place.url)
    with progress() as on_progress:
        if dry_run and path is not None and not path.exists():
            asyncio.run(run(None, on_progress))
        else:
            with_store(place, lambda s: run(s, on_progress), create=True)
    return report


def is_same_database(url: str, source: str) -> bool:
    """Whether two MongoDB addresses name the same database on a common host: nothing may be booked twice."""
    if not (url.startswith("mongodb") and source.startswith("mongodb")):
        return False
    one, other = urlsplit(url), urlsplit(source)
    hosts = [set(parts.netloc.rpartition("@")[2].split(",")) for parts in (one, other)]
    return one.path.strip("/") == other.path.strip("/") and bool(hosts[0] & hosts[1])


def _rate(text: str) -> Decimal | None:
    if not text:
        return None
    try:
        rate = Decimal(text)
    except InvalidOperation:
        rate = Decimal(0)
    if not rate.is_finite() or rate <= 0:
        raise UsageError(f"{text!r} is no rate; write what one credit is worth in USD, like 0.01")
    return rate


def _show(report: ImportReport, as_json: bool) -> None:
    columns = ("", "count", "source USD", "booked", "booked before", "held back", "rounding", "adds up")
    sums = table("", columns, report.rows(), right=columns[1:7])
    counts = "  ".join(f"{what}: {number}" for what, number in sorted(report.counts.items()))
    lines = [*(f"note: {note}" for note in report.notes), *report.problems]
    if report.problems_total > len(report.problems):
        lines.append(f"... and {report.problems_total - len(report.problems)} more")
    title = "nothing was changed: this is what an import would do" if report.dry_run else "imported"
    answer(report.to_plain(), as_json, title, sums, counts, *lines)
