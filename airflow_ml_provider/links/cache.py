# SPDX-License-Identifier: Apache-2.0
"""The button that leads from a reused result to the task instance that computed it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_ml_provider.links.mlflow import KeptLink

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.refs import Producer


class ReusedFromLink(KeptLink):
    """
    Leads to the task instance whose result a cached task reused.

    .. versionadded:: 0.1.0
    """

    name = "Reused from"


def task_instance_url(producer: Producer) -> str:
    """Return the page of a task instance in Airflow's UI."""
    from airflow.sdk.configuration import conf

    base = conf.get("api", "base_url", fallback="http://localhost:8080/").rstrip("/")
    mapped = f"/mapped/{producer.map_index}" if producer.map_index >= 0 else ""
    dag, run, task = (quote(part, safe="") for part in (producer.dag_id, producer.run_id, producer.task_id))
    return f"{base}/dags/{dag}/runs/{run}/tasks/{task}{mapped}?try_number={producer.try_number}"
