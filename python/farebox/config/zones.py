"""A time zone by its name. The default one needs no time zone database: it has kept UTC+7 since 1975."""

from datetime import timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from farebox.config.problems import Problems

_DEFAULT: Final = "Asia/Ho_Chi_Minh"


def time_zone(name: str, path: str, problems: Problems) -> tzinfo:
    """The zone; a name this machine does not know is an error of the file."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        if name != _DEFAULT:
            problems.error(
                path,
                f"{name[:60]!r} is no time zone here; use a name such as Europe/Berlin, or install tzdata",
            )
        return timezone(timedelta(hours=7), _DEFAULT)
