"""How many decimals a currency has: what it is charged in, and what card providers count in.

Source: ISO 4217 minor units, and Stripe's lists of zero-decimal and three-decimal currencies.
"""

import re
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

_WITHOUT: Final = re.compile("BIF|CLP|DJF|GNF|JPY|KMF|KRW|MGA|PYG|RWF|UGX|VND|VUV|XAF|XOF|XPF")
_THREE: Final = re.compile("BHD|JOD|KWD|OMR|TND")


def decimals(currency: str) -> int:
    """Decimal places of an amount in this currency."""
    if _WITHOUT.fullmatch(currency):
        return 0
    return 3 if _THREE.fullmatch(currency) else 2


def from_minor_units(amount: int, currency: str) -> Decimal:
    """An amount given in the smallest unit (cents) as units of the currency."""
    return Decimal(amount).scaleb(-decimals(currency))


def rounded(amount: Decimal, currency: str) -> Decimal:
    """An amount as it can be paid: half to even at the currency's last place."""
    return amount.quantize(Decimal(1).scaleb(-decimals(currency)), rounding=ROUND_HALF_EVEN)


def plain(amount: Decimal) -> str:
    """Shortest decimal text of an amount: 50000, 19.9."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
