"""An opening balance is exact to the pico or refused with its reason, and its row is booked once (M1, M4)."""

import math
import re
from decimal import Decimal
from fractions import Fraction

import pytest

from farebox.ledger.opening import LARGEST_PICO, exact_pico, fine_usd, opening_row

AMOUNTS = {
    "absent": (None, 0, Fraction(0)),
    "a whole number": (20, 20 * 10**12, Fraction(0)),
    "a double is its shortest decimal": (0.1, 10**11, Fraction(0)),
    "a sum of doubles": (0.1 + 0.2, 300_000_000_000, Fraction("0.00004")),
    "a decimal to the pico": (Decimal("0.000000000001"), 1, Fraction(0)),
    "half a pico goes to the even one below": (Decimal("0.0000000000025"), 2, Fraction(1, 2)),
    "half a pico goes to the even one above": (Decimal("0.0000000000015"), 2, Fraction(-1, 2)),
    "more than half goes up": (Decimal("0.0000000000026"), 3, Fraction(-2, 5)),
    "less than nothing, but nearest to nothing": (Decimal("-0.0000000000001"), 0, Fraction(-1, 10)),
    "the largest there is": (Decimal(LARGEST_PICO).scaleb(-12), LARGEST_PICO, Fraction(0)),
}


@pytest.mark.parametrize(("value", "pico", "rest"), AMOUNTS.values(), ids=AMOUNTS)
def test_M1_an_amount_is_rounded_once_and_the_rest_is_told(value: object, pico: int, rest: Fraction) -> None:
    assert exact_pico(value) == (pico, rest)


REFUSED = {
    "text": ("12.3", "a text, not a number"),
    "truth": (True, "true or false, not a number"),
    "list": ([], "a list, not a number"),
    "object": ({}, "an object, not a number"),
    "another type": (b"1", "a bytes, not a number"),
    "not a number": (math.nan, "nan"),
    "infinite": (Decimal("-Infinity"), "-Infinity"),
    "negative": (-0.01, "negative"),
    "a pico too much": (Decimal(LARGEST_PICO + 1).scaleb(-12), "more than an account can hold"),
}


@pytest.mark.parametrize(("value", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_amount_of_money_is_refused_with_the_reason(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        exact_pico(value)


def test_M4_an_opening_has_one_row_and_one_lot_whoever_books_it() -> None:
    row = opening_row("alice", "credits", 5, "import-1", "import", 7)
    assert row == opening_row("alice", "credits", 5, "import-1", "import", 7)
    assert row.id == "alice:opening:import-1:credits"
    (part,) = row.lots
    assert (part.pool, part.amount_pico, row.amount_pico) == ("credits", 5, 5)
    assert (row.cause, row.created_ms) == ("import", 7)
    assert re.fullmatch("[0-9a-f]{24}", part.lot)
    others = [
        opening_row(user, pool, 5, reference, "import", 7).lots[0].lot
        for user, pool, reference in (
            ("bob", "credits", "import-1"),
            ("alice", "refCredits", "import-1"),
            ("alice", "credits", "import-2"),
        )
    ]
    assert len({part.lot, *others}) == 4
    assert opening_row("alice", "credits", 0, "import-1", "import", 7).lots == ()


@pytest.mark.parametrize(("rest", "shown"), [(Fraction(0), "0"), (Fraction(11, 250_000), "4.4e-17")])
def test_what_is_too_fine_for_the_ledger_is_shown_in_two_digits(rest: Fraction, shown: str) -> None:
    assert fine_usd(rest) == shown
