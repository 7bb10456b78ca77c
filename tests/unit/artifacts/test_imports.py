# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

HEAVY = [
    "airflow",
    "numpy",
    "pandas",
    "polars",
    "pyarrow",
    "sklearn",
    "skops",
    "mlflow",
    "obstore",
    "boto3",
    "kubernetes",
    "pydantic",
    "blake3",
    "zstandard",
    "pendulum",
    "scipy",
    "xgboost",
    "lightgbm",
    "catboost",
    "torch",
    "PIL",
    "matplotlib",
    "plotly",
]


def test_the_ground_floor_imports_no_airflow_and_nothing_heavy() -> None:
    code = f"""
import importlib, pkgutil, sys
import airflow_ml_provider.artifacts as room
for found in pkgutil.iter_modules(room.__path__):
    importlib.import_module(f"{{room.__name__}}.{{found.name}}")
from airflow_ml_provider.artifacts.codecs import registry
assert registry.codec_for({{"a": [1]}}, look_further=False) is None
import tempfile
from airflow_ml_provider.artifacts.store import ArtifactStore
store = ArtifactStore("file://" + tempfile.mkdtemp(), signing_key=b"k" * 32)
assert store.decode(store.encode({{"a": (1, 2)}}, name="x")) == {{"a": (1, 2)}}
bad = set({HEAVY!r}) & set(sys.modules)
raise SystemExit(f"imported {{sorted(bad)}}" if bad else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
