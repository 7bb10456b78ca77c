# SPDX-License-Identifier: Apache-2.0
"""The endpoints as the API server mounts them, behind Airflow's own authentication."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.plugins.world import OPEN, SECRET


@pytest.fixture(scope="module")
def artifact_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An artifact root for the tests of one file, which only read."""
    from airflow_ml_provider.settings import load_settings

    root = tmp_path_factory.mktemp("ui") / "artifacts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT", f"file://{root}")
        load_settings.cache_clear()
        yield root
    load_settings.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def _no_mlflow() -> Iterator[None]:
    """Keep a server that tests of this process started before from answering here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AIRFLOW_CONN_MLFLOW_DEFAULT", raising=False)
        patch.setattr("airflow_ml_provider.plugins.api.mlflow_pages._known", None)
        yield


@pytest.fixture(scope="module")
def store(artifact_root: Path) -> Any:
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    return ArtifactStoreHook().store


@pytest.fixture(scope="session")
def known_dags(airflow_db: Path) -> None:
    """Two DAGs in Airflow's database."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.sdk import DAG

    bag = DagBag(collect_dags=False)
    for dag_id in (OPEN, SECRET):
        bag.bag_dag(DAG(dag_id, schedule=None))
    sync_bag_to_db(bag, "dags-folder", None)


def _narrow_auth_manager() -> type:
    """
    Make Airflow's simple auth manager refuse one DAG to the user called narrow.

    It has roles and no rights on single DAGs, as the managers of real deployments have.
    """
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    class NarrowAuthManager(SimpleAuthManager):
        def is_authorized_dag(
            self, *, method: Any, user: Any, access_entity: Any = None, details: Any = None
        ) -> bool:
            if user.username == "narrow" and details is not None and details.id == SECRET:
                return False
            return super().is_authorized_dag(
                method=method, user=user, access_entity=access_entity, details=details
            )

        def is_authorized_asset(self, *, method: Any, user: Any, details: Any = None) -> bool:
            return user.username != "narrow" and super().is_authorized_asset(
                method=method, user=user, details=details
            )

    return NarrowAuthManager


@pytest.fixture(scope="module")
def auth_manager() -> Iterator[Any]:
    from airflow.api_fastapi.app import _AuthManagerState

    manager = _narrow_auth_manager()()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_AuthManagerState, "instance", manager)
        yield manager


@pytest.fixture(scope="module")
def api(known_dags: None, store: Any, auth_manager: Any) -> Callable[..., Any]:
    """Return a function that makes a client of a user: of a role, without one, or of nobody."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.api_fastapi.auth.middlewares.refresh_token import JWTRefreshMiddleware
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from airflow_ml_provider.plugins.ml_plugin import MLPlugin

    app = FastAPI()
    app.add_middleware(JWTRefreshMiddleware)
    for entry in MLPlugin.fastapi_apps:
        app.mount(entry["url_prefix"], entry["app"])

    def client(user: str | None = "viewer", role: str | None = "VIEWER") -> Any:
        made = TestClient(app, base_url="http://testserver/ml-provider/api/v1/")
        if user is not None:
            token = auth_manager.generate_jwt(SimpleAuthManagerUser(username=user, role=role))
            made.headers["Authorization"] = f"Bearer {token}"
        return made

    return client


@pytest.fixture(scope="module")
def world(store: Any) -> Any:
    """What two DAGs left in the store."""
    from tests.unit.plugins.world import World

    return World(store)
