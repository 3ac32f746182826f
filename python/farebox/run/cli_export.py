"""`farebox export`: ledger, logs and balances as files for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from farebox.credits.export import Export
from farebox.run.cli_output import answer
from farebox.run.cli_place import ConfigOption, JsonOption, StoreOption, place_of, with_store
from farebox.run.cli_progress import progress


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
    with progress() as on_progress, Export(folder) as files:
        with_store(place, lambda s: files.run(s, on_progress))
    rows = files.state.rows
    said = ", ".join(f"{number} {table.replace('_', ' ')}" for table, number in rows.items())
    answer({"folder": str(folder), "rows": rows}, as_json, f"exported to {folder}: {said}")
