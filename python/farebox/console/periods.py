"""Periods of statistics: from a word, or from two dates, to a span of time. Pure.

| word | begins |
|---|---|
| `1h` `2h` `3h` `4h` `8h` | so many hours before now, to the millisecond |
| `24h` | at 00:00 of today in the operator's time zone |
| `3d` `7d` `30d` | so many days before now, at the quarter of an hour before that |
| `all` | at the beginning |

All of these are open: whatever has ended since belongs to them. `from` and `to` say a span of their own:
dates (`2026-01-31`, from its 00:00 to the end of the day in the operator's time zone), moments with an
offset, or milliseconds; it is widened to whole quarters of an hour, because single rows are only kept for
some weeks and sums by quarter for ever.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

from farebox.base.errors import UsageError

HOUR_MS: Final = 3_600_000
_HOURS: Final[Mapping[str, int]] = {"1h": 1, "2h": 2, "3h": 3, "4h": 4, "8h": 8}
_DAYS: Final[Mapping[str, int]] = {"3d": 3, "7d": 7, "30d": 30}
TODAY, ALL, CUSTOM = "24h", "all", "custom"
PERIODS: Final = (*_HOURS, TODAY, *_DAYS, ALL)
DEFAULT: Final = TODAY
_QUARTER_MS: Final = 900_000
_LAST_MS: Final = 4_102_444_800_000
"""The year 2100: no moment of a period lies behind it."""


@dataclass(frozen=True, slots=True)
class Period:
    """From `from_ms` to before `to_ms`, both UTC milliseconds; `to_ms` None: open."""

    name: str
    from_ms: int
    to_ms: int | None = None


def period_of(query: Mapping[str, str], now_ms: int, zone: tzinfo) -> Period:
    """The period that a request asks for by `period`, or by `from` and `to`. Raises UsageError."""
    begins, ends, name = query.get("from", ""), query.get("to", ""), query.get("period", "")
    if not begins and not ends:
        return named_period(name or DEFAULT, now_ms, zone)
    if name not in {"", CUSTOM}:
        raise UsageError("ask for a period, or for a span by from and to, not for both")
    from_ms = _moment_ms(begins, zone, "from", end_of_day=False) if begins else 0
    to_ms = _moment_ms(ends, zone, "to", end_of_day=True) if ends else None
    if to_ms is not None and from_ms >= to_ms:
        raise UsageError("from must be before to")
    return Period(
        CUSTOM,
        from_ms - from_ms % _QUARTER_MS,
        None if to_ms is None else -(-to_ms // _QUARTER_MS) * _QUARTER_MS,
    )


def named_period(name: str, now_ms: int, zone: tzinfo) -> Period:
    """One of `PERIODS`. Raises UsageError."""
    if name in _HOURS:
        return Period(name, now_ms - _HOURS[name] * HOUR_MS)
    if name == TODAY:
        return Period(name, midnight_ms(now_ms, zone))
    if name in _DAYS:
        begin_ms = now_ms - _DAYS[name] * 24 * HOUR_MS
        return Period(name, begin_ms - begin_ms % _QUARTER_MS)
    if name == ALL:
        return Period(name, 0)
    raise UsageError(f"no period {name[:20]!r}; one of {', '.join(PERIODS)}, or from and to")


def midnight_ms(moment_ms: int, zone: tzinfo) -> int:
    """The 00:00 before a moment in a time zone."""
    local = datetime.fromtimestamp(moment_ms / 1000, UTC).astimezone(zone)
    return _ms(datetime.combine(local.date(), time(), zone))


def days_of(from_ms: int, to_ms: int, zone: tzinfo) -> list[int]:
    """The starts of the days in a time zone that a span touches; days may have 23 or 25 hours."""
    day = datetime.fromtimestamp(from_ms / 1000, UTC).astimezone(zone).date()
    starts: list[int] = []
    while (start_ms := _ms(datetime.combine(day, time(), zone))) < to_ms:
        starts.append(start_ms)
        day += timedelta(days=1)
    return starts


def _moment_ms(text: str, zone: tzinfo, name: str, *, end_of_day: bool) -> int:
    try:
        if text.isascii() and text.isdigit():
            found = int(text)
        elif len(text) == len("2026-01-31"):
            day = date.fromisoformat(text) + timedelta(days=end_of_day)
            found = _ms(datetime.combine(day, time(), zone))
        else:
            moment = datetime.fromisoformat(text)
            found = _ms(moment if moment.tzinfo is not None else moment.replace(tzinfo=zone))
    except (ValueError, OverflowError):
        found = -1
    if not 0 <= found <= _LAST_MS:
        raise UsageError(
            f"{name} must be a date like 2026-01-31, a moment like 2026-01-31T08:00+07:00, or ms"
        )
    return found


def _ms(moment: datetime) -> int:
    """Exact: seconds and microseconds are whole numbers."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000
