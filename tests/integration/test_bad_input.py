# SPDX-License-Identifier: Apache-2.0
"""What users get wrong: the task fails with an error that names it, and nothing half-made stays behind."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from airflow.sdk import DAG, task
from sklearn.linear_model import LogisticRegression

from airflow_ml_provider import MetricGate, ModelAsset
from airflow_ml_provider.exceptions import (
    EmptyEvaluationError,
    GateMetricError,
    MlflowAccessError,
    MlflowUnavailableError,
    ModelInputError,
    NoBaselineError,
)
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.hooks.mlflow import MlflowHook
from airflow_ml_provider.operators import EvaluateModelOperator, PromoteModelOperator
from tests.support.mlflow_server import free_port
from tests.support.stub_mlflow import stub_server

ROWS = pd.DataFrame({"x": np.linspace(-1, 1, 40), "late": np.arange(40) > 15})
CHAMPION = ModelAsset("never_registered")


@pytest.fixture(autouse=True)
def _real_parts(artifact_root: Path, mlflow_server: str) -> None:
    """Every test has an artifact root of its own, and the session's server."""


@pytest.fixture
def failures() -> list[BaseException]:
    return []


def story(
    failures: list[BaseException],
    *,
    holdout: pd.DataFrame = ROWS,
    target: str = "late",
    gates: tuple[MetricGate, ...] = (MetricGate("roc_auc", at_least=0.5),),
    mlflow_conn_id: str = "mlflow_default",
) -> DAG:
    """Train, evaluate and promote, with one thing wrong."""
    with DAG(
        "bad_input",
        schedule=None,
        default_args={"on_failure_callback": lambda context: failures.append(context["exception"])},
    ) as dag:

        @task.train(experiment="bad_input", mlflow_conn_id=mlflow_conn_id)
        def fit():
            return LogisticRegression().fit(ROWS[["x"]], ROWS["late"])

        @task
        def rows():
            return holdout

        model = fit()
        evaluation = EvaluateModelOperator(
            task_id="evaluate",
            model=model,
            baseline=CHAMPION.model_uri,
            data=rows(),
            target=target,
            plots=False,
            experiment="bad_input",
            mlflow_conn_id=mlflow_conn_id,
        )
        PromoteModelOperator(
            task_id="promote",
            model=model,
            evaluation=evaluation.output,
            registered_model_name=CHAMPION.registered_model_name,
            gates=gates,
            outlets=[CHAMPION],
            mlflow_conn_id=mlflow_conn_id,
        )
    return dag


@pytest.mark.parametrize(
    ("wrong", "failed_task", "error", "says"),
    [
        pytest.param({"holdout": ROWS.head(0)}, "evaluate", EmptyEvaluationError, "no rows", id="empty set"),
        pytest.param({"target": "delay"}, "evaluate", ModelInputError, "'delay'", id="no such target"),
        pytest.param(
            {"gates": (MetricGate("profit", at_least=1),)},
            "promote",
            GateMetricError,
            "'profit'.*roc_auc",
            id="a gate on what was not measured",
        ),
        pytest.param(
            {"gates": (MetricGate("roc_auc", gain_over_baseline=0),)},
            "promote",
            NoBaselineError,
            "bootstrap",
            id="no champion and no bootstrap",
        ),
    ],
)
def test_a_wrong_input_fails_its_task_and_registers_nothing(
    run_dag, failures, wrong, failed_task, error, says
):
    run = run_dag(story(failures, **wrong))
    states = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
    assert states[failed_task] == "failed"
    assert type(failures[0]) is error
    assert re.search(says, str(failures[0]), re.DOTALL), str(failures[0])

    client = MlflowHook().client
    assert client.search_registered_models(f"name = '{CHAMPION.registered_model_name}'") == []
    assert list(ArtifactStoreHook().store.objects.list("ledger")) == []
    experiment = client.get_experiment_by_name("bad_input").experiment_id
    assert {found.info.status for found in client.search_runs([experiment])} <= {"FINISHED", "FAILED"}


def connection(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> str:
    monkeypatch.setenv("AIRFLOW_CONN_WRONG_SERVER", json.dumps({"conn_type": "mlflow", **fields}))
    return "wrong_server"


def test_a_server_that_is_down_is_named_with_its_connection(run_dag, failures, monkeypatch):
    conn_id = connection(monkeypatch, host=f"http://127.0.0.1:{free_port()}")
    run = run_dag(story(failures, mlflow_conn_id=conn_id))
    assert str(run.state) == "failed"
    assert isinstance(failures[0], MlflowUnavailableError)
    assert "wrong_server" in str(failures[0])
    duration = next(ti for ti in run.get_task_instances() if ti.task_id == "fit").duration
    assert timedelta(seconds=duration) < timedelta(seconds=30)  # MLflow alone would try for minutes


def test_refused_credentials_are_named_without_the_password(run_dag, failures, monkeypatch):
    with stub_server(**{"": (401, "who are you?")}) as server:
        conn_id = connection(monkeypatch, host=server.uri, login="airflow", password="hunter2hunter2")
        run = run_dag(story(failures, mlflow_conn_id=conn_id))
    assert str(run.state) == "failed"
    assert isinstance(failures[0], MlflowAccessError)
    assert "wrong_server" in str(failures[0])
    assert "hunter2" not in str(failures[0])


def test_a_missing_connection_is_named_with_the_command_that_adds_it(run_dag, failures):
    run = run_dag(story(failures, mlflow_conn_id="nobody_made_it"))
    assert str(run.state) == "failed"
    assert "nobody_made_it" in str(failures[0])
    assert "airflow connections add" in str(failures[0])
