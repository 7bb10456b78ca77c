# SPDX-License-Identifier: Apache-2.0
"""A training under a real scheduler: killed, retried where it was, failed for good, and cleared."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_ml_provider.artifacts import keys

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e

DAG = "e2e_checkpointed"


def test_a_killed_training_goes_on_where_it_was_and_a_cleared_one_begins_anew(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.wait_for_dags([DAG])
    cluster.airflow.unpause(DAG)
    run_id = cluster.airflow.trigger(DAG, conf={"folder": str(tmp_path)})
    pid_file = tmp_path / "pid"
    pid = int(cluster.eventually(lambda: pid_file.exists() and pid_file.read_text().strip(), timeout=240))

    os.kill(pid, signal.SIGKILL)

    def task() -> Any:
        return cluster.airflow.task_instance(DAG, run_id, "train")

    # The second attempt goes on, and fails at once although there are tries left: so says the policy.
    cluster.eventually(lambda: task()["state"] == "failed", timeout=240)
    assert task()["try_number"] == 2
    assert (tmp_path / "began.1").read_text() == "0"
    assert (tmp_path / "began.2").read_text() == "4"
    assert len(checkpoints(cluster)) == 2
    # What the killed attempt had read is known, and that it was killed. Records follow the task's state.
    told = [("killed", [f"{DAG}.seeds"]), ("failed", [f"{DAG}.seeds"])]
    cluster.eventually(
        lambda: [(each["outcome"], read_by(each)) for each in records(cluster, run_id)] == told
    )

    cluster.eventually(lambda: cluster.airflow.dag_run(DAG, run_id)["state"] == "failed", timeout=240)
    cluster.airflow.clear(DAG, run_id)
    cluster.finish(DAG, run_id)
    assert task()["try_number"] == 3
    assert cluster.airflow.xcom(DAG, run_id, "train") == [0, 36, 36]
    # They are cleared after the success is known.
    cluster.eventually(lambda: not checkpoints(cluster))


def records(cluster: Cluster, run_id: str) -> list[Any]:
    folder = cluster.artifacts / keys.record_key(DAG, run_id, "train", -1, 1)
    return [json.loads(path.read_text()) for path in sorted(folder.parent.iterdir())]


def read_by(record: Any) -> list[str]:
    return [use["name"] for use in record["reads"]]


def checkpoints(cluster: Cluster) -> list[Path]:
    return list((cluster.artifacts / "versions").glob(f"checkpoints=2F{DAG}*/*.json"))
