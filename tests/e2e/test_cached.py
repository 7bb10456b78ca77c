# SPDX-License-Identifier: Apache-2.0
"""Cached tasks under a real scheduler: reused in the next run, computed again when they are cleared."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from demo.airflow_api import FINISHED
from demo.cluster import airflow_command

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e

DAG = "e2e_cached"
TASKS = ("features", "flaky", "in_a_virtualenv", "in_another_python")


def test_the_next_run_reuses_everything_and_says_so_and_a_clear_computes_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.wait_for_dags([DAG])
    cluster.airflow.unpause(DAG)

    def computed() -> dict[str, int]:
        return {path.name: len(path.read_text().splitlines()) for path in tmp_path.iterdir()}

    def said(run_id: str) -> dict[str, Any]:
        found = {task: cluster.airflow.xcom(DAG, run_id, task, "cache") for task in TASKS}
        found |= {f"total[{index}]": mapped(run_id, index, "cache") for index in (0, 1)}
        return found

    def mapped(run_id: str, index: int, key: str) -> Any:
        path = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/total/xcomEntries/{key}"
        return cluster.airflow.request("GET", path, params={"map_index": index})["value"]

    def results(run_id: str) -> dict[str, Any]:
        found = {task: cluster.airflow.xcom(DAG, run_id, task) for task in TASKS}
        return {**found, "total": [mapped(run_id, index, "return_value") for index in (0, 1)]}

    def finish(run_id: str) -> None:
        # Two of the tasks make an environment first.
        cluster.eventually(lambda: cluster.airflow.dag_run(DAG, run_id)["state"] in FINISHED, timeout=400)
        cluster.finish(DAG, run_id)

    first = cluster.airflow.trigger(DAG, conf={"folder": str(tmp_path)})
    finish(first)
    assert computed() == {"features": 1, "total-1": 1, "total-2": 1, "flaky": 2}
    assert {name: about["hit"] for name, about in said(first).items()} == dict.fromkeys(said(first), False)
    there = results(first)
    assert there["total"] == [499500, 999000]
    assert there["in_a_virtualenv"][0] == there["in_another_python"][0] == 1000

    second = cluster.airflow.trigger(DAG, conf={"folder": str(tmp_path)})
    finish(second)
    assert computed() == {"features": 1, "total-1": 1, "total-2": 1, "flaky": 2}
    about = said(second)
    assert {
        name: (each["hit"], each["reused_from"]["run_id"]) for name, each in about.items()
    } == dict.fromkeys(about, (True, first))
    assert about["flaky"]["reused_from"]["try_number"] == 2
    assert results(second) == there
    assert cluster.airflow.task_instance(DAG, second, "flaky")["try_number"] == 1
    link = cluster.airflow.extra_links(DAG, second, "features")["Reused from"]
    assert link is not None
    assert f"/dags/{DAG}/runs/{first}/tasks/features" in link.replace("%3A", ":").replace("%2B", "+")

    cluster.airflow.clear(DAG, second)
    finish(second)
    assert computed() == {"features": 2, "total-1": 2, "total-2": 2, "flaky": 3}
    about = said(second)
    assert {each["why"] for each in about.values()} == {"the task was cleared, so it computes again"}
    again = results(second)
    assert again["in_a_virtualenv"][2] != there["in_a_virtualenv"][2]
    assert cluster.airflow.extra_links(DAG, second, "features").get("Reused from") is None

    command = airflow_command("ml", "cache", "explain", DAG, "features", "--output", "json")
    shown = subprocess.run(
        command, env=cluster.environment(), capture_output=True, text=True, timeout=180, check=True
    )
    explained = json.loads(shown.stdout)
    assert (explained["compared"], explained["differences"]) == ("now", [])
    assert explained["last"]["producer"]["run_id"] == second
    assert {(run["run_id"], run["try_number"], run["hit"]) for run in explained["runs"]} == {
        (first, 1, False),
        (second, 1, True),
        (second, 2, False),
    }
    assert explained["entry"]["artifacts"] == ["e2e_cached_features"]
