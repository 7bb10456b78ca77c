# SPDX-License-Identifier: Apache-2.0
"""The DAG folder on the import path, as Airflow puts it there."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

DAGS = Path(__file__).resolve().parents[3] / "dags"

if str(DAGS) not in sys.path:
    sys.path.append(str(DAGS))


@pytest.fixture
def dag_file() -> Callable[[str], ModuleType]:
    """Return a function that runs a DAG file by its name and returns its module."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"example_{name}", DAGS / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
