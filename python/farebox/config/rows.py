"""From model entries to the rows Farebox serves: names, wallet, upstream, endpoints, bounds.

Name, price and upstream id of a row come from one entry; a name belongs to one row; there is no default
model, no pattern and no choice between upstream models (what is billed is what was asked for and served).
"""

from collections.abc import Mapping

from farebox._meter import PriceError
from farebox.base import limits
from farebox.base.records import WALLETS
from farebox.config.document import ModelEntry
from farebox.config.prices import price_entry, priced_fields
from farebox.config.problems import Problems
from farebox.config.settings import Endpoint, ModelRow, ModelTable, PlainPrice
from farebox.meter.price_book import model_price

Endpoints = Mapping[str, Endpoint | None]
"""Endpoints by name; None for one that is named but faulty, which is reported elsewhere."""

DEFAULT_WALLET = "ohmygpt"

FIRST_PARTY: dict[str, tuple[str, ...]] = {
    "main": ("openai", "anthropic"),
    "troll": ("openai", "anthropic"),
    "openai": ("openai",),
    "anthropic": ("anthropic",),
}
"""Upstreams whose endpoints are named by the API alone; any other X has X-openai and X-anthropic."""

THINKING_BUDGET_TOKENS = {"high": 10_000, "medium": 5_000, "low": 2_000}
"""Thinking budget by `reasoning`, as in the replaced system; it sizes holds and nothing else."""


def model_table(entries: Mapping[int, ModelEntry], endpoints: Endpoints, problems: Problems) -> ModelTable:
    """Rows of the entries, given by their place in the file; faults are reported, their rows left out."""
    _check_names(entries, problems)
    rows = [_row(entry, f"models[{index}]", endpoints, problems) for index, entry in entries.items()]
    kept = tuple(row for row in rows if row is not None)
    _check_one_price_per_upstream_model(kept, problems)
    return ModelTable(kept)


def _check_names(entries: Mapping[int, ModelEntry], problems: Problems) -> None:
    owner: dict[str, str] = {}
    for index, entry in entries.items():
        places = [f"models[{index}].id"]
        places += [f"models[{index}].id_aliases[{number}]" for number in range(len(entry.id_aliases))]
        for name, place in zip((entry.id, *entry.id_aliases), places, strict=True):
            if name in owner:
                problems.error(place, f"{name!r} already names {owner[name]}")
            else:
                owner[name] = place


def _row(entry: ModelEntry, path: str, endpoints: Endpoints, problems: Problems) -> ModelRow | None:
    upstream = _upstream(entry, path, problems)
    wallet = _wallet(entry, path, problems)
    upstream_model = _upstream_model(entry, path, problems)
    routes = _routes(entry, upstream, path, endpoints, problems)
    if upstream is None or wallet is None or upstream_model is None or not routes:
        _price(entry, frozenset(entry.wire_formats or ("chat",)), path, problems)
        return None
    return ModelRow(
        ids=(entry.id, *entry.id_aliases),
        name=entry.name,
        type=entry.type,
        upstream=upstream,
        upstream_model=upstream_model,
        wallet=wallet,
        pools=WALLETS[wallet],
        endpoints=routes,
        price=_price(entry, frozenset(routes), path, problems),
        priced_fields=priced_fields(entry),
        free=entry.free,
        context_tokens=entry.context_tokens,
        max_output_tokens=entry.max_output_tokens,
        assumed_output_tokens=_assumed_output_tokens(entry),
        input_bytes_per_token=entry.input_bytes_per_token,
    )


def _price(entry: ModelEntry, wire_formats: frozenset[str], path: str, problems: Problems) -> PlainPrice:
    """The price entry, which the meter must be able to compile.

    Prices of entries that cannot become rows are checked too, so that all faults show at once.
    """
    faults = len(problems.errors)
    price = price_entry(entry, wire_formats, path, problems)
    if len(problems.errors) == faults:
        try:
            model_price(price)
        except PriceError as error:
            problems.error(path, f"cannot be priced: {error}")
    return price


def _upstream(entry: ModelEntry, path: str, problems: Problems) -> str | None:
    if entry.upstream is not None:
        return entry.upstream
    if entry.type is not None:
        problems.warn(f"{path}.upstream", f"is missing; the type names it: {entry.type!r}")
        return entry.type
    problems.error(f"{path}.upstream", "is missing; say which provider serves the model")
    return None


def _wallet(entry: ModelEntry, path: str, problems: Problems) -> str | None:
    if entry.billing_upstream is None:
        problems.warn(f"{path}.billing_upstream", f"is missing; the wallet is {DEFAULT_WALLET!r}")
        return DEFAULT_WALLET
    if entry.billing_upstream in WALLETS:
        return entry.billing_upstream
    choices = ", ".join(repr(name) for name in WALLETS)
    problems.error(
        f"{path}.billing_upstream", f"{entry.billing_upstream!r} is no wallet; choose one of {choices}"
    )
    return None


def _upstream_model(entry: ModelEntry, path: str, problems: Problems) -> str | None:
    if entry.upstream_model_weights is not None:
        problems.error(
            f"{path}.upstream_model_weights",
            "is refused: the model that is billed is the model that is served",
        )
    if isinstance(entry.upstream_model_id, list):
        problems.error(
            f"{path}.upstream_model_id",
            "must be one id: the model that is billed is the model that is served",
        )
        return None
    if entry.upstream_model_id == "":
        problems.error(f"{path}.upstream_model_id", "is empty; leave it out where it equals the id")
        return None
    return entry.upstream_model_id or entry.id


def _endpoint_names(entry: ModelEntry, upstream: str) -> tuple[str, ...]:
    if entry.endpoint is not None:
        return (entry.endpoint,) if isinstance(entry.endpoint, str) else tuple(entry.endpoint)
    names = FIRST_PARTY.get(upstream)
    if names is None:
        return (f"{upstream}-openai", f"{upstream}-anthropic")
    return (entry.type,) if entry.type in names else names


def _routes(
    entry: ModelEntry, upstream: str | None, path: str, endpoints: Endpoints, problems: Problems
) -> dict[str, Endpoint]:
    """Wire format -> endpoint, for the wire formats the model is served on."""
    if upstream is None:
        return {}
    names = _endpoint_names(entry, upstream)
    unknown = [name for name in names if name not in endpoints]
    if len(unknown) == len(names) or (unknown and entry.endpoint is not None):
        key = "upstream" if entry.endpoint is None else "endpoint"
        listed = ", ".join(repr(name) for name in endpoints) or "none"
        wanted = " or ".join(repr(name) for name in unknown) or "any"
        problems.error(f"{path}.{key}", f"no endpoint named {wanted}; the file has {listed}")
        return {}
    routes: dict[str, Endpoint] = {}
    for name in names:
        endpoint = endpoints.get(name)
        if endpoint is not None:
            routes = dict.fromkeys(endpoint.wire_formats, endpoint) | routes
    if entry.wire_formats is None or any(endpoints.get(name, "") is None for name in names):
        return routes
    for wire_format in entry.wire_formats:
        if wire_format not in routes:
            problems.error(f"{path}.wire_formats", f"no endpoint of the model serves {wire_format}")
    return {wire_format: routes[wire_format] for wire_format in entry.wire_formats if wire_format in routes}


def _assumed_output_tokens(entry: ModelEntry) -> int:
    """Tokens held for an answer whose length the client did not limit."""
    if entry.assumed_output_tokens is not None:
        return entry.assumed_output_tokens
    thinking = entry.thinking_budget or THINKING_BUDGET_TOKENS.get(entry.reasoning or "", 0)
    assumed = limits.assumed_output_tokens + thinking
    return min(assumed, entry.max_output_tokens) if entry.max_output_tokens is not None else assumed


def _check_one_price_per_upstream_model(rows: tuple[ModelRow, ...], problems: Problems) -> None:
    first: dict[tuple[str, str], ModelRow] = {}
    for row in rows:
        other = first.setdefault((row.upstream, row.upstream_model), row)
        if other.price != row.price:
            problems.warn(
                "models", f"{row.id!r} and {other.id!r} sell the same upstream model at different prices"
            )
