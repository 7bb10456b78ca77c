# SPDX-License-Identifier: Apache-2.0
"""
Run many mapped trainings in one DAG run, on a real Airflow and one MLflow server.

It checks that MLflow holds one run for each instance and one parent that shows the best, counts the requests
in the server's access log, and prints what it found. It takes about 2 seconds an instance on two free cores::

    python -m benchmarks.mapped_trainings --count 200
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from demo.airflow_api import FINISHED
from demo.cluster import LocalCluster

DAG_ID = "mapped_trainings"
_REQUEST = re.compile(r'"([A-Z]+) /(?:ajax-)?api/\d\.\d/(mlflow\S*?)(?:\?\S*)? HTTP')
_ID = re.compile(r"/(?:m-)?[0-9a-f]{32}\b")


class WrongResultError(RuntimeError):
    """MLflow does not hold what the DAG run made."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mapped_trainings", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="instances; default %(default)s")
    parser.add_argument("--parallelism", type=int, default=4, help="at the same time; default %(default)s")
    parser.add_argument("--folder", type=Path, help="where the cluster lives; default a temporary folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="mapped-trainings-") as scratch:
        folder = options.folder or Path(scratch) / "cluster"
        with LocalCluster(folder, ROOT / "benchmarks" / "dags", parallelism=options.parallelism) as cluster:
            cluster.wait_for_dags((DAG_ID,))
            cluster.airflow.unpause(DAG_ID)
            before = requests_in(cluster.logs / "mlflow.log")
            began = time.monotonic()
            run(cluster, options.count)
            seconds = time.monotonic() - began
            counted = requests_in(cluster.logs / "mlflow.log") - before
            best = check(cluster, options.count)
    print(f"{options.count} trainings in {seconds:.0f} s, {options.parallelism} at the same time")
    print(f"one MLflow run each, one parent, which shows the best: map index {best}")
    print(f"requests to MLflow: {counted.total()}, {counted.total() / options.count:.1f} an instance")
    for request, number in counted.most_common():
        print(f"  {number / options.count:6.2f}  {request}")
    return 0


def run(cluster: LocalCluster, count: int) -> None:
    run_id = cluster.airflow.trigger(DAG_ID, conf={"count": count})
    while (state := cluster.airflow.dag_run(DAG_ID, run_id)["state"]) not in FINISHED:
        cluster.check()
        done = cluster.airflow.request(
            "GET",
            f"/dags/{DAG_ID}/dagRuns/{run_id}/taskInstances",
            params={"state": "success", "limit": 1},
        )
        print(f"\r{done['total_entries']} tasks done ", end="", file=sys.stderr, flush=True)
        time.sleep(5)
    print(file=sys.stderr)
    if state != "success":
        raise WrongResultError(f"the DAG run ended as {state}; see {cluster.logs}")


def check(cluster: LocalCluster, count: int) -> int:
    """Raise unless there is one run for each instance, below one parent that shows the best of them."""
    from airflow_ml_provider.tracking.client import connect
    from airflow_ml_provider.tracking.parents import BEST_RUN_TAG, FOLDER_TAG, PARENT_TAG

    client: Any = connect(cluster.mlflow_url)
    experiment = client.get_experiment_by_name(DAG_ID).experiment_id
    found = list(client.search_runs([experiment], max_results=50_000))
    parents = [each for each in found if FOLDER_TAG in each.data.tags]
    children = {
        int(each.data.tags["airflow.map_index"]): each for each in found if FOLDER_TAG not in each.data.tags
    }
    wrong = [
        (len(parents) == 1, f"{len(parents)} parents"),
        (sorted(children) == list(range(count)), f"{len(children)} of {count} instances have a run"),
        (len(found) == count + 1, f"{len(found)} runs"),
        ({each.info.status for each in found} == {"FINISHED"}, "runs that are not FINISHED"),
        ({each.data.tags.get(PARENT_TAG) for each in children.values()} == {parents[0].info.run_id},
         "runs elsewhere than below the parent"),
        (len(models_in(client, experiment)) == count, "models"),
    ]  # fmt: skip
    if problems := [text for good, text in wrong if not good]:
        raise WrongResultError("; ".join(problems))
    best = max(children, key=lambda index: children[index].data.metrics["score"])
    shown = parents[0].data.tags[BEST_RUN_TAG], parents[0].data.metrics["score"]
    if shown != (children[best].info.run_id, children[best].data.metrics["score"]):
        raise WrongResultError(f"the parent shows {shown}, the best is map index {best}")
    return best


def models_in(client: Any, experiment: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_logged_models([experiment], max_results=50, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return found


def requests_in(log: Path) -> Counter[str]:
    """Count the requests to MLflow's API by method and path."""
    matches = map(_REQUEST.search, log.read_text(errors="replace").splitlines())
    return Counter(f"{found[1]} {_ID.sub('/<id>', found[2])}" for found in matches if found)


if __name__ == "__main__":
    sys.exit(main())
