# SPDX-License-Identifier: Apache-2.0
"""Real parts for integration tests: a metadata database, an MLflow server, an artifact store."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mlflow_server import mlflow_server_in


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server, known to Airflow as the connection ``mlflow_default``."""
    with mlflow_server_in(tmp_path_factory.mktemp("mlflow")) as server:
        os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"] = json.dumps({"conn_type": "mlflow", "host": server.uri})
        yield server.uri
        del os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"]


@pytest.fixture
def artifact_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty artifact root for one test."""
    from airflow_ml_provider.settings import load_settings

    root = tmp_path / "artifacts"
    monkeypatch.setenv("AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT", f"file://{root}")
    load_settings.cache_clear()
    yield root
    load_settings.cache_clear()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a frame was encoded and decoded."""
    from airflow_ml_provider.artifacts.codecs import arrow

    counted: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        real = getattr(arrow, name)

        @functools.wraps(real)
        def call(*args: Any, **kwargs: Any) -> Any:
            counted[name] += 1
            return real(*args, **kwargs)

        return call

    for name in ("dump", "load"):
        monkeypatch.setattr(arrow, name, counting(name))
    return counted


@pytest.fixture
def run_dag(airflow_db: Path) -> Callable[..., Any]:
    """Return a function that registers a DAG made in a test and runs it by ``dag.test()``."""

    def run(dag: Any, **kwargs: Any) -> Any:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

        bag = DagBag(collect_dags=False)
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)
        return dag.test(**kwargs)

    return run


@pytest.fixture
def xcom_table() -> Callable[..., Any]:
    """Return a function that reads a value as the XCom table holds it, past the backend."""

    def read(dag_run: Any, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            return session.scalar(
                select(XComModel.value).where(
                    XComModel.dag_id == dag_run.dag_id,
                    XComModel.run_id == dag_run.run_id,
                    XComModel.task_id == task_id,
                    XComModel.key == key,
                    XComModel.map_index == map_index,
                )
            )

    return read
