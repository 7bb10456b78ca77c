# SPDX-License-Identifier: Apache-2.0
"""
### How much later do flights leave in the rain?

An ordinary DAG: plain tasks that take and return DataFrames. It imports nothing of the ML provider. With the
provider's XCom backend switched on, what each task returns is a stored artifact all the same, with a version,
a preview and lineage.

Run it by hand; `month` says which month of 2013 to report on.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow.sdk import Param, dag, task

if TYPE_CHECKING:
    import pandas as pd


@dag(
    schedule=None,
    params={"month": Param("2013-05", type="string", pattern=r"^2013-(0[1-9]|1[0-2])$", title="Month")},
    description="Departure delays in dry and wet weather, from plain tasks that pass DataFrames",
    doc_md=__doc__,
    tags=["flights", "plain"],
)
def plain_weather_report():
    # [START tasks]
    @task
    def weather(params=None) -> pd.DataFrame:
        """Return the month's hourly weather at each airport."""
        from flights.data import load_weather

        return load_weather(*month_of(params["month"]))

    @task
    def departures(params=None) -> pd.DataFrame:
        """Return the number of departures and their mean delay in minutes, for each airport and hour."""
        from flights.data import load_flights

        flights = load_flights(*month_of(params["month"]))
        hours = flights.groupby(["origin", "time_hour"])["dep_delay"]
        return hours.agg(departures="count", delay_minutes="mean").reset_index()

    @task
    def report(weather: pd.DataFrame, departures: pd.DataFrame) -> pd.DataFrame:
        """Return the mean delay at each airport in dry and in wet hours."""
        hours = departures.merge(weather, on=["origin", "time_hour"]).dropna(subset=["delay_minutes"])
        hours["weather"] = (hours["precip"] > 0).map({False: "dry", True: "wet"})
        hours["delay"] = hours["delay_minutes"] * hours["departures"]
        sums = hours.groupby(["origin", "weather"])[["departures", "delay"]].sum()
        sums["delay_minutes"] = sums.pop("delay") / sums["departures"]
        print(sums.round(1))
        return sums.reset_index()

    report(weather(), departures())
    # [END tasks]


def month_of(text: str) -> tuple[datetime, datetime]:
    """Return where a month such as ``2013-05`` begins and ends, in UTC."""
    start = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    return start, (start + timedelta(days=31)).replace(day=1)


plain_weather_report()
