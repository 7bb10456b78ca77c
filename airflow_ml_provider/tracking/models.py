# SPDX-License-Identifier: Apache-2.0
"""A trained model as it crosses XCom: where it is, not what it is."""

from __future__ import annotations

import contextlib
import importlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from airflow_ml_provider.artifacts import scratch
from airflow_ml_provider.artifacts.libraries import import_skops
from airflow_ml_provider.exceptions import ModelNotFoundError
from airflow_ml_provider.tracking.errors import is_missing, without_password

_LOGGED = re.compile(r"models:/(m-[^/@]+)")
_ALIASED = re.compile(r"models:/([^/@]+)@([^/@]+)")
_VERSIONED = re.compile(r"models:/([^/@]+)/(\d+)")
_FLAVORS = ("sklearn", "xgboost", "lightgbm", "pyfunc")
_RUN = re.compile(r"runs:/([^/]+)/.+")
_observers: list[Callable[[ModelRef], None]] = []


@dataclass(frozen=True)
class ModelRef:
    """
    A reference to a model in MLflow. Small, plain JSON across XCom, and explicit to :meth:`load`.

    :param model_uri: ``models:/m-...``, ``models:/name/3`` or ``models:/name@alias``.
    :param model_id: MLflow's id of the LoggedModel, ``m-...``.
    :param mlflow_run_id: The run that trained it.
    :param flavor: ``sklearn``, ``xgboost``, ``lightgbm`` or ``pyfunc``; how :meth:`load` reads it.
    :param metrics: The training run's metrics when the model was logged.
    :param registered_model_name: Set once it is registered, together with ``version``.
    :param tracking_uri: The server that holds it, without credentials.
    :param mlflow_conn_id: The Airflow connection that leads there with credentials.
    :param effective_at: The data time that the model speaks for, ISO 8601.
    :param data_until: The end of the data that it learned from, ISO 8601, where the training says so.
    """

    model_uri: str
    model_id: str | None = None
    mlflow_run_id: str | None = None
    experiment_id: str | None = None
    flavor: str | None = None
    metrics: dict[str, float] = field(default_factory=dict, hash=False)
    name: str | None = None
    registered_model_name: str | None = None
    version: str | None = None
    tracking_uri: str | None = None
    mlflow_conn_id: str | None = None
    effective_at: str | None = None
    data_until: str | None = None

    def __repr__(self) -> str:
        shown = [repr(self.model_uri)]
        if self.registered_model_name and self.version:
            shown.append(f"{self.registered_model_name} v{self.version}")
        if self.flavor:
            shown.append(f"flavor={self.flavor!r}")
        return f"ModelRef({', '.join(shown)})"

    @property
    def alias(self) -> str | None:
        """The alias in the URI, for a reference that is not resolved to a version yet."""
        match = _ALIASED.fullmatch(self.model_uri)
        return match[2] if match else None

    def to_json(self) -> dict[str, Any]:
        """
        Give plain JSON, for everybody to read: without the password of a database that is the address.

        Metrics that JSON has no number for (NaN, infinities) become text.
        """
        from airflow_ml_provider.tracking.errors import without_password

        document = {item.name: getattr(self, item.name) for item in fields(self)}
        if self.tracking_uri is not None:
            document["tracking_uri"] = without_password(self.tracking_uri, "")
        document["metrics"] = {
            key: value if math.isfinite(value) else str(value) for key, value in self.metrics.items()
        }
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ModelRef:
        """Read what :meth:`to_json` gave; fields of a later release are ignored."""
        if not isinstance(document.get("model_uri"), str):
            raise ValueError(f"a model reference needs a model_uri, got the keys {sorted(document)}")
        known = {item.name for item in fields(cls)}
        given = {key: value for key, value in document.items() if key in known}
        given["metrics"] = {key: float(value) for key, value in (given.get("metrics") or {}).items()}
        if given.get("version") is not None:
            given["version"] = str(given["version"])
        return cls(**given)

    @classmethod
    def coerce(cls, value: ModelRef | Mapping[str, Any] | str) -> ModelRef:
        """
        Accept what users name a model with: a reference, its JSON, or one of MLflow's URIs.

        :raises TypeError: for anything else.
        :raises ValueError: for text that is no model URI.
        """
        if isinstance(value, ModelRef):
            return value
        if isinstance(value, Mapping):
            return cls.from_json(value)
        if not isinstance(value, str):
            raise TypeError(f"a model is a ModelRef, its JSON or a models:/ URI, got {type(value).__name__}")
        if match := _LOGGED.fullmatch(value):
            return cls(model_uri=value, model_id=match[1])
        if match := _VERSIONED.fullmatch(value):
            return cls(model_uri=value, registered_model_name=match[1], version=match[2])
        if match := _ALIASED.fullmatch(value):
            return cls(model_uri=value, registered_model_name=match[1])
        if match := _RUN.fullmatch(value):
            return cls(model_uri=value, mlflow_run_id=match[1])
        raise ValueError(
            f"{value!r} names no model; use models:/<name>@<alias>, models:/<name>/<version>, "
            f"models:/m-<id> or runs:/<run id>/<path>"
        )

    def at(self, *, version: str, registered_model_name: str) -> ModelRef:
        """The same model as a version of a registered model."""
        return replace(self, version=str(version), registered_model_name=registered_model_name)

    def load(self, *, as_pyfunc: bool = False) -> Any:
        """
        Fetch the model from MLflow.

        The address and credentials come from the Airflow connection where there is one, else from
        ``tracking_uri`` and MLflow's own ``MLFLOW_TRACKING_*`` environment variables.

        :param as_pyfunc: Give MLflow's generic model, whose ``predict`` checks the signature, in place of
            the library's own object.
        :raises ModelNotFoundError: if MLflow has no such model, version or alias.
        """
        from airflow_ml_provider.tracking.session import session_for

        for observe in _observers:
            observe(self)
        with session_for(mlflow_conn_id=self.mlflow_conn_id, tracking_uri=self.tracking_uri):
            import mlflow

            files = _fetched(self)
            flavor = "pyfunc" if as_pyfunc else self.flavor
            if flavor not in _FLAVORS:  # not said, or by a later release
                stored = mlflow.models.get_model_info(files).flavors
                flavor = next(
                    (name for name in ("sklearn", "xgboost", "lightgbm") if name in stored), "pyfunc"
                )
            prepare_reading(self.flavor if flavor == "pyfunc" else flavor)
            return importlib.import_module(f"mlflow.{flavor}").load_model(files)


def on_load(observe: Callable[[ModelRef], None]) -> None:
    """Have a function called with each reference that is loaded in this process from now on, once."""
    if observe not in _observers:
        _observers.append(observe)


def load_pyfunc(ref: ModelRef) -> Any:
    """Load MLflow's generic model, whose ``predict`` checks the signature, in the session that is open."""
    import mlflow

    prepare_reading(ref.flavor)
    return mlflow.pyfunc.load_model(_fetched(ref))


def _fetched(ref: ModelRef) -> str:
    """
    Copy the model's files to a folder that is removed when this process ends: it may read them later.

    What MLflow copies to a place of its own choice stays on the worker for ever.
    """
    import mlflow

    try:
        files: str = mlflow.artifacts.download_artifacts(ref.model_uri, dst_path=str(scratch.folder()))
    except mlflow.MlflowException as exc:
        if not is_missing(exc):
            raise
        where = without_password(mlflow.get_tracking_uri())
        by = f", by the connection {ref.mlflow_conn_id!r}" if ref.mlflow_conn_id else ""
        raise ModelNotFoundError(
            f"there is no {ref.model_uri!r} on {where}{by}: {exc}; correct its name, version or alias, or "
            "train and register it there"
        ) from exc
    return files


def trained_columns(model: Any, columns: Iterable[Any]) -> list[Any] | None:
    """
    Return the columns that a fitted model was trained on, in its order; None where it does not say.

    :param columns: Those of the data, whose spelling counts. One that is not among them is as the model says.
    """
    names = getattr(model, "feature_names_in_", None)
    if names is None and _is_lightgbm_booster(model):
        # It takes the columns by their place, whatever their names, and calls those of an array Column_0 ...
        names = model.feature_name()
        if names == [f"Column_{place}" for place in range(len(names))]:
            return None
    if names is None:
        return None
    known = list(columns)
    spelled = {str(name).replace(" ", "_"): name for name in known}  # LightGBM keeps no blanks
    exact = set(known)
    return [name if name in exact else spelled.get(name, name) for name in names]


def _is_lightgbm_booster(model: Any) -> bool:
    return any(
        f"{base.__module__}.{base.__qualname__}" == "lightgbm.basic.Booster" for base in type(model).__mro__
    )


def prepare_reading(flavor: str | None) -> None:
    """Import what reading a model of this flavor needs, without a thousand warnings in the task's log."""
    if flavor == "sklearn":
        with contextlib.suppress(ImportError):  # without skops, MLflow reads what cloudpickle wrote
            import_skops()
