# SPDX-License-Identifier: Apache-2.0
"""What DAG authors stack on tasks and call in them: ``from airflow_ml_provider import ml``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_ml_provider.decorators.cached import cached
    from airflow_ml_provider.decorators.checkpoint import checkpoint
    from airflow_ml_provider.decorators.retries import retry_policy
    from airflow_ml_provider.decorators.tracked import tracked

__all__ = ["cached", "checkpoint", "retry_policy", "tracked"]

_HOMES = {
    "cached": "airflow_ml_provider.decorators.cached",
    "checkpoint": "airflow_ml_provider.decorators.checkpoint",
    "retry_policy": "airflow_ml_provider.decorators.retries",
    "tracked": "airflow_ml_provider.decorators.tracked",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
