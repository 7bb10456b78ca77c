# SPDX-License-Identifier: Apache-2.0
"""Values of several libraries in one container."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import xgboost
from PIL import Image

from airflow_ml_provider.artifacts.codecs import registry
from airflow_ml_provider.artifacts.store import ArtifactStore
from tests.unit.artifacts.conftest import KEY
from tests.unit.artifacts.sameness import same


@pytest.mark.parametrize("by", ["save", "encode"])
def test_a_booster_a_tensor_and_a_matrix_cross_together(store: ArtifactStore, by: str) -> None:
    torch = pytest.importorskip("torch", reason="make install found no CPU build of PyTorch")
    X = np.arange(12.0).reshape(6, 2)
    model = xgboost.XGBRegressor(n_estimators=2).fit(X, X[:, 0])
    value: dict[str, Any] = {
        "model": model.get_booster(),
        "tensor": torch.arange(3),
        "matrix": scipy.sparse.csr_matrix(np.eye(3)),
        "nested": [{"image": Image.new("L", (2, 2), 7)}, (model, {"weights": torch.ones(2)})],
    }
    value["again"] = value["matrix"]

    back = (
        store.load(store.save(value, "task"))
        if by == "save"
        else store.decode(store.encode(value, name="task"))
    )

    assert list(back) == list(value)
    assert same(back["model"].inplace_predict(X), value["model"].inplace_predict(X))
    assert torch.equal(back["tensor"], value["tensor"])
    assert (back["matrix"] != value["matrix"]).nnz == 0
    assert back["again"] is back["matrix"]
    assert back["nested"][0] == value["nested"][0]
    assert same(back["nested"][1][0].predict(X), model.predict(X))
    assert torch.equal(back["nested"][1][1]["weights"], torch.ones(2))


@pytest.mark.parametrize(
    ("home", "name", "shown"),
    [
        ("scipy.sparse", "csr_matrix", "scipy.sparse.csr_matrix"),
        ("xgboost", "XGBClassifier", "xgboost.XGBClassifier"),
        ("xgboost", "Booster", "xgboost.Booster"),
        ("lightgbm", "LGBMRanker", "lightgbm.LGBMRanker"),
        ("catboost", "CatBoost", "catboost.CatBoost"),
        ("PIL.Image", "Image", "PIL.Image.Image"),
        ("matplotlib.figure", "Figure", "matplotlib.figure.Figure"),
        ("plotly.graph_objects", "Figure", "plotly.graph_objects.Figure"),
        ("torch", "Tensor", "torch.Tensor"),
        ("torch.nn", "Parameter", "torch.nn.Parameter"),
    ],
)
def test_a_type_is_named_as_users_import_it(home: str, name: str, shown: str) -> None:
    if home.startswith("torch"):
        pytest.importorskip("torch", reason="make install found no CPU build of PyTorch")

    assert registry.public_type_name(getattr(importlib.import_module(home), name)) == shown


def own_loss(truth: Any, guess: Any) -> Any:
    return guess - truth, np.ones_like(truth)


def test_what_these_codecs_refuse_is_pickled_where_that_is_allowed(store: ArtifactStore) -> None:
    torch = pytest.importorskip("torch", reason="make install found no CPU build of PyTorch")
    allowing = ArtifactStore(store.objects.root, signing_key=KEY, allow_pickle=True)
    X = np.arange(12.0).reshape(6, 2)
    model = xgboost.XGBRegressor(n_estimators=2, objective=own_loss).fit(X, X[:, 0])
    module = torch.nn.Linear(2, 1)

    saved = [allowing.save(value, "task") for value in (model, module)]

    assert [ref.format for ref in saved] == ["pickle-v1", "pickle-v1"]
    assert same(allowing.load(saved[0]).predict(X), model.predict(X))
    assert torch.equal(allowing.load(saved[1]).weight, module.weight)
    assert allowing.save(model.set_params(objective=None), "task").format == "xgboost-v1"
    assert allowing.save(module.state_dict(), "task").format == "safetensors-v1"


def test_plain_values_import_none_of_these_libraries() -> None:
    code = """
import sys, tempfile
from airflow_ml_provider.artifacts.codecs import registry
from airflow_ml_provider.artifacts.store import ArtifactStore
assert registry.codec_for({"a": 1}) is None
store = ArtifactStore("file://" + tempfile.mkdtemp(), signing_key=b"k" * 32)
value = {"a": [1, 2.5], 2: ("b", {3})}
assert store.load(store.save(value, "x")) == value
bad = {"numpy", "scipy", "xgboost", "lightgbm", "catboost", "torch", "PIL", "matplotlib", "plotly"}
raise SystemExit(f"imported {found}" if (found := bad & set(sys.modules)) else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
