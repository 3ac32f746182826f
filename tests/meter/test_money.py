"""Amounts, prices and charges at the compiled face: exact, once rounded, refused rather than guessed."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.base.units import pico_from_usd, usd_from_pico
from farebox.meter import Price, PriceError, format_pico, parse_pico

PLAIN = st.decimals(min_value=0, max_value=9999, places=9, allow_nan=False, allow_infinity=False)


@given(st.integers(-(10**27), 10**27))
def test_amounts_round_trip_and_agree_with_the_units_of_base(amount_pico: int) -> None:
    text = format_pico(amount_pico)
    assert parse_pico(text) == amount_pico
    assert text == usd_from_pico(amount_pico)
    assert pico_from_usd(text) == amount_pico


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "NaN",
        "Infinity",
        "1_000",
        "0x1",
        "1.",
        ".5",
        "1e99",
        "1e-13",
        "0." + "0" * 12 + "1",
        "١",
    ],
)
def test_junk_is_no_amount(text: str) -> None:
    with pytest.raises(PriceError):
        parse_pico(text)


@pytest.mark.parametrize(
    ("widest", "one_more"),
    [
        ("9" * 16, "1" + "0" * 16),
        ("0." + "0" * 11 + "1", "0." + "0" * 12 + "1"),
        ("1e-12", "1e-13"),
        ("0e40", "0e41"),
        ("0e-40", "0e-41"),
        ("0" * 52 + "." + "0" * 11, "0" * 53 + "." + "0" * 11),
    ],
)
def test_M10_the_widest_amount_is_taken_and_one_more_is_refused(widest: str, one_more: str) -> None:
    assert parse_pico(widest) == Decimal(widest).scaleb(12)
    with pytest.raises(PriceError):
        parse_pico(one_more)


@pytest.mark.parametrize(
    ("widest", "one_more"), [("9" * 12, "1" + "0" * 12), ("1e-24", "1e-25"), ("1e11", "1e12")]
)
def test_M10_the_widest_price_is_taken_and_one_more_is_refused(widest: str, one_more: str) -> None:
    assert Decimal(Price({"input": widest}).charge({"input": 1}, 1).lines[0][2]) == Decimal(widest)
    with pytest.raises(PriceError):
        Price({"input": one_more})


@given(
    st.lists(st.tuples(PLAIN, st.integers(0, 10**9)), min_size=1, max_size=5),
    st.decimals(min_value=0, max_value=99, places=4),
)
def test_M7_a_charge_is_the_exact_sum_rounded_once_half_to_even(
    parts: list[tuple[Decimal, int]], factor: Decimal
) -> None:
    kinds = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
    lines = {kind: format(price, "f") for kind, (price, _) in zip(kinds, parts, strict=False)}
    used = {kind: count for kind, (_, count) in zip(kinds, parts, strict=False)}
    charge = Price(lines, format(factor, "f")).charge(used, 0)
    exact = sum(Fraction(price) * count for price, count in parts) * Fraction(factor) * 10**6
    assert charge.amount_pico == round(exact)
    shown = sum(Fraction(amount) for _, _, _, amount in charge.lines)
    assert shown * Fraction(charge.multiplier) * 10**12 == exact


def test_a_kind_without_a_price_is_named_never_free() -> None:
    charge = Price({"input": "3"}).charge({"input": 10, "output": 1, "made_up": 2, "cache_read": 0}, 10)
    assert charge.missing == ["made_up", "output"]
    assert charge.amount_pico == 0
    assert charge.lines == [("input", 10, "3", "0.00003")]


def test_counts_that_are_none_are_refused() -> None:
    price = Price({"input": "3"})
    for used, total in (({"input": -1}, 0), ({"input": 2**64}, 0), ({"input": 1}, -1)):
        with pytest.raises(PriceError):
            price.charge(used, total)
    with pytest.raises(TypeError):
        price.charge({"input": 1.5}, 0)  # type: ignore[dict-item]
    with pytest.raises(PriceError):
        Price({"second": "999999999999"}, "999999999999").charge({"second": 2**63}, 0)


def test_tier_and_variant_are_told() -> None:
    price = Price(
        {"input": "3"}, "1.50", tiers=[(200_000, True, {"input": "6"})], variants={"batch": {"input": "1.5"}}
    )
    below, at = price.charge({"input": 1}, 199_999), price.charge({"input": 1}, 200_000)
    assert (below.tier, below.amount_pico) == (-1, 4_500_000)
    assert (at.tier, at.amount_pico) == (0, 9_000_000)
    assert price.charge({"input": 1}, 5, "batch").amount_pico == 2_250_000
    assert price.charge({"input": 1}, 5, "standard").multiplier == "1.50"
