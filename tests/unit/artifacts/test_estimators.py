# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of values
from __future__ import annotations

import io
import sys
import zipfile
from typing import Any

import numpy as np
import pytest
import zstandard
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from airflow_ml_provider.artifacts.codecs.skops import skops_io
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import UntrustedTypeError
from tests.unit.artifacts.conftest import KEY

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 3))
y = (X[:, 0] > 0).astype(int)


class Own(BaseEstimator):
    def __init__(self, depth: int = 1) -> None:
        self.depth = depth


ESTIMATORS = [
    HistGradientBoostingClassifier(max_iter=3),
    RandomForestClassifier(n_estimators=3, random_state=np.random.RandomState(1)),
    make_pipeline(
        ColumnTransformer([("scale", StandardScaler(), [0, 1]), ("one", OneHotEncoder(handle_unknown="ignore"), [2])]),
        LogisticRegression(),
    ),
]  # fmt: skip


@pytest.mark.parametrize("model", ESTIMATORS, ids=lambda model: type(model).__name__)
def test_a_fitted_estimator_predicts_the_same(store: ArtifactStore, model: Any) -> None:
    model.fit(X, y)
    tree = store.encode(model, name="task")

    back = store.decode(tree)

    assert type(back) is type(model)
    assert np.array_equal(back.predict_proba(X), model.predict_proba(X))
    assert tree["format"] == "skops-v1"
    assert store.save(model, "task").digest == tree["digest"]


def test_an_estimator_of_the_user_needs_to_be_allowed(store: ArtifactStore) -> None:
    tree = store.encode(Own(5), name="task")

    with pytest.raises(UntrustedTypeError, match=r"test_estimators\.Own.*allowed_classes"):
        store.decode(tree)
    allowing = ArtifactStore(store.objects.root, signing_key=KEY, allowed_classes=["tests.unit.artifacts.*"])
    assert allowing.decode(tree).depth == 5


def test_functions_of_the_system_are_refused(store: ArtifactStore) -> None:
    import os

    with pytest.raises(TypeError, match=r"system"):
        store.decode(store.encode(FunctionTransformer(os.system), name="task"))


@pytest.mark.parametrize("model", ESTIMATORS, ids=lambda model: type(model).__name__)
def test_a_skops_that_keeps_its_parts_elsewhere_writes_and_reads_the_same(
    store: ArtifactStore, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.fit(X, y)
    fast = store.save(model, "task")
    with monkeypatch.context() as without:
        for name in ("skops.io._utils", "skops.io._audit"):
            without.setitem(sys.modules, name, None)
        slow = store.save(model, "task")
        back = store.load(fast)

    assert slow.digest == fast.digest
    assert np.array_equal(back.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("model", ESTIMATORS, ids=lambda model: type(model).__name__)
def test_what_is_stored_is_an_archive_that_skops_reads_itself(store: ArtifactStore, model: Any) -> None:
    model.fit(X, y)
    stored = store.path(store.save(model, "task")).read_bytes()

    plain = zstandard.ZstdDecompressor().decompress(stored)

    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        assert archive.testzip() is None
    back = skops_io.loads(plain, trusted=skops_io.get_untrusted_types(data=plain))
    assert np.array_equal(back.predict_proba(X), model.predict_proba(X))
