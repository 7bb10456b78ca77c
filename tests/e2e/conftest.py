# SPDX-License-Identifier: Apache-2.0
"""One real Airflow and one real MLflow for all end-to-end tests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.airflow_api import FINISHED, Json
from demo.cluster import LocalCluster
from demo.story import task_failed

DAGS = Path(__file__).parent / "dags"


class Cluster(LocalCluster):
    """A cluster and what tests ask it again and again."""

    told_openlineage: Path

    def eventually(self, what: Callable[[], Any], timeout: float = 90.0) -> Any:
        """Wait until ``what`` returns something true, and return that."""
        deadline = time.monotonic() + timeout
        while not (found := what()):
            self.check()
            assert time.monotonic() < deadline, f"waited {timeout} s in vain"
            time.sleep(0.4)  # each question costs the api-server about 30 ms of a processor
        return found

    def finish(self, dag_id: str, run_id: str) -> Json:
        """Wait for the end of a run and return it; a failed one fails the test with the task's log."""
        run: Json = self.eventually(
            lambda: (r := self.airflow.dag_run(dag_id, run_id))["state"] in FINISHED and r
        )
        for task in self.airflow.task_instances(dag_id, run_id, states=("failed",)):
            raise task_failed(self, task)
        assert run["state"] == "success"
        return run

    def openlineage_events(self, *dag_ids: str) -> list[Json]:
        """Return what the tasks of DAGs told OpenLineage, in the order in which they did."""
        files = sorted(self.told_openlineage.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        events: list[Json] = [json.loads(path.read_text()) for path in files]
        return [each for each in events if each["job"]["name"].partition(".")[0] in dag_ids]

    def mlflow(self, method: str, path: str, **options: Any) -> Any:
        """Ask MLflow's REST API."""
        url = f"{self.mlflow_url}/api/2.0/mlflow/{path}"
        answer = httpx.request(method, url, trust_env=False, timeout=30, **options)
        answer.raise_for_status()
        return answer.json()

    def mlflow_runs(self, experiment: str) -> list[Json]:
        """Return the runs of an experiment, the latest first; none if it does not exist yet."""
        try:
            found = self.mlflow("GET", "experiments/get-by-name", params={"experiment_name": experiment})
        except httpx.HTTPStatusError as exc:
            if exc.response.status_code == httpx.codes.NOT_FOUND:
                return []
            raise
        ids = [found["experiment"]["experiment_id"]]
        runs: list[Json] = self.mlflow("POST", "runs/search", json={"experiment_ids": ids}).get("runs", [])
        return runs


@pytest.fixture(scope="package")  # not longer: an Airflow costs processor time that later tests want
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # One file an event: several tasks write at a time.
    told = tmp_path_factory.mktemp("openlineage")
    transport = {"type": "file", "log_file_path": str(told / "event"), "append": False}
    openlineage = {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__OPENLINEAGE__EXECUTION_TIMEOUT": "120",
    }
    it = Cluster(tmp_path_factory.mktemp("e2e") / "cluster", DAGS, environment=openlineage)
    it.told_openlineage = told
    with it:
        it.wait_for_dags(("e2e_training", "e2e_scoring", "e2e_killed"))
        yield it
