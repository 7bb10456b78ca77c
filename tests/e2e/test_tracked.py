# SPDX-License-Identifier: Apache-2.0
"""Runs of tracked tasks under a real scheduler: a kill, a retry, a timeout, a deferral, a lost worker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped, unused-ignore]
import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e

DAG, SWEEP = "e2e_tracked", "e2e_sweep"


def test_no_run_stays_open_whatever_happens_to_its_task(cluster: Cluster, tmp_path: Path) -> None:
    cluster.wait_for_dags([DAG, SWEEP])
    cluster.airflow.unpause(DAG)
    cluster.airflow.unpause(SWEEP)
    run_id = cluster.airflow.trigger(DAG, conf={"folder": str(tmp_path)})

    def runs() -> dict[str, Any]:
        found = {}
        for run in cluster.mlflow_runs(DAG):
            tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
            name = tags.get("airflow.task_id", "the DAG run")
            assert name not in found, f"two runs of {name}"
            metrics = {each["key"]: each["value"] for each in run["data"].get("metrics", ())}
            found[name] = {"status": run["info"]["status"], "tags": tags, "metrics": metrics}
        return found

    def process(name: str) -> psutil.Process:
        file = tmp_path / name
        pid = cluster.eventually(lambda: file.exists() and file.read_text().strip())
        return psutil.Process(int(pid))

    def state(task_id: str) -> str:
        return str(cluster.airflow.task_instance(DAG, run_id, task_id)["state"])

    # A machine that is lost takes the watchdog along.
    worker = process("lost")
    for child in worker.children():
        if any("watchdog.py" in part for part in child.cmdline()):
            child.kill()
    worker.kill()
    process("killed").kill()

    cluster.eventually(lambda: cluster.airflow.dag_run(DAG, run_id)["state"] == "failed")
    assert {task_id: state(task_id) for task_id in ("killed", "lost", "slow", "waits")} == {
        "killed": "success",
        "lost": "failed",
        "slow": "failed",
        "waits": "success",
    }
    found = cluster.eventually(lambda: (r := runs())["the DAG run"]["status"] == "FAILED" and r)
    assert {name: run["status"] for name, run in found.items()} == {
        "the DAG run": "FAILED",
        "killed": "FINISHED",
        "lost": "RUNNING",
        "slow": "KILLED",
        "waits": "FINISHED",
    }
    assert found["killed"]["tags"]["airflow.try_number"] == "2"
    assert found["killed"]["metrics"]["tries"] == 2

    swept = cluster.airflow.trigger(SWEEP)
    cluster.finish(SWEEP, swept)
    (told,) = cluster.airflow.xcom(SWEEP, swept, "sweep")
    assert (told["task_id"], told["outcome"]) == ("lost", "closed as KILLED")
    assert runs()["lost"]["status"] == "KILLED"
    assert runs()["lost"]["tags"]["airflow.closed_by"] == "sweep"
