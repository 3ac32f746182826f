"""`farebox demo`: see it charge, on this machine, with nothing to set up."""

import sys
from typing import Annotated

import typer

from farebox.run.demo.processes import packaged_config


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("demo")(demo)


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Exit after the verdict, 1 if anything is off.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print its configuration and exit.")
    ] = False,
) -> None:
    """Start a scripted upstream and Farebox in a temporary folder, and charge some exchanges."""
    if print_config:
        sys.stdout.write(packaged_config())
        return
    from farebox.run.demo.show import run  # noqa: PLC0415 - printing the configuration needs none of it

    raise typer.Exit(run(once=once))
