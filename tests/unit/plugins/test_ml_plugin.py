# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from airflow_ml_provider.listeners import task_listener
from airflow_ml_provider.plugins.ml_plugin import MLPlugin
from airflow_ml_provider.plugins.pages import make_static_app, react_apps


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


def test_pages_are_shown_where_their_bundle_is_built(tmp_path: Path) -> None:
    assert react_apps(tmp_path) == []
    (tmp_path / "ml.js").touch()
    (tmp_path / "ml.svg").touch()

    entries = react_apps(tmp_path)
    assert {entry["destination"] for entry in entries} == {"nav", "dag", "dag_run", "task_instance"}
    # Airflow drops the second entry with a route, and keeps one component for a name.
    assert len({entry["url_route"] for entry in entries}) == len(entries)
    assert len({(entry["name"], entry["bundle_url"]) for entry in entries}) == 1
    assert entries[0]["icon"] == "ml-provider/static/ml.svg"


def test_airflow_accepts_the_pages_as_it_serves_them() -> None:
    from airflow.api_fastapi.core_api.datamodels.plugins import ReactAppResponse

    for entry in MLPlugin.react_apps:
        assert ReactAppResponse.model_validate(entry).url_route == entry["url_route"]


def test_bundles_are_served_to_anybody_and_nothing_else_is(tmp_path: Path) -> None:
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "ml.js").write_text("export {}")
    (tmp_path / "secret.txt").write_text("secret")
    app = FastAPI()
    app.mount("/static", make_static_app(folder))
    client = TestClient(app)

    served = client.get("/static/ml.js")
    assert served.headers["content-type"].startswith("text/javascript")
    assert served.headers["cache-control"] == "no-cache"
    assert client.get("/static/ml.js", headers={"If-None-Match": served.headers["etag"]}).status_code == 304
    for path in ("/%2e%2e/secret.txt", "/..%2fsecret.txt", "/", "//etc/passwd"):
        assert client.get(f"/static{path}").status_code == 404, path
