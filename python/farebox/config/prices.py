"""From a model entry's price keys to one entry of the price book. Pure; fails closed.

The entry (`settings.PlainPrice`) is a plain dict, JSON-ready, all numbers decimal text:
`lines` kind -> price (tokens per million, other kinds per unit) · `multiplier` · `tiers` list of
(threshold in prompt tokens, inclusive, lines) ascending · `variants` name -> lines that replace base lines;
`name@threshold` is a variant's lines in that tier.
"""

from decimal import Decimal

from farebox.config.document import ContextTier, ModelEntry, PriceLines, VariantPrices
from farebox.config.problems import Problems
from farebox.config.settings import PlainPrice

KIND_BY_KEY = {
    "input_price_per_mtok": "input",
    "cache_hit_price_per_mtok": "cache_read",
    "cache_write_price_per_mtok": "cache_write_5m",
    "cache_write_1h_price_per_mtok": "cache_write_1h",
    "output_price_per_mtok": "output",
    "audio_input_price_per_mtok": "audio_input",
    "audio_output_price_per_mtok": "audio_output",
    "image_input_price_per_mtok": "image_input",
    "image_output_price_per_mtok": "image_output",
}
KEY_BY_KIND = {kind: key for key, kind in KIND_BY_KEY.items()}
UNIT_KINDS = ("call", "web_search", "file_search", "code_interpreter", "image", "second")
BASE_TIER_NAMES = ("auto", "default", "standard", "standard_only")
_MULTIPLIER_SUSPECT = 10

Lines = dict[str, str]
Tier = tuple[int, bool, Lines]


class PriceCheck:
    """One model's prices while they are checked: `stated` in the file, `lines` with what was filled in."""

    def __init__(
        self, entry: ModelEntry, wire_formats: frozenset[str], path: str, problems: Problems
    ) -> None:
        self.entry = entry
        self.wire_formats = wire_formats
        self.path = path
        self.problems = problems
        self.stated = _token_lines(entry)
        self.lines = dict(self.stated)

    def error(self, key: str, message: str) -> None:
        """Report under a key of this model."""
        self.problems.error(f"{self.path}.{key}", message)

    def warn(self, key: str, message: str) -> None:
        """Report under a key of this model."""
        self.problems.warn(f"{self.path}.{key}", message)


def price_entry(entry: ModelEntry, wire_formats: frozenset[str], path: str, problems: Problems) -> PlainPrice:
    """The price-book entry of a model served on `wire_formats`; faults are reported under `path`."""
    if Decimal(entry.billing_multiplier) <= 0:
        problems.error(f"{path}.billing_multiplier", "must be above 0")
    elif Decimal(entry.billing_multiplier) > _MULTIPLIER_SUSPECT:
        problems.warn(f"{path}.billing_multiplier", f"is {entry.billing_multiplier}: is that meant?")
    price = PriceCheck(entry, wire_formats, path, problems)
    if entry.free:
        return _free(price)
    _check_base(price)
    _complete_cache(price)
    tiers = _tiers(price, entry.context_tiers, "context_tiers")
    return {
        "lines": price.lines | _unit_lines(entry),
        "multiplier": entry.billing_multiplier,
        "tiers": tiers,
        "variants": _variants(price, tiers),
    }


def priced_fields(entry: ModelEntry) -> dict[str, dict[str, str]]:
    """Request field -> value -> variant name, for the fields that change the price and are priced."""
    fields: dict[str, dict[str, str]] = {}
    for field, values in entry.price_fields.items():
        fields[field] = {value: f"{field}:{value}" for value in values}
    if entry.service_tiers:
        fields["service_tier"] = {tier: tier for tier in entry.service_tiers}
    return fields


def _token_lines(entry: PriceLines) -> Lines:
    return {kind: text for key, kind in KIND_BY_KEY.items() if (text := getattr(entry, key)) is not None}


def _unit_lines(entry: ModelEntry) -> Lines:
    return {kind: text for kind in UNIT_KINDS if (text := getattr(entry.per_call, kind)) is not None}


def _free(price: PriceCheck) -> PlainPrice:
    entry = price.entry
    stated = [*price.stated.values(), *_unit_lines(entry).values()]
    priced_otherwise = (entry.context_tiers, entry.service_tiers, entry.price_fields, _batch(price))
    if any(Decimal(text) > 0 for text in stated) or any(priced_otherwise):
        price.error("free", "the model is free and has prices; keep one of the two")
    lines = dict.fromkeys((*KIND_BY_KEY.values(), *UNIT_KINDS), "0")
    return {"lines": lines, "multiplier": entry.billing_multiplier, "tiers": [], "variants": {}}


def _check_base(price: PriceCheck) -> None:
    """Input and output must be priced above 0: a model without a price would be served for nothing."""
    needed = ("input",) if price.wire_formats == {"embeddings"} else ("input", "output")
    for kind in needed:
        text = price.stated.get(kind)
        if text is None:
            price.error(KEY_BY_KIND[kind], 'is missing; state the price, or say "free": true')
        elif Decimal(text) == 0:
            price.error(KEY_BY_KIND[kind], 'is 0; state the price, or say "free": true')
    for kind in ("cache_read", "cache_write_5m", "cache_write_1h"):
        if kind in price.stated and Decimal(price.stated[kind]) == 0:
            price.warn(KEY_BY_KIND[kind], "is 0: these tokens are charged nothing, as written")


def _complete_cache(price: PriceCheck) -> None:
    """Cached tokens that are part of the input cost the input price if unpriced; where apart: an error."""
    if price.wire_formats == {"embeddings"}:
        return
    missing = [kind for kind in ("cache_read", "cache_write_5m") if kind not in price.stated]
    if "messages" in price.wire_formats:
        for kind in missing:
            price.error(
                KEY_BY_KIND[kind],
                "is missing; messages counts cached tokens apart from the input. State it, or leave messages"
                " out of wire_formats",
            )
        if "cache_write_1h" not in price.stated:
            price.warn(
                KEY_BY_KIND["cache_write_1h"],
                "is missing; answers with 1-hour cache writes will be quarantined",
            )
        return
    if "cache_write_5m" in missing and "cache_write_1h" not in price.stated:
        missing.append("cache_write_1h")
    if missing and "input" in price.stated:
        keys = ", ".join(KEY_BY_KIND[kind] for kind in missing)
        price.problems.warn(
            price.path, f"no {keys}: these tokens cost the input price {price.stated['input']}"
        )
        price.lines.update(dict.fromkeys(missing, price.stated["input"]))


def _replacing(price: PriceCheck, lines: Lines, key: str) -> Lines:
    """`lines` instead of the base: each kind stated there must be stated here; filled-in kinds are input."""
    for kind in price.stated:
        if kind not in lines:
            price.error(f"{key}.{KEY_BY_KIND[kind]}", "is missing; the model has a base price of this kind")
    for kind in ("input", "output"):
        if kind in lines and Decimal(lines[kind]) == 0 and kind in price.stated:
            price.error(f"{key}.{KEY_BY_KIND[kind]}", "is 0")
    filled = {kind: lines["input"] for kind in price.lines if kind not in price.stated and "input" in lines}
    return filled | lines


def _tiers(price: PriceCheck, entries: list[ContextTier], key: str) -> list[Tier]:
    tiers: list[Tier] = []
    last = 0
    for index, tier in enumerate(entries):
        here = f"{key}[{index}]"
        if (tier.above is None) == (tier.from_ is None):
            price.error(here, "needs exactly one of above and from")
            continue
        threshold = tier.above or tier.from_ or 0
        if threshold <= last:
            price.error(here, f"thresholds must rise; {threshold} follows {last}")
        last = threshold
        tiers.append((threshold, tier.from_ is not None, _replacing(price, _token_lines(tier), here)))
    return tiers


def _variants(price: PriceCheck, tiers: list[Tier]) -> dict[str, Lines]:
    entry = price.entry
    variants = _batch(price)
    for name, prices in entry.service_tiers.items():
        if name in BASE_TIER_NAMES or name in variants:
            price.error(f"service_tiers.{name}", "is not a tier of its own")
        variants |= _variant(price, prices, name, f"service_tiers.{name}", tiers)
    for field, values in entry.price_fields.items():
        for value, prices in values.items():
            variants |= _variant(price, prices, f"{field}:{value}", f"price_fields.{field}.{value}", tiers)
    return variants


def _batch(price: PriceCheck) -> dict[str, Lines]:
    """Batch prices come in a pair and leave cache prices as they are, as in the replaced system."""
    batch = {
        "input": price.entry.batch_input_price_per_mtok,
        "output": price.entry.batch_output_price_per_mtok,
    }
    lines = {kind: text for kind, text in batch.items() if text is not None}
    for kind in batch:
        if lines and kind not in lines:
            price.error(f"batch_{kind}_price_per_mtok", "is missing; batch prices come in pairs")
        elif lines and Decimal(lines[kind]) == 0:
            price.error(f"batch_{kind}_price_per_mtok", "is 0")
    return {"batch": lines} if lines else {}


def _variant(
    price: PriceCheck, prices: VariantPrices, name: str, key: str, tiers: list[Tier]
) -> dict[str, Lines]:
    """A variant and, named `variant@threshold`, its prices in each context tier of the model."""
    found = {name: _replacing(price, _token_lines(prices), key)}
    own = {tier[:2]: tier[2] for tier in _tiers(price, prices.context_tiers, f"{key}.context_tiers")}
    for threshold, inclusive, _ in tiers:
        lines = own.pop((threshold, inclusive), None)
        if lines is None:
            price.warn(key, f"has no prices above {threshold} tokens; such requests will be quarantined")
        else:
            found[f"{name}@{threshold}"] = lines
    for threshold, _ in own:
        price.error(f"{key}.context_tiers", f"the model itself has no such context tier at {threshold}")
    return found
