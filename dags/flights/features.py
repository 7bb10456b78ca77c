# SPDX-License-Identifier: Apache-2.0
"""
What is known about a flight before it leaves, and whether it then came late.

Nothing here is measured at or after departure. The weather is that of the last full hour before the scheduled
hour: for a flight at 10:29, of 09:00 to 09:59.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flights.data import FIRST_DAY, LOCAL_TIME, load_flights, load_planes, load_weather

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

#: What the model is asked: does the flight arrive more than 15 minutes late? 1 or 0.
TARGET = "late"
LATE_AFTER_MINUTES = 15

#: Columns that say which flight a row is about. The model does not see them.
KEYS = ["scheduled_at", "flight_number"]

CATEGORIES = ["carrier", "origin", "dest"]
WEATHER = ["temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
NUMBERS = ["hour", "minute", "weekday", "distance", "scheduled_minutes", "plane_age", "plane_seats", *WEATHER]

#: Columns that the model sees.
FEATURES = [*CATEGORIES, *NUMBERS]


def build_features(start: datetime, end: datetime, *, with_target: bool = True) -> pd.DataFrame:
    """
    Return one row a flight that was scheduled to leave in ``[start, end)``.

    The columns are ``KEYS``, ``FEATURES`` and ``TARGET``. ``hour``, ``minute`` and ``weekday`` (Monday is 0)
    are New York's local time. ``scheduled_minutes`` is the difference between the two clocks on the ticket,
    each local to its airport. The plane is the one assigned to the flight; what is not known of it is NaN, as
    is weather that was not recorded, and the gust in an hour without one. Numbers are float32, whole ones
    too: a model's signature then lets any of them be missing.

    Cancelled and diverted flights have no arrival, so they cannot be learned from or judged on and are left
    out, except with ``with_target=False``: before departure nobody knows that a flight will be cancelled.

    :param start: Aware.
    :param end: Aware.
    :param with_target: False for flights that are still to leave.
    :raises ValueError: if no flight left in that interval, or the interval is not one.
    """
    import pandas as pd

    flights = load_flights(start, end)
    if with_target:
        flights = flights[flights["arr_delay"].notna()].reset_index(drop=True)
    local = flights["time_hour"].dt.tz_convert(LOCAL_TIME)
    planes = load_planes().reindex(flights["tailnum"])
    weather = _weather_before(flights)

    leaves, arrives = _minutes(flights["sched_dep_time"]), _minutes(flights["sched_arr_time"])
    numbers = {
        "hour": local.dt.hour,
        "minute": flights["minute"],
        "weekday": local.dt.day_of_week,
        "distance": flights["distance"],
        "scheduled_minutes": (arrives - leaves) % (24 * 60),
        "plane_age": local.dt.year.to_numpy() - planes["year"].to_numpy(),
        "plane_seats": planes["seats"].to_numpy(),
        **{name: weather[name].to_numpy() for name in WEATHER},
    }
    table = pd.DataFrame(
        {
            "scheduled_at": flights["scheduled_at"],
            "flight_number": flights["flight"].astype("int32"),
            **{name: flights[name] for name in CATEGORIES},
            **{name: pd.Series(values).astype("float32") for name, values in numbers.items()},
        }
    )
    if with_target:
        table[TARGET] = (flights["arr_delay"] > LATE_AFTER_MINUTES).astype("int8")
    return table


def _weather_before(flights: pd.DataFrame) -> pd.DataFrame:
    """Return the weather at each flight's airport in the hour before its scheduled hour, row by row."""
    import pandas as pd

    hour = pd.Timedelta(hours=1)
    hours = flights["time_hour"]
    weather = load_weather(FIRST_DAY, hours.max().to_pydatetime())
    index = pd.MultiIndex.from_arrays([weather["origin"], weather["time_hour"]])
    wanted = pd.MultiIndex.from_arrays([flights["origin"], hours - hour])
    return weather[WEATHER].set_axis(index, axis=0).reindex(wanted)


def _minutes(clock: pd.Series[int]) -> pd.Series[int]:
    """Turn a clock time written as the number 1729 into minutes since midnight."""
    return clock // 100 * 60 + clock % 100
