"""Units of money and time, and the names of what they count.

Money is an integer number of pico-USD everywhere inside Farebox. These functions are the
only way between that integer and the decimal strings at the edges; no float takes part.
"""

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal

PICO_PER_USD = 10**12
MILLION = 10**6

_EXACT = Context(prec=60)
_DECIMALS = 12


def pico_from_usd(amount: str) -> int:
    """Exact pico-USD of a USD decimal string. Raises ValueError on junk or more than 12 decimals."""
    try:
        value = Decimal(amount)
    except ArithmeticError:
        raise ValueError(f"not a decimal amount of USD: {amount!r}") from None
    if not value.is_finite() or value.adjusted() > 15:
        raise ValueError(f"not an amount Farebox can hold: {amount!r}")
    scaled = value.scaleb(_DECIMALS, context=_EXACT)
    if scaled != scaled.to_integral_value(rounding=ROUND_HALF_EVEN, context=_EXACT):
        raise ValueError(
            f"more than {_DECIMALS} decimals in {amount!r}; the smallest unit is 0.000000000001 USD"
        )
    return int(scaled)


def usd_from_pico(amount_pico: int) -> str:
    """Shortest exact USD decimal string of an amount in pico-USD ("0.027405", "6.6", "-1", "0")."""
    sign = "-" if amount_pico < 0 else ""
    whole, rest = divmod(abs(amount_pico), PICO_PER_USD)
    if not rest:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{rest:012d}".rstrip("0")


def usd_rounded(amount_pico: int, decimals: int) -> str:
    """USD string with exactly `decimals` places, rounded half to even: for messages, never for booking."""
    quantum = Decimal(1).scaleb(-decimals)
    value = Decimal(amount_pico).scaleb(-_DECIMALS, context=_EXACT)
    return format(value.quantize(quantum, rounding=ROUND_HALF_EVEN, context=_EXACT), "f")


def moment(at_ms: int | None) -> str:
    """A stored time as text, UTC; empty for none."""
    if not at_ms:
        return ""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
