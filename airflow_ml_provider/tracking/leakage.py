# SPDX-License-Identifier: Apache-2.0
"""
What an evaluation of past data may know.

Plain Python. An evaluation of the data of an interval is worth something if the model had seen none of it,
and if its rows are as they were then.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_ml_provider.exceptions import LeakageError
from airflow_ml_provider.tracking.clocks import moment

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.refs import ArtifactRef
    from airflow_ml_provider.tracking.models import ModelRef


@dataclass(frozen=True)
class Horizon:
    """
    The data time that an evaluation is about.

    :param start: Where its rows begin; a model must have learned from data before that.
    :param end: Where they end; rows must not speak for a later time.
    """

    start: datetime
    end: datetime


def model_leak(ref: ModelRef, horizon: Horizon) -> str | None:
    """
    Say how a version of a registered model knows what it is judged on; None if it does not.

    A model that is no version of a registered model yet was trained by this DAG run, and how that splits
    its data is its own affair. A model that does not say when its data end is not judged.
    """
    if ref.version is None:
        return None
    declared = moment(ref.data_until)
    until = declared or moment(ref.effective_at)
    if until is None or until <= horizon.start:
        return None
    how = "learned from data" if declared else "speaks for data"
    return (
        f"version {ref.version} of {ref.registered_model_name!r} {how} up to {until.isoformat()}, and is "
        f"judged on data from {horizon.start.isoformat()} on"
    )


def rows_leak(ref: ArtifactRef, horizon: Horizon) -> str | None:
    """Say how an artifact version speaks for a later time than the evaluation; None if it does not."""
    if ref.effective_at <= horizon.end:
        return None
    return (
        f"version {ref.version_id} of the artifact {ref.name!r} speaks for {ref.effective_at.isoformat()}, "
        f"and is judged on as of {horizon.end.isoformat()}"
    )


def refuse(leak: str | None, name: str, allowed: Collection[str], fix: str) -> str | None:
    """
    Raise for a leak unless its model or artifact is allowed by name.

    :param fix: What to do, other than allowing it.
    :returns: The leak, if it is allowed.
    :raises LeakageError: if it is not.
    """
    if leak is not None and name not in allowed:
        raise LeakageError(f"leakage: {leak}; {fix}, or allow it by name: allow_leakage=[{name!r}]")
    return leak
