# SPDX-License-Identifier: Apache-2.0
"""
``catboost-v1``: CatBoost's own format (cbm), which holds the results on the evaluation sets too, and what the
Python object holds besides.

CatBoost gives each training a random id, so the same training done twice gives two contents; so does a model
that was read and is stored again, because it writes its log of metrics anew, rounded.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import catboost  # noqa: TID253 - this module is imported on first use

from airflow_ml_provider.artifacts.codecs.models import dump_model, load_model
from airflow_ml_provider.exceptions import ArtifactCorruptError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored

CLASSES = {
    cls.__name__: cls
    for cls in (
        catboost.CatBoost,
        catboost.CatBoostClassifier,
        catboost.CatBoostRegressor,
        catboost.CatBoostRanker,
    )
}
# Made anew: the model itself, and an answer kept for later.
_MADE = ("_object", "_canonized_params")


def dump(value: Any) -> Encoded:
    native, schema = None, {}
    if value.is_fitted():
        native = value._serialize_model()
        schema = {"n_features": len(value.feature_names_), "n_trees": value.tree_count_}
        with contextlib.suppress(catboost.CatBoostError):  # trained without an evaluation set
            schema["best_iteration"] = value.best_iteration_
    state = {
        "held": {key: item for key, item in sorted(vars(value).items()) if key not in _MADE},
        "test_evals": value._object._get_test_evals() if native is not None else None,
    }
    params = value.get_params(deep=False)
    return dump_model(value, native, state, library="catboost", schema=schema, params=params)


def load(data: memoryview, info: Stored) -> Any:
    cls, native, state = load_model(data, info, CLASSES)
    made = cls()
    if native is not None:
        try:
            made.load_model(blob=native)
        except catboost.CatBoostError as exc:
            raise ArtifactCorruptError(
                f"CatBoost {catboost.__version__} cannot read the model {info.name!r}: {exc}"
            ) from exc
        if state["test_evals"]:
            made._set_test_evals(state["test_evals"])
    made.__dict__.update(state["held"])
    made.__dict__["_canonized_params"] = None
    return made
