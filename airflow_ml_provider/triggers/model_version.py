# SPDX-License-Identifier: Apache-2.0
"""Waiting in the triggerer for a version of a registered model."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_ml_provider.exceptions import MlflowUnavailableError
from airflow_ml_provider.tracking.waiting import Wanted, find_version
from airflow_ml_provider.triggers.poller import poller_for

log = logging.getLogger(__name__)


class ModelVersionTrigger(BaseTrigger):  # type: ignore[misc]
    """
    Fire once a registered model has a version as wanted; what ``ModelVersionSensor`` defers to.

    Tasks that wait for the same thing share its requests. A server that does not answer is asked again at
    the next poll; any other failure ends the wait, and the task with it.

    .. versionadded:: 0.1.0

    :param wanted: JSON of what the version must be like.
    :param mlflow_conn_id: Connection of the tracking server; by default ``[ml_provider] mlflow_conn_id``.
    :param poll_interval: Seconds between two looks.
    """

    def __init__(
        self, wanted: dict[str, Any], mlflow_conn_id: str | None = None, poll_interval: float = 60.0
    ) -> None:
        super().__init__()
        self.wanted = wanted
        self.mlflow_conn_id = mlflow_conn_id
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "airflow_ml_provider.triggers.model_version.ModelVersionTrigger",
            {
                "wanted": self.wanted,
                "mlflow_conn_id": self.mlflow_conn_id,
                "poll_interval": self.poll_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        wanted = Wanted(**self.wanted)
        question = ("version", json.dumps(self.wanted, sort_keys=True))
        while True:
            try:
                found = await poller_for(self.mlflow_conn_id).ask(
                    question, lambda client: find_version(client, wanted), max_age=self.poll_interval / 2
                )
            except MlflowUnavailableError as exc:
                log.warning(
                    "Looking for %s failed, next try in %s seconds: %s", wanted, self.poll_interval, exc
                )
            except Exception as exc:
                log.exception("Looking for %s failed", wanted)
                yield TriggerEvent({"status": "failed", "message": f"looking for {wanted} failed: {exc}"})
                return
            else:
                if found is not None:
                    yield TriggerEvent({"status": "found", "model": found.to_json()})
                    return
            await asyncio.sleep(self.poll_interval)
