# SPDX-License-Identifier: Apache-2.0
"""Connections to MLflow and to the artifact store."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
    from airflow_ml_provider.hooks.mlflow import MlflowHook

__all__ = ["ArtifactStoreHook", "MlflowHook"]

_HOMES = {"ArtifactStoreHook": "artifact_store", "MlflowHook": "mlflow"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
