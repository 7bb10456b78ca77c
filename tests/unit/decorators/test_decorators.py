# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.definitions.mappedoperator import MappedOperator

from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.decorators.evaluate import evaluate_task
from airflow_ml_provider.decorators.train import train_task
from airflow_ml_provider.operators.train import TrainModelOperator


def fit(data, max_depth: int = 6):
    """Fit."""


def rows(day=None): ...


@pytest.fixture
def dag():
    with DAG("decorated", schedule=None) as dag:
        yield dag


def test_a_bare_decorator_makes_a_training_task(dag):
    result = train_task(fit)({"a": 1})
    operator = result.operator
    assert isinstance(operator, TrainModelOperator)
    assert (operator.task_id, operator.experiment, operator.autolog) == ("fit", None, False)
    assert operator.custom_operator_name == "@task.train"


def test_a_called_decorator_takes_options_of_operator_and_task(dag):
    operator = train_task(experiment="flights", autolog=True, retries=2)(fit)({"a": 1}, max_depth=3).operator
    assert (operator.experiment, operator.autolog, operator.retries) == ("flights", True, 2)


def test_options_can_be_overridden_for_one_use(dag):
    decorated = train_task(experiment="flights")(fit)
    assert decorated.override(task_id="deep", experiment="deep")({"a": 1}).operator.experiment == "deep"
    assert decorated({"a": 1}).operator.experiment == "flights"


def test_training_can_be_mapped(dag):
    operator = train_task(experiment="flights")(fit).partial(data={"a": 1}).expand(max_depth=[1, 2]).operator
    assert isinstance(operator, MappedOperator)
    assert operator.operator_class.ml_lazy_artifacts


def test_an_unknown_option_is_refused_when_the_dag_is_parsed(dag):
    with pytest.raises(TypeError, match="experimnt"):
        train_task(experimnt="flights")(fit)({"a": 1})


def test_an_unknown_argument_is_refused_when_the_dag_is_parsed(dag):
    with pytest.raises(TypeError, match="depth"):
        train_task(fit)({"a": 1}, depth=2)


@pytest.mark.parametrize("decorate", [train_task, evaluate_task])
def test_multiple_outputs_does_not_apply(decorate):
    with pytest.raises(ValueError, match="multiple_outputs does not apply"):
        decorate(multiple_outputs=True)


def test_an_evaluation_takes_its_model_from_upstream(dag):
    model = train_task(fit)({"a": 1})
    judged = evaluate_task(model=model, target="late", baseline="models:/m@champion")(rows)(day="2013-05-14")
    assert judged.operator.upstream_task_ids == {"fit"}
    assert judged.operator.ml_lazy_artifacts


def test_an_evaluation_without_a_target_is_refused_when_the_dag_is_parsed(dag):
    with pytest.raises(TypeError, match="target"):
        evaluate_task(model="models:/m/1")(rows)()


def test_evaluations_can_be_mapped_and_overridden(dag):
    decorated = evaluate_task(model="models:/m/1", target="late")(rows)
    assert isinstance(decorated.expand(day=["2013-05-14"]).operator, MappedOperator)
    assert decorated.override(target="delay")().operator.target == "delay"


def test_airflow_knows_both_decorators_by_name(dag):
    @task.train(experiment="flights")
    def train(data: ArtifactRef): ...

    @task.evaluate(model="models:/m/1", target="late")
    def judge(): ...

    assert train({"a": 1}).operator.task_id == "train"
    assert judge().operator.task_id == "judge"
