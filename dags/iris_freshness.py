# SPDX-License-Identifier: Apache-2.0
"""
### Nobody looked at the champion for a week

Every day: was the champion of `iris` evaluated in the last 7 days? If not, there is an event of the asset
`iris_evaluation_due`, and so a run of `iris_evaluation`. After 14 days the task `alarm` fails.

It needs the connection `mlflow_default` and the champion that `iris_training` makes.
"""

# [START freshness]
from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import Asset, dag

from airflow_ml_provider.operators import CheckModelFreshnessOperator

DUE = Asset("iris_evaluation_due")  # a DAG that evaluates has schedule=[DUE]


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    description="Asks whether the champion was evaluated lately",
    doc_md=__doc__,
    tags=["ml"],
)
def iris_freshness():
    CheckModelFreshnessOperator(
        task_id="remind",
        registered_model_name="iris",
        max_age=timedelta(days=7),
        on_stale="emit",
        outlets=[DUE],
    )
    CheckModelFreshnessOperator(
        task_id="alarm",  # fails, so on_failure_callback=[...] tells whom you like
        registered_model_name="iris",
        max_age=timedelta(days=14),
    )


iris_freshness()
# [END freshness]
