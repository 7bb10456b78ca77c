# SPDX-License-Identifier: Apache-2.0
"""Tracked tasks that are killed, time out, lose their worker or wait in the triggerer; and a sweep."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import dag, task

from airflow_ml_provider import ml
from airflow_ml_provider.operators import SweepRunsOperator

START = datetime(2026, 1, 1, tzinfo=UTC)


def wait_for_the_end(dag_run: Any, name: str) -> None:
    """Tell the test the process to kill."""
    (Path(dag_run.conf["folder"]) / name).write_text(f"{os.getpid()}\n")
    time.sleep(600)


@dag(schedule=None, start_date=START)
def e2e_tracked() -> None:
    @ml.tracked
    @task(retries=1, retry_delay=timedelta(seconds=1))
    def killed(depth: int = 3, ti: Any = None, dag_run: Any = None) -> None:
        import mlflow

        mlflow.log_metric("tries", ti.try_number)
        if ti.try_number == 1:
            wait_for_the_end(dag_run, "killed")

    @ml.tracked
    @task
    def lost(dag_run: Any = None) -> None:
        wait_for_the_end(dag_run, "lost")

    @ml.tracked
    @task(execution_timeout=timedelta(seconds=12))
    def slow() -> None:
        time.sleep(600)

    lost()
    killed()
    slow()
    # Some seconds: Airflow may fail a task that is resumed before the end of its first process was noticed.
    soon = "{{ (macros.datetime.utcnow() + macros.timedelta(seconds=8)).isoformat() }}"
    ml.tracked(DateTimeSensorAsync(task_id="waits", target_time=soon))


@dag(schedule=None, start_date=START)
def e2e_sweep() -> None:
    SweepRunsOperator(task_id="sweep", experiments=["e2e_tracked"], older_than=0)


e2e_tracked()
e2e_sweep()
