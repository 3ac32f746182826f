"""The price book: what every model cost at one moment, as one immutable, numbered value.

An exchange finishes on the version it started with, and every charge names its version, so a charge can be
recomputed forever. Everything here is a pure function of plain values: the configuration
hands in entries, store and journal keep `to_plain`, and numbers and times come from the caller.

A model's entry is a mapping: `lines` kind -> decimal text (tokens per million, other kinds per unit),
`multiplier`, `tiers` [(threshold in prompt tokens, inclusive, lines that replace base lines)], `variants`
name -> lines that replace base lines. A variant prices requests inside a tier only by lines of its own under
`name@threshold`; without them its charge there is missing, hence quarantined.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import orjson

from farebox._meter import Charge, Price, PriceError
from farebox.base.units import MILLION, PICO_PER_USD

Lines = Mapping[str, str]
Tier = tuple[int, bool, Lines]

TOKEN_INPUT_KINDS = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
MEDIA_INPUT_KINDS = ("audio_input", "image_input")
MEDIA_OUTPUT_KINDS = ("audio_output", "image_output")
UNIT_KINDS = ("web_search", "file_search", "code_interpreter", "image", "second", "call")


@dataclass(frozen=True, slots=True)
class Rates:
    """Upper bounds per unit, in whole pico-USD, multiplier included: for holds, never for charges.

    They hold from `reached_tokens` prompt tokens on, for requests of `variant` ("" is the base). `input_pico`
    is the dearest kind an input token can turn out to be; the `any_` figures take audio and images in.
    """

    reached_tokens: int
    variant: str
    input_pico: int
    any_input_pico: int
    output_pico: int
    any_output_pico: int
    unit_pico: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """One model's prices: as written, compiled for charging, and as upper bounds for holds."""

    price: Price
    lines: Lines
    multiplier: str
    tiers: tuple[Tier, ...]
    variants: Mapping[str, Lines]
    free: bool
    rates: tuple[Rates, ...]


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All models' prices at one moment; `content_hash` names the content, `version` its place in history."""

    version: int
    content_hash: str
    effective_ms: int
    models: Mapping[str, ModelPrice]


def model_price(entry: Mapping[str, object]) -> ModelPrice:
    """Compile one model's entry. Raises PriceError on anything that is not an exact price."""
    lines = _lines(entry.get("lines"))
    multiplier = entry.get("multiplier", "1")
    if not isinstance(multiplier, str):
        raise PriceError("multiplier: write it as decimal text")
    tiers = tuple(_tier(tier) for tier in _sequence(entry.get("tiers", ())))
    variants = {name: _lines(part) for name, part in _mapping(entry.get("variants", {})).items()}
    price = Price(
        dict(lines),
        multiplier,
        tiers=[(threshold, inclusive, dict(part)) for threshold, inclusive, part in tiers],
        variants={name: dict(part) for name, part in variants.items()},
    )
    rates = tuple(_all_rates(lines, Fraction(multiplier), tiers, variants))
    free = all(Fraction(text) == 0 for part in _every_lines(lines, tiers, variants) for text in part.values())
    return ModelPrice(price, lines, multiplier, tiers, variants, free, rates)


def new_price_book(entries: Mapping[str, Mapping[str, object]], version: int, effective_ms: int) -> PriceBook:
    """The book of these entries. Raises PriceError naming the model that cannot be priced."""
    models: dict[str, ModelPrice] = {}
    for model, entry in entries.items():
        try:
            models[model] = model_price(entry)
        except PriceError as error:
            raise PriceError(f"model {model}: {error}") from None
    return PriceBook(version, content_hash(plain_models(models)), effective_ms, models)


def plain_models(models: Mapping[str, ModelPrice]) -> dict[str, dict[str, object]]:
    """The entries again, JSON-ready, in one spelling: what the hash is taken of and the store keeps."""
    return {
        model: {
            "lines": dict(price.lines),
            "multiplier": price.multiplier,
            "tiers": [[threshold, inclusive, dict(part)] for threshold, inclusive, part in price.tiers],
            "variants": {name: dict(part) for name, part in price.variants.items()},
        }
        for model, price in models.items()
    }


def content_hash(models: Mapping[str, object]) -> str:
    """SHA-256 hex of the plain models as JSON with sorted keys: equal prices, equal hash."""
    return hashlib.sha256(orjson.dumps(models, option=orjson.OPT_SORT_KEYS)).hexdigest()


def to_plain(book: PriceBook) -> dict[str, object]:
    """The whole book, JSON-ready, for journal and store."""
    return {
        "version": book.version,
        "content_hash": book.content_hash,
        "effective_ms": book.effective_ms,
        "models": plain_models(book.models),
    }


def from_plain(document: Mapping[str, object], version: int | None = None) -> PriceBook:
    """Inverse of `to_plain`. Raises PriceError if the content is not what its hash says.

    `version`: the number the store gave the book, where it was stored before it had one.
    """
    number = document.get("version") if version is None else version
    effective_ms = document.get("effective_ms")
    if not isinstance(number, int) or not isinstance(effective_ms, int):
        raise PriceError("a stored price book needs version and effective_ms")
    entries = cast("Mapping[str, Mapping[str, object]]", _mapping(document.get("models")))
    book = new_price_book(entries, number, effective_ms)
    if document.get("content_hash") != book.content_hash:
        raise PriceError(f"price book {number} was changed after it was stored: its hash differs")
    return book


def charge_of(
    entry: ModelPrice, counts: Mapping[str, int], input_total: int, variant: str | None = None
) -> Charge:
    """Price normal-form counts of one inference; see `Charge.missing` before booking. Raises PriceError."""
    return entry.price.charge(counts if isinstance(counts, dict) else dict(counts), input_total, variant)


def _every_lines(lines: Lines, tiers: tuple[Tier, ...], variants: Mapping[str, Lines]) -> Iterator[Lines]:
    yield lines
    yield from (part for _, _, part in tiers)
    yield from variants.values()


def _all_rates(
    base: Lines, multiplier: Fraction, tiers: tuple[Tier, ...], variants: Mapping[str, Lines]
) -> Iterator[Rates]:
    """Every combination of tier and variant that can price a request."""
    under = {"": (0, base)}
    for threshold, inclusive, part in tiers:
        under[str(threshold)] = (threshold if inclusive else threshold + 1, {**base, **part})
    for reached, lines in under.values():
        yield _rates(reached, "", lines, multiplier)
    for name, part in variants.items():
        variant, _, tier = name.partition("@")
        reached, lines = under[tier]
        yield _rates(reached, variant, {**lines, **part}, multiplier)


def _rates(reached_tokens: int, variant: str, lines: Lines, multiplier: Fraction) -> Rates:
    def dearest(*kinds: str) -> int:
        return max((_pico_up(lines[kind], multiplier, MILLION) for kind in kinds if kind in lines), default=0)

    return Rates(
        reached_tokens=reached_tokens,
        variant=variant,
        input_pico=dearest(*TOKEN_INPUT_KINDS),
        any_input_pico=dearest(*TOKEN_INPUT_KINDS, *MEDIA_INPUT_KINDS),
        output_pico=dearest("output"),
        any_output_pico=dearest("output", *MEDIA_OUTPUT_KINDS),
        unit_pico={kind: _pico_up(lines[kind], multiplier, 1) for kind in UNIT_KINDS if kind in lines},
    )


def _pico_up(text: str, multiplier: Fraction, units: int) -> int:
    return -(-(Fraction(text) * multiplier * PICO_PER_USD / units) // 1)


def _lines(value: object) -> Lines:
    lines = _mapping(value)
    for kind, text in lines.items():
        if not isinstance(text, str):
            raise PriceError(f"{kind}: write the price as decimal text")
    return cast("Lines", dict(lines))


def _tier(value: object) -> Tier:
    parts = _sequence(value)
    if len(parts) != 3 or not isinstance(parts[0], int) or not isinstance(parts[1], bool):
        raise PriceError("a tier is a threshold, whether it is inclusive, and lines")
    return (parts[0], parts[1], _lines(parts[2]))


def _sequence(value: object) -> list[object] | tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise PriceError("tiers: a list is expected")
    return value


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise PriceError("prices are a mapping of names")
    return value
