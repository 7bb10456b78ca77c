# SPDX-License-Identifier: Apache-2.0
"""
### Evaluate the champion when it is due

Runs because `iris_freshness` says that nobody evaluated the champion of `iris` lately. It needs the
connection `mlflow_default`.
"""

# [START evaluation]
from __future__ import annotations

from airflow.sdk import Asset, dag, task

from airflow_ml_provider import ModelAsset

CHAMPION = ModelAsset("iris")


@dag(
    schedule=[Asset("iris_evaluation_due")],
    description="Evaluates the champion when it is due",
    doc_md=__doc__,
    tags=["ml"],
)
def iris_evaluation():
    @task.evaluate(model=CHAMPION, target="target", plots=False)
    def flowers():
        """Return what to judge the champion by; in real life the latest rows whose truth is known."""
        from sklearn.datasets import load_iris

        return load_iris(as_frame=True).frame

    flowers()


iris_evaluation()
# [END evaluation]
