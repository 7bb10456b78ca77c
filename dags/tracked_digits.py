# SPDX-License-Identifier: Apache-2.0
"""
### Any task as an MLflow run

`ml.tracked` gives tasks of several kinds an MLflow run: a function that is mapped over depths, and a shell
command. In MLflow, the experiment `tracked_digits` has one line for each DAG run; below it are the runs of
the tasks, and the run above the mapped training shows the depth that did best.
"""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_ml_provider import ml


@dag(
    schedule=None,
    params={"depths": [2, 4, 8]},
    description="Trains digit classifiers of several depths, each as an MLflow run",
    doc_md=__doc__,
    tags=["ml"],
)
def tracked_digits():
    @task
    def depths(params=None):
        """Return the depths to try."""
        return params["depths"]

    # [START tracked]
    @ml.tracked(best="accuracy_score", autolog=["sklearn"])
    @task(retries=2)
    def fit(depth: int):
        """Train one classifier; it goes to MLflow, and a reference to it to the next task."""
        import mlflow
        from sklearn.datasets import load_digits
        from sklearn.metrics import accuracy_score
        from sklearn.model_selection import train_test_split
        from sklearn.tree import DecisionTreeClassifier

        X, X_test, y, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
        model = DecisionTreeClassifier(max_depth=depth, random_state=0).fit(X, y)
        mlflow.log_metric("accuracy_score", accuracy_score(y_test, model.predict(X_test)))
        return model

    # [END tracked]

    # [START shell]
    @ml.tracked
    @task.bash
    def report():
        """A program of any language finds the run in its environment."""
        return 'echo "this is MLflow run $MLFLOW_RUN_ID of $MLFLOW_TRACKING_URI"'

    # [END shell]

    fit.expand(depth=depths()) >> report()


tracked_digits()
