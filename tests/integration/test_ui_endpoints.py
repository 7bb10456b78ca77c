# SPDX-License-Identifier: Apache-2.0
"""The endpoints behind the ML pages in a real API server process, which asks its users to log in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.guarded_server import GuardedServer, guarded_server
from tests.unit.plugins.test_api_visibility import EVERYTHING
from tests.unit.plugins.world import OPEN, World


@pytest.fixture
def server(airflow_db: Path, artifact_root: Path, tmp_path: Path) -> Iterator[GuardedServer]:
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.sdk import DAG

    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    bag = DagBag(collect_dags=False)
    bag.bag_dag(DAG(OPEN, schedule=None))
    sync_bag_to_db(bag, "dags-folder", None)
    World(ArtifactStoreHook().store)
    with guarded_server(os.environ, tmp_path) as running:
        yield running


def test_a_real_api_server_answers_whoever_logged_in_and_nobody_else(server: GuardedServer) -> None:
    nobody, guest, anna = (server.client(user) for user in (None, "guest", "anna"))

    for path in EVERYTHING:
        assert nobody.get(path).status_code == httpx.codes.UNAUTHORIZED, path
        assert guest.get(path).status_code == httpx.codes.FORBIDDEN, path
        answer = anna.get(path)
        assert answer.status_code == httpx.codes.OK, (path, answer.text)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json()

    # The bundles hold no data, and what they are is told to whoever logged in.
    static = f"{server.url}/ml-provider/static/"
    assert httpx.get(f"{static}%2e%2e/pages.py", trust_env=False).status_code == httpx.codes.NOT_FOUND
    listed = httpx.get(f"{server.url}/api/v2/plugins", headers=anna.headers, trust_env=False).json()[
        "plugins"
    ]
    [ours] = [plugin for plugin in listed if plugin["name"] == "airflow_ml_provider"]
    for app in ours["react_apps"]:
        served = httpx.get(f"{server.url}/{app['bundle_url']}", trust_env=False)
        assert served.headers["content-type"].startswith("text/javascript")
