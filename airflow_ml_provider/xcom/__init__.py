# SPDX-License-Identifier: Apache-2.0
"""The XCom backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ml_provider.lazy import exports

if TYPE_CHECKING:
    from airflow_ml_provider.xcom.backend import ArtifactXComBackend

__all__ = ["ArtifactXComBackend"]

__getattr__, __dir__ = exports(
    __name__,
    {"ArtifactXComBackend": ".backend"},
)
