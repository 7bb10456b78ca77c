# SPDX-License-Identifier: Apache-2.0
"""Addresses of MLflow's pages. Answers must not need MLflow, so a missing connection only means no links."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from airflow_ml_provider.settings import load_settings

if TYPE_CHECKING:
    from airflow_ml_provider.hooks.mlflow import MlflowHook

log = logging.getLogger(__name__)

# Connections may live in a secrets backend across a network.
_REMEMBERED_SECONDS = 60.0
_lock = threading.Lock()
_known: tuple[float, str, MlflowPages] | None = None


class MlflowPages:
    """
    The pages of one MLflow.

    :param hook: Its connection; None if there is none that can be read.
    """

    def __init__(self, hook: MlflowHook | None) -> None:
        self._hook = hook
        self.url = None if hook is None else hook.home_url()

    @property
    def configured(self) -> bool:
        return self._hook is not None

    def run(self, experiment_id: str | None, run_id: str | None) -> str | None:
        """The page of a run, where both ids are known."""
        if self._hook is None or not experiment_id or not run_id:
            return None
        return self._hook.run_url(str(experiment_id), str(run_id))

    def model(self, name: str | None, version: str | None = None) -> str | None:
        """The page of a registered model or of one version."""
        return None if self._hook is None or not name else self._hook.model_url(str(name), version)


def mlflow_pages() -> MlflowPages:
    """Return the pages of the deployment's MLflow, looked up once a minute."""
    global _known  # noqa: PLW0603
    conn_id = load_settings().mlflow_conn_id
    now = time.monotonic()
    with _lock:
        if _known is None or _known[1] != conn_id or now - _known[0] > _REMEMBERED_SECONDS:
            _known = (now, conn_id, MlflowPages(_hook(conn_id)))
        return _known[2]


def _hook(conn_id: str) -> MlflowHook | None:
    from airflow_ml_provider.hooks.mlflow import MlflowHook

    hook = MlflowHook(conn_id)
    try:
        hook.home_url()
    except Exception as exc:  # noqa: BLE001 - whatever a secrets backend raises, the pages do without links
        log.info("no links to MLflow: reading the connection %r failed: %s", conn_id, exc)
        return None
    return hook
