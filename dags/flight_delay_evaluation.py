# SPDX-License-Identifier: Apache-2.0
"""
### Judge the champion on each day's flights

Made to be backfilled:

    airflow backfill create --dag-id flight_delay_evaluation --from-date 2013-06-24 --to-date 2013-07-07

Each day is judged with the model that was `flight_delay@champion` **at the end of that day**, in the time of
the data: a day in May with the champion of that day in May, even if that model was made today and has been
replaced since. A champion that counts from midnight on is the one at the end of the day before. Repeating the
backfill gives the same numbers and updates the same MLflow runs, in the experiment `flight_delay_daily`.

The first champion counts from 2013-03-01 on, so 2013-02-28 is the first day that can be judged.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from airflow.sdk import CronDataIntervalTimetable, dag, task

from airflow_ml_provider import Artifact, ModelAsset
from airflow_ml_provider.operators import EvaluateModelOperator

if TYPE_CHECKING:
    import pandas as pd

CHAMPION = ModelAsset("flight_delay", alias="champion")


@dag(
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2013, 2, 28, tzinfo=UTC),
    end_date=datetime(2013, 12, 31, tzinfo=UTC),
    catchup=False,  # 2013 is over: runs come from backfills
    max_active_runs=3,
    description="Judges each day's flights with the champion of that day; made to be backfilled",
    doc_md=__doc__,
    tags=["flights", "ml", "evaluation"],
)
def flight_delay_evaluation():
    @task
    def flights_of_the_day(
        data_interval_start=None, data_interval_end=None
    ) -> Annotated[pd.DataFrame, Artifact("flight_day")]:
        """Return the day's flights, with what is known of each before departure and whether it came late."""
        from flights.features import build_features

        return build_features(data_interval_start, data_interval_end)

    # [START evaluate]
    EvaluateModelOperator(
        task_id="evaluate",
        model=CHAMPION.model_uri,
        as_of="{{ data_interval_end }}",  # who was champion then, whenever this runs
        data=flights_of_the_day(),
        target="late",
        model_type="classifier",
        experiment="flight_delay_daily",
        plots=False,  # curves of one day's flights say little and cost a second or two
    )
    # [END evaluate]


flight_delay_evaluation()
