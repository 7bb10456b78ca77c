# SPDX-License-Identifier: Apache-2.0
"""Connections to MLflow and to the artifact store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ml_provider.lazy import exports

if TYPE_CHECKING:
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
    from airflow_ml_provider.hooks.mlflow import MlflowHook

__all__ = ["ArtifactStoreHook", "MlflowHook"]

__getattr__, __dir__ = exports(
    __name__,
    {"ArtifactStoreHook": ".artifact_store", "MlflowHook": ".mlflow"},
)
