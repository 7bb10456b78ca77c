# SPDX-License-Identifier: Apache-2.0
"""Operators for training, judging, promoting and using models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ml_provider.lazy import exports

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

__getattr__, __dir__ = exports(
    __name__,
    {
        "BatchPredictOperator": ".predict",
        "CheckModelFreshnessOperator": ".freshness",
        "DetectDriftOperator": ".drift",
        "EvaluateModelOperator": ".evaluate",
        "PromoteModelOperator": ".promote",
        "RegisterModelOperator": ".register",
        "RollbackModelOperator": ".rollback",
        "SweepRunsOperator": ".sweep",
        "TrainModelOperator": ".train",
    },
)
