"""The edge between Farebox's values and MongoDB's: pico-USD and Decimal128 USD, milliseconds and dates, map
keys and field paths.

Promises: no float becomes money here; an amount is kept exactly or refused (`UnstorableError`), within the
range both stores share; a map key can never be taken for a path or an operator (fault row S21).
"""

import hashlib
import re
import time
from decimal import Context, Decimal
from typing import Final

from bson import DatetimeMS, Decimal128

_PICO_MAX: Final = 2**63 - 1
_EXACT: Final = Context(prec=40)
_SAFE_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


class UnstorableError(ValueError):
    """A value that cannot be stored: the record's fault, never the store's."""


def usd(amount_pico: int) -> Decimal128:
    """Exact Decimal128 USD. Raises UnstorableError beyond 63 bits of pico-USD."""
    if not -_PICO_MAX <= amount_pico <= _PICO_MAX:
        raise UnstorableError(f"{amount_pico} pico-USD is more than a store can hold")
    return Decimal128(Decimal(amount_pico).scaleb(-12, context=_EXACT))


def pico(amount: object) -> int:
    """Pico-USD of an amount this store wrote; absent is 0. Raises UnstorableError on anything else."""
    if amount is None:
        return 0
    if not isinstance(amount, Decimal128):
        raise UnstorableError(f"an amount of money is no Decimal128 but {type(amount).__name__}")
    return whole_pico(amount.to_decimal())


def whole_pico(amount: Decimal) -> int:
    """Pico-USD of an exact decimal amount of USD. Raises UnstorableError when it is not finite or finer."""
    if not amount.is_finite() or abs(amount) > _PICO_MAX:
        raise UnstorableError(f"no amount of money: {amount}")
    scaled = amount.scaleb(12, context=_EXACT)
    whole = int(scaled)
    if whole != scaled or abs(whole) > _PICO_MAX:
        raise UnstorableError(f"no amount of money Farebox can hold: {amount}")
    return whole


def legacy_pico(balance: object) -> int:
    """Pico-USD of a balance of the replaced system: a double, an integer, a decimal; absent is 0.

    A double stands for its shortest decimal form, rounded half to even at the pico. Raises UnstorableError
    with the reason for an operator on a negative, NaN, infinite or non-numeric one.
    """
    if balance is None:
        return 0
    if isinstance(balance, bool) or not isinstance(balance, int | float | Decimal128):
        raise UnstorableError(f"is no number but {type(balance).__name__}")
    amount = balance.to_decimal() if isinstance(balance, Decimal128) else Decimal(repr(balance))
    if not amount.is_finite() or amount < 0:
        raise UnstorableError(f"is {amount}")
    rounded = int(amount.scaleb(12, context=Context(prec=400)).to_integral_value()) if amount < 2**63 else -1
    if not 0 <= rounded <= _PICO_MAX:
        raise UnstorableError(f"is {amount}, more than Farebox can hold")
    return rounded


def date(milliseconds: int | None) -> DatetimeMS | None:
    """A BSON date, exact to the millisecond; None stays None."""
    return None if milliseconds is None else DatetimeMS(milliseconds)


def milliseconds(moment: object) -> int | None:
    """Milliseconds of a BSON date; None where there is none."""
    return int(moment) if isinstance(moment, DatetimeMS) else None


def key(text: str) -> str:
    """A map key that is safe in a field path: hex ids, digests, plain names. Raises UnstorableError."""
    if _SAFE_KEY.fullmatch(text) is None:
        raise UnstorableError(f"{text[:64]!r} cannot name a field")
    return text


def digest(text: str) -> str:
    """A map key for text that may hold anything."""
    return hashlib.sha256(text.encode()).hexdigest()


class Sequence:
    """Numbers that rise with every call and, by the clock, from process to process.

    They put rows into the order in which readers show them; nothing else depends on them.
    """

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """The next number."""
        self._last = max(self._last + 1, time.time_ns())
        return self._last


SEQUENCE: Final = Sequence()
