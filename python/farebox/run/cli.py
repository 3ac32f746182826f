"""The command `farebox`: which command lives in which file, and how every command fails.

A command's file is imported only when that command is called, so that `farebox --help` and shell loops over
`farebox meter` start quickly. An error is one clear line on standard error and a non-zero exit: 1 for what
went wrong, 2 for a command line that cannot be understood.
"""

import sys
from importlib import import_module
from typing import Final, cast

import typer

from farebox.base.errors import FareboxError
from farebox.base.redaction import redacted
from farebox.run.start import imports

COMMANDS: Final = {
    "serve": "cli_serve",
    "check-config": "cli_check",
    "demo": "cli_demo",
    "user": "cli_account",
    "key": "cli_account",
    "wallet": "cli_wallet",
    "meter": "cli_meter",
    "quote": "cli_meter",
    "verify": "cli_verify",
    "audit": "cli_verify",
    "quarantine": "cli_operate",
    "lease": "cli_operate",
    "prices": "cli_prices",
    "explain": "cli_explain",
    "logs": "cli_explain",
    "smoke": "cli_smoke",
    "transactions": "cli_explain",
    "export": "cli_export",
    "import-legacy": "cli_legacy",
    "rollback-legacy": "cli_legacy",
    "payment": "cli_payment",
    "referral": "cli_payment",
    "subscription": "cli_subscription",
    "admin": "cli_admin",
}
"""Command -> module of farebox.run that registers it (`register(app)`)."""

_BAD_COMMAND_LINE: Final = cast(
    "type[Exception]", next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
)
"""By its version, typer carries a copy of click or imports it; this base has the same name in both."""


def build(argument: str | None) -> typer.Typer:
    """The application: with the one module that `argument` needs, or with all of them for help."""
    app = typer.Typer(
        name="farebox",
        help="A prepaid meter in front of LLM APIs.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    known = COMMANDS.get(argument or "")
    for module in [known] if known is not None else dict.fromkeys(COMMANDS.values()):
        import_module(f"farebox.run.{module}").register(app)
    return app


def _root() -> None:
    """A prepaid meter in front of LLM APIs."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its status."""
    given = sys.argv[1:] if arguments is None else arguments
    with imports():
        app = build(given[0] if given else None)
    status: object = 0
    try:
        status = app(args=given, prog_name="farebox", standalone_mode=False)
    except _BAD_COMMAND_LINE as error:
        _fail(_one_line(error), 2)
    except FareboxError as error:
        _fail(str(error), 1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    sys.exit(status if isinstance(status, int) else 0)


def _one_line(error: Exception) -> str:
    format_message = getattr(error, "format_message", None)
    said = str(format_message()) if format_message is not None else str(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        return said
    separator = " " if said.endswith("?") else "; "
    return f"{said.rstrip('.')}{separator}`farebox COMMAND --help` shows how it is called" if said else ""


def _fail(message: str, status: int) -> None:
    if message:
        prefix = "" if message.startswith("Usage:") else "farebox: "
        sys.stderr.write(f"{prefix}{redacted(message)}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
