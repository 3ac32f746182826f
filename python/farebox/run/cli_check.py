"""`farebox check-config`: say what the configuration files offer, or what is wrong with them."""

from pathlib import Path
from typing import Annotated

import typer

from farebox.base.errors import UsageError
from farebox.config.compare import differences
from farebox.config.load import load
from farebox.config.problems import ConfigError
from farebox.config.table import TableRow, check_table
from farebox.run.cli_output import answer, table
from farebox.run.cli_place import JsonOption


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("check-config")(check_config)


def check_config(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files that are served together.")],
    compare: Annotated[
        bool, typer.Option("--compare", help="Show where the files differ; fail where they should not.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show each model's upstream, address, wallet, pools and prices, or every fault of the files."""
    try:
        settings = load(files)
    except ConfigError as error:
        if as_json:
            problems = [{"file": str(p.file), "path": p.path, "message": p.message} for p in error.problems]
            answer({"valid": False, "errors": problems}, True)
            raise typer.Exit(1) from None
        raise
    if compare:
        _compare(files, as_json)
        return
    rows = check_table(settings)
    warnings = [str(warning) for warning in settings.warnings]
    document = {"valid": True, "models": [_document(row) for row in rows], "warnings": warnings}
    columns = ("port", "model", "upstream", "served at", "wallet", "pools", "USD per million tokens", "x")
    cells = [
        (
            row.port,
            "\n".join((row.model, *(f"  {alias}" for alias in row.aliases))),
            f"{row.upstream}\n{row.upstream_model}",
            "\n".join(dict.fromkeys(url.split("/v1/", 1)[0] for url in row.urls.values())),
            row.wallet,
            "\n".join(row.pools),
            "free" if row.free else "\n".join(f"{kind} {price}" for kind, price in row.prices.items()),
            row.multiplier,
        )
        for row in rows
    ]
    warned = [f"warning: {warning}" for warning in warnings]
    answer(document, as_json, table("", columns, cells), *warned, f"{len(rows)} models, no errors")


def _compare(files: list[Path], as_json: bool) -> None:
    """Each file after the first beside the first."""
    if len(files) < 2:
        raise UsageError("--compare needs two files or more")
    found = [(other, each) for other in files[1:] for each in differences(files[0], other)]
    slips = [each for _, each in found if not each.expected]
    document = {
        "differences": [
            {
                "file": str(other),
                "entry": each.entry,
                "key": each.key,
                "values": each.values,
                "expected": each.expected,
            }
            for other, each in found
        ],
        "unexpected": len(slips),
    }
    columns = ("entry", "key", files[0].name, "other", "")
    cells = [
        (each.entry, each.key, *map(str, each.values), "" if each.expected else "SHOULD NOT DIFFER")
        for _, each in found
    ]
    verdict = f"{len(found)} differences, {len(slips)} of them where files should be alike"
    answer(document, as_json, table("", columns, cells), verdict)
    if slips:
        raise typer.Exit(1)


def _document(row: TableRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}
