# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_ml_provider.exceptions import ModelWaitError
from airflow_ml_provider.sensors import ModelVersionSensor
from airflow_ml_provider.sensors import model_version as module
from airflow_ml_provider.tracking.models import ModelRef

FOUND = ModelRef("models:/flight_delay/2", version="2", registered_model_name="flight_delay")


@pytest.fixture
def there(monkeypatch):
    """What the registry has; and a connection that nobody calls."""
    found: list[ModelRef | None] = []
    hook = SimpleNamespace(client=object(), tracking_uri="http://mlflow", mlflow_conn_id="mlflow_default")
    monkeypatch.setattr(module, "find_version", lambda client, wanted: found.pop(0))
    monkeypatch.setattr(ModelVersionSensor, "_hook", lambda self: hook)
    monkeypatch.setattr(module, "to_xcom", lambda ref: ref)
    return found


def sensor(**options):
    return ModelVersionSensor(task_id="wait", registered_model_name="flight_delay", **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"registered_model_name": "a/b"}, "must not contain"),
        ({"alias": "latest"}, "reserved by MLflow"),
        ({"min_version": 0}, "from 1"),
        ({"metrics": {"roc_auc": "high"}}, "must be a number"),
    ],
)
def test_wrong_options_are_refused_when_the_dag_is_parsed(options, error):
    with pytest.raises(ValueError, match=error):
        ModelVersionSensor(**{"task_id": "wait", "registered_model_name": "flight_delay", **options})


def test_templates_are_taken_as_they_are():
    ModelVersionSensor(
        task_id="wait", registered_model_name="{{ params.name }}", alias="{{ params.alias }}", deferrable=True
    )


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_version_that_is_there_is_returned_at_once(there, deferrable):
    there.append(FOUND)
    found = sensor(deferrable=deferrable).execute({})
    assert (found.version, found.mlflow_conn_id) == ("2", "mlflow_default")


def test_a_version_that_is_not_there_is_waited_for_in_the_triggerer(there):
    there.append(None)
    with pytest.raises(TaskDeferred) as deferred:
        sensor(min_version=2, deferrable=True, poke_interval=7, timeout=60).execute({})
    assert deferred.value.method_name == "execute_complete"
    assert deferred.value.timeout.total_seconds() == 60
    _, kwargs = deferred.value.trigger.serialize()
    assert kwargs["wanted"]["min_version"] == 2
    assert kwargs["poll_interval"] == 7


def test_what_the_trigger_found_is_returned_and_what_it_met_fails_the_task(there):
    waiting = sensor(deferrable=True)
    found = waiting.execute_complete({}, {"status": "found", "model": FOUND.to_json()})
    assert found.version == "2"
    with pytest.raises(ModelWaitError, match="no access"):
        waiting.execute_complete({}, {"status": "failed", "message": "no access"})
