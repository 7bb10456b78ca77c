# SPDX-License-Identifier: Apache-2.0
"""Backfills by a real scheduler: by interval and by partition, forwards, backwards and again."""

from __future__ import annotations

import subprocess
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import pytest

from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.settings import derive_key
from airflow_ml_provider.tracking.client import connect
from airflow_ml_provider.tracking.flavors import log_model
from airflow_ml_provider.tracking.identity import TaskIdentity
from airflow_ml_provider.tracking.ledger import AliasMove, Ledger
from airflow_ml_provider.tracking.moves import make_move, where
from airflow_ml_provider.tracking.registry import register_version
from airflow_ml_provider.tracking.runs import task_run
from demo.airflow_api import FINISHED, Json
from demo.cluster import airflow_command
from demo.errors import ApiError
from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e

NAME = "e2e_days"
DAYS, PARTITIONS = "e2e_days", "e2e_partitions"


def may(day: int) -> datetime:
    return datetime(2013, 5, day, tzinfo=UTC)


# Version: the day from which it counts, when it was made by the wall clock, what it learned from ends.
VERSIONS = {"1": (may(1), may(2), may(1)), "2": (may(14), may(30), may(1)), "3": (may(15), may(31), may(20))}


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Any:
    return connect(cluster.mlflow_url)


@pytest.fixture(scope="module")
def ledger(cluster: Cluster, client: Any) -> Ledger:
    """Three champions that followed each other, and a table that has a version for each day."""
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    store = ArtifactStore(cluster.artifacts.as_uri(), signing_key=derive_key(cluster.fernet_key.encode()))
    rows = pd.DataFrame({"a": np.linspace(-1, 1, 60)}).assign(late=lambda data: data["a"] > 0)
    for day in range(10, 18):
        store.save(rows.tail(20 + day), "e2e_days/rows", effective_at=may(day))
    for name, shift in (("before", 0.0), ("after", 5.0)):
        drawn = np.random.default_rng(1).normal(shift, size=(300, 2))
        store.save(pd.DataFrame(drawn, columns=["x", "y"]), f"e2e_days/{name}", effective_at=may(1))

    found = Ledger(ObjectStore(cluster.artifacts.as_uri()))
    for version, (since, recorded_at, until) in VERSIONS.items():
        with task_run(client, experiment="made", identity=TaskIdentity("made", version, "fit")) as run:
            model = LogisticRegression().fit(rows[["a"]], rows["late"].astype("int64"))
            ref = log_model(model, run=run, X_sample=rows[["a"]], requirements=["scikit-learn"])
        tags = {"airflow.data_until": until.isoformat(), "airflow.effective_at": since.isoformat()}
        assert register_version(client, ref, NAME, tags) == version
        standing = where(client, found, NAME, "champion")
        move = AliasMove(NAME, "champion", version, None, since, recorded_at, actor={"dag_id": "made"})
        make_move(client, found, move, standing)
    return found


def ask(cluster: Cluster, dag_id: str, first: int, last: int, reprocess: str, *, backwards: bool) -> None:
    """
    Ask for a backfill: to process what is complete again by the command line, else by REST.

    While the DAG is paused, and again where SQLite was locked: see ``demo.story.Story.backfill``.
    """
    by = by_command if reprocess == "completed" else by_rest
    cluster.airflow.pause(dag_id)
    for _ in range(10):
        if by(cluster, dag_id, may(first).isoformat(), may(last).isoformat(), reprocess, backwards):
            break
        close(cluster, dag_id)
    else:
        raise AssertionError(f"no backfill of {dag_id} could be made")
    cluster.airflow.unpause(dag_id)


def by_command(cluster: Cluster, dag_id: str, first: str, last: str, reprocess: str, backwards: bool) -> bool:
    command = airflow_command("backfill", "create", "--dag-id", dag_id, "--from-date", first)
    command += ["--to-date", last, "--max-active-runs", "3", "--reprocess-behavior", reprocess]
    command += ["--run-backwards"] if backwards else []
    asked = subprocess.run(
        command, env=cluster.environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert asked.returncode == 0 or "locked" in asked.stderr + asked.stdout, asked.stderr[-2000:]
    return asked.returncode == 0


def by_rest(cluster: Cluster, dag_id: str, first: str, last: str, reprocess: str, backwards: bool) -> bool:
    body = {
        "dag_id": dag_id,
        "from_date": first,
        "to_date": last,
        "max_active_runs": 3,
        "reprocess_behavior": reprocess,
        "run_backwards": backwards,
    }
    try:
        cluster.airflow.request("POST", "/backfills", json=body)
    except ApiError as exc:
        if exc.status != HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        return False
    return True


def close(cluster: Cluster, dag_id: str) -> None:
    """End backfills whose runs are over; the scheduler looks only every 30 seconds."""
    for row in cluster.airflow.request("GET", "/backfills", params={"dag_id": dag_id})["backfills"]:
        if row["completed_at"] is None:
            try:
                cluster.airflow.request("PUT", f"/backfills/{row['id']}/cancel")
            except ApiError as exc:
                if exc.status != HTTPStatus.CONFLICT:  # the scheduler was faster
                    raise


def backfill(
    cluster: Cluster, reprocess: str, *, days: tuple[int, int], partitions: tuple[int, int], backwards: str
) -> None:
    """Backfill both DAGs at the same time and wait for the end; ``backwards`` is one of them."""
    for dag_id, (first, last) in ((DAYS, days), (PARTITIONS, partitions)):
        ask(cluster, dag_id, first, last, reprocess, backwards=backwards == dag_id)
    for dag_id in (DAYS, PARTITIONS):
        while not over(cluster, dag_id):
            cluster.check()
            time.sleep(1)
        close(cluster, dag_id)


def over(cluster: Cluster, dag_id: str) -> bool:
    try:
        runs = cluster.airflow.dag_runs(dag_id, run_type="backfill")
    except ApiError as exc:
        if exc.status is None:  # a busy machine answers late
            return False
        raise
    return all(run["state"] in FINISHED for run in runs)


def latest_runs(cluster: Cluster, dag_id: str) -> dict[int, Json]:
    """Return the run of each day; of several of one partition the one that was made last."""
    runs = sorted(cluster.airflow.dag_runs(dag_id), key=lambda run: run["queued_at"])
    assert {run["run_type"] for run in runs} == {"backfill"}
    return {int((run["partition_key"] or run["data_interval_start"])[8:10]): run for run in runs}


def states(cluster: Cluster, dag_id: str) -> dict[int, str]:
    return {day: run["state"] for day, run in sorted(latest_runs(cluster, dag_id).items())}


def judged(cluster: Cluster, dag_id: str) -> dict[int, str]:
    """Which version each day was judged with."""
    found = {}
    for day, run in latest_runs(cluster, dag_id).items():
        if run["state"] == "success":
            found[day] = cluster.airflow.xcom(dag_id, run["dag_run_id"], "judge")["version"]
    return found


def records(client: Any, experiment: str, task_id: str) -> dict[str, Any]:
    """The evaluation records of a task in MLflow, by slice; two of one slice are an error."""
    found = client.get_experiment_by_name(experiment)
    wanted = f"tags.`airflow.role` = 'evaluation' AND tags.`airflow.task_id` = '{task_id}'"
    runs = client.search_runs([found.experiment_id], wanted, max_results=100)
    by_slice = {run.data.tags["airflow.slice"]: run for run in runs}
    assert len(by_slice) == len(runs)
    return by_slice


def attempts(found: dict[str, Any]) -> dict[str, str]:
    return {each: run.data.tags["airflow.attempt_id"] for each, run in found.items()}


@pytest.mark.timeout(1500)  # a minute or two on a quiet machine
def test_backfilled_evaluations_are_of_their_time_and_updated_never_doubled(
    cluster: Cluster, client: Any, ledger: Ledger
) -> None:
    cluster.wait_for_dags((DAYS, PARTITIONS))
    days, partitions = (12, 14), (13, 15)
    backfill(cluster, "none", days=days, partitions=partitions, backwards=PARTITIONS)
    # A day's data end where the next begins, a partition speaks for its own date. Version 3 learned from
    # days to come.
    assert states(cluster, DAYS) == {12: "success", 13: "success", 14: "failed"}
    assert states(cluster, PARTITIONS) == {13: "success", 14: "success", 15: "failed"}
    assert judged(cluster, DAYS) == {12: "1", 13: "2"}
    assert judged(cluster, PARTITIONS) == {13: "1", 14: "2"}
    slices = {
        DAYS: [f"2013-05-{day}T00:00:00+00:00" for day in (13, 14, 15)],
        PARTITIONS: [f"2013-05-{day}" for day in (13, 14, 15)],
    }
    first = {dag_id: records(client, dag_id, "judge") for dag_id in slices}
    for dag_id, expected in slices.items():
        assert sorted(first[dag_id]) == expected
        statuses = [first[dag_id][slice_].info.status for slice_ in expected]
        assert statuses == ["FINISHED", "FINISHED", "FAILED"]
        leaking = latest_runs(cluster, dag_id)[max(states(cluster, dag_id))]
        task = cluster.airflow.task_instance(dag_id, leaking["dag_run_id"], "judge")
        (line,) = [text for text in cluster.airflow.task_log(task) if "LeakageError: leakage" in text]
        assert "version 3 of 'e2e_days' learned from data up to 2013-05-20" in line

        # The same model, allowed by name, beside what was serving by the wall clock, on the rows of the day.
        allowed = cluster.airflow.xcom(dag_id, leaking["dag_run_id"], "allowed")
        assert (allowed["version"], allowed["baseline_version"], len(allowed["leakage"])) == ("3", "1", 1)
        assert allowed["rows"] == 20 + 15
        assert allowed["clock"] == "wall"

    # Its training says better where its data ended: what failed is made again, the rest is left alone.
    client.set_model_version_tag(NAME, "3", "airflow.data_until", may(1).isoformat())
    backfill(cluster, "failed", days=days, partitions=partitions, backwards=DAYS)
    assert judged(cluster, DAYS) == {12: "1", 13: "2", 14: "3"}
    assert judged(cluster, PARTITIONS) == {13: "1", 14: "2", 15: "3"}
    again = {dag_id: records(client, dag_id, "judge") for dag_id in slices}
    for dag_id, expected in slices.items():
        assert [again[dag_id][each].info.run_id for each in expected] == [
            first[dag_id][each].info.run_id for each in expected
        ]
        assert {run.info.status for run in again[dag_id].values()} == {"FINISHED"}
        before, after = attempts(first[dag_id]), attempts(again[dag_id])
        assert [before[each] == after[each] for each in expected] == [True, True, False]

    backfill(cluster, "none", days=days, partitions=partitions, backwards="")
    backfill(cluster, "completed", days=(12, 13), partitions=(13, 14), backwards=DAYS)
    assert judged(cluster, DAYS) == {12: "1", 13: "2", 14: "3"}
    assert judged(cluster, PARTITIONS) == {13: "1", 14: "2", 15: "3"}
    for dag_id, expected in slices.items():
        final = records(client, dag_id, "judge")
        assert {each: run.info.run_id for each, run in final.items()} == {
            each: run.info.run_id for each, run in first[dag_id].items()
        }
        before, after = attempts(again[dag_id]), attempts(final)
        assert [before[each] == after[each] for each in expected] == [False, False, True]
        beside = records(client, dag_id, "allowed")
        assert sorted(beside) == expected
        assert {run.data.tags["evaluation.leakage"] for run in beside.values()} == {""}  # it leaks no more
        assert {run.info.status for run in beside.values()} == {"FINISHED"}
    # Airflow clears the run of an interval, and makes another run of a partition.
    assert len(cluster.airflow.dag_runs(DAYS)) == 3
    assert len(cluster.airflow.dag_runs(PARTITIONS)) == 6

    nothing_moved_but_what_was_told_to(cluster, client, ledger)


def nothing_moved_but_what_was_told_to(cluster: Cluster, client: Any, ledger: Ledger) -> None:
    assert [move.version for move in ledger.history(NAME, "champion")] == ["3", "2", "1"]
    assert client.get_model_version_by_alias(NAME, "champion").version == "3"
    for run in cluster.airflow.dag_runs(DAYS):
        said = cluster.airflow.xcoms(DAYS, run["dag_run_id"])
        assert (said["promote"]["promoted"], said["roll_back"]["rolled_back"]) == (False, False)
        assert "move_in_backfill=True" in " ".join(said["promote"]["reasons"] + said["roll_back"]["reasons"])
        assert said["drift"]["drifted"] is True
        assert said["told_to"]["promoted"] is True
    assert len(ledger.history(NAME, "shadow")) == 1
    assert client.get_model_version_by_alias(NAME, "shadow").version == "1"
    events = cluster.airflow.asset_events(source_dag_id=DAYS)
    assert {event["source_task_id"] for event in events} == {"told_to"}
    assert {event["extra"]["sequence"] for event in events} == {0}
    assert cluster.airflow.asset_events(source_dag_id=PARTITIONS) == []
