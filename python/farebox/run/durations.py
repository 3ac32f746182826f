"""Times on the command line: `7d`, `12h`, `90m`, a date, or a date with a time (UTC where it says nothing
else).
"""

import re
from datetime import UTC, datetime

from farebox.base.errors import UsageError

_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def past_ms(text: str, now_ms: int) -> int | None:
    """The moment `30d` ago, or of a date; None for an empty text. Raises UsageError."""
    if not text:
        return None
    span = _SPAN.fullmatch(text)
    return now_ms - int(span[1]) * _UNIT_MS[span[2]] if span is not None else _date_ms(text)


def expiry_ms(text: str, now_ms: int) -> int | None:
    """The moment an expiry text means, in ms since the epoch; None for an empty text. Raises UsageError."""
    if not text:
        return None
    span = _SPAN.fullmatch(text)
    at_ms = now_ms + int(span[1]) * _UNIT_MS[span[2]] if span is not None else _date_ms(text)
    if at_ms <= now_ms:
        raise UsageError(f"{text!r} is not in the future")
    return at_ms


def _date_ms(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time: write 7d, 12h, 2030-01-31 or 2030-01-31T12:00") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
