# SPDX-License-Identifier: Apache-2.0
"""Trainings that wait for a person, and checks of how long ago their champion was evaluated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, dag, task

from airflow_ml_provider import MetricGate, ModelAsset
from airflow_ml_provider.operators import (
    CheckModelFreshnessOperator,
    EvaluateModelOperator,
    PromoteModelOperator,
)

if TYPE_CHECKING:
    import pandas as pd

CHAMPION = ModelAsset("e2e_approved")
DUE = Asset("e2e_evaluation_due")
START = datetime(2026, 1, 1, tzinfo=UTC)


def table(seed: int) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, 300))
    return pd.DataFrame({"a": a, "b": b, "late": (a + b > 0).astype("int64")})


@dag(schedule=None, start_date=START)
def e2e_approved() -> None:
    @task
    def judge() -> pd.DataFrame:
        return table(1)

    @task.train(experiment="e2e_approved")
    def fit(dag_run: Any = None) -> Any:
        from sklearn.linear_model import LogisticRegression

        data = table(dag_run.conf["seed"])
        return LogisticRegression().fit(data[["a", "b"]], data["late"])

    model = fit()
    evaluation = EvaluateModelOperator(
        task_id="evaluate",
        model=model,
        baseline=CHAMPION.model_uri,
        data=judge(),
        target="late",
        experiment="e2e_approved",
        plots=False,
    )
    PromoteModelOperator(
        task_id="promote",
        model=model,
        evaluation=evaluation.output,
        registered_model_name="e2e_approved",
        bootstrap=True,
        gates=[MetricGate("roc_auc", gain_over_baseline=-1.0)],
        approval="always",
        approval_timeout=timedelta(hours=1),
        outlets=[CHAMPION],
    )


def tell(context: Any) -> None:
    """Stand in for a notifier."""
    Path(context["dag_run"].conf["told"]).write_text(f"{context['exception']}")


@dag(schedule=None, start_date=START)
def e2e_freshness() -> None:
    given: dict[str, Any] = {"registered_model_name": "e2e_approved", "clock": "wall"}
    CheckModelFreshnessOperator(task_id="fresh", max_age=timedelta(days=1), **given)
    CheckModelFreshnessOperator(
        task_id="remind", max_age=timedelta(microseconds=1), on_stale="emit", outlets=[DUE], **given
    )
    CheckModelFreshnessOperator(
        task_id="alarm", max_age=timedelta(microseconds=1), retries=3, on_failure_callback=tell, **given
    )


@dag(schedule=[DUE], start_date=START)
def e2e_reminded() -> None:
    @task
    def why(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        return [event.extra for event in triggering_asset_events[DUE]]

    why()


e2e_approved()
e2e_freshness()
e2e_reminded()
