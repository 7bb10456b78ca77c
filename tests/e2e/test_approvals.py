# SPDX-License-Identifier: Apache-2.0
"""People answer by the REST API what a promotion asks; a champion that nobody evaluates raises the alarm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from demo.airflow_api import FINISHED, Json
from tests.e2e.conftest import Cluster
from tests.e2e.test_watchers import announced

pytestmark = pytest.mark.e2e

DAG = "e2e_approved"


def question(cluster: Cluster, run_id: str, task_state: str = "awaiting_input") -> Json:
    """Wait until a promotion asks, and return what its page shows."""
    path = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/promote/-1/hitlDetails"

    def asked() -> Any:
        state = cluster.airflow.task_instance(DAG, run_id, "promote")["state"]
        if state in FINISHED:
            log = "\n".join(cluster.airflow.task_log(cluster.airflow.task_instance(DAG, run_id, "promote")))
            raise AssertionError(f"promote is {state} and asked nothing:\n{log}")
        if state != task_state:
            return None
        # An answer before the scheduler has heard that the asking process ended makes it fail the task.
        try_number = cluster.airflow.task_instance(DAG, run_id, "promote")["try_number"]
        ended = rf"Finished: .*task_id=promote, run_id={re.escape(run_id)},.* try_number={try_number},"
        if not re.search(ended, (cluster.logs / "scheduler.log").read_text(errors="replace")):
            return None
        return cluster.airflow.request("GET", path)

    return cluster.eventually(asked, timeout=400)  # type: ignore[no-any-return]


def answer(cluster: Cluster, run_id: str, option: str, comment: str) -> None:
    path = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/promote/-1/hitlDetails"
    body = {"chosen_options": [option], "params_input": {"comment": comment}}
    cluster.airflow.request("PATCH", path, json=body)


def promoted(cluster: Cluster, run_id: str) -> Json:
    cluster.finish(DAG, run_id)
    result: Json = cluster.airflow.xcom(DAG, run_id, "promote")
    return result


def champion(cluster: Cluster) -> str | None:
    found = cluster.mlflow("GET", "registered-models/get", params={"name": DAG})["registered_model"]
    return next((each["version"] for each in found.get("aliases", ()) if each["alias"] == "champion"), None)


def tags_of(thing: Json) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in thing.get("tags", ())}


def test_a_person_approves_or_rejects_and_an_unwatched_champion_raises_the_alarm(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.wait_for_dags((DAG, "e2e_freshness", "e2e_reminded"))
    for dag_id in (DAG, "e2e_freshness", "e2e_reminded"):
        cluster.airflow.unpause(dag_id)

    first = cluster.airflow.trigger(DAG, conf={"seed": 2})
    page = question(cluster, first)
    assert page["subject"] == "e2e_approved: make a new version the champion?"
    assert page["options"] == ["Approve", "Reject"]
    assert page["defaults"] == ["Reject"]
    assert "there was nothing to compare with" in page["body"]
    answer(cluster, first, "Approve", "the first | one")
    result = promoted(cluster, first)
    assert (result["promoted"], result["version"]) == (True, "1")
    assert champion(cluster) == "1"
    version = cluster.mlflow("GET", "model-versions/get", params={"name": DAG, "version": "1"})
    tags = tags_of(version["model_version"])
    assert tags["airflow.approval.champion"] == "approved"
    assert tags["airflow.approval.champion.by"] == result["approval"]["user_name"] == "Anonymous"
    assert tags["airflow.approval.champion.at"] == result["approval"]["answered_at"]
    assert tags["airflow.approval.champion.comment"] == "the first | one"

    # Three challengers at once, each beside version 1.
    no, yes, late = (cluster.airflow.trigger(DAG, conf={"seed": seed}) for seed in (3, 4, 5))
    for run_id in (no, yes, late):
        body = question(cluster, run_id)["body"]
        assert "| metric | champion, version 1 | challenger | change |  |" in body
        assert f"[version 1]({cluster.mlflow_url}/#/models/e2e_approved/versions/1)" in body

    answer(cluster, no, "Reject", "not on a Friday")
    rejected = promoted(cluster, no)
    assert (rejected["promoted"], rejected["version"]) == (False, None)
    assert "rejected by Anonymous" in rejected["reasons"][-1]
    run = cluster.mlflow("GET", "runs/get", params={"run_id": rejected["mlflow_run_id"]})["run"]
    tags = tags_of(run["data"])
    assert tags["airflow.promotion"] == "rejected"
    assert tags["airflow.approval.champion.comment"] == "not on a Friday"
    assert champion(cluster) == "1"

    # Cleared while it waits: it goes on waiting, with the same question.
    before = question(cluster, yes)
    body = {"dry_run": False, "task_ids": ["promote"], "dag_run_id": yes, "only_failed": False}
    cluster.airflow.request("POST", f"/dags/{DAG}/clearTaskInstances", json=body)
    cluster.eventually(lambda: cluster.airflow.task_instance(DAG, yes, "promote")["try_number"] == 2)
    again = question(cluster, yes)
    assert (again["body"], again["created_at"]) == (before["body"], before["created_at"])
    answer(cluster, yes, "Approve", "")
    assert promoted(cluster, yes)["version"] == "2"
    assert champion(cluster) == "2"

    # What was approved beside version 1 does not replace version 2.
    answer(cluster, late, "Approve", "")
    cluster.eventually(lambda: cluster.airflow.dag_run(DAG, late)["state"] == "failed", timeout=200)
    log = "\n".join(cluster.airflow.task_log(cluster.airflow.task_instance(DAG, late, "promote")))
    assert "points at version 2 by now" in log
    assert champion(cluster) == "2"
    assert announced(cluster, DAG) == ["1", "2"]

    told = tmp_path / "told"
    check = cluster.airflow.trigger("e2e_freshness", conf={"told": str(told)})
    cluster.eventually(
        lambda: cluster.airflow.dag_run("e2e_freshness", check)["state"] in FINISHED, timeout=300
    )
    states = {
        task["task_id"]: (task["state"], task["try_number"])
        for task in cluster.airflow.task_instances("e2e_freshness", check)
    }
    assert states == {"fresh": ("success", 1), "remind": ("success", 1), "alarm": ("failed", 1)}
    assert "e2e_approved@champion (version 2) was last evaluated at" in cluster.eventually(
        lambda: told.exists() and told.read_text()
    )
    (reminded,) = cluster.eventually(lambda: cluster.airflow.dag_runs("e2e_reminded"))
    cluster.finish("e2e_reminded", reminded["dag_run_id"])
    (extra,) = cluster.airflow.xcom("e2e_reminded", reminded["dag_run_id"], "why")
    assert (extra["fresh"], extra["version"]) == (False, "2")
