# SPDX-License-Identifier: Apache-2.0
"""Evaluations to be backfilled, by data interval and by partition, beside tasks that would move aliases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, CronDataIntervalTimetable, CronPartitionTimetable, dag, task

from airflow_ml_provider import ModelAsset
from airflow_ml_provider.operators import (
    DetectDriftOperator,
    EvaluateModelOperator,
    PromoteModelOperator,
    RollbackModelOperator,
)

if TYPE_CHECKING:
    import pandas as pd

NAME = "e2e_days"
CHAMPION, SHADOW = ModelAsset(NAME), ModelAsset(NAME, "shadow")
RETRAIN = Asset("e2e_days_drifted")
ROWS = "e2e_days/rows"
# With an end, as a run that is scheduled for today would promote.
OPTIONS: dict[str, Any] = {
    "start_date": datetime(2013, 5, 1, tzinfo=UTC),
    "end_date": datetime(2013, 5, 31, tzinfo=UTC),
    "catchup": False,
}


def evaluations(experiment: str) -> None:
    """Judge the champion of the data time, and another model beside what was serving by the wall clock."""

    @task.evaluate(model=CHAMPION.model_uri, target="late", experiment=experiment, plots=False)
    def judge() -> pd.DataFrame:
        import numpy as np
        import pandas as pd

        a = np.random.default_rng(5).normal(size=50)
        return pd.DataFrame({"a": a, "late": (a > 0).astype("int64")})

    judge()
    EvaluateModelOperator(
        task_id="allowed",
        model=f"models:/{NAME}/3",
        baseline=CHAMPION.model_uri,
        clock="wall",
        data=ROWS,
        target="late",
        experiment=experiment,
        plots=False,
        allow_leakage=[NAME],
    )
    PromoteModelOperator(
        task_id="promote", model=f"models:/{NAME}/1", registered_model_name=NAME, outlets=[CHAMPION]
    )


@dag(schedule=CronDataIntervalTimetable("@daily", timezone="UTC"), **OPTIONS)
def e2e_days() -> None:
    evaluations("e2e_days")
    RollbackModelOperator(task_id="roll_back", registered_model_name=NAME, version=1, outlets=[CHAMPION])
    DetectDriftOperator(
        task_id="drift", reference="e2e_days/before", current="e2e_days/after", outlets=[RETRAIN]
    )
    PromoteModelOperator(
        task_id="told_to",
        model=f"models:/{NAME}/1",
        registered_model_name=NAME,
        alias="shadow",
        move_in_backfill=True,
        outlets=[SHADOW],
        retries=3,  # of two days that move it at once, one loses and finds the alias moved already
        retry_delay=timedelta(seconds=1),
    )


@dag(
    schedule=CronPartitionTimetable("@daily", timezone="UTC", key_format="%Y-%m-%d"),
    **OPTIONS,
)
def e2e_partitions() -> None:
    evaluations("e2e_partitions")


e2e_days()
e2e_partitions()
