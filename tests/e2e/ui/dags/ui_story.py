# SPDX-License-Identifier: Apache-2.0
"""
A small story for the ML pages: the run's conf says how noisy its labels are, so which model wins is known.

``markup`` is what a user of bad intent would write into every text that the pages show.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from airflow.sdk import dag, task

from airflow_ml_provider import Artifact, MetricGate, ModelAsset, ml
from airflow_ml_provider.operators import EvaluateModelOperator, PromoteModelOperator

if TYPE_CHECKING:
    import pandas as pd

CHAMPION = ModelAsset("ui_model", alias="champion")
START = datetime(2013, 1, 1, tzinfo=UTC)
MARKUP = "<img src=x onerror='window.__xss=1'><script>window.__xss=1</script>"


def made_up(rows: int, seed: int, noise: float = 0.0) -> pd.DataFrame:
    """Two features that decide the target, up to a share of labels drawn by lot."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, rows))
    late = (a + b > 0) ^ (random.random(rows) < noise / 2)
    return pd.DataFrame({"a": a, "b": b, "late": late.astype("int64"), "note": MARKUP})


@dag(schedule=None, start_date=START)
def ui_training() -> None:
    @task
    def learn(dag_run: Any = None) -> Annotated[pd.DataFrame, Artifact("ui_learn")]:
        return made_up(400, seed=1, noise=float(dag_run.conf["noise"]))

    @ml.cached
    @task
    def judge() -> Annotated[pd.DataFrame, Artifact("ui_judge")]:
        return made_up(300, seed=2)

    @task.train(experiment="ui")
    def fit(data: pd.DataFrame, strength: float = 1.0, remark: str = MARKUP) -> Any:
        import mlflow
        from sklearn.linear_model import LogisticRegression

        for step in range(20):
            mlflow.log_metric("loss", 1 / (1 + step), step=step)
        return LogisticRegression(C=strength).fit(data[["a", "b"]], data["late"]), {"rows": len(data)}

    @task
    def plain() -> None:
        """A task that machine learning has nothing to do with."""

    model = fit(learn())
    evaluation = EvaluateModelOperator(
        task_id="evaluate",
        model=model,
        baseline=CHAMPION.model_uri,
        data=judge(),
        target="late",
        experiment="ui",
        plots=False,
    )
    PromoteModelOperator(
        task_id="promote",
        model=model,
        evaluation=evaluation.output,
        registered_model_name="ui_model",
        bootstrap=True,
        gates=[MetricGate("roc_auc", at_least=0.5), MetricGate("accuracy_score", gain_over_baseline=0.001)],
        outlets=[CHAMPION],
    )
    plain()


@dag(schedule=None, start_date=START)
def ui_evaluation() -> None:
    @task
    def day() -> Annotated[pd.DataFrame, Artifact("ui_day")]:
        return made_up(200, seed=3)

    @task
    def part(size: int) -> Annotated[pd.DataFrame, Artifact("ui_part")]:
        return made_up(size, seed=4)

    part.expand(size=[30, 70])
    EvaluateModelOperator(
        task_id="evaluate",
        model=CHAMPION.model_uri,
        data=day(),
        target="late",
        experiment="ui_daily",
        plots=False,
    )


ui_training()
ui_evaluation()
