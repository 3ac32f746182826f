"""`farebox prices`: every price book that ever applied, and what it said."""

from typing import Annotated, Any

import typer

from farebox.base.errors import UsageError
from farebox.base.units import moment
from farebox.run.cli_output import answer, table
from farebox.run.cli_place import ConfigOption, JsonOption, StoreOption, place_of, with_store
from farebox.store.base import Store

prices_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(prices_app, name="prices", help="Price books.")


@prices_app.command("list")
def prices_list(config: ConfigOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """All versions: number, content hash, since when."""
    versions = with_store(place_of(config, store), lambda s: s.price_versions())
    documents = [{"version": v, "content_hash": h, "effective_at": moment(at)} for v, h, at in versions]
    rows = [(d["version"], d["effective_at"], str(d["content_hash"])[:16]) for d in documents]
    answer(documents, as_json, table("", ("version", "since", "content"), rows, right=("version",)))


@prices_app.command("show")
def prices_show(
    version: Annotated[int | None, typer.Argument(help="Default: the newest.")] = None,
    model: Annotated[str, typer.Option(help="Only this model.")] = "",
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """One price book: USD per million tokens (or per call), before the multiplier."""

    async def read(s: Store) -> tuple[int, dict[str, Any]]:
        number = version
        if number is None:
            known = await s.price_versions()
            if not known:
                raise UsageError("there is no price book yet; `farebox serve` stores the first one")
            number = known[-1][0]
        book = await s.price_book(number)
        if book is None:
            raise UsageError(f"there is no price book {number}; `farebox prices list` shows the versions")
        return number, dict(book)

    number, book = with_store(place_of(config, store), read)
    models: dict[str, dict[str, Any]] = book.get("models", book)
    if model and model not in models:
        raise UsageError(f"price book {number} has no model {model!r}; it has {', '.join(models)}")
    chosen = {name: entry for name, entry in models.items() if model in {"", name}}
    rows = [
        (name, kind, price, entry.get("multiplier", "1"))
        for name, entry in chosen.items()
        for kind, price in _lines(entry)
    ]
    title = f"price book {number}, since {moment(book.get('effective_ms'))}"
    shown = table(title, ("model", "kind", "USD", "multiplier"), rows, right=("USD", "multiplier"))
    answer({"version": number, **book, "models": chosen}, as_json, shown)


def _lines(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """All lines of a model: base, context tiers, service tiers."""
    lines = list(entry["lines"].items())
    for threshold, inclusive, part in entry.get("tiers", ()):
        reach = f"from {threshold}" if inclusive else f"above {threshold}"
        lines += [(f"{kind} ({reach} prompt tokens)", price) for kind, price in part.items()]
    for name, part in entry.get("variants", {}).items():
        lines += [(f"{kind} ({name})", price) for kind, price in part.items()]
    return lines
