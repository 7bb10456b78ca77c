# SPDX-License-Identifier: Apache-2.0
"""
The Airflow plugin of this package, found by the entry point ``airflow.plugins``.

Task processes and every other component load it at start, so it imports nothing heavy.
"""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.sdk.plugins_manager import AirflowPlugin

from airflow_ml_provider.listeners import task_listener
from airflow_ml_provider.plugins.webhooks import URL_PREFIX, LazyApp


class MLPlugin(AirflowPlugin):
    """
    Registers the listener that records what each attempt read and wrote, and the endpoint for MLflow's
    webhooks at ``/ml-provider``.

    The links of our operators need no entry here: Airflow finds them on the operators.

    .. versionadded:: 0.1.0
    """

    name = "airflow_ml_provider"
    listeners: ClassVar[list[Any]] = [task_listener]
    fastapi_apps: ClassVar[list[Any]] = [
        {"name": "airflow_ml_provider", "app": LazyApp(), "url_prefix": URL_PREFIX}
    ]
