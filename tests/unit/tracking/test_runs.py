# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from types import SimpleNamespace

import mlflow
import pytest

from airflow_ml_provider.exceptions import MlflowUnavailableError, TrackingError
from airflow_ml_provider.tracking import runs as module
from airflow_ml_provider.tracking.identity import TaskIdentity
from airflow_ml_provider.tracking.runs import current_run, find_run, task_run


@pytest.fixture
def opened(client, name):
    """Opens the run of one task instance in an experiment of the test's own."""

    def run(try_number: int = 1, map_index: int = -1, task_id: str = "fit", **options):
        identity = TaskIdentity("d", "it's r1", task_id, map_index=map_index, try_number=try_number)
        return task_run(client, experiment=name, identity=identity, **options)

    return run


@pytest.fixture
def runs(client, name):
    """All runs of the test's experiment."""
    return lambda: client.search_runs([client.get_experiment_by_name(name).experiment_id])


def ends_with(context, error=None):
    with context as run:
        if error is not None:
            raise error
    return run


class AirflowSkipException(Exception):  # noqa: N818 - Airflow's name
    """Stands for Airflow's, which this floor knows by name."""


class TaskDeferred(BaseException):
    """Stands for Airflow's."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (ValueError("no"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(1), "KILLED"),
        (AirflowSkipException(), "FINISHED"),
        (TaskDeferred(), "SCHEDULED"),
    ],
)
def test_the_status_of_the_run_is_the_tasks(client, opened, runs, error, status):
    if error is None:
        ends_with(opened())
    else:
        with pytest.raises(type(error)):
            ends_with(opened(), error)
    (run,) = runs()
    assert run.info.status == status
    assert mlflow.active_run() is None
    assert (run.data.tags.get("airflow.state") == "skipped") is isinstance(error, AirflowSkipException)


def test_a_skip_stays_a_skip_where_mlflow_is_away(opened, monkeypatch, caplog):
    def away(*_):
        raise MlflowUnavailableError("no answer")

    monkeypatch.setattr(module.TaskRun, "set_tags", away)
    with pytest.raises(AirflowSkipException):
        ends_with(opened(), AirflowSkipException())
    assert "does not say that its task was skipped" in caplog.text


def test_parents_are_not_told_where_mlflow_did_not_even_take_the_end(opened, monkeypatch):
    """Each request to a server that hangs takes minutes, and the task is done."""
    told = []

    class Watchdog:
        def dismiss(self, line="done", *, wait=True):
            told.append(line)
            return True

    def away(*_, **__):
        mlflow.tracking.fluent._active_run_stack.get().clear()
        raise MlflowUnavailableError("no answer")

    monkeypatch.setattr(module, "start_guard", lambda **_: Watchdog())
    monkeypatch.setattr(module, "settle", lambda *_, **__: told.append("parents"))
    monkeypatch.setattr(module, "_leave", away)
    ends_with(opened(map_index=1))
    assert told == ["end FINISHED"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), None])
def test_a_retry_resumes_the_run_of_the_try_before(client, opened, runs, error):
    try:
        with opened() as first:
            first.log_params({"max_depth": 6})
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    with opened(try_number=2) as second:
        assert second.resumed
        assert client.get_run(second.run_id).info.status == "RUNNING"
        assert client.get_run(second.run_id).data.tags["airflow.try_number"] == "2"
        second.log_params({"max_depth": 6, "more": "x"})
    assert second.run_id == first.run_id
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.data.params == {"max_depth": "6", "more": "x"}


def test_a_run_left_running_by_a_killed_task_is_resumed(client, opened, runs):
    context = opened()
    first = context.__enter__()
    mlflow.tracking.fluent._active_run_stack.get().clear()  # the process is gone, its run is not
    second = ends_with(opened(try_number=2))
    assert second.run_id == first.run_id
    assert [run.info.status for run in runs()] == ["FINISHED"]
    context.__exit__(None, None, None)


def test_the_run_is_the_active_one_and_in_the_experiment(client, opened, name):
    with opened(tags={"team": "delay"}, run_name="a name") as run:
        assert mlflow.active_run().info.run_id == run.run_id == current_run().run_id
        mlflow.log_metric("m", 1.0)
        with mlflow.start_run(nested=True) as child:
            pass
    assert mlflow.active_run() is None
    found = client.get_run(run.run_id)
    assert found.data.metrics == {"m": 1.0}
    assert found.data.tags["team"] == "delay"
    assert found.info.run_name == "a name"
    assert client.get_run(child.info.run_id).info.experiment_id == run.experiment_id
    with pytest.raises(TrackingError, match=r"no MLflow run is open"):
        current_run()


def test_runs_that_user_code_leaves_open_end_with_the_task(client, opened, runs):
    with pytest.raises(ValueError, match="no"), opened():  # noqa: PT012
        mlflow.start_run(nested=True)
        raise ValueError("no")
    assert [run.info.status for run in runs()] == ["FAILED", "FAILED"]


def test_user_code_that_ends_the_run_itself_does_not_hide_a_failure(client, opened, runs):
    with pytest.raises(ValueError, match="no"), opened():  # noqa: PT012
        mlflow.end_run()
        raise ValueError("no")
    assert [run.info.status for run in runs()] == ["FAILED"]


def test_a_run_that_was_open_before_stays_open(client, store_uri, opened, name):
    mlflow.set_tracking_uri(store_uri)
    try:
        with mlflow.start_run() as outer:
            with opened() as inner:
                mlflow.end_run()
            assert mlflow.active_run().info.run_id == outer.info.run_id != inner.run_id
    finally:
        mlflow.set_tracking_uri(None)


def test_params_are_recorded_whatever_the_keys_of_a_dict_are(client, opened):
    given = {
        "weights.on time (UTC)": 1,
        "weights.a<b": 2,
        "weights.a>b": 3,
        "weights.a//b": 4,
        **{"w." + "x" * 300 + end: 5 for end in "abc"},
    }
    for _ in range(2):  # a retry finds what it recorded
        with opened() as run:
            run.log_params(given)
        found = client.get_run(run.run_id).data
        assert found.params == {
            "weights.on time _UTC_": "1",
            "weights.a_b": "2",
            "weights.a_b_2": "3",
            "weights.a__b": "4",
            **{"w." + "x" * 240 + end: "5" for end in ("x" * 8, "_2", "_3")},
        }
        assert "airflow.supersedes" not in found.tags


def test_other_params_than_before_begin_a_new_run(client, opened, runs):
    with opened() as first:
        first.log_params({"max_depth": 6})
        first.log_metrics({"m": 1.0})
    ended = client.get_run(first.run_id).info.end_time
    with opened(try_number=2) as second:
        second.set_tags({"early": "yes"})
        second.log_params({"max_depth": 7})
        assert mlflow.active_run().info.run_id == second.run_id != first.run_id
        mlflow.log_metric("m", 2.0)
    old, new = client.get_run(first.run_id), client.get_run(second.run_id)
    assert old.data.params == {"max_depth": "6"}
    assert old.data.metrics == {"m": 1.0}
    assert (old.info.status, old.info.end_time) == ("FINISHED", ended)
    assert old.data.tags["airflow.superseded_by"] == second.run_id
    assert "airflow.key" not in old.data.tags
    assert new.data.params == {"max_depth": "7"}
    assert new.data.tags["airflow.supersedes"] == first.run_id
    assert new.data.tags["early"] == "yes"
    assert ends_with(opened(try_number=3)).run_id == second.run_id
    assert len(runs()) == 2


def test_other_code_than_before_begins_a_new_run(client, opened):
    first = ends_with(opened(fingerprint="a"))
    assert ends_with(opened(try_number=2, fingerprint="a")).run_id == first.run_id
    third = ends_with(opened(try_number=3, fingerprint="b"))
    assert third.run_id != first.run_id
    assert client.get_run(first.run_id).data.tags["airflow.fingerprint"] == "a"
    assert client.get_run(third.run_id).data.tags["airflow.fingerprint"] == "b"
    assert client.get_run(first.run_id).info.status == "FINISHED"


def test_mapped_instances_are_children_of_one_parent_that_is_never_left_running(client, opened, runs):
    made = [ends_with(opened(map_index=index)) for index in range(3)]
    assert len({run.run_id for run in made}) == 3
    parents = {client.get_run(run.run_id).data.tags["mlflow.parentRunId"] for run in made}
    assert len(parents) == 1
    parent = client.get_run(parents.pop())
    assert parent.info.status == "FINISHED"
    assert "airflow.map_index" not in parent.data.tags
    assert len(runs()) == 4


def test_of_two_parents_made_at_once_the_earliest_is_kept(client, opened, runs, monkeypatch):
    first = ends_with(opened(map_index=0))
    real = type(client).__getattr__
    hidden = iter([True])

    def late(self, called):
        found = real(self, called)
        # The first search of the second instance ran before the first instance made the parent.
        return (lambda *a, **k: []) if called == "search_runs" and next(hidden, False) else found

    monkeypatch.setattr(type(client), "__getattr__", late)
    second = ends_with(opened(map_index=1))
    parents = {client.get_run(run.run_id).data.tags["mlflow.parentRunId"] for run in (first, second)}
    assert len(parents) == 1
    assert len(runs()) == 3


def test_a_key_of_ones_own_finds_the_run_from_another_task_instance(client, opened):
    first = ends_with(opened(key="evaluation 2013-06"))
    assert ends_with(opened(task_id="other", key="evaluation 2013-06")).run_id == first.run_id
    assert find_run(client, first.experiment_id, "nothing") is None


def test_a_deleted_experiment_is_reported_and_not_restored(client, opened, name):
    client.delete_experiment(client.create_experiment(name))
    with pytest.raises(TrackingError, match="is deleted; restore it"):
        ends_with(opened())


def test_kill_makes_the_end_killed_also_when_the_task_goes_on(client, opened, runs):
    with opened() as run:
        run.kill()
    assert [run.info.status for run in runs()] == ["KILLED"]


def test_a_store_without_http_has_no_watchdog(opened):
    with opened() as run:
        assert run._guard is None


def test_a_forked_child_does_not_close_the_run(client, opened):
    with opened() as run:
        if (child := os.fork()) == 0:
            try:
                mlflow.tracking.fluent._active_run_stack.get()
                os._exit(0)
            finally:
                os._exit(1)
        os.waitpid(child, 0)
        assert client.get_run(run.run_id).info.status == "RUNNING"


def test_inputs_are_artifacts_that_nobody_loads(client, opened):
    ref = SimpleNamespace(
        name="flight_features",
        version_id="v1",
        digest="blake3:" + "ab" * 32,
        type="pandas.DataFrame",
        schema={"columns": [{"name": "dep_delay", "type": "float64"}], "rows": 27_000},
        uri="ml-artifact://flight_features?version=v1",
    )
    for try_number in (1, 2):
        with opened(try_number=try_number) as run:
            run.log_inputs([ref])
    (logged,) = client.get_run(run.run_id).inputs.dataset_inputs
    assert logged.dataset.name == "flight_features"
    assert logged.dataset.digest == ("ab" * 32)[:36]
    assert logged.dataset.source_type == "ml-artifact"
    assert "ml-artifact://flight_features?version=v1" in logged.dataset.source
    assert '"type": "double"' in logged.dataset.schema
    assert "27000" in logged.dataset.profile
    assert {tag.key: tag.value for tag in logged.tags} == {"mlflow.data.context": "training"}


def test_a_frame_that_is_no_artifact_is_described_by_its_content(client, opened):
    import pandas as pd

    with opened() as run:
        run.log_inputs([pd.DataFrame({"a": [1, 2]})], context="evaluation")
    (logged,) = client.get_run(run.run_id).inputs.dataset_inputs
    assert '"type": "long"' in logged.dataset.schema
    assert '"num_rows": 2' in logged.dataset.profile
    with opened(try_number=2) as run, pytest.raises(TypeError, match="list"):
        run.log_inputs([[1, 2]])
