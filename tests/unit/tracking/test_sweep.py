# SPDX-License-Identifier: Apache-2.0
"""Which open runs are closed, as what, and which are left alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_ml_provider.tracking.identity import TaskIdentity
from airflow_ml_provider.tracking.parents import find_parents
from airflow_ml_provider.tracking.sweep import OpenRun, decide, sweep

NOW = timedelta(0)


def a_run(status="RUNNING"):
    return OpenRun("m", "0", status, datetime.now(UTC), "d", "r", "t", -1, "1", "a", None)


@pytest.mark.parametrize(
    ("status", "state", "becomes"),
    [
        ("RUNNING", "running", None),
        ("RUNNING", "restarting", None),
        ("RUNNING", "deferred", None),  # a pod goes on with the run while its task is deferred
        ("RUNNING", "queued", None),
        ("RUNNING", "scheduled", None),
        ("RUNNING", None, None),  # cleared: the next attempt goes on with it
        ("RUNNING", "up_for_retry", "KILLED"),
        ("RUNNING", "failed", "KILLED"),
        ("RUNNING", "removed", "KILLED"),
        ("RUNNING", "success", "FINISHED"),
        ("RUNNING", "skipped", "FINISHED"),
        ("SCHEDULED", "deferred", None),
        ("SCHEDULED", "awaiting_input", None),
        ("SCHEDULED", "up_for_reschedule", None),
        ("SCHEDULED", "up_for_retry", None),
        ("SCHEDULED", "failed", "FAILED"),
        ("SCHEDULED", "success", "FINISHED"),
    ],
)
def test_the_state_of_the_task_decides(status, state, becomes):
    assert decide(a_run(status), exists=True, state=state).becomes == becomes


def test_a_run_of_an_unknown_task_is_closed_only_where_asked():
    assert decide(a_run(), exists=False, state=None).becomes is None
    assert decide(a_run(), exists=False, state=None, close_unknown=True).becomes == "KILLED"


@pytest.fixture
def left_open(client, name):
    """Leaves a run as a lost worker does, and gives its id."""
    experiment = client.create_experiment(name)

    def leave(task_id, map_index=-1, dag_id="d", status="RUNNING"):
        identity = TaskIdentity(dag_id, "r1", task_id, map_index=map_index)
        tags = {**identity.tags(), "airflow.attempt_id": "one"}
        if parent := find_parents(client, experiment, identity, {}, group=False):
            tags["mlflow.parentRunId"] = parent
        run_id = client.create_run(experiment, tags=tags).info.run_id
        client.update_run(run_id, status=status)
        return run_id

    return leave


def test_a_sweep_closes_what_is_over_and_tells_the_parent(client, name, left_open):
    lost, alive, gone = left_open("fit", 0), left_open("fit", 1), left_open("fit", dag_id="other")
    waited = left_open("wait", status="SCHEDULED")
    client.create_run(client.get_experiment_by_name(name).experiment_id)  # no task's
    asked = []

    def states(dag_id, run_ids):
        asked.append((dag_id, run_ids))
        return {"r1": {"fit_0": "failed", "fit_1": "running", "wait": "success"}} if dag_id == "d" else {}

    def look(**options):
        found = sweep(client, states, experiments=[name], older_than=NOW, **options)
        return {each.run.mlflow_run_id: each for each in found}

    planned = look()
    assert {key: each.becomes for key, each in planned.items()} == {
        lost: "KILLED",
        alive: None,
        gone: None,
        waited: "FINISHED",
    }
    assert asked == [("d", ["r1"]), ("other", ["r1"])]
    assert client.get_run(lost).info.status == "RUNNING"

    done = look(close=True)
    assert [each.closed for each in done.values()].count(True) == 2
    closed = client.get_run(lost)
    assert (closed.info.status, closed.data.tags["airflow.closed_by"]) == ("KILLED", "sweep")
    assert closed.info.end_time is not None
    assert client.get_run(closed.data.tags["mlflow.parentRunId"]).info.status == "FAILED"
    assert client.get_run(waited).info.status == "FINISHED"
    assert client.get_run(alive).info.status == "RUNNING"
    assert set(look(close=True, close_unknown=True)) == {alive, gone}
    assert client.get_run(gone).info.status == "KILLED"


def test_a_run_that_another_try_took_up_meanwhile_is_left_alone(client, name, left_open):
    run_id = left_open("fit")

    def states(dag_id, run_ids):
        client.set_tag(run_id, "airflow.attempt_id", "two")
        return {"r1": {"fit": "up_for_retry"}}

    (finding,) = sweep(client, states, experiments=[name], older_than=NOW, close=True)
    assert (finding.closed, finding.becomes) == (False, None)
    assert client.get_run(run_id).info.status == "RUNNING"


def test_young_runs_are_left_alone_and_a_wrong_name_is_said(client, name, left_open):
    left_open("fit")
    assert sweep(client, lambda *_: pytest.fail("asked"), experiments=[name]) == []
    with pytest.raises(ValueError, match="no MLflow experiment 'nothing'"):
        sweep(client, lambda *_: {}, experiments=["nothing"])
