# SPDX-License-Identifier: Apache-2.0
"""What DAG authors stack on tasks and call in them: ``from airflow_ml_provider import ml``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ml_provider.lazy import exports

if TYPE_CHECKING:
    from airflow_ml_provider.decorators.cached import cached
    from airflow_ml_provider.decorators.checkpoint import checkpoint
    from airflow_ml_provider.decorators.retries import retry_policy
    from airflow_ml_provider.decorators.tracked import tracked

__all__ = ["cached", "checkpoint", "retry_policy", "tracked"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "cached": "airflow_ml_provider.decorators.cached",
        "checkpoint": "airflow_ml_provider.decorators.checkpoint",
        "retry_policy": "airflow_ml_provider.decorators.retries",
        "tracked": "airflow_ml_provider.decorators.tracked",
    },
)
