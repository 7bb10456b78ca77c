# SPDX-License-Identifier: Apache-2.0
"""Operators for training, judging, promoting and using models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_ml_provider.operators.drift import DetectDriftOperator
    from airflow_ml_provider.operators.evaluate import EvaluateModelOperator
    from airflow_ml_provider.operators.freshness import CheckModelFreshnessOperator
    from airflow_ml_provider.operators.predict import BatchPredictOperator
    from airflow_ml_provider.operators.promote import PromoteModelOperator
    from airflow_ml_provider.operators.register import RegisterModelOperator
    from airflow_ml_provider.operators.rollback import RollbackModelOperator
    from airflow_ml_provider.operators.sweep import SweepRunsOperator
    from airflow_ml_provider.operators.train import TrainModelOperator

__all__ = [
    "BatchPredictOperator",
    "CheckModelFreshnessOperator",
    "DetectDriftOperator",
    "EvaluateModelOperator",
    "PromoteModelOperator",
    "RegisterModelOperator",
    "RollbackModelOperator",
    "SweepRunsOperator",
    "TrainModelOperator",
]

_HOMES = {
    "BatchPredictOperator": "predict",
    "CheckModelFreshnessOperator": "freshness",
    "DetectDriftOperator": "drift",
    "EvaluateModelOperator": "evaluate",
    "PromoteModelOperator": "promote",
    "RegisterModelOperator": "register",
    "RollbackModelOperator": "rollback",
    "SweepRunsOperator": "sweep",
    "TrainModelOperator": "train",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
