# SPDX-License-Identifier: Apache-2.0
"""A training that the test kills in its first attempt, that fails in its second, and that is cleared then."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import dag, task

from airflow_ml_provider import ml
from airflow_ml_provider.exceptions import BadDataError

STEPS = 8


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))
def e2e_checkpointed() -> None:
    @task
    def seeds() -> Any:
        import numpy as np

        return np.arange(3.0)

    # A wait as long as the policy's would fail the test: it is not for what was killed.
    @task(retries=3, retry_delay=timedelta(seconds=1), retry_policy=ml.retry_policy(delay=3600))
    def train(seeds: Any, ti: Any = None, dag_run: Any = None) -> list[int]:
        import numpy as np

        checkpoint = ml.checkpoint()
        state = checkpoint.load({"step": 0, "sums": np.zeros(2)})
        began = state["step"]
        notes = Path(dag_run.conf["folder"])
        (notes / f"began.{ti.try_number}").write_text(str(began))
        while state["step"] < STEPS:
            step = state["step"] + 1
            state = {"step": step, "sums": state["sums"] + step}
            checkpoint.save(state, step=step)
            if ti.try_number == 1 and step == 4:
                (notes / "pid").write_text(f"{os.getpid()}\n")
                time.sleep(600)
            if ti.try_number == 2 and step == 6:
                raise BadDataError("no attempt gets through this")
        return [began, *map(int, state["sums"])]

    train(seeds())


e2e_checkpointed()
