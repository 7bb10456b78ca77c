# SPDX-License-Identifier: Apache-2.0
"""What a task can wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ml_provider.lazy import exports

if TYPE_CHECKING:
    from airflow_ml_provider.sensors.model_version import ModelVersionSensor

__all__ = ["ModelVersionSensor"]

__getattr__, __dir__ = exports(
    __name__,
    {"ModelVersionSensor": ".model_version"},
)
