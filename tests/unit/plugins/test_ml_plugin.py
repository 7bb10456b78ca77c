# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

from airflow_ml_provider.listeners import task_listener
from airflow_ml_provider.plugins.ml_plugin import MLPlugin


def test_task_processes_load_the_plugin_by_its_entry_point_without_errors() -> None:
    from airflow.sdk.plugins_manager import _get_plugins

    plugins, errors = _get_plugins()
    assert [plugin.name for plugin in plugins if isinstance(plugin, MLPlugin)] == ["airflow_ml_provider"]
    assert not [name for name in errors if "airflow_ml_provider" in name]


def test_servers_load_the_same_plugin() -> None:
    from airflow import plugins_manager

    plugins, errors = plugins_manager._get_plugins()
    assert "airflow_ml_provider" in {plugin.name for plugin in plugins}
    assert not [name for name in errors if "airflow_ml_provider" in name]


def test_the_listener_hears_about_task_instances() -> None:
    from airflow.sdk.listener import get_listener_manager

    manager = get_listener_manager()
    assert manager.has_listeners
    hooks = manager.hook.on_task_instance_running.get_hookimpls()
    assert task_listener in [implementation.plugin for implementation in hooks]


def test_the_apps_of_the_api_server_are_made_at_their_first_request() -> None:
    # The webhooks' prefix begins those of the others: Airflow takes the first that fits.
    assert [app["url_prefix"] for app in MLPlugin.fastapi_apps] == [
        "/ml-provider/api/v1",
        "/ml-provider/static",
        "/ml-provider",
    ]
    code = (
        "import sys\n"
        "from airflow_ml_provider.plugins.ml_plugin import MLPlugin\n"
        "assert all(app['app']._app is None for app in MLPlugin.fastapi_apps)\n"
        "print(sorted({'fastapi', 'starlette', 'airflow.api_fastapi'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "[]"
