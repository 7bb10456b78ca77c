# SPDX-License-Identifier: Apache-2.0
"""
``lightgbm-v1``: LightGBM's own text format, with all trees, and what a ``Booster`` and the scikit-learn
classes hold besides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightgbm  # noqa: TID253 - this module is imported on first use
from lightgbm.sklearn import _LGBMLabelEncoder  # noqa: TID253 - scikit-learn's, or what stands for it

from airflow_ml_provider.artifacts.codecs.models import dump_model, load_model
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored

CLASSES = {
    cls.__name__: cls
    for cls in (
        lightgbm.Booster,
        lightgbm.LGBMModel,
        lightgbm.LGBMClassifier,
        lightgbm.LGBMRegressor,
        lightgbm.LGBMRanker,
    )
}


def dump(value: Any) -> Encoded:
    is_booster = type(value) is lightgbm.Booster
    booster = value if is_booster else vars(value)["_Booster"]
    native = None
    state: dict[str, Any] = {}
    schema: dict[str, Any] = {}
    if booster is not None:
        if getattr(booster, "train_set", None) is not None:
            raise UnsupportedTypeError(
                f"this {type(value).__name__} holds its training data, which is no part of a stored model; "
                "train without keep_training_booster=True"
            )
        native = booster.model_to_string(num_iteration=-1).encode()
        # The rest, which has an underscore, LightGBM fills anew.
        state = {"booster": {key: item for key, item in _held(booster).items() if not key.startswith("_")}}
        schema = {"n_features": booster.num_feature(), "n_trees": booster.num_trees()}
        if booster.best_iteration > 0:
            schema["best_iteration"] = booster.best_iteration
    if is_booster:
        return dump_model(value, native, state, library="lightgbm", schema=schema, params=value.params)
    wrapper = _held(value)
    wrapper.pop("_Booster")
    if (encoder := wrapper.get("_le")) is not None:
        if type(encoder) is not _LGBMLabelEncoder:
            raise UnsupportedTypeError(
                f"this {type(value).__name__} encodes labels by {type(encoder).__name__}"
            )
        wrapper["_le"] = encoder.classes_
    state["wrapper"] = wrapper
    if value._n_classes > 0:
        schema["n_classes"] = value._n_classes
    params = value.get_params(deep=False)
    return dump_model(value, native, state, library="lightgbm", schema=schema, params=params)


def _held(value: Any) -> dict[str, Any]:
    return dict(sorted(vars(value).items()))


def load(data: memoryview, info: Stored) -> Any:
    cls, native, state = load_model(data, info, CLASSES)
    booster = None
    if native is not None:
        try:
            booster = lightgbm.Booster(model_str=native.decode())
        except lightgbm.basic.LightGBMError as exc:
            raise ArtifactCorruptError(
                f"LightGBM {lightgbm.__version__} cannot read the model {info.name!r}: {exc}"
            ) from exc
        booster.__dict__.update(state["booster"])
    if cls is lightgbm.Booster:
        return booster
    made = cls.__new__(cls)
    made.__dict__.update(state["wrapper"])
    made.__dict__["_Booster"] = booster
    if made.__dict__.get("_le") is not None:
        encoder = _LGBMLabelEncoder()
        encoder.classes_ = made.__dict__["_le"]
        made.__dict__["_le"] = encoder
    return made
