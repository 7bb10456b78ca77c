# SPDX-License-Identifier: Apache-2.0
"""MLflow without a server: a SQLite store, made once."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_ml_provider.tracking.client import connect


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow-store")
    before = os.environ.get("_MLFLOW_SERVER_ARTIFACT_ROOT")
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = str(folder / "artifacts")  # else ./mlruns
    yield f"sqlite:///{folder / 'mlflow.db'}"
    if before is None:
        os.environ.pop("_MLFLOW_SERVER_ARTIFACT_ROOT", None)  # servers of other tests remove it too
    else:
        os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = before


@pytest.fixture
def client(store_uri: str) -> Any:
    return connect(store_uri)


@pytest.fixture
def name() -> str:
    """A name that no other test uses, for an experiment or a registered model."""
    return f"test-{uuid.uuid4().hex[:12]}"
