"""The opening balance of an account of the replaced system: an exact amount of a double, and its ledger row.

Pure. Promises: an amount is rounded once, half to even, to the pico, and the rest is
handed back, so that an import can show that nothing else was lost; what is no amount of money is refused with
the reason.
"""

import hashlib
import math
from decimal import Decimal
from fractions import Fraction
from typing import Final

from farebox.base.records import LotAmount, Transaction
from farebox.base.units import PICO_PER_USD

LARGEST_PICO: Final = 2**63 - 1
"""What a store can hold of one pool: 9,223,372 USD."""


def exact_pico(value: object) -> tuple[int, Fraction]:
    """The nearest pico-USD of an amount in USD, and the exact rest in pico (amount - nearest).

    Absent (None) is 0. A double stands for its shortest decimal form, which is what its owner has always been
    shown. Raises ValueError with the reason on anything that is no amount: text, NaN, infinity, a negative
    one, more than a store can hold.
    """
    if value is None:
        return 0, Fraction(0)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"{_kind(value)}, not a number")
    if not isinstance(value, int) and not math.isfinite(value):
        raise ValueError(f"{value}")
    exact = Decimal(repr(value)) if isinstance(value, float) else value
    numerator, denominator = exact.as_integer_ratio()
    numerator *= PICO_PER_USD
    nearest, rest = divmod(numerator, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and nearest % 2):
        nearest += 1
    if nearest < 0:
        raise ValueError("negative")
    if nearest > LARGEST_PICO:
        raise ValueError("more than an account can hold")
    return nearest, Fraction(numerator - nearest * denominator, denominator)


def opening_row(
    user: str, pool: str, amount_pico: int, reference: str, cause: str, now_ms: int
) -> Transaction:
    """The row that books an opening balance as one lot; a balance of 0 leaves a row too: it was read."""
    lot = hashlib.sha256(f"{user}:opening:{reference}:{pool}".encode()).hexdigest()[:24]
    lots = (LotAmount(lot, pool, amount_pico),) if amount_pico else ()
    return Transaction(user, "opening", reference, pool, amount_pico, lots, cause, now_ms)


def fine_usd(pico: Fraction) -> str:
    """What is too fine for the ledger, for people: USD with two digits, like "4.4e-17"."""
    digits = Decimal(pico.numerator) / Decimal(pico.denominator)
    return f"{digits.scaleb(-12):.1e}" if pico else "0"


def _kind(value: object) -> str:
    names = {str: "a text", bool: "true or false", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")
