"""`farebox export`: ledger, logs and balances as files for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from farebox.credits.export import Export, OnProgress
from farebox.run.cli_output import answer
from farebox.run.cli_place import ConfigOption, JsonOption, StoreOption, place_of, with_store
from farebox.run.cli_progress import progress
from farebox.store.base import Store


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("export")(export)


def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the files go; made when absent.")],
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write balances, transactions and request logs as NDJSON, with BigQuery schema files.

    An export that was interrupted goes on where it was when it is called again with the same folder.
    """
    place = place_of(config, store)
    with progress() as on_progress:
        rows = with_store(place, lambda store: _export_to(folder, store, on_progress))
    said = ", ".join(f"{number} {table.replace('_', ' ')}" for table, number in rows.items())
    answer({"folder": str(folder), "rows": rows}, as_json, f"exported to {folder}: {said}")


async def _export_to(folder: Path, store: Store, on_progress: OnProgress) -> dict[str, int]:
    """The folder is made only once there is a store; the rows of each table."""
    with Export(folder) as files:
        await files.run(store, on_progress)
    return files.state.rows
