# SPDX-License-Identifier: Apache-2.0
"""A training on data made up on the spot; ``noise`` in the run's conf decides how good its model is."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from airflow.sdk import dag, task

from airflow_ml_provider import Artifact, MetricGate, ModelAsset
from airflow_ml_provider.operators import BatchPredictOperator, EvaluateModelOperator, PromoteModelOperator

if TYPE_CHECKING:
    import pandas as pd

CHAMPION = ModelAsset("e2e_model", alias="champion")
START = datetime(2013, 1, 1, tzinfo=UTC)


def made_up(rows: int, seed: int, noise: float = 0.0) -> pd.DataFrame:
    """Two features that decide the target, up to a share of labels drawn by lot."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, rows))
    late = (a + b > 0) ^ (random.random(rows) < noise / 2)
    return pd.DataFrame({"a": a, "b": b, "late": late.astype("int64")})


@dag(schedule=None, start_date=START)
def e2e_training() -> None:
    @task
    def learn(dag_run: Any = None) -> Annotated[pd.DataFrame, Artifact("e2e_learn")]:
        return made_up(2000, seed=1, noise=float(dag_run.conf.get("noise", 0.0)))

    @task
    def judge() -> Annotated[pd.DataFrame, Artifact("e2e_judge")]:
        return made_up(500, seed=2)

    @task.train(experiment="e2e")
    def fit(data: pd.DataFrame, strength: float = 1.0) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=strength).fit(data[["a", "b"]], data["late"])

    model = fit(learn())
    evaluation = EvaluateModelOperator(
        task_id="evaluate",
        model=model,
        baseline=CHAMPION.model_uri,
        data=judge(),
        target="late",
        experiment="e2e",
    )
    PromoteModelOperator(
        task_id="promote",
        model=model,
        evaluation=evaluation.output,
        registered_model_name="e2e_model",
        bootstrap=True,
        gates=[
            MetricGate("roc_auc", at_least=0.9),
            MetricGate("roc_auc", gain_over_baseline=-1.0),
        ],
        outlets=[CHAMPION],
    )


@dag(schedule=[CHAMPION], start_date=START)
def e2e_scoring() -> None:
    @task
    def rows() -> pd.DataFrame:
        return made_up(100, seed=3)[["a", "b"]]

    BatchPredictOperator(task_id="score", model=CHAMPION, data=rows(), artifact=Artifact("e2e_scores"))


@dag(schedule=None, start_date=START)
def e2e_killed() -> None:
    @task.train(experiment="e2e_killed", retries=1, retry_delay=timedelta(seconds=10))
    def fit(ti: Any = None, dag_run: Any = None) -> Any:
        from sklearn.linear_model import LogisticRegression

        if ti.try_number == 1:
            # The test waits for this file, then kills this process with SIGKILL.
            Path(dag_run.conf["pid_file"]).write_text(f"{os.getpid()}\n")
            time.sleep(600)
        data = made_up(200, seed=1)
        return LogisticRegression().fit(data[["a", "b"]], data["late"])

    fit()


e2e_training()
e2e_scoring()
e2e_killed()
