# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime

import pytest
from airflow.sdk import Asset

from airflow_ml_provider.assets.assets import ArtifactAsset, ModelAsset
from airflow_ml_provider.exceptions import NoBaselineError, StaleEvaluationError
from airflow_ml_provider.operators.promote import PromoteModelOperator, check_evaluation
from airflow_ml_provider.operators.register import RegisterModelOperator
from airflow_ml_provider.tracking.gates import MetricGate
from airflow_ml_provider.tracking.ledger import AliasMove
from airflow_ml_provider.tracking.models import ModelRef
from airflow_ml_provider.tracking.moves import Standing

GATES = [MetricGate("roc_auc", at_least=0.6)]
OPTIONS = {"task_id": "promote", "model": "models:/m-1", "registered_model_name": "flight_delay"}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"gates": GATES}, "gates need the evaluation"),
        ({"evaluation": {"metrics": {}}}, "decides nothing without gates"),
        ({"gates": GATES[0], "evaluation": {}}, "gates must be a list of MetricGate"),
        ({"gates": ["roc_auc"], "evaluation": {}}, "gates must be a list of MetricGate"),
        ({"bootstrap": "yes"}, "bootstrap must be True or False"),
        ({"move_in_backfill": 1}, "move_in_backfill must be True or False"),
        ({"alias": "latest"}, "reserved by MLflow"),
        ({"registered_model_name": "a/b"}, "must not contain '/'"),
        ({"outlets": [ModelAsset("other")]}, "announces a move that this task does not make"),
        ({"outlets": [ModelAsset("flight_delay", "shadow")]}, "announces a move"),
    ],
)
def test_wrong_options_are_refused_when_the_dag_is_parsed(options, error):
    with pytest.raises((TypeError, ValueError), match=error):
        PromoteModelOperator(**{**OPTIONS, **options})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gates": GATES, "evaluation": {"metrics": {}}},
        {"outlets": [ModelAsset("flight_delay"), ArtifactAsset("report"), Asset("x")]},
        {"registered_model_name": "{{ params.name }}", "outlets": [ModelAsset("flight_delay")]},
        {"alias": "{{ params.alias }}", "outlets": [ModelAsset("flight_delay", "shadow")]},
    ],
)
def test_options_that_make_sense_are_taken(options):
    PromoteModelOperator(**{**OPTIONS, **options})


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a@b"])
def test_registering_under_an_impossible_name_is_refused_when_the_dag_is_parsed(name):
    with pytest.raises(ValueError, match="registered_model_name"):
        RegisterModelOperator(task_id="register", model="models:/m-1", registered_model_name=name)


def test_an_evaluation_of_another_model_is_refused():
    ref = ModelRef("models:/m-1", model_id="m-1")
    with pytest.raises(ValueError, match="judged the model 'm-2', but 'm-1'"):
        check_evaluation({"metrics": {}, "model_id": "m-2"}, ref)
    assert check_evaluation({"metrics": {}, "model_id": "m-1"}, ref) is not None


@pytest.mark.parametrize("value", ["models:/m-1", {"roc_auc": 0.7}, {"metrics": None}, [1]])
def test_what_is_no_evaluation_is_refused(value):
    with pytest.raises(TypeError, match="what an evaluation task returned"):
        check_evaluation(value, ModelRef("models:/m-1"))


@pytest.mark.parametrize(
    ("as_of", "hint"),
    [
        (None, "Clear the evaluation task to compare with that"),
        ("2013-05-01T00:00:00+00:00", "run the backfill forwards .* counts from 2013-06-01"),
    ],
)
def test_what_to_do_about_a_stale_evaluation_depends_on_whether_it_looked_back(monkeypatch, as_of, hint):
    june = datetime(2013, 6, 1, tzinfo=UTC)
    move = AliasMove("flight_delay", "champion", "2", None, june, june)
    evaluation = {
        "baseline_uri": "models:/flight_delay@champion",
        "baseline_version": None,
        "as_of": as_of,
    }
    task = PromoteModelOperator(**OPTIONS)
    monkeypatch.setattr(task, "resolve", lambda uri: ModelRef(uri, model_id="m-2"))
    with pytest.raises(StaleEvaluationError, match=f"compared with nothing, .* version 2 by now.*{hint}"):
        task._refuse_stale(evaluation, Standing("2", 0, move), ModelRef("models:/m-1", model_id="m-1"))


@pytest.mark.parametrize("baseline", [None, "models:/flight_delay@candidate"])
def test_bootstrap_opens_no_gate_where_there_is_a_champion_to_compare_with(monkeypatch, baseline):
    evaluation = {"baseline_uri": baseline, "baseline_version": None, "baseline_metrics": None}
    gates = [MetricGate("roc_auc", gain_over_baseline=0.0)]
    task = PromoteModelOperator(**OPTIONS, evaluation=evaluation, gates=gates, bootstrap=True)
    monkeypatch.setattr(task, "resolve", lambda uri: ModelRef(uri, model_id="m-2"))
    with pytest.raises(NoBaselineError, match=r"points at version 2, .*baseline='models:/flight_delay@ch"):
        task._refuse_stale(evaluation, Standing("2"), ModelRef("models:/m-1", model_id="m-1"))
    task._refuse_stale(evaluation, Standing(None), ModelRef("models:/m-1", model_id="m-1"))
    task._refuse_stale(evaluation, Standing("2"), ModelRef("models:/m-2", model_id="m-2"))


class FakeTaskInstance:
    def __init__(self, task):
        self.task = task


def test_a_rejection_silences_only_the_asset_of_its_alias_and_only_this_attempt():
    champion, report = ModelAsset("flight_delay"), ArtifactAsset("report")
    decayed = Asset(name="mirror", uri="mlflow://flight_delay/shadow")
    task = PromoteModelOperator(**OPTIONS, outlets=[champion, report, decayed])
    running = task.prepare_for_execution()
    running._silence({"ti": FakeTaskInstance(running)})
    assert running.outlets == [report, decayed]
    assert task.outlets == [champion, report, decayed]
