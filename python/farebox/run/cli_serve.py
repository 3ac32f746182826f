"""`farebox serve`: run the configuration files. Nothing else is imported here, for it would delay a start."""

from typing import Annotated

import typer

from farebox.base.errors import UsageError
from farebox.run.cli_place import ConfigOption
from farebox.run.supervisor import serve as run


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("serve")(serve)


def serve(
    config: ConfigOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Default: the configuration's, or one per core.")
    ] = None,
) -> None:
    """Serve until SIGTERM: a supervisor with its workers and writer."""
    if not config:
        raise UsageError("name at least one configuration: farebox serve --config FILE (or FAREBOX_CONFIG)")
    raise typer.Exit(run(config, workers=workers))
