# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

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


def test_the_endpoint_for_webhooks_is_made_at_its_first_request() -> None:
    [app] = MLPlugin.fastapi_apps
    assert app["url_prefix"] == "/ml-provider"
    assert app["app"]._app is None
