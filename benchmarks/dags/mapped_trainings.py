# SPDX-License-Identifier: Apache-2.0
"""A training that is mapped over as many parameters as the run's conf says."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk import dag, task


@dag(schedule=None, start_date=datetime(2026, 1, 1), max_active_tasks=64)
def mapped_trainings():
    @task
    def parameters(dag_run: Any = None) -> list[int]:
        return list(range(dag_run.conf["count"]))

    @task.train(experiment="mapped_trainings", best=("score", "max"), log_environment=False)
    def fit(number: int, count: int = 0):
        import numpy as np
        from sklearn.linear_model import LogisticRegression

        X = np.random.default_rng(number).normal(size=(50, 2))
        model = LogisticRegression().fit(X, X[:, 0] > 0)
        return model, {"score": 1 - abs(number - 10) / 1000}

    fit.expand(number=parameters())


mapped_trainings()
