"""The price book: one content, one hash; what is stored comes back and charges the same (M7)."""

from typing import Any

import pytest

from farebox.meter import (
    PriceError,
    charge_of,
    content_hash,
    from_plain,
    model_price,
    new_price_book,
    to_plain,
)

SONNET: dict[str, Any] = {
    "lines": {"input": "3", "output": "15", "cache_read": "0.3", "cache_write_5m": "3.75"},
    "multiplier": "1.05",
    "tiers": [[200_000, False, {"input": "6", "output": "22.5"}]],
    "variants": {"priority": {"input": "9"}, "priority@200000": {"input": "18"}},
}
FREE: dict[str, Any] = {"lines": {"input": "0", "output": "0"}}


def test_a_stored_book_comes_back_and_charges_the_same() -> None:
    book = new_price_book({"sonnet": SONNET, "free": FREE}, 7, 1_700_000_000_000)
    again = from_plain(to_plain(book))
    assert (again.version, again.effective_ms) == (7, 1_700_000_000_000)
    assert again.content_hash == book.content_hash
    assert to_plain(again) == to_plain(book)
    assert from_plain(to_plain(book), 8).version == 8
    used = {"input": 1200, "output": 800, "cache_write_5m": 2000, "cache_read": 10_000}
    for each in (book, again):
        assert charge_of(each.models["sonnet"], used, 13_200).amount_pico == 27_405_000_000


def test_one_content_one_hash() -> None:
    first = new_price_book({"a": SONNET, "b": FREE}, 1, 5)
    second = new_price_book({"b": FREE, "a": dict(reversed(SONNET.items()))}, 2, 6)
    assert first.content_hash == second.content_hash
    dearer = {**SONNET, "lines": {**SONNET["lines"], "input": "3.01"}}
    assert new_price_book({"a": dearer, "b": FREE}, 1, 5).content_hash != first.content_hash
    assert len(content_hash({})) == 64


def test_tiers_variants_and_freedom_are_kept() -> None:
    entry = model_price(SONNET)
    million = {"input": 10**6}
    charged = [
        charge_of(entry, million, total, variant).amount_pico / 10**12
        for variant in (None, "priority", "flex")
        for total in (5, 200_001)
    ]
    assert charged == [3.15, 6.3, 9.45, 18.9, 3.15, 6.3]
    assert not entry.free
    assert model_price(FREE).free
    assert model_price(FREE).multiplier == "1"


def test_counts_may_be_any_mapping() -> None:
    from types import MappingProxyType

    assert charge_of(model_price(SONNET), MappingProxyType({"output": 1}), 0).amount_pico == 15_750_000


def test_M7_a_changed_book_is_noticed() -> None:
    document = to_plain(new_price_book({"sonnet": SONNET}, 1, 5))
    models: dict[str, Any] = document["models"]  # type: ignore[assignment]
    models["sonnet"]["lines"]["output"] = "1.5"
    with pytest.raises(PriceError, match="changed after it was stored"):
        from_plain(document)
    with pytest.raises(PriceError, match="version"):
        from_plain({**document, "version": "1"})
    with pytest.raises(PriceError, match="effective_ms"):
        from_plain({**document, "effective_ms": None})


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({}, "mapping"),
        ({"lines": {"input": 3}}, "decimal text"),
        ({"lines": {"input": "x"}}, "not a decimal"),
        ({"lines": {"input": "3"}, "multiplier": 1.05}, "decimal text"),
        ({"lines": {"input": "3"}, "tiers": {}}, "a list"),
        ({"lines": {"input": "3"}, "tiers": [[1, False]]}, "a tier is"),
        ({"lines": {"input": "3"}, "tiers": [["1", False, {}]]}, "a tier is"),
        ({"lines": {"input": "3"}, "tiers": [[1, 0, {}]]}, "a tier is"),
        ({"lines": {"input": "3"}, "variants": []}, "mapping"),
        ({"lines": {"input": "3"}, "variants": {"batch@5": {}}}, "names a tier"),
    ],
)
def test_entries_that_are_no_prices_are_refused_by_name(entry: dict[str, Any], reason: str) -> None:
    with pytest.raises(PriceError, match=f"model m: .*{reason}"):
        new_price_book({"m": entry}, 1, 0)
