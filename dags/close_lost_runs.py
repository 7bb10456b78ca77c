# SPDX-License-Identifier: Apache-2.0
"""
### Close the MLflow runs of lost workers

A task closes its MLflow run itself. When a machine dies, nobody does: have this DAG once in a deployment. It
asks Airflow for the state of each open run's task, closes what is over, and leaves alone what is at work.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag

from airflow_ml_provider.operators import SweepRunsOperator


# [START sweep]
@dag(
    schedule=timedelta(hours=1),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    description="Closes MLflow runs that lost workers left open",
    doc_md=__doc__,
    tags=["ml"],
)
def close_lost_runs():
    SweepRunsOperator(task_id="sweep", retries=2)


# [END sweep]

close_lost_runs()
