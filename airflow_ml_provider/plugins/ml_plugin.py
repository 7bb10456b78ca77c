# SPDX-License-Identifier: Apache-2.0
"""
The Airflow plugin of this package, found by the entry point ``airflow.plugins``.

Task processes and every other component load it at start, so it imports nothing heavy.
"""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.sdk.plugins_manager import AirflowPlugin

from airflow_ml_provider.listeners import openlineage, task_listener
from airflow_ml_provider.plugins.api.app import API_PREFIX, make_api
from airflow_ml_provider.plugins.lazy import LazyApp
from airflow_ml_provider.plugins.pages import STATIC_PREFIX, make_static_app, react_apps
from airflow_ml_provider.plugins.webhooks import URL_PREFIX, make_app


class MLPlugin(AirflowPlugin):
    """
    Registers the listener that records what each attempt read and wrote, the ML pages of the UI with the
    endpoints behind them, and the endpoint for MLflow's webhooks, all below ``/ml-provider``.

    The links of our operators need no entry here: Airflow finds them on the operators.

    .. versionadded:: 0.1.0
    """

    name = "airflow_ml_provider"
    listeners: ClassVar[list[Any]] = [openlineage, task_listener]
    # Airflow mounts them in this order, and the first prefix that fits wins.
    fastapi_apps: ClassVar[list[Any]] = [
        {"name": "airflow_ml_provider_api", "app": LazyApp(make_api), "url_prefix": API_PREFIX},
        {
            "name": "airflow_ml_provider_static",
            "app": LazyApp(make_static_app),
            "url_prefix": STATIC_PREFIX,
        },
        {"name": "airflow_ml_provider", "app": LazyApp(make_app), "url_prefix": URL_PREFIX},
    ]
    react_apps: ClassVar[list[Any]] = react_apps()
