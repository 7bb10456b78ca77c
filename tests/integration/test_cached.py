# SPDX-License-Identifier: Apache-2.0
"""``@ml.cached`` in DAGs run by ``dag.test()``: what runs, what is loaded, and what is said."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pytest
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import DAG, BaseOperator, task

from airflow_ml_provider import Artifact, ArtifactRef, ml
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import UncacheableError
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

FRAME = pd.DataFrame({"n": range(5)})
# What ran; it starts empty, so what is in it is in no key.
RAN: list[Any] = []


@pytest.fixture(autouse=True)
def _root(artifact_root: Path) -> None:
    RAN.clear()


@pytest.fixture
def run(run_dag) -> Callable[..., Any]:
    """Return a function that runs a DAG for one day after another, and asserts that it succeeds."""
    days = iter(range(1, 28))

    def once(dag: DAG, state: str = "success") -> Any:
        found = run_dag(dag, logical_date=datetime(2026, 1, next(days), tzinfo=UTC))
        assert str(found.state) == state
        return found

    return once


@pytest.fixture
def said(xcom_table) -> Callable[..., Any]:
    """Return a function that reads what a cached task said."""
    return lambda dag_run, task_id, map_index=-1: xcom_table(dag_run, task_id, "cache", map_index)


def store() -> ArtifactStore:
    return ArtifactStoreHook().store


def clear_and_run(dag: DAG, dag_run: Any, task_id: str) -> None:
    """Clear a task instance as the UI does, and run it again."""
    from airflow.models.taskinstance import clear_task_instances
    from airflow.sdk.definitions.dag import _run_task
    from airflow.utils.session import create_session

    with create_session() as session:
        dag_run = session.merge(dag_run)
        ti = dag_run.get_task_instance(task_id, session=session)
        clear_task_instances([ti], session)
        session.commit()
        dag_run.schedule_tis([ti], session=session)
        session.commit()
        session.refresh(ti)
        _run_task(ti=ti, task=dag.get_task(task_id))
    with create_session() as session:
        ti = session.merge(dag_run).get_task_instance(task_id, session=session)
        assert (ti.state, ti.try_number) == ("success", 2)


@task
def raw(n: int = 5) -> pd.DataFrame:
    return FRAME.head(n)


def features_dag(dag_id: str, *, rows: int = 5, factor: int = 2, **options: Any) -> DAG:
    with DAG(dag_id, schedule=None) as dag:

        @ml.cached(**options)
        @task
        def features(data: pd.DataFrame, factor: int) -> Annotated[pd.DataFrame, Artifact("cached_features")]:
            RAN.append("features")
            return data * factor

        @task
        def use(data: ArtifactRef):
            RAN.append(data.version_id)

        use(features(raw(rows), factor))
    return dag


def test_the_second_run_reuses_the_result_and_neither_loads_nor_stores_anything(run, calls, said, xcom_table):
    first = run(features_dag("reuse"))
    assert RAN[0] == "features"
    assert calls == {"dump": 2, "load": 1}

    calls.clear()
    second = run(features_dag("reuse"))
    assert ["features", RAN[1], RAN[1]] == RAN  # the same version, and no second computation
    assert calls == {"dump": 1}  # that of the task before
    assert xcom_table(second, "features") == xcom_table(first, "features")
    assert len(store().versions("cached_features")) == 1

    assert said(first, "features")["hit"] is False
    found = said(second, "features")
    assert found["hit"] is True
    assert found["reused_from"]["run_id"] == first.run_id
    assert found["key"] == said(first, "features")["key"]
    assert "same code, arguments and environment" in found["why"]
    link = xcom_table(second, "features", "_link_ReusedFromLink")
    assert f"/dags/reuse/runs/{first.run_id.replace(':', '%3A').replace('+', '%2B')}/tasks/features" in link
    assert not xcom_table(first, "features", "_link_ReusedFromLink")


def test_a_miss_says_which_part_changed(run, said):
    first = said(run(features_dag("explain")), "features")
    assert first["why"] == "this task has computed nothing yet that is remembered"

    by_data = said(run(features_dag("explain", rows=4)), "features")
    assert by_data["hit"] is False
    assert "argument data changed from explain.raw" in by_data["why"]
    assert ";" not in by_data["why"]

    by_argument = said(run(features_dag("explain", rows=4, factor=3)), "features")
    assert by_argument["why"].endswith(": argument factor changed")

    by_version = said(run(features_dag("explain", rows=4, factor=3, version="2")), "features")
    assert by_version["why"].endswith(": version changed")

    again = said(run(features_dag("explain")), "features")
    assert again["hit"] is True  # what was computed first is still there
    assert RAN.count("features") == 4


def test_a_change_of_called_code_is_named(run, said, monkeypatch):
    def dag() -> DAG:
        with DAG("explain_code", schedule=None) as dag:

            @ml.cached
            @task
            def features():
                return _helper(2)

            features()
        return dag

    run(dag())
    monkeypatch.setattr(f"{__name__}._helper", _other_helper)
    why = said(run(dag()), "features")["why"]
    assert "function tests.integration.test_cached._helper is gone" in why
    assert "function tests.integration.test_cached._other_helper is new" in why


def _helper(n):
    return n + 1


def _other_helper(n):
    return n + 2


def test_clearing_a_task_computes_again_and_what_it_computed_is_reused(run, said, xcom_table):
    dag = features_dag("clearing")
    first = run(dag)
    clear_and_run(dag, first, "features")
    assert RAN.count("features") == 2
    found = said(first, "features")
    assert (found["hit"], found["why"]) == (False, "the task was cleared, so it computes again")

    later = run(features_dag("clearing"))
    assert RAN.count("features") == 2
    assert said(later, "features")["reused_from"]["try_number"] == 2
    assert xcom_table(later, "features") == xcom_table(first, "features")


def test_a_retry_is_no_clear_and_failures_are_not_kept(run, said):
    def dag(fails: int) -> DAG:
        with DAG("retrying", schedule=None) as dag:

            @ml.cached(ignore=["fails"])
            @task(retries=2, retry_delay=timedelta(0))
            def flaky(fails):
                RAN.append("flaky")
                if len(RAN) <= fails:
                    raise ValueError("not yet")
                return len(RAN)

            flaky(fails)
        return dag

    first = run(dag(1))
    assert RAN == ["flaky", "flaky"]
    assert said(first, "flaky")["hit"] is False
    second = run(dag(1))
    assert RAN == ["flaky", "flaky"]
    assert said(second, "flaky")["reused_from"]["try_number"] == 2


def test_content_that_is_gone_is_computed_again(run, said):
    run(features_dag("gone"))
    ref = store().get("cached_features")
    store().objects.delete([f"blobs/{ref.digest[7:9]}/{ref.digest[7:]}"])
    second = run(features_dag("gone"))
    assert RAN.count("features") == 2
    assert "contents are gone" in said(second, "features")["why"]
    assert said(run(features_dag("gone")), "features")["reused_from"]["run_id"] == second.run_id


def test_an_edited_entry_is_not_used(run, said):
    run(features_dag("forged"))
    [entry] = (info.key for info in store().objects.list("cache") if "/last/" not in info.key)
    doc = store().objects.get_json(entry)
    store().objects.put_json(entry, {**doc, "seconds": 0}, create_only=False)
    assert "does not match its signature" in said(run(features_dag("forged")), "features")["why"]
    assert said(run(features_dag("forged")), "features")["hit"] is True


def test_old_results_are_computed_again(run, said):
    run(features_dag("ageing", ttl=3600))
    assert said(run(features_dag("ageing", ttl=3600)), "features")["hit"] is True
    found = said(run(features_dag("ageing", ttl=1e-6)), "features")
    assert found["hit"] is False
    assert "ttl is 0:00:00" in found["why"]


def test_mapped_tasks_are_cached_one_by_one(run, said, calls):
    def dag(numbers: list[int]) -> DAG:
        with DAG("mapped_cache", schedule=None) as dag:

            @task
            def frames(numbers):
                return [FRAME.head(n) for n in numbers]

            @ml.cached
            @task
            def double(frame, factor):
                RAN.append(len(frame))
                return frame * factor

            @task
            def count(found):
                return [len(frame) for frame in found]

            count(double.override(retries=1).partial(factor=2).expand(frame=frames(numbers)))
        return dag

    run(dag([1, 2, 3]))
    assert sorted(RAN) == [1, 2, 3]
    calls.clear()
    second = run(dag([3, 2, 4]))
    assert sorted(RAN) == [1, 2, 3, 4]
    assert [said(second, "double", n)["hit"] for n in range(3)] == [True, True, False]
    assert said(second, "double", 0)["reused_from"]["map_index"] == 2
    assert calls["load"] == 1 + 3  # the one that ran, and those of the task that counts


def test_a_reused_list_can_be_mapped_over(run, said):
    def dag() -> DAG:
        with DAG("map_over_cached", schedule=None) as dag:

            @ml.cached
            @task
            def frames():
                return [FRAME.head(1), FRAME.head(2)]

            @task
            def size(frame):
                RAN.append(len(frame))

            size.expand(frame=frames())
        return dag

    run(dag())
    assert said(run(dag()), "frames")["hit"] is True
    assert sorted(RAN) == [1, 1, 2, 2]


def test_multiple_outputs_are_pushed_as_they_were(run, said, xcom_table, calls):
    def dag() -> DAG:
        with DAG("outputs_cache", schedule=None) as dag:

            @ml.cached
            @task(multiple_outputs=True)
            def split():
                frame = pd.DataFrame({"n": range(5)})
                return {"train": frame, "test": frame.head(1), "rows": 6, "nothing": None}

            @task
            def size(frame):
                RAN.append(len(frame))

            size(split()["test"])
        return dag

    first = run(dag())
    calls.clear()
    second = run(dag())
    assert said(second, "split")["hit"] is True
    assert calls == {"load": 1}
    assert RAN == [1, 1]
    for key in ("train", "test", "rows", "return_value"):
        assert xcom_table(second, "split", key) == xcom_table(first, "split", key), key


LONG = list(range(2_500))


@pytest.mark.parametrize(
    "outputs",
    [
        {"a": LONG, "b": LONG},
        {"a": LONG, "b": LONG, "frame": FRAME, "more": "x" * 20_000},
        OrderedDict(a=LONG, b=1),
        {f"part_{n}": FRAME for n in range(40)},
    ],
    ids=["too long", "too long with artifacts", "of another type", "many"],
)
def test_multiple_outputs_of_a_result_that_does_not_fit_the_table_are_pushed_too(run, said, outputs):
    names = list(outputs)

    with DAG("long_outputs_cache", schedule=None) as dag:

        @ml.cached
        @task(multiple_outputs=True)
        def made():
            return outputs

        @task
        def take(whole, first, last):
            RAN.append([len(whole), first, last])

        result = made()
        take(result, result[names[0]], result[names[-1]])

    run(dag)
    assert said(run(dag), "made")["hit"] is True
    for found in RAN:
        for is_, wanted in zip(found, [len(names), outputs[names[0]], outputs[names[-1]]], strict=True):
            assert is_.equals(wanted) if isinstance(wanted, pd.DataFrame) else is_ == wanted
    assert len(RAN) == 2


@pytest.mark.parametrize(
    "value", [None, True, 2.0, "text", {"a": [1]}, (1, 2), b"bytes", float("nan")], ids=repr
)
def test_a_result_of_any_kind_is_reused(run, said, xcom_table, value):
    def dag() -> DAG:
        with DAG("kinds", schedule=None) as dag:

            @ml.cached
            @task
            def made():
                RAN.append("made")
                return value

            made()
        return dag

    first, second = run(dag()), run(dag())
    assert RAN == ["made"]
    assert said(second, "made")["hit"] is True
    assert xcom_table(second, "made") == xcom_table(first, "made")


def test_time_counts_where_the_function_takes_it(run, said):
    with DAG("by_day", schedule=None) as dag:

        @ml.cached
        @task
        def of_day(logical_date=None):
            return str(logical_date)

        @ml.cached
        @task
        def of_any_day():
            return "any"

        of_day()
        of_any_day()

    run(dag)
    second = run(dag)
    assert "argument logical_date changed" in said(second, "of_day")["why"]
    assert said(second, "of_any_day")["hit"] is True


def test_classic_operators_are_cached_by_their_rendered_arguments(run, said):
    def dag(text: str) -> DAG:
        with DAG("classic_cache", schedule=None) as dag:
            ml.cached(BashOperator(task_id="shell", bash_command=f"echo {text}", env={"A": "{{ ds[:4] }}"}))
            ml.cached(PythonOperator(task_id="call", python_callable=_helper, op_args=[len(text)]))
            ml.cached(BashOperator.partial(task_id="many")).expand(bash_command=["echo 1", f"echo {text}"])
        return dag

    run(dag("one"))
    second = run(dag("one"))
    third = run(dag("three"))
    assert [said(second, name)["hit"] for name in ("shell", "call")] == [True, True]
    assert said(third, "shell")["why"].endswith(": argument bash_command changed")
    assert said(third, "call")["why"].endswith(": argument n changed")
    assert [said(third, "many", n)["hit"] for n in (0, 1)] == [True, False]


def test_other_flavours_of_tasks_get_values_and_are_reused(run, said, xcom_table):
    def dag() -> DAG:
        with DAG("flavours", schedule=None) as dag:

            @ml.cached
            @task.bash
            def shell(frame, refs):
                return f"echo {len(frame)} {type(refs[0]).__name__}"

            @ml.cached
            @task.short_circuit
            def goes_on(frame):
                RAN.append(type(frame).__name__)
                return True

            @ml.cached(ignore=["python"])
            @task.external_python(python=sys.executable)
            def elsewhere(frame):
                return [type(frame).__name__, len(frame)]

            found = raw()
            elsewhere(found)
            shell(found, [found])
            goes_on(found)
        return dag

    run(dag())
    second = run(dag())
    assert [said(second, name)["hit"] for name in ("shell", "goes_on", "elsewhere")] == [True] * 3
    assert xcom_table(second, "shell") == "5 DataFrame"
    assert xcom_table(second, "elsewhere") == ["DataFrame", 5]
    assert RAN == ["DataFrame"]


class Waits(BaseOperator):
    template_fields = ("data",)

    def __init__(self, *, data, **kwargs):
        super().__init__(**kwargs)
        self.data = data

    def execute(self, context):
        RAN.append(type(self.data).__name__)
        self.defer(trigger=DateTimeTrigger(datetime(2026, 1, 1, tzinfo=UTC)), method_name="go_on")

    def go_on(self, context, event):
        RAN.append(type(self.data).__name__)
        return len(self.data)


def test_a_task_that_was_deferred_goes_on_with_values(run, xcom_table):
    with DAG("cached_deferred", schedule=None) as dag:

        @task
        def frame():
            return FRAME

        ml.cached(Waits(task_id="waits", data=frame()))

    assert xcom_table(run(dag), "waits") == len(FRAME)
    assert RAN == ["DataFrame", "DataFrame"]


def test_a_virtual_environment_is_made_once(run, said, xcom_table):
    def dag() -> DAG:
        with DAG("virtual", schedule=None) as dag:

            @ml.cached
            @task.virtualenv(system_site_packages=True)
            def elsewhere(rows: int) -> list:
                import os
                import sys

                return [rows, sys.prefix, os.urandom(8).hex()]

            elsewhere(5)
        return dag

    first, second = run(dag()), run(dag())
    assert [said(each, "elsewhere")["hit"] for each in (first, second)] == [False, True]
    rows, prefix, _ = there = xcom_table(first, "elsewhere")
    assert (rows, prefix != sys.prefix) == (5, True)
    assert xcom_table(second, "elsewhere") == there


def test_a_pod_gets_values_and_none_is_built_for_a_hit(run, said, xcom_table, monkeypatch, tmp_path):
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    built: list[str] = []

    def run_pod(operator: Any, context: Any) -> Any:
        """Run what the pod is given, as it would."""
        given = {each.name: each.value for each in operator.env_vars}
        script, value, answer = (tmp_path / name for name in ("script.py", "script.in", "return.json"))
        script.write_bytes(base64.b64decode(given["__PYTHON_SCRIPT"]))
        value.write_bytes(base64.b64decode(given["__PYTHON_INPUT"]))
        assert given["LEVEL"] == "3"
        built.append(script.read_text())
        subprocess.run([sys.executable, script, value, answer], check=True, timeout=120)
        return json.loads(answer.read_text())

    monkeypatch.setattr(KubernetesPodOperator, "execute", run_pod)

    def dag(image: str = "python:3.11") -> DAG:
        with DAG("pods", schedule=None) as dag:

            @ml.cached
            @task.kubernetes(image=image, namespace="ml", env_vars={"LEVEL": "3"}, do_xcom_push=True)
            def in_a_pod(frame):
                return [type(frame).__name__, len(frame)]

            in_a_pod(raw())
        return dag

    first = run(dag())
    (script,) = built
    assert "ml.cached" not in script
    assert "task.kubernetes" not in script
    assert xcom_table(first, "in_a_pod") == ["DataFrame", 5]
    assert said(first, "in_a_pod")["hit"] is False

    second = run(dag())
    assert (len(built), said(second, "in_a_pod")["hit"]) == (1, True)
    assert xcom_table(second, "in_a_pod") == ["DataFrame", 5]

    third = run(dag("python:3.12"))
    assert len(built) == 2
    assert said(third, "in_a_pod")["why"].endswith(": option image changed")


def test_files_and_chosen_packages_count(run, said, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("a: 1")
    options = {"depends_on": [config], "environment": ["python", "pandas"]}
    run(features_dag("files", **options))
    assert said(run(features_dag("files", **options)), "features")["hit"] is True
    config.write_text("a: 2")
    assert f"file {config} changed" in said(run(features_dag("files", **options)), "features")["why"]
    config.unlink()
    run(features_dag("files", **options), state="failed")


def test_what_no_key_can_hold_is_refused_when_the_dag_is_parsed():
    with pytest.raises(UncacheableError, match=r"\*\*context"):

        @ml.cached
        @task
        def everything(**context): ...

    with pytest.raises(UncacheableError, match="'ti'"):

        @ml.cached
        @task
        def instance(ti=None): ...

    with pytest.raises(TypeError, match="got a function"):
        ml.cached(_helper)
    with pytest.raises(ValueError, match="ttl"):
        ml.cached(ttl=-1)

    @ml.cached(ignore=["ti"])
    @task
    def allowed(ti=None): ...


def test_the_task_keeps_the_name_and_links_of_its_class():
    with DAG("kept_names", schedule=None) as dag:

        @ml.cached
        @task.train(experiment="any")
        def fit(): ...

        fit()
    operator = dag.get_task("fit")
    assert operator.task_type == "_TrainDecoratedOperator"
    assert [type(link).__name__ for link in operator.operator_extra_links] == [
        "MlflowRunLink",
        "MlflowModelLink",
        "ReusedFromLink",
    ]


def test_the_example_computes_only_what_is_new(run_dag, said):
    from airflow.dag_processing.dagbag import BundleDagBag

    folder = Path(__file__).resolve().parents[2] / "dags"
    bag = BundleDagBag(dag_folder=folder / "cached_digits.py", bundle_path=folder, load_op_links=False)
    dag = bag.dags["cached_digits"]
    hits = []
    for components in ([2, 3], [3, 2], [2, 4]):
        found = run_dag(dag, run_conf={"components": components})
        assert str(found.state) == "success"
        hits.append([said(found, name, n)["hit"] for name in ("reduced", "accuracy") for n in (0, 1)])
    assert hits == [[False] * 4, [True] * 4, [True, False] * 2]


@pytest.mark.usefixtures("mlflow_server")
def test_a_model_is_reused_while_mlflow_has_it(run, said, xcom_table):
    from airflow_ml_provider.hooks.mlflow import MlflowHook

    def dag() -> DAG:
        with DAG("cached_training", schedule=None) as dag:

            @ml.cached
            @task.train(experiment="cached_training", requirements=["scikit-learn"])
            def fit(data, depth=1):
                from sklearn.tree import DecisionTreeRegressor

                return DecisionTreeRegressor(max_depth=depth).fit(data[["n"]], data["n"])

            fit(raw())
        return dag

    first = run(dag())
    second = run(dag())
    assert said(second, "fit")["hit"] is True
    model = xcom_table(first, "fit")
    assert xcom_table(second, "fit") == model
    client = MlflowHook().client
    experiment = client.get_experiment_by_name("cached_training").experiment_id
    assert len(client.search_runs([experiment])) == 1

    client.delete_logged_model(model["model_id"])
    third = run(dag())
    assert said(third, "fit")["hit"] is False
    assert "is gone" in said(third, "fit")["why"]
    assert xcom_table(third, "fit")["model_id"] != model["model_id"]
