# SPDX-License-Identifier: Apache-2.0
"""
### The shortest training

Two tasks and an operator: data, a model, and the alias `iris@champion` pointing at it. The data frame crosses
as a versioned artifact; the model, its parameter and the version that it learned from are in MLflow.

Run it by hand. It needs the connection `mlflow_default`.
"""

# [START iris]
from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import dag, task

from airflow_ml_provider.operators import PromoteModelOperator

if TYPE_CHECKING:
    import pandas as pd


@dag(schedule=None, description="Trains a small tree and makes it champion", doc_md=__doc__, tags=["ml"])
def iris_training():
    @task
    def flowers():
        """Return a DataFrame; it is stored typed, versioned and verified."""
        from sklearn.datasets import load_iris

        return load_iris(as_frame=True).frame

    @task.train
    def fit(data: pd.DataFrame, max_depth: int = 3):
        """Fit a tree, in an MLflow run that gets its parameters, input version and model."""
        from sklearn.tree import DecisionTreeClassifier

        return DecisionTreeClassifier(max_depth=max_depth).fit(data.drop(columns="target"), data["target"])

    PromoteModelOperator(task_id="promote", model=fit(flowers()), registered_model_name="iris")


iris_training()
# [END iris]
