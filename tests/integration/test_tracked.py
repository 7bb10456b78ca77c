# SPDX-License-Identifier: Apache-2.0
"""``@ml.tracked`` on every flavour of task, in DAGs run by ``dag.test()``, against a real MLflow server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pytest
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, BaseOperator, task
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_ml_provider import Artifact, ml
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.lineage.records import read_record
from airflow_ml_provider.operators import SweepRunsOperator
from airflow_ml_provider.tracking.client import connect
from airflow_ml_provider.tracking.identity import TaskIdentity

PASSWORD = "s3cret-of-ann"
DAY = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _root(artifact_root, mlflow_server):
    pass


@pytest.fixture
def client(mlflow_server):
    return connect(mlflow_server)


@pytest.fixture
def name():
    """A name that no other test uses, for the DAG and with that for its experiment."""
    return f"tracked_{uuid.uuid4().hex[:10]}"


@pytest.fixture
def runs(client, name):
    """The runs of the test's experiment, by task id and map index; parents by what they group."""

    def find():
        experiment = client.get_experiment_by_name(name)
        found = {}
        for run in client.search_runs([experiment.experiment_id]) if experiment else []:
            tags = run.data.tags
            key: Any = tags.get("airflow.parent") or tags["airflow.task_id"]
            if "airflow.parent" not in tags and tags["airflow.map_index"] != "-1":
                key = (key, int(tags["airflow.map_index"]))
            assert key not in found, f"two runs for {key}"
            found[key] = run
        return found

    return find


def test_functions_get_a_run_each_below_one_of_the_dag_run(run_dag, runs, name, xcom_table, mlflow_server):
    with DAG(name, schedule=None) as dag:

        @task
        def raw() -> Annotated[pd.DataFrame, Artifact("tracked_raw")]:
            return pd.DataFrame({"n": range(3)})

        @ml.tracked(tags={"team": "{{ dag.dag_id }}"}, run_name="count {{ ds }}")
        @task
        def count(data: pd.DataFrame, factor: int = 2, password: str = PASSWORD):
            import mlflow

            for step in range(3):
                mlflow.log_metric("loss", 1 / (step + 1), step=step)
            return len(data) * factor

        @ml.tracked
        @task(multiple_outputs=True)
        def bare(n: int):
            return {"a": n, "b": n + 1}

        bare.override(task_id="again")(count(raw()))

    found = run_dag(dag, logical_date=DAY)
    assert str(found.state) == "success"
    assert xcom_table(found, "again", "b") == 7

    got = runs()
    assert set(got) == {"dag run", "count", "again"}
    assert {run.info.status for run in got.values()} == {"FINISHED"}
    counted = got["count"]
    assert counted.info.run_name == "count 2026-03-01"
    assert counted.data.params == {"factor": "2", "password": "***"}
    assert counted.data.metrics["loss"] == pytest.approx(1 / 3)
    assert counted.data.metrics["system/task_seconds"] > 0
    (given,) = counted.inputs.dataset_inputs
    assert given.dataset.name == "tracked_raw"
    tags = counted.data.tags
    assert tags["team"] == name
    assert tags["mlflow.parentRunId"] == got["dag run"].info.run_id
    assert tags["environment.python"].startswith(f"{sys.version_info.major}.")
    assert len(tags["git.commit"]) == 40
    assert int(tags["hardware.cpus"]) > 0
    link = xcom_table(found, "count", "_link_MlflowRunLink")
    assert link == f"{mlflow_server}/#/experiments/{counted.info.experiment_id}/runs/{counted.info.run_id}"
    assert got["again"].data.params == {"n": "6"}


def artifacts(client, run):
    """The paths of what a run keeps, two levels deep."""
    top = client.list_artifacts(run.info.run_id)
    return {file.path for folder in top for file in client.list_artifacts(run.info.run_id, folder.path)}


@pytest.fixture
def secret_connection(monkeypatch, mlflow_server):
    about = {"conn_type": "mlflow", "host": mlflow_server, "login": "ann", "password": PASSWORD}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_SECRET", json.dumps(about))
    return "mlflow_secret"


def test_processes_of_their_own_find_the_run_in_their_environment_alone(
    run_dag, runs, client, name, secret_connection, monkeypatch, capfd
):
    seen = []
    real = subprocess.Popen

    def popen(command, *args, **kwargs):
        if "watchdog.py" not in str(command):
            seen.append((list(command), dict(os.environ)))
        return real(command, *args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", popen)
    tracked = ml.tracked(mlflow_conn_id=secret_connection)
    quiet = {"expect_airflow": False, "show_return_value_in_logs": False}
    shell = "echo $MLFLOW_RUN_ID $MLFLOW_TRACKING_URI $(expr length $MLFLOW_TRACKING_PASSWORD) $EXTRA"
    with DAG(name, schedule=None) as dag:

        @ml.tracked(mlflow_conn_id=secret_connection, autolog=["sklearn"])
        @task.external_python(python=sys.executable, env_vars={"EXTRA": "1"}, **quiet)
        def interpreter(depth: int):
            import os
            import sys

            import mlflow
            from sklearn.linear_model import LinearRegression

            mlflow.log_metric("inside", depth)
            LinearRegression().fit([[0], [1], [2]], [0, 1, 2])
            run = mlflow.active_run().info
            variables = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
            return {"run": run.run_id, "env": variables, "extra": os.environ["EXTRA"], "argv": sys.argv}

        @tracked
        @task.virtualenv(system_site_packages=False, **quiet)
        def environment():
            import os

            return {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}

        @tracked
        @task.bash(env={"EXTRA": "2"}, append_env=True)
        def command(n: int = 1):
            return shell

        interpreter(3), environment(), command()
        tracked(BashOperator(task_id="classic", bash_command=shell))
        tracked(BashOperator(task_id="fails", bash_command="exit 3"))

    found = run_dag(dag)
    states = {ti.task_id: str(ti.state) for ti in found.get_task_instances()}
    assert states.pop("fails") == "failed"
    assert set(states.values()) == {"success"}
    got = runs()
    assert got.pop("fails").info.status == "FAILED"
    assert got.pop("dag run").info.status == "FAILED"
    assert {run.info.status for run in got.values()} == {"FINISHED"}

    told = found.get_task_instance("interpreter").xcom_pull(task_ids="interpreter")
    run = got["interpreter"]
    assert told["run"] == run.info.run_id
    assert told["env"]["MLFLOW_TRACKING_USERNAME"] == "ann"
    assert told["extra"] == "1"
    assert not [text for text in told["argv"] if PASSWORD in text or run.info.run_id in text]
    assert run.data.metrics["inside"] == 3
    assert run.data.metrics["training_mean_squared_error"] == pytest.approx(0)  # by autologging
    assert run.data.params["depth"] == "3"
    told = found.get_task_instance("environment").xcom_pull(task_ids="environment")
    assert told["MLFLOW_RUN_ID"] == got["environment"].info.run_id
    assert told["MLFLOW_TRACKING_PASSWORD"] == PASSWORD
    for task_id, extra in (("command", " 2"), ("classic", "")):
        told = found.get_task_instance(task_id).xcom_pull(task_ids=task_id)
        assert told == f"{got[task_id].info.run_id} {client.tracking_uri} {len(PASSWORD)}{extra}"

    # Nowhere else: not in this process while they ran, in arguments, in what Airflow shows, or in logs.
    assert len(seen) >= 5
    for arguments, environment_here in seen:
        assert not any(
            PASSWORD in text for text in [*arguments, *environment_here.values()][: len(arguments)]
        )
        here = {n: v for n, v in environment_here.items() if n != "AIRFLOW_CONN_MLFLOW_SECRET"}
        assert "MLFLOW_RUN_ID" not in here
        assert not [n for n, value in here.items() if PASSWORD in value]
    assert PASSWORD not in str(rendered_fields(found))
    assert PASSWORD not in "".join(capfd.readouterr())


def rendered_fields(dag_run):
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        wanted = select(RenderedTaskInstanceFields.rendered_fields).where(
            RenderedTaskInstanceFields.run_id == dag_run.run_id
        )
        return session.scalars(wanted).all()


class Now(BaseTrigger):
    """Fires at once."""

    def serialize(self):
        return f"{__name__}.Now", {}

    async def run(self):
        yield TriggerEvent("now")


class Deferring(BaseOperator):
    """Writes to its run before and after it was deferred."""

    def execute(self, context):
        import mlflow

        mlflow.log_metric("before", 1)
        self.defer(trigger=Now(), method_name="go_on")

    def go_on(self, context, event):
        import mlflow

        mlflow.log_metric("after", 1)
        if event != "now":
            raise ValueError(event)
        return mlflow.active_run().info.run_id


def test_the_status_is_the_tasks_for_classic_and_deferred_ones_too(run_dag, runs, name, client, xcom_table):
    with DAG(name, schedule=None) as dag:

        @ml.tracked
        @task
        def skips():
            raise AirflowSkipException

        @ml.tracked
        @task.short_circuit
        def stops():
            return False

        @ml.tracked
        @task.branch
        def branches():
            return "chosen"

        @ml.tracked(best=("score", "max"))
        @task
        async def waits(n: int):
            import mlflow

            mlflow.log_metric("score", n % 2)

        skips()
        stops() >> EmptyOperator(task_id="never")
        branches() >> [EmptyOperator(task_id="chosen"), EmptyOperator(task_id="other")]
        waits.expand(n=[0, 1, 2])
        ml.tracked(Deferring(task_id="deferred"))
        ml.tracked(PythonOperator.partial(task_id="mapped", python_callable=fails_on_two)).expand(
            op_args=[[1], [2]]
        )

    found = run_dag(dag)
    states = {(ti.task_id, ti.map_index): str(ti.state) for ti in found.get_task_instances()}
    assert states["skips", -1] == states["never", -1] == states["other", -1] == "skipped"
    assert states["mapped", 1] == "failed"
    experiment = client.get_experiment_by_name(name).experiment_id
    every = client.search_runs([experiment])
    by_task = {(r.data.tags["airflow.task_id"], r.data.tags.get("airflow.map_index")): r for r in every
               if "airflow.task_id" in r.data.tags}  # fmt: skip
    status = {key: run.info.status for key, run in by_task.items()}
    assert status == {
        ("skips", "-1"): "FINISHED",
        ("stops", "-1"): "FINISHED",
        ("branches", "-1"): "FINISHED",
        ("waits", None): "FINISHED",
        **{("waits", str(index)): "FINISHED" for index in range(3)},
        ("deferred", "-1"): "FINISHED",
        ("mapped", None): "FAILED",
        ("mapped", "0"): "FINISHED",
        ("mapped", "1"): "FAILED",
    }
    assert len(every) == len(by_task) + 1  # that of the DAG run
    assert by_task["skips", "-1"].data.tags["airflow.state"] == "skipped"
    deferred = by_task["deferred", "-1"]
    assert {"before", "after"} <= set(deferred.data.metrics)
    assert xcom_table(found, "deferred") == deferred.info.run_id
    parent = by_task["waits", None]
    assert parent.data.metrics["score"] == 1
    assert parent.data.tags["airflow.best_map_index"] == "1"
    assert by_task["mapped", "1"].data.params == {"n": "2"}


def fails_on_two(n):
    if n == 2:
        raise ValueError("two")


def test_a_cache_hit_has_a_run_that_says_so_outside_and_none_inside(run_dag, client, name, xcom_table):
    with DAG(name, schedule=None) as dag:

        @ml.tracked(parent_run=False)
        @ml.cached
        @task
        def outside(n: int = 1) -> float:
            return n / 2

        @ml.cached
        @ml.tracked(parent_run=False)
        @task
        def inside(n: int = 1):
            from sklearn.linear_model import LinearRegression

            return LinearRegression().fit([[0], [n]], [0, n])

        outside(), inside()

    first, second = run_dag(dag), run_dag(dag)
    got = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    about = {(r.data.tags["airflow.task_id"], r.data.tags["airflow.dag_run_id"]): r for r in got}
    assert set(about) == {("outside", first.run_id), ("outside", second.run_id), ("inside", first.run_id)}
    assert {run.info.status for run in got} == {"FINISHED"}
    hit = about["outside", second.run_id].data
    assert hit.tags["airflow.state"] == "reused"
    assert first.run_id in hit.tags["airflow.reused_from"]
    assert hit.params == {"n": "1"}
    # The model of the first run, by its reference.
    model = xcom_table(second, "inside")
    assert model == xcom_table(first, "inside")
    assert model["mlflow_run_id"] == about["inside", first.run_id].info.run_id


def test_the_record_has_what_a_task_measured_that_returns_no_model(run_dag, name):
    with DAG(name, schedule=None) as dag:

        @ml.tracked
        @task
        def count(n: int):
            import mlflow

            mlflow.log_metrics({"loss": 0.5, "gap": float("nan")}, step=1)
            mlflow.log_metric("loss", 0.25, step=2)
            return {"n": n}

        @ml.tracked
        @task.external_python(python=sys.executable)
        def elsewhere():
            import mlflow

            mlflow.log_metric("rows", 3)

        count(2) >> elsewhere()

    found = run_dag(dag)
    assert str(found.state) == "success"
    objects = ArtifactStoreHook().store.objects
    counted, far = (
        read_record(objects, name, found.run_id, task_id, -1, 1)["metrics"]
        for task_id in ("count", "elsewhere")
    )
    assert counted.pop("gap") == "nan"
    assert counted == {"loss": 0.25}
    assert far == {"rows": 3.0}


def test_requests_are_few_and_the_code_and_packages_are_kept(run_dag, client, runs, name, monkeypatch):
    import requests

    sent = []
    real = requests.Session.request

    def request(self, method, url, *args, **kwargs):
        if url.startswith(client.tracking_uri):
            sent.append((method, url.partition("/mlflow/")[2] or url.partition("/api/")[2]))
        return real(self, method, url, *args, **kwargs)

    monkeypatch.setattr(requests.Session, "request", request)
    with DAG(name, schedule=None) as dag:

        @ml.tracked(best="accuracy")
        @task
        def work(n: int):
            import mlflow

            mlflow.log_metric("accuracy", n)

        @ml.tracked(parent_run=False, log_environment=False)
        @task
        def alone(n: int = 1):
            sent.append(("alone", "begins"))

        work.expand(n=[1, 2, 0]) >> alone()

    run_dag(dag)
    made = list(sent)
    got = runs()
    assert "environment/requirements.txt" in artifacts(client, got["work", 0])
    assert artifacts(client, got["alone"]) == set()
    starts = [place for place, (_, path) in enumerate(made) if path == "experiments/get-by-name"]
    first, second, third, alone = (
        len(made[start:end]) for start, end in zip(starts, [*starts[1:], None], strict=True)
    )
    # What the guide promises; the function's own request comes on top.
    assert alone == 10 + len(["the marker"])
    assert max(second, third) <= 25 + 1
    assert first <= 35 + 1


def test_a_sweep_asks_airflow_in_a_dag_and_on_the_command_line(
    run_dag, client, name, mlflow_server, xcom_table, capsys
):
    from airflow_ml_provider.cli.sweep import sweep_runs

    with DAG(name, schedule=None) as dag:
        PythonOperator.partial(task_id="lost", python_callable=fails_on_two).expand(op_args=[[1], [2]])
    over = run_dag(dag)
    experiment = client.create_experiment(name)
    left = {}
    for index in (0, 1, 2):
        identity = TaskIdentity(name, over.run_id, "lost", map_index=index)
        left[index] = client.create_run(experiment, tags=identity.tags()).info.run_id

    args = Namespace(
        close=False, experiment=[name], older_than_minutes=0, unknown=False, output="json", verbose=True
    )
    capsys.readouterr()
    sweep_runs(args)
    told = {row["map_index"]: row["outcome"] for row in json.loads(capsys.readouterr().out)}
    assert told == {0: "would become FINISHED", 1: "would become KILLED", 2: "stays open"}

    with DAG(f"{name}_sweep", schedule=None) as sweeping:
        SweepRunsOperator(task_id="sweep", experiments=[name], older_than=0)
    swept = run_dag(sweeping)
    told = {row["map_index"]: row["outcome"] for row in xcom_table(swept, "sweep")}
    assert told == {0: "closed as FINISHED", 1: "closed as KILLED", 2: "stays open"}
    status = [client.get_run(left[index]).info.status for index in (0, 1, 2)]
    assert status == ["FINISHED", "KILLED", "RUNNING"]


def test_the_example_trains_several_and_shows_the_best(run_dag, client):
    from airflow.dag_processing.dagbag import BundleDagBag

    name = "tracked_digits"
    folder = Path(__file__).resolve().parents[2] / "dags"
    bag = BundleDagBag(dag_folder=folder / f"{name}.py", bundle_path=folder, load_op_links=False)
    found = run_dag(bag.dags[name], run_conf={"depths": [2, 8]})
    assert str(found.state) == "success"
    experiment = client.get_experiment_by_name(name).experiment_id
    every = client.search_runs([experiment], f"tags.`airflow.dag_run_id` = '{found.run_id}'")
    assert len(every) == 5
    (parent,) = (run for run in every if run.data.tags.get("airflow.parent") == "mapped task")
    assert parent.data.tags["airflow.best_map_index"] == "1"
    assert parent.data.metrics["accuracy_score"] > 0.8
    (best,) = (run for run in every if run.info.run_id == parent.data.tags["airflow.best_run_id"])
    assert best.data.params["depth"] == "8"
    assert best.data.params["criterion"] == "gini"  # by autologging
    ti = found.get_task_instance("report")
    (report,) = (run for run in every if run.data.tags.get("airflow.task_id") == "report")
    assert report.info.run_id in ti.xcom_pull(task_ids="report")
    assert ti.xcom_pull(task_ids="fit", map_indexes=1)["mlflow_run_id"] == best.info.run_id
