# SPDX-License-Identifier: Apache-2.0
"""DAGs with the ids that the demo looks for; the training fails."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, dag, task

START = datetime(2013, 1, 1, tzinfo=UTC)


@dag(schedule="@once", start_date=START, catchup=True)
def flight_delay_training() -> None:
    @task
    def fit() -> None:
        raise ValueError("the flights of January are missing")

    fit()


for dag_id in ("flight_delay_scoring", "flight_delay_evaluation", "plain_weather_report"):
    with DAG(dag_id, schedule=None, start_date=START):
        EmptyOperator(task_id="nothing")

flight_delay_training()
