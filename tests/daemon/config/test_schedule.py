"""Schedules against a clock that counts minutes, and what is no schedule."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import NEVER, Schedule
from engine.errors import InvalidRequest

SECOND = 1_000_000_000
TIMES = st.integers(0, int(datetime(2190, 1, 1, tzinfo=UTC).timestamp()) * SECOND)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text + "+00:00").timestamp()) * SECOND


def following(schedule: str, start: str, count: int = 4) -> list[str]:
    found = []
    moment = at(start)
    for _ in range(count):
        moment = Schedule.parse(schedule).next(moment)
        found.append(datetime.fromtimestamp(moment // SECOND, UTC).strftime("%Y-%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("schedule", "start", "times"),
    [
        ("every 6h", "2026-02-28 17:59:59", ["2026-02-28 18:00", "2026-03-01 00:00"]),
        ("every 90m", "2026-01-01 00:00", ["2026-01-01 01:30", "2026-01-01 03:00"]),
        ("every 24h", "2023-12-31 00:00", ["2024-01-01 00:00", "2024-01-02 00:00"]),
        ("0 0 31 * *", "2026-01-31 00:00", ["2026-03-31 00:00", "2026-05-31 00:00"]),
        ("0 0 29 2 *", "2096-02-29 00:00", ["2104-02-29 00:00", "2108-02-29 00:00"]),
        ("59 23 L * *", "2028-02-01 00:00", ["2028-02-29 23:59", "2028-03-31 23:59"]),
        ("30 2 * * *", "2026-03-28 02:30", ["2026-03-29 02:30", "2026-03-30 02:30"]),
        ("30 1 * * *", "2026-10-24 01:30", ["2026-10-25 01:30", "2026-10-26 01:30"]),
        ("0 3 * * mon#1", "2026-11-21 00:00", ["2026-12-07 03:00", "2027-01-04 03:00"]),
        ("0 12 13 * fri", "2026-11-12 13:00", ["2026-11-13 12:00", "2026-11-20 12:00"]),
        ("*/20 22-23 * * *", "2026-12-31 23:30", ["2026-12-31 23:40", "2027-01-01 22:00"]),
    ],
)
def test_times(schedule: str, start: str, times: list[str]) -> None:
    assert following(schedule, start, len(times)) == times


@pytest.mark.parametrize(
    "text",
    [
        "hourly", "every", "every 0s", "every -1h", "every 0.5s", "every 1.5", "every 99999d",
        "every 6 h", "every  6h", "6h", "* * * *", "* * * * * *", "60 * * * *", "0 0 30 2 *",
        "0 0 31 4,6,9,11 *", "*/0 * * * *", "@daily", "* * * * *\n", "٣ * * * *", "1-x * * * *",
        " ", "every\t6h", "5-1 * * * *", "L * * * *", "* * L/2 * 1L/2", "*," * 200 + " * * * *",
        "\0", "\udcff", "* * * * mon#9", "1,,2 * * * *",
    ],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidRequest, match="every 6h"):
        Schedule.parse(text)


def test_never() -> None:
    assert Schedule.parse("").next(0) == NEVER
    assert Schedule.parse("every 1s").next(2**63) == NEVER
    assert Schedule.parse("* * * * *").next(NEVER - 1) == NEVER
    assert Schedule.parse("0 0 1 1 *").next(-5) == at("1971-01-01 00:00")


@given(st.text(max_size=30) | st.text(st.sampled_from("0123456789*/-,#L monev"), max_size=30))
def test_any_text(text: str) -> None:
    with suppress(InvalidRequest):
        assert Schedule.parse(text).next(0) > 0


@given(st.integers(1, 400_000), TIMES)
def test_every(seconds: int, after: int) -> None:
    found = Schedule.parse(f"every {seconds}s").next(after)
    assert 0 < found - after <= seconds * SECOND
    assert found % (seconds * SECOND) == 0


def numbers(least: int, most: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(least, most), min_size=1, max_size=4, unique=True)


@given(
    numbers(0, 59),
    numbers(0, 23),
    st.none() | numbers(1, 28),
    st.none() | numbers(0, 6),
    TIMES,
)
def test_cron_is_the_next_minute_that_fits(
    minutes: list[int], hours: list[int], days: list[int] | None, week: list[int] | None, after: int
) -> None:
    def field(values: list[int] | None) -> str:
        return "*" if values is None else ",".join(map(str, values))

    text = f"{field(minutes)} {field(hours)} {field(days)} * {field(week)}"
    moment = datetime.fromtimestamp(after // SECOND, UTC).replace(second=0)

    def fits_day(day: datetime) -> bool:
        in_month, in_week = (
            days is None or day.day in days,
            week is None or day.isoweekday() % 7 in week,
        )
        either = days is not None and week is not None
        return (in_month or in_week) if either else (in_month and in_week)

    moment += timedelta(minutes=1)
    while not (fits_day(moment) and moment.hour in hours and moment.minute in minutes):
        if not fits_day(moment):
            moment = moment.replace(hour=0, minute=0) + timedelta(days=1)
        elif moment.hour not in hours:
            moment = moment.replace(minute=0) + timedelta(hours=1)
        else:
            moment += timedelta(minutes=1)
    schedule = Schedule.parse(text)
    found = schedule.next(after)
    assert found == int(moment.timestamp()) * SECOND
    assert schedule.next(found - 1) == found
    assert schedule.next(found) > found
