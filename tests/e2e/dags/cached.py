# SPDX-License-Identifier: Apache-2.0
"""Cached tasks that note each time they compute: plain, mapped, retried, and in environments of their own."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from airflow.sdk import dag, task

from airflow_ml_provider import Artifact, ml


def note(params: Any, name: str) -> int:
    """Note a computation; return how many there are."""
    with (Path(params["folder"]) / name).open("a") as notes:
        notes.write("computed\n")
    return len((Path(params["folder"]) / name).read_text().splitlines())


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), params={"folder": ""})
def e2e_cached() -> None:
    # Where a task notes what it did is nothing that its result depends on.
    @ml.cached(ignore=["params"])
    @task
    def features(params: Any = None) -> Annotated[pd.DataFrame, Artifact("e2e_cached_features")]:
        note(params, "features")
        return pd.DataFrame({"n": range(1000)})

    @ml.cached(ignore=["params"])
    @task
    def total(data: pd.DataFrame, factor: int, params: Any = None) -> int:
        note(params, f"total-{factor}")
        return int(data["n"].sum()) * factor

    @ml.cached(ignore=["params"])
    @task(retries=1, retry_delay=timedelta(seconds=1))
    def flaky(params: Any = None) -> str:
        if note(params, "flaky") == 1:
            raise RuntimeError("the first computation fails")
        return "it worked"

    @ml.cached
    @task.virtualenv(system_site_packages=True)
    def in_a_virtualenv(rows: int) -> list[Any]:
        import os
        import sys

        # The second tells the environment, the third the computation.
        return [rows, sys.prefix, os.urandom(8).hex()]

    @ml.cached(ignore=["python"])
    @task.external_python(python=sys.executable)
    def in_another_python(data: Any) -> list[Any]:
        import os

        return [len(data), os.getpid()]

    found = features()
    total.partial(data=found).expand(factor=[1, 2])
    in_a_virtualenv(1000)
    in_another_python(found)
    flaky()


e2e_cached()
