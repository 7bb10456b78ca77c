# SPDX-License-Identifier: Apache-2.0
"""
``xgboost-v1``: XGBoost's own model format (UBJSON), its parameters as its own JSON, and what the scikit-learn
classes hold besides. A ``Booster`` is all of it but the last.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import xgboost  # noqa: TID253 - this module is imported on first use

from airflow_ml_provider.artifacts.codecs.models import dump_model, load_model
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored

CLASSES = {
    cls.__name__: cls
    for cls in (
        xgboost.Booster,
        xgboost.XGBModel,
        xgboost.XGBClassifier,
        xgboost.XGBRegressor,
        xgboost.XGBRanker,
        xgboost.XGBRFClassifier,
        xgboost.XGBRFRegressor,
    )
}


def dump(value: Any) -> Encoded:
    is_booster = type(value) is xgboost.Booster
    booster = value if is_booster else vars(value).get("_Booster")
    native = None
    state: dict[str, Any] = {}
    schema: dict[str, Any] = {}
    if booster is not None:
        try:
            native = booster.save_raw("ubj")
        except xgboost.core.XGBoostError as exc:
            raise UnsupportedTypeError(f"XGBoost cannot save this Booster; train it first: {exc}") from exc
        config = booster.save_config()
        state = {"config": config, "booster": _besides(booster, "handle")}
        schema = {
            "n_features": booster.num_features(),
            "n_trees": booster.num_boosted_rounds(),
            "objective": json.loads(config)["learner"]["objective"]["name"],
        }
    if is_booster:
        return dump_model(value, native, state, library="xgboost", schema=schema, params={})
    state["wrapper"] = _besides(value, "_Booster")
    if "n_classes_" in vars(value):
        schema["n_classes"] = int(value.n_classes_)
    params = value.get_params(deep=False)
    return dump_model(value, native, state, library="xgboost", schema=schema, params=params)


def _besides(value: Any, name: str) -> dict[str, Any]:
    return {key: item for key, item in sorted(vars(value).items()) if key != name}


def load(data: memoryview, info: Stored) -> Any:
    cls, native, state = load_model(data, info, CLASSES)
    booster = None if native is None else _booster(native, state, info)
    if cls is xgboost.Booster:
        return booster
    made = cls.__new__(cls)
    made.__dict__.update(state["wrapper"])
    if booster is not None:
        made.__dict__["_Booster"] = booster
    return made


def _booster(native: bytes, state: dict[str, Any], info: Stored) -> Any:
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(native))
    except xgboost.core.XGBoostError as exc:
        raise ArtifactCorruptError(
            f"XGBoost {xgboost.__version__} cannot read the model {info.name!r}: {exc}"
        ) from exc
    # XGBoost promises to read its models for ever, and its parameters for one major version.
    written = json.loads(state["config"])["version"]
    if written[0] == int(xgboost.__version__.split(".")[0]):
        booster.load_config(state["config"])
    else:
        warnings.warn(
            f"{info.name!r} was written by XGBoost {'.'.join(map(str, written))}: it predicts the same, and "
            "has the default parameters if you train it further",
            UserWarning,
            stacklevel=2,
        )
    booster.__dict__.update(state["booster"])
    return booster
