# SPDX-License-Identifier: Apache-2.0
"""Aliases that are moved by hand, seen by watchers in a real triggerer that is killed meanwhile."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

import psutil
import pytest

from demo.cluster import airflow_command
from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e


def make_model(cluster: Cluster, name: str, versions: int = 4) -> None:
    cluster.mlflow("POST", "registered-models/create", json={"name": name})
    for _ in range(versions):
        cluster.mlflow("POST", "model-versions/create", json={"name": name, "source": "s3://nowhere/model"})


def move(cluster: Cluster, name: str, version: int) -> None:
    body = {"name": name, "alias": "champion", "version": str(version)}
    cluster.mlflow("POST", "registered-models/alias", json=body)


def asked(cluster: Cluster, query: str, name: str) -> list[Any]:
    """Ask Airflow's database about the asset of an alias, and read JSON."""
    with contextlib.closing(sqlite3.connect(cluster.home / "airflow.db", timeout=30)) as database:
        rows = database.execute(query, [f"mlflow://{name}/champion"]).fetchall()
    return [json.loads(row[0]) for row in rows]


def announced(cluster: Cluster, name: str) -> list[str]:
    """Return the versions in the events of an alias's asset, the oldest first."""
    # Not by REST: it answers 500 while a run that an event started has no start date yet.
    query = (
        "select e.extra from asset_event e join asset a on a.id = e.asset_id where a.uri = ? order by e.id"
    )
    return [extra.get("payload", extra)["version"] for extra in asked(cluster, query, name)]


def watermark(cluster: Cluster, name: str) -> Any:
    """Return how far the moves of an alias were announced."""
    query = "select s.value from asset_state_store s join asset a on a.id = s.asset_id where a.uri = ?"
    return next(iter(asked(cluster, query, name)), None)


def kill_triggerer(cluster: Cluster) -> None:
    triggerer = psutil.Process(cluster.pids["triggerer"])
    for process in [triggerer, *triggerer.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    while "triggerer" not in cluster._exits:
        with cluster._changed:
            cluster._changed.wait(0.2)
    del cluster._exits["triggerer"]


def start_triggerer(cluster: Cluster) -> None:
    command = airflow_command("triggerer", "--skip-serve-logs")
    cluster._start("triggerer", command, cluster.environment())


def test_each_move_by_hand_is_one_event_even_if_the_triggerer_was_dead_meanwhile(cluster: Cluster) -> None:
    cluster.wait_for_dags(("e2e_watched", "e2e_watched_too"))
    for name in ("e2e_watched", "e2e_watched_too"):
        make_model(cluster, name)
        cluster.airflow.unpause(name)
    both = ("e2e_watched", "e2e_watched_too")
    # The triggerer makes its own Execution API at the first question; that takes a while on a busy machine.
    cluster.eventually(lambda: all(watermark(cluster, name) for name in both), timeout=240)

    move(cluster, "e2e_watched", 1)
    cluster.eventually(lambda: announced(cluster, "e2e_watched") == ["1"], timeout=180)
    assert announced(cluster, "e2e_watched_too") == []
    cluster.eventually(lambda: (watermark(cluster, "e2e_watched") or {}).get("version") == "1")

    kill_triggerer(cluster)
    move(cluster, "e2e_watched", 3)
    move(cluster, "e2e_watched_too", 2)
    start_triggerer(cluster)
    cluster.eventually(lambda: announced(cluster, "e2e_watched") == ["1", "3"], timeout=180)
    cluster.eventually(lambda: announced(cluster, "e2e_watched_too") == ["2"], timeout=180)

    # Killed before this, it would announce them again: the window that the guide names.
    stored = {"e2e_watched": "3", "e2e_watched_too": "2"}
    cluster.eventually(
        lambda: {name: (watermark(cluster, name) or {}).get("version") for name in stored} == stored
    )
    kill_triggerer(cluster)
    start_triggerer(cluster)
    move(cluster, "e2e_watched_too", 1)
    cluster.eventually(lambda: announced(cluster, "e2e_watched_too") == ["2", "1"], timeout=180)
    assert announced(cluster, "e2e_watched") == ["1", "3"]

    runs = cluster.eventually(lambda: len(runs := cluster.airflow.dag_runs("e2e_watched")) == 2 and runs)
    for run in runs:
        cluster.finish("e2e_watched", run["dag_run_id"])
    seen = [cluster.airflow.xcom("e2e_watched", run["dag_run_id"], "versions") for run in runs]
    assert seen == [["1"], ["3"]]
