# SPDX-License-Identifier: Apache-2.0
"""
Workers that run the instances of a mapped training at the same time, against a real MLflow server.

The whole of it, with a real scheduler and 200 instances, is ``python -m benchmarks.mapped_trainings``.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

from airflow_ml_provider.tracking.client import connect
from airflow_ml_provider.tracking.parents import BEST_RUN_TAG, FOLDER_TAG, PARENT_TAG
from benchmarks.bucket import CountingProxy
from tests.integration.mapped_trainer import score

WORKERS, EACH = 4, 4
SCRIPT = Path(__file__).with_name("mapped_trainer.py")
# An instance takes 13. One that is better than its siblings so far notes that in 3, and looks again, at most
# 5 times, where a sibling noted something meanwhile.
REQUESTS, NOTING = 13, 5 * 3
# Making the parent takes 3, giving way to a rival 3, and going where the others are 4.
PARENT = 3 + 3 + 4


def test_instances_that_run_at_once_share_a_parent_that_shows_the_best(mlflow_server: str) -> None:
    name = f"mapped-{uuid.uuid4().hex[:12]}"
    client = connect(mlflow_server)
    experiment = client.create_experiment(name)
    proxies = [CountingProxy(mlflow_server) for _ in range(WORKERS)]
    workers = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), proxy.url, name, *map(str, range(index, WORKERS * EACH, WORKERS))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index, proxy in enumerate(proxies)
    ]
    try:
        for worker in workers:
            assert worker.stdout
            assert worker.stdout.readline() == "ready\n"
        outputs = []
        for worker in workers:
            assert worker.stdin
            worker.stdin.write("go\n")
            worker.stdin.flush()
        outputs = [worker.communicate(timeout=300)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * WORKERS
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
        for proxy in proxies:
            proxy.close()

    told = dict(line.split() for output in outputs for line in output.splitlines())
    runs = client.search_runs([experiment], max_results=1000)
    (parent,) = [run for run in runs if FOLDER_TAG in run.data.tags]
    children = {run.data.tags["airflow.map_index"]: run for run in runs if run is not parent}
    assert {index: run.info.run_id for index, run in children.items()} == told
    assert sorted(map(int, told)) == list(range(WORKERS * EACH))
    assert len(runs) == WORKERS * EACH + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags[PARENT_TAG] for run in children.values()} == {parent.info.run_id}
    assert parent.data.tags[BEST_RUN_TAG] == told["10"]
    assert parent.data.metrics["score"] == score(10) == 1.0

    counted = [len(proxy.taken()) for proxy in proxies]
    print(f"requests for {EACH} instances, by worker: {counted}")
    assert min(counted) >= EACH * REQUESTS
    assert max(counted) <= EACH * (REQUESTS + NOTING) + PARENT
