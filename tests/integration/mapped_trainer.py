# SPDX-License-Identifier: Apache-2.0
"""
A worker that runs instances of a mapped training one after the other, for ``test_mapped_trainings.py``.

    python mapped_trainer.py <tracking uri> <experiment> <map index>...

It says ``ready``, waits for a line, and then prints ``<map index> <MLflow run>`` for each instance.
"""

from __future__ import annotations

import sys

from airflow_ml_provider.tracking.client import connect
from airflow_ml_provider.tracking.identity import TaskIdentity
from airflow_ml_provider.tracking.parents import Best
from airflow_ml_provider.tracking.runs import task_run


def main(uri: str, experiment: str, *indexes: str) -> None:
    import mlflow  # noqa: F401 - so that all begin at the same moment

    client = connect(uri)
    print("ready", flush=True)
    sys.stdin.readline()
    for index in map(int, indexes):
        identity = TaskIdentity("d", "r1", "fit", map_index=index)
        with task_run(client, experiment=experiment, identity=identity, best=Best("score", True)) as run:
            run.log_params({"depth": index})
            run.log_metrics({"score": score(index)})
        print(index, run.run_id, flush=True)


def score(index: int) -> float:
    """The best of many is neither the first nor the last."""
    return 1.0 - abs(index - 10) / 100


if __name__ == "__main__":
    main(*sys.argv[1:])
