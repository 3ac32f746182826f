"""Periods: where each begins, to the millisecond, in several time zones, and which spans are refused."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.base.errors import UsageError
from farebox.console.periods import PERIODS, Period, days_of, midnight_ms, named_period, period_of
from farebox.store.rollups import DAY_MS, END_MS, MODELS, QUARTER_MS, USERS, Part, first_quarter, parts

HANOI, BERLIN, KATHMANDU = ZoneInfo("Asia/Ho_Chi_Minh"), ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu")
MOMENTS = st.integers(0, 4_000_000_000_000)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("now", "zone", "midnight"),
    [
        ("2026-03-09T16:59:59.999+00:00", HANOI, "2026-03-08T17:00+00:00"),
        ("2026-03-09T17:00:00.000+00:00", HANOI, "2026-03-09T17:00+00:00"),
        ("2026-03-09T23:59:59.999+07:00", HANOI, "2026-03-09T00:00+07:00"),
        ("2026-03-29T12:00+02:00", BERLIN, "2026-03-29T00:00+01:00"),
        ("2026-10-25T12:00+01:00", BERLIN, "2026-10-25T00:00+02:00"),
        ("2026-03-09T00:00+05:45", KATHMANDU, "2026-03-09T00:00+05:45"),
    ],
)
def test_24h_begins_at_midnight_in_the_operators_time_zone(now, zone, midnight):
    assert named_period("24h", ms(now), zone) == Period("24h", ms(midnight))


def test_a_day_may_have_23_or_25_hours():
    for day, hours in (("2026-03-29", 23), ("2026-10-25", 25)):
        begin = midnight_ms(ms(f"{day}T12:00+01:00"), BERLIN)
        assert days_of(begin, begin + 26 * 3_600_000, BERLIN) == [begin, begin + hours * 3_600_000]


@given(MOMENTS, st.sampled_from((HANOI, BERLIN, KATHMANDU, UTC)))
def test_every_midnight_falls_on_a_quarter_of_an_hour(moment, zone):
    begin = midnight_ms(moment, zone)
    assert begin <= moment < begin + 25 * 3_600_000
    if moment > 600_000_000_000:  # zones have had whole quarters since 1989
        assert begin % QUARTER_MS == 0


def test_rolling_periods_begin_to_the_millisecond_and_days_at_a_quarter():
    now = ms("2026-03-10T03:07:13.123+00:00")
    for name, hours in {"1h": 1, "2h": 2, "3h": 3, "4h": 4, "8h": 8}.items():
        assert named_period(name, now, HANOI).from_ms == now - hours * 3_600_000
    for name, days in {"3d": 3, "7d": 7, "30d": 30}.items():
        assert named_period(name, now, HANOI).from_ms == ms("2026-03-10T03:00+00:00") - days * DAY_MS
    assert named_period("all", now, HANOI) == Period("all", 0)
    assert len(PERIODS) == 10


def test_from_and_to_are_dates_moments_or_milliseconds():
    now = ms("2026-03-10T03:07+00:00")
    day = ms("2026-03-09T00:00+07:00")
    one_day = {"from": "2026-03-09", "to": "2026-03-09"}
    assert period_of(one_day, now, HANOI) == Period("custom", day, day + DAY_MS)
    assert period_of({"from": str(day + 1)}, now, HANOI) == Period("custom", day)
    assert period_of({"to": "2026-03-09T00:00:01"}, now, HANOI) == Period("custom", 0, day + QUARTER_MS)
    assert period_of({"from": "2026-03-08T17:00Z"}, now, HANOI) == Period("custom", day)
    assert period_of({}, now, HANOI).name == "24h"


@pytest.mark.parametrize(
    "query",
    [
        {"period": "5h"},
        {"period": ""} | {"from": "x"},
        {"from": "2026-02-30"},
        {"from": "99999999999999999999"},
        {"from": "-5"},
        {"to": "1969-12-31"},
        {"from": "2026-03-02", "to": "2026-03-01"},
        {"period": "1h", "to": "2026-03-01"},
        {"to": "9999-12-31"},
    ],
)
def test_what_makes_no_sense_is_refused(query):
    with pytest.raises(UsageError):
        period_of(query, 1_700_000_000_000, HANOI)


@given(MOMENTS, st.one_of(st.none(), st.integers(0, 200 * DAY_MS)), st.sampled_from((MODELS, USERS)))
def test_parts_cover_every_whole_quarter_once(begin, length, of):
    end = None if length is None else (begin + length) // QUARTER_MS * QUARTER_MS
    found = parts(of, begin, end)
    if found == [Part(f"{USERS}/ever", 0, END_MS)]:
        assert first_quarter(begin) == 0
        return
    place = first_quarter(begin)
    for part in found:
        assert part.from_ms == place < part.to_ms
        size = DAY_MS if part.series.endswith("/day") else QUARTER_MS
        assert part.from_ms % size == 0
        assert part.to_ms == END_MS or part.to_ms % size == 0
        place = part.to_ms
    assert place == (END_MS if end is None else max(end, place if not found else end))
