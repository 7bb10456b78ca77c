# SPDX-License-Identifier: Apache-2.0
"""
### A person decides

Trains a small tree, judges it beside the champion, and asks a person before it becomes champion: *Required
actions* in Airflow shows both models side by side, with *Approve*, *Reject* and room for a comment.

Run it by hand, twice with another `max_depth`. It needs the connection `mlflow_default`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk import Param, dag, task

from airflow_ml_provider import MetricGate, ModelAsset
from airflow_ml_provider.operators import EvaluateModelOperator, PromoteModelOperator

if TYPE_CHECKING:
    import pandas as pd

CHAMPION = ModelAsset("iris_approved", alias="champion")


@dag(
    schedule=None,
    params={"max_depth": Param(2, type="integer", minimum=1, maximum=10)},
    description="Trains a small tree and asks a person before it becomes champion",
    doc_md=__doc__,
    tags=["ml"],
)
def iris_approval():
    @task(multiple_outputs=True)
    def flowers() -> dict[str, pd.DataFrame]:
        """Return two halves of the flowers: to learn from, and to judge by."""
        from sklearn.datasets import load_iris

        mixed = load_iris(as_frame=True).frame.sample(frac=1.0, random_state=3)
        mixed["petals"] = (mixed["petal length (cm)"] > 4.9).map({True: "long", False: "short"})
        return {"learn": mixed[:75], "judge": mixed[75:]}

    @task.train
    def fit(data: pd.DataFrame, params=None):
        """Fit a tree to the measures."""
        from sklearn.tree import DecisionTreeClassifier

        features = data.drop(columns=["target", "petals"])
        return DecisionTreeClassifier(max_depth=params["max_depth"]).fit(features, data["target"])

    both = flowers()
    model = fit(both["learn"])
    evaluation = EvaluateModelOperator(
        task_id="evaluate",
        model=model,
        baseline=CHAMPION.model_uri,
        data=both["judge"],
        target="target",
        slices=["petals"],
        plots=False,
    )
    # [START promote]
    PromoteModelOperator(
        task_id="promote",
        model=model,
        evaluation=evaluation.output,
        registered_model_name="iris_approved",
        bootstrap=True,
        gates=[
            MetricGate("accuracy_score", at_least=0.5),
            MetricGate("accuracy_score", gain_over_baseline=-0.1),
        ],
        approval="always",  # or "on_regression": only where something is worse than the champion's
        approval_timeout=timedelta(days=2),  # no answer: rejected
        retries=1,
        outlets=[CHAMPION],
    )
    # [END promote]


iris_approval()
