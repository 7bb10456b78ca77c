# SPDX-License-Identifier: Apache-2.0
"""Runs, models and promotions on a real MLflow server, with processes that really die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression

from airflow_ml_provider import ModelRef
from airflow_ml_provider.exceptions import MlflowUnavailableError, ModelNotFoundError
from airflow_ml_provider.tracking.client import connect
from airflow_ml_provider.tracking.evaluation import evaluate_model
from airflow_ml_provider.tracking.flavors import log_model
from airflow_ml_provider.tracking.gates import MetricGate, decide
from airflow_ml_provider.tracking.identity import TaskIdentity
from airflow_ml_provider.tracking.registry import alias_version, move_alias, register_version
from airflow_ml_provider.tracking.runs import task_run
from tests.support.mlflow_server import mlflow_server_in

TRAIN = """
import os, signal, sys, time
from airflow_ml_provider.tracking.client import connect
from airflow_ml_provider.tracking.identity import TaskIdentity
from airflow_ml_provider.tracking.runs import task_run

uri, experiment, how = sys.argv[1:]
identity = TaskIdentity("d", "r1", "fit")
with task_run(connect(uri), experiment=experiment, identity=identity) as run:
    if how == "on_kill":
        signal.signal(signal.SIGTERM, lambda *_: (run.kill(), os._exit(1)))
    print(run.run_id, flush=True)
    time.sleep(120)
"""


LOAD = """
import sys
from airflow_ml_provider import ModelRef

model = ModelRef.coerce(sys.argv[1]).load(as_pyfunc=sys.argv[2] == "pyfunc")
assert model.predict([[3.0]]).round(6).tolist() == [3.0]
"""


@pytest.fixture(scope="session")
def uri(mlflow_server):
    return mlflow_server


@pytest.fixture
def client(uri):
    return connect(uri)


@pytest.fixture
def name():
    return f"test-{uuid.uuid4().hex[:12]}"


def start(uri: str, experiment: str, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, uri, experiment, how],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def status_within(client, run_id: str, wanted: str, seconds: float = 15.0) -> str:
    deadline = time.monotonic() + seconds
    while (found := client.get_run(run_id).info.status) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


@pytest.mark.parametrize(
    ("how", "number"), [("sleep", signal.SIGKILL), ("on_kill", signal.SIGTERM), ("sleep", signal.SIGTERM)]
)
def test_a_killed_task_leaves_no_running_run_and_its_retry_resumes_it(uri, client, name, how, number):
    with start(uri, name, how) as process:
        run_id = process.stdout.readline().strip()
        assert client.get_run(run_id).info.status == "RUNNING"
        os.killpg(process.pid, number)  # the group: the watchdog must not be in it
    assert status_within(client, run_id, "KILLED") == "KILLED"
    with task_run(client, experiment=name, identity=TaskIdentity("d", "r1", "fit", try_number=2)) as run:
        assert run.run_id == run_id
        assert run.resumed
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_late_watchdog_leaves_the_retry_alone(uri, client, name):
    with start(uri, name, "sleep") as process:
        run_id = process.stdout.readline().strip()
        os.kill(process.pid, signal.SIGSTOP)  # a worker that hangs, and is taken for dead
        retry = TaskIdentity("d", "r1", "fit", try_number=2)
        with task_run(client, experiment=name, identity=retry) as run:
            assert run.run_id == run_id
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            time.sleep(2.5)  # longer than the watchdog needs
            assert client.get_run(run_id).info.status == "RUNNING"
    assert client.get_run(run_id).info.status == "FINISHED"


def test_from_training_to_champion(client, name):
    random = np.random.default_rng(0)
    X = pd.DataFrame(random.normal(size=(2000, 4)), columns=list("abcd"))
    X["carrier"] = pd.Categorical(random.choice(list("ABC"), 2000))
    data = X.assign(late=(X.a + X.b + random.normal(size=2000) > 0.5).astype(int))
    train, holdout = data.head(1500), data.tail(500)
    gates = [MetricGate("roc_auc", at_least=0.6), MetricGate("roc_auc", gain_over_baseline=0.0)]

    def month(number: int, columns: list[str]) -> bool:
        def identity(task_id: str) -> TaskIdentity:
            return TaskIdentity("d", f"month {number}", task_id)

        with task_run(client, experiment=name, identity=identity("fit")) as run:
            run.log_params({"columns": columns})
            model = HistGradientBoostingClassifier(max_iter=20).fit(train[columns], train.late)
            ref = log_model(model, X_sample=train)
        champion = alias_version(client, name, "champion")
        baseline = None if champion is None else f"models:/{name}@champion"
        with task_run(client, experiment=name, identity=identity("evaluate")) as run:
            evaluation = evaluate_model(ref, holdout, "late", run=run, baseline_uri=baseline, plots=False)
        decision = decide(
            gates, evaluation["metrics"], evaluation["baseline_metrics"], bootstrap=champion is None
        )
        version = register_version(client, ref, name)
        if decision.promoted:
            assert move_alias(client, name, "champion", version) == champion
        return decision.promoted

    assert month(1, ["a"])
    assert month(2, ["a", "b"])
    assert not month(3, ["c"])
    assert alias_version(client, name, "champion") == "2"


@pytest.mark.parametrize("kind", ["library", "pyfunc"])
def test_loading_a_model_leaves_no_copy_on_the_worker(uri, client, name, tmp_path, kind):
    with task_run(client, experiment=name, identity=TaskIdentity("d", "r1", "fit")):
        ref = log_model(LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0]))
    subprocess.run(
        [sys.executable, "-c", LOAD, ref.model_uri, kind],
        env={**os.environ, "TMPDIR": str(tmp_path), "MLFLOW_TRACKING_URI": uri},
        check=True,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["models:/{name}@champion", "models:/{name}/7", "models:/m-0123"])
def test_loading_a_model_that_is_not_there_names_it_and_the_server(uri, client, name, missing):
    client.create_registered_model(name)
    wanted = missing.format(name=name)
    with pytest.raises(ModelNotFoundError, match=f"there is no '{wanted}' on {uri}: .*; correct its name"):
        replace(ModelRef.coerce(wanted), tracking_uri=uri).load()


def test_a_server_that_goes_away_is_named_within_the_limit(tmp_path):
    with mlflow_server_in(tmp_path / "server") as server:
        gone = connect(server.uri, label="connection 'prod'")
        pid = server.pid
    assert not Path(f"/proc/{pid}").exists()
    began = time.monotonic()
    with pytest.raises(MlflowUnavailableError, match="connection 'prod'"):
        gone.search_experiments()
    assert time.monotonic() - began < 20
