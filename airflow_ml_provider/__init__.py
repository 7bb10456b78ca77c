# SPDX-License-Identifier: Apache-2.0
"""Makes ordinary Apache Airflow DAGs ML-aware."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_ml_provider import ml
    from airflow_ml_provider.artifacts.refs import Artifact, ArtifactRef
    from airflow_ml_provider.assets.assets import ArtifactAsset, ModelAsset
    from airflow_ml_provider.client import MLClient
    from airflow_ml_provider.tracking.gates import MetricGate
    from airflow_ml_provider.tracking.models import ModelRef

__all__ = [
    "Artifact",
    "ArtifactAsset",
    "ArtifactRef",
    "MLClient",
    "MetricGate",
    "ModelAsset",
    "ModelRef",
    "__version__",
    "ml",
]

__version__ = "0.1.0"

_HOMES = {
    "Artifact": "airflow_ml_provider.artifacts.refs",
    "ArtifactAsset": "airflow_ml_provider.assets.assets",
    "ArtifactRef": "airflow_ml_provider.artifacts.refs",
    "MLClient": "airflow_ml_provider.client",
    "MetricGate": "airflow_ml_provider.tracking.gates",
    "ModelAsset": "airflow_ml_provider.assets.assets",
    "ModelRef": "airflow_ml_provider.tracking.models",
}


def __getattr__(name: str) -> Any:
    if name == "ml":
        return importlib.import_module(f"{__name__}.ml")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
