"""Times on the command line: `7d`, `12h`, `90m`, a date, or a date with a time (UTC where it says nothing
else).
"""

import re
from datetime import UTC, datetime

from farebox.base.errors import UsageError

_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def expiry_ms(text: str, now_ms: int) -> int | None:
    """The moment an expiry text means, in ms since the epoch; None for an empty text. Raises UsageError."""
    if not text:
        return None
    span = _SPAN.fullmatch(text)
    if span is not None:
        at_ms = now_ms + int(span[1]) * _UNIT_MS[span[2]]
    else:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise UsageError(f"{text!r} is no time: write 7d, 12h, 2030-01-31 or 2030-01-31T12:00") from None
        at_ms = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    if at_ms <= now_ms:
        raise UsageError(f"{text!r} is not in the future")
    return at_ms
