"""`farebox explain`, `logs` and `transactions`: a charge and a balance, shown to the person who asks about
them.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from farebox.base.errors import UsageError
from farebox.base.records import Transaction
from farebox.base.units import usd_from_pico
from farebox.credits.accounts import unknown_user
from farebox.meter import from_plain
from farebox.run.cli_meter import charge_lines
from farebox.run.cli_output import answer, moment, table
from farebox.run.cli_place import ConfigOption, JsonOption, StoreOption, place_of, with_store
from farebox.store.base import Store
from farebox.writer.audit import input_tokens, recomputed_pico

logs_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
transactions_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

UserArgument = Annotated[str, typer.Argument(metavar="USER")]
LimitOption = Annotated[int, typer.Option(min=1, max=1000)]

_PAGE_ROWS = 500


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
    found = with_store(place_of(config, store), lambda s: s.request_logs(user, limit))
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
    found = with_store(place_of(config, store), lambda s: s.transactions(user, limit))
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


async def explained(store: Store, exchange: str, user: str = "") -> dict[str, Any]:
    """Everything that is known of an exchange's charge. Raises UsageError when it is not known."""
    log = await store.request_log(exchange)
    owner = user or str((log or {}).get("userId", ""))
    if not owner:
        raise UsageError(f"no exchange {exchange!r} in the request log; name its owner with --user")
    if await store.account(owner) is None:
        raise UsageError(unknown_user(owner))
    rows = await _rows_of(store, owner, exchange)
    charge = next((row.charge for row in rows if row.charge), None)
    if charge is None:
        raise UsageError(
            f"exchange {exchange!r} of {owner} has no ledger row (yet); was it refused, or is it parked?"
        )
    lines, recomputed = await _recomputed(store, charge)
    return {
        "exchange": exchange,
        "user": owner,
        **{
            name: charge[name]
            for name in ("model", "wire_format", "evidence", "flags", "counts", "multiplier")
        },
        "price_version": charge["price_version"],
        "amount": usd_from_pico(_int(charge["amount_pico"])),
        "lines": lines,
        "recomputed": recomputed,
        "transactions": [row_document(row) for row in rows],
        "log": dict(log) if log else None,
    }


async def _rows_of(store: Store, user: str, exchange: str) -> list[Transaction]:
    """The ledger rows of an exchange: they are booked together, so they are neighbours."""
    before, found = "", []
    while page := await store.transactions(user, _PAGE_ROWS, before):
        rows = [row for row in page if row.reference == exchange]
        found += rows
        if found and page[-1].reference != exchange:
            break
        before = page[-1].id
    return found


async def _recomputed(store: Store, charge: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The charge's price lines, and its amount computed anew ("" where its price book is gone)."""
    stored = await store.price_book(charge["price_version"])
    if stored is None:
        return [], ""
    book = from_plain(stored)
    main = {charge["model"]: charge["counts"]} if charge["counts"] else {}
    lines: list[dict[str, Any]] = []
    for model, counts in {**main, **charge["others"]}.items():
        total = charge["input_total"] if model == charge["model"] else input_tokens(counts)
        lines += charge_lines(book.models[model].price.charge(dict(counts), total, charge["variant"] or None))
    return lines, usd_from_pico(recomputed_pico(charge, book))


def row_document(row: Transaction) -> dict[str, Any]:
    """A ledger row for programs; amounts are decimal strings of USD."""
    return {
        "id": row.id,
        "type": row.type,
        "pool": row.pool,
        "amount": usd_from_pico(row.amount_pico),
        "reference": row.reference,
        "cause": row.cause,
        "lots": [{"lot": part.lot, "amount": usd_from_pico(part.amount_pico)} for part in row.lots],
        "created_at": moment(row.created_ms),
    }


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
