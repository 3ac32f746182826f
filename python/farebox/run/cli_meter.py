"""`farebox meter` and `farebox quote`: what a recorded answer used, and what such use costs.

Tools for people with a bill in their hand. Both go through the code that meters and prices live traffic.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from farebox.base.errors import UsageError
from farebox.base.units import usd_from_pico
from farebox.credits.explained import charge_lines
from farebox.meter import Charge, ModelPrice, PriceError, Reading, model_price, read_body
from farebox.run.cli_output import answer, table
from farebox.run.cli_place import JsonOption

PRICE_NAMES = {"cache_write": "cache_write_5m", "cache_hit": "cache_read"}
"""Names of the replaced system -> kinds; other kinds are named as they are."""

_GZIP = b"\x1f\x8b"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("meter")(meter)
    app.command("quote")(quote)


def meter(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Response bodies as recorded.")],
    api: Annotated[
        str, typer.Option("--api", help="Wire format: chat, messages, responses, embeddings, ...")
    ],
    as_json: JsonOption = False,
) -> None:
    """Read the usage out of recorded response bodies; framing and gzip are detected."""
    documents = [_read(file, api) for file in files]
    if as_json:
        for document in documents:
            answer(document, True)
        return
    for document in documents:
        usage = document["usage"] or {}
        rows = [(member, value) for member, value in usage.items() if value is not None]
        title = f"{document['file']}: {document['evidence']} {' '.join(document['flags'])}"
        answer(document, False, table(title, ("tokens", "count"), rows, right=("count",)))


def _read(file: Path, api: str) -> dict[str, Any]:
    data = file.read_bytes()
    try:
        reading = read_body(data, api, content_encoding="gzip" if data.startswith(_GZIP) else "")
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from None
    return {"file": str(file), "usage": reading.usage, "evidence": evidence(reading), "flags": reading.flags}


def evidence(reading: Reading) -> str:
    """How sure a reading is: exact (final usage), partial (cut, or preliminary), none."""
    if reading.usage is None:
        return "none"
    return "exact" if reading.complete and reading.final else "partial"


def quote(
    config: Annotated[
        list[Path] | None,
        typer.Option("--config", envvar="FAREBOX_CONFIG", help="Configuration with --model."),
    ] = None,
    model: Annotated[str, typer.Option(help="Model id or alias of the configuration.")] = "",
    price: Annotated[
        str, typer.Option(help="Prices instead: input=3,output=15,cache_write=3.75,cache_hit=0.3")
    ] = "",
    multiplier: Annotated[str, typer.Option(help="With --price.")] = "",
    input_tokens: Annotated[int, typer.Option("--input", min=0, help="Uncached input tokens.")] = 0,
    output_tokens: Annotated[int, typer.Option("--output", min=0)] = 0,
    cache_read: Annotated[int, typer.Option("--cache-read", min=0)] = 0,
    cache_write: Annotated[int, typer.Option("--cache-write", min=0, help="Five-minute cache writes.")] = 0,
    cache_write_1h: Annotated[int, typer.Option("--cache-write-1h", min=0)] = 0,
    count: Annotated[
        list[str] | None, typer.Option("--count", help="Any other kind: web_search=2; repeatable.")
    ] = None,
    variant: Annotated[str, typer.Option(help="Service tier: batch, priority, ...")] = "",
    as_json: JsonOption = False,
) -> None:
    """What this use costs, exactly: counts are disjoint (input without cache)."""
    entry = _price(price, multiplier) if price else _configured_price(config, model, multiplier)
    counts = {
        "input": input_tokens,
        "cache_read": cache_read,
        "cache_write_5m": cache_write,
        "cache_write_1h": cache_write_1h,
        "output": output_tokens,
        **dict(_named_count(text) for text in count or ()),
    }
    charge = _charge(entry, {kind: number for kind, number in counts.items() if number}, variant)
    lines = charge_lines(charge)
    document = {
        "amount": usd_from_pico(charge.amount_pico),
        "amount_pico": charge.amount_pico,
        "lines": lines,
    }
    rows = [(line["kind"], line["count"], line["price"], line["amount"]) for line in lines]
    shown = table("", ("kind", "count", "price", "USD"), rows, right=("count", "price", "USD"))
    answer(document, as_json, shown, f"x {charge.multiplier} = {usd_from_pico(charge.amount_pico)} USD")


def _charge(entry: ModelPrice, counts: dict[str, int], variant: str) -> Charge:
    tokens_in = sum(number for kind, number in counts.items() if kind.startswith("cache_") or "input" in kind)
    try:
        charge = entry.price.charge(counts, tokens_in, variant or None)
    except PriceError as error:
        raise UsageError(str(error)) from None
    if charge.missing:
        raise UsageError(f"no price for {', '.join(charge.missing)}; such an exchange would be quarantined")
    return charge


def _price(text: str, multiplier: str) -> ModelPrice:
    lines = {}
    for part in text.split(","):
        name, equals, amount = (piece.strip() for piece in part.partition("="))
        if not equals or not amount:
            raise UsageError(f"--price: {part!r} is not NAME=USD; write input=3,output=15")
        lines[PRICE_NAMES.get(name, name)] = amount
    try:
        return model_price({"lines": lines, "multiplier": multiplier or "1"})
    except PriceError as error:
        raise UsageError(f"--price: {error}") from None


def _configured_price(config: list[Path] | None, model: str, multiplier: str) -> ModelPrice:
    if not config or not model:
        raise UsageError("say what it costs: --config FILE --model MODEL, or --price input=3,output=15")
    from farebox.config.load import load  # noqa: PLC0415 - a quote by --price needs no configuration parser

    row = next((found for s in load(config).services if (found := s.models.get(model)) is not None), None)
    if row is None:
        raise UsageError(f"no model {model!r} in {', '.join(map(str, config))}")
    entry: dict[str, object] = dict(row.price)
    if multiplier:
        entry["multiplier"] = multiplier
    try:
        return model_price(entry)
    except PriceError as error:
        raise UsageError(f"{model}: {error}") from None


def _named_count(text: str) -> tuple[str, int]:
    kind, _, number = text.partition("=")
    if not number.isdecimal():
        raise UsageError(f"--count: {text!r} is not KIND=NUMBER")
    return kind.strip(), int(number)
