# SPDX-License-Identifier: Apache-2.0
"""What ``@ml.tracked`` takes and refuses when a DAG is parsed."""

from __future__ import annotations

import pytest
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, task

from airflow_ml_provider import ml
from airflow_ml_provider.decorators import cached, stacking
from airflow_ml_provider.decorators.tracked import TrackLayer, inputs_of
from airflow_ml_provider.links.mlflow import MlflowRunLink
from airflow_ml_provider.operators import TrainModelOperator
from airflow_ml_provider.operators.surroundings import redacted


def work(depth: int = 3, password: str = "x", data=None, ti=None):  # noqa: S107 - a test's own
    return depth


def layers(operator):
    return stacking.layers_of(type(operator))


@pytest.mark.parametrize(
    "make",
    [
        ml.tracked(task(work)),
        ml.tracked(experiment="e")(task(work)).override(retries=2),
        ml.tracked(task.virtualenv(work)),
        ml.tracked(task.bash(work)),
        ml.tracked(task.kubernetes(image="i")(work)),
        lambda: ml.tracked(BashOperator(task_id="b", bash_command="true")),
        lambda: ml.tracked(PythonOperator(task_id="p", python_callable=work)),
    ],
)
def test_it_stacks_on_every_kind_of_task(make):
    with DAG("d", schedule=None):
        made = make()
    operator = getattr(made, "operator", made)
    (layer,) = layers(operator)
    assert isinstance(layer, TrackLayer)
    assert any(isinstance(link, MlflowRunLink) for link in operator.operator_extra_links)


def test_mapped_tasks_keep_it():
    with DAG("d", schedule=None):
        mapped = ml.tracked(task(work)).partial(password="y").expand(depth=[1, 2])
        classic = ml.tracked(BashOperator.partial(task_id="b")).expand(bash_command=["true"])
    for operator in (mapped.operator, classic):
        assert len(stacking.layers_of(operator.operator_class)) == 1


def test_a_task_that_has_a_run_is_refused():
    with DAG("d", schedule=None):
        with pytest.raises(TypeError, match="talks to MLflow itself"):
            ml.tracked(task.train(work))
        with pytest.raises(TypeError, match="talks to MLflow itself"):
            ml.tracked(ml.cached(ignore=["ti"])(TrainModelOperator(task_id="t", python_callable=work)))
        with pytest.raises(TypeError, match="has one @ml"):
            ml.tracked(ml.cached(ml.tracked(task(lambda: 1))))
        with pytest.raises(TypeError, match="write it above @task"):
            ml.tracked(work)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experiment": ""}, "experiment is a text"),
        ({"run_name": 3}, "run_name is a text"),
        ({"tags": "team"}, "tags is a dict"),
        ({"autolog": ["sklearnn"]}, "'sklearnn'"),
        ({"autolog": 3}, "autolog must be"),
        ({"best": "profit"}, "'max'"),
        ({"kubernetes_secret": "s"}, "pod of their own"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with DAG("d", schedule=None), pytest.raises((TypeError, ValueError), match=message):
        ml.tracked(**options)(task(work))


def test_autologging_is_refused_where_it_cannot_reach():
    with DAG("d", schedule=None), pytest.raises(ValueError, match="does not reach into a shell"):
        ml.tracked(autolog=True)(task.bash(work))


def test_a_function_that_runs_elsewhere_leaves_our_decorators_here_and_takes_autologging_along():
    mine = ml.tracked(autolog=["sklearn"], experiment="e")
    with DAG("d", schedule=None):

        @mine
        @task.external_python(python="/usr/bin/python3")
        def there(depth: int = 3):
            return depth

        operator = there().operator
    source = operator.get_python_source()
    assert "@" not in source
    first = source.index("_ml_mlflow.start_run()")
    assert first < source.index("'mlflow.sklearn'") < source.index("def there(")
    compile(source, "script.py", "exec")


def test_params_are_the_functions_scalars_and_secrets_do_not_show():
    with DAG("d", schedule=None):
        operator = PythonOperator(
            task_id="p", python_callable=work, op_args=[5], op_kwargs={"data": {"rows": 3, "frame": object()}}
        )
        bare = BashOperator(task_id="b", bash_command="echo $PASSWORD")
    scalars, refs = inputs_of(operator)
    assert scalars == {"depth": 5, "password": "x", "data.rows": 3}
    assert redacted(scalars) == {"depth": 5, "password": "***", "data.rows": 3}
    assert refs == []
    assert inputs_of(bare) == ({}, [])


def test_keywords_that_the_function_does_not_take_are_left_out_as_airflow_does():
    with DAG("d", schedule=None):
        some = PythonOperator(task_id="p", python_callable=work, op_args=[5], op_kwargs={"unused": 1})
        every = PythonOperator(task_id="q", python_callable=lambda **given: 1, op_kwargs={"used": 1})
    assert inputs_of(some)[0] == {"depth": 5, "password": "x", "data": None}
    assert inputs_of(every)[0] == {"used": 1}
    context = {"ti": None}
    assert dict(cached._arguments(work, some, context)) == {"depth": 5, "ti": None}
    assert dict(cached._arguments(every.python_callable, every, context)) == {"used": 1}


def test_layers_hear_of_a_kill_and_the_operator_does_too():
    heard = []

    class Killed(BashOperator):
        def on_kill(self):
            heard.append("operator")

    with DAG("d", schedule=None):
        operator = ml.tracked(Killed(task_id="b", bash_command="true"))

    class Run:
        def kill(self):
            heard.append("run")

    operator.__dict__["_ml_tracked_run"] = Run()
    operator.on_kill()
    assert heard == ["run", "operator"]
