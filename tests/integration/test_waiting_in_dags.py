# SPDX-License-Identifier: Apache-2.0
"""The sensor example under a real Airflow and a real MLflow server: it waits in a trigger, then goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

DAGS = Path(__file__).resolve().parents[2] / "dags"


@pytest.fixture
def waiting(airflow_db: Path, artifact_root: Path, mlflow_server: str) -> Any:
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    bag = DagBag(dag_folder=DAGS / "iris_waiting.py", bundle_path=DAGS, load_op_links=False)
    sync_bag_to_db(bag, "dags-folder", None)
    dag = bag.dags["iris_waiting"]
    task = dag.get_task("wait_for_champion")
    task.poke_interval, task.registered_model_name = 0.5, "iris_waited_for"
    return dag


def test_a_task_goes_on_when_the_champion_is_there(waiting, mlflow_server, xcom_table, monkeypatch):
    from airflow_ml_provider.tracking.client import connect
    from airflow_ml_provider.triggers import model_version

    client = connect(mlflow_server)
    client.create_registered_model("iris_waited_for")
    client.create_model_version("iris_waited_for", "s3://nowhere/model")
    looked = []

    def look(*args):
        """Look as the trigger does, and set the alias after its first look."""
        looked.append(find(*args))
        if len(looked) == 1:
            client.set_registered_model_alias("iris_waited_for", "champion", "1")
        return looked[-1]

    find = model_version.find_version
    monkeypatch.setattr(model_version, "find_version", look)
    run = waiting.test()
    assert run.state == "success"
    assert [found and found.version for found in looked] == [None, "1"]
    assert xcom_table(run, "name_it") == "models:/iris_waited_for/1"
