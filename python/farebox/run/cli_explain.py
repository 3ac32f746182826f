"""`farebox explain`, `logs` and `transactions`: a charge and a balance, shown to the person who asks about
them.
"""

from typing import Annotated

import typer

from farebox.base.units import moment, usd_from_pico
from farebox.credits.explained import explained, row_document
from farebox.run.cli_output import answer, table
from farebox.run.cli_place import (
    ConfigOption,
    JsonOption,
    StoreOption,
    of_known_user,
    place_of,
    with_store,
)

logs_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
transactions_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

UserArgument = Annotated[str, typer.Argument(metavar="USER")]
LimitOption = Annotated[int, typer.Option(min=1, max=1000)]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("explain")(explain)
    app.add_typer(logs_app, name="logs", help="Request log.")
    app.add_typer(transactions_app, name="transactions", help="Ledger.")


@logs_app.command("show")
def logs_show(
    user: UserArgument,
    limit: LimitOption = 20,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """A user's exchanges, newest first."""
    found = with_store(place_of(config, store), lambda s: of_known_user(s, user, s.request_logs(user, limit)))
    columns = (
        "_id",
        "createdAt",
        "model",
        "statusCode",
        "inputTokens",
        "outputTokens",
        "evidence",
        "creditsCost",
    )
    rows = [tuple(row.get(column) for column in columns) for row in found]
    answer([dict(row) for row in found], as_json, table("", columns, rows, right=columns[3:6]))


@transactions_app.command("show")
def transactions_show(
    user: UserArgument,
    limit: LimitOption = 20,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """A user's ledger rows, newest first."""
    found = with_store(place_of(config, store), lambda s: of_known_user(s, user, s.transactions(user, limit)))
    columns = ("time", "type", "pool", "USD", "reference", "cause")
    rows = [
        (moment(row.created_ms), row.type, row.pool, usd_from_pico(row.amount_pico), row.reference, row.cause)
        for row in found
    ]
    answer([row_document(row) for row in found], as_json, table("", columns, rows, right=("USD",)))


def explain(
    exchange: Annotated[str, typer.Argument(metavar="EXCHANGE", help="The answer's x-request-id.")],
    user: Annotated[str, typer.Option(help="Whose it is; needed once its log row has expired.")] = "",
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """One exchange: what was used, the price lines, the charge, and which money paid for it."""
    document = with_store(place_of(config, store), lambda s: explained(s, exchange, user))
    lines = [(line["kind"], line["count"], line["price"], line["amount"]) for line in document["lines"]]
    paid = [(row["type"], row["pool"], row["amount"], row["created_at"]) for row in document["transactions"]]
    said = f"{document['model']}, {document['wire_format']}, evidence {document['evidence']}"
    answer(
        document,
        as_json,
        f"exchange {exchange} of {document['user']}: {said}",
        table("", ("used", "count", "price", "USD"), lines, right=("count", "price", "USD")),
        f"x {document['multiplier']} = {document['amount']} USD (price book {document['price_version']},"
        f" recomputed: {document['recomputed']})",
        table("", ("row", "pool", "USD", "time"), paid, right=("USD",)),
    )
