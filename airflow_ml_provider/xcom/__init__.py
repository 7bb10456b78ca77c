# SPDX-License-Identifier: Apache-2.0
"""The XCom backend."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_ml_provider.xcom.backend import ArtifactXComBackend

__all__ = ["ArtifactXComBackend"]

_HOMES = {"ArtifactXComBackend": "backend"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
