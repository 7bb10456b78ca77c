# SPDX-License-Identifier: Apache-2.0
"""What waits in the triggerer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ml_provider.lazy import exports

if TYPE_CHECKING:
    from airflow_ml_provider.triggers.model_alias import ModelAliasTrigger

__all__ = ["ModelAliasTrigger"]

__getattr__, __dir__ = exports(
    __name__,
    {"ModelAliasTrigger": ".model_alias"},
)
