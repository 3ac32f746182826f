"""Amounts, counts and times as people read them. Exact integers in, text out; nothing here books anything."""

from datetime import UTC, datetime, tzinfo

from farebox.base.units import PICO_PER_USD, usd_from_pico, usd_rounded

_CENT_PICO = PICO_PER_USD // 100
_STEPS = ((10**9, "B"), (10**6, "M"), (10**3, "K"))


def usd(amount_pico: int) -> str:
    """Dollars with two places, six where it is less than a cent: "$1,234.50", "-$0.000315"."""
    places = 2 if abs(amount_pico) >= _CENT_PICO or not amount_pico else 6
    sign = "-" if amount_pico < 0 else ""
    whole, _, rest = usd_rounded(abs(amount_pico), places).partition(".")
    return f"{sign}${int(whole):,}.{rest}"


def usd_exact(amount_pico: int) -> str:
    """Dollars to the last digit that is not 0."""
    return f"{usd_from_pico(amount_pico)} USD"


def short(count: int) -> str:
    """A count with at most three digits before its unit: "9,999", "12.3K", "4.5M"; rounded down."""
    if abs(count) < 10_000:
        return f"{count:,}"
    for step, unit in _STEPS:
        if abs(count) >= step:
            whole, tenth = divmod(abs(count) * 10 // step, 10)
            return f"{'-' if count < 0 else ''}{whole:,}{f'.{tenth}' if whole < 100 else ''}{unit}"
    return str(count)


def moment(at_ms: int | None, zone: tzinfo = UTC) -> str:
    """A time in a time zone, to the minute; a dash for none."""
    if at_ms is None:
        return "-"
    return datetime.fromtimestamp(at_ms / 1000, zone).strftime("%Y-%m-%d %H:%M")


def day(at_ms: int, zone: tzinfo) -> str:
    """A day in a time zone."""
    return datetime.fromtimestamp(at_ms / 1000, zone).strftime("%Y-%m-%d")


def hour(at_ms: int, zone: tzinfo) -> str:
    """An hour in a time zone, with its day."""
    return datetime.fromtimestamp(at_ms / 1000, zone).strftime("%m-%d %H:%M")


def span(duration_ms: int) -> str:
    """How long: "340 ms", "12 s", "5 min", "3 h", "2 days"."""
    for step, most, unit in ((1, 1000, "ms"), (1000, 60_000, "s"), (60_000, 3_600_000, "min")):
        if duration_ms < most:
            return f"{duration_ms // step} {unit}"
    hours = duration_ms // 3_600_000
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"
