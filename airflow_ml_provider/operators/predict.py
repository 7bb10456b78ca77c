# SPDX-License-Identifier: Apache-2.0
"""Score a DataFrame with a model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_ml_provider.artifacts.refs import Artifact
from airflow_ml_provider.assets.assets import ModelAsset
from airflow_ml_provider.assets.events import event_extra
from airflow_ml_provider.exceptions import ModelInputError
from airflow_ml_provider.operators.base import MlflowTask, load_frame, note_model
from airflow_ml_provider.tracking.models import load_pyfunc, trained_columns

if TYPE_CHECKING:
    import pandas as pd
    from airflow.sdk import Context

    from airflow_ml_provider.tracking.models import ModelRef

log = logging.getLogger(__name__)

METHODS = ("predict", "predict_proba")


class BatchPredictOperator(MlflowTask, BaseOperator):
    """
    Score a DataFrame and return the predictions as a DataFrame with the same index.

    The result is stored as a named artifact. Nothing is written to MLflow; which model scored which data is
    in the lineage record, and the model that was used in the XCom ``model``.

    .. versionadded:: 0.1.0

    :param model: What ``@task.train`` returned, a model URI, or a :class:`ModelAsset`. An asset means the
        version in the event that started this DAG run; in other runs it means the alias. (templated)
    :param data: A DataFrame, or an artifact that holds one. Columns that the model does not know are left
        aside. (templated)
    :param artifact: Name of the stored result; by default ``<dag_id>.<task_id>``.
    :param method: ``predict``, or ``predict_proba`` for the probability of the second of two classes. With
        more classes, or a single one, there is one column for each: ``<output_column>_<class>``.
    :param output_column: Name of the column with the predictions.
    :param keep_columns: Columns of the data to repeat before the predictions, e.g. keys. (templated)
    :param mlflow_conn_id: Connection of the tracking server; by default ``[ml_provider] mlflow_conn_id``.
    """

    template_fields: Sequence[str] = ("model", "data", "keep_columns")
    ui_color = "#e8f6f3"

    def __init__(
        self,
        *,
        model: Any,
        data: Any,
        artifact: Artifact | None = None,
        method: str = "predict",
        output_column: str = "prediction",
        keep_columns: Sequence[str] | None = None,
        mlflow_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if artifact is not None and not isinstance(artifact, Artifact):
            raise TypeError(f"artifact must be an Artifact, e.g. Artifact('predictions'); got {artifact!r}")
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        if not isinstance(output_column, str) or not output_column:
            raise ValueError(f"output_column must be the name of a column, got {output_column!r}")
        if isinstance(keep_columns, str):
            raise TypeError(f"keep_columns must be a list of names, got {keep_columns!r}")
        self.model = model
        self.data = data
        self.artifact = artifact
        self.method = method
        self.output_column = output_column
        self.keep_columns = keep_columns
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> pd.DataFrame:
        ref = self.resolve(model_of_run(self.model, context))
        self.show_run(context, ref.experiment_id, ref.mlflow_run_id)
        self.show_model(context, ref.registered_model_name, ref.version)
        note_model(context, ref, "read", "scored")
        context["ti"].xcom_push(key="model", value=ref.to_json())
        frame = load_frame(self.data, option="data")
        return self._score(ref, frame)

    def _score(self, ref: ModelRef, frame: pd.DataFrame) -> pd.DataFrame:
        kept = list(self.keep_columns or ())
        if missing := [name for name in kept if name not in frame.columns]:
            raise ModelInputError(
                f"keep_columns names {missing}, which the data lacks; it has {_names(frame)}"
            )
        if self.output_column in kept:
            raise ValueError(f"output_column {self.output_column!r} is among keep_columns; rename one")
        with self.hook.session():
            model = load_pyfunc(ref)
            features = features_of(model, frame, ref)
            result = frame[kept].copy()
            if len(frame) == 0:
                log.warning("The data has no rows, so there is nothing to predict; the result is empty")
                for name, values in _no_predictions(model, self.method, self.output_column).items():
                    result[name] = values
                return result
            predicted = predict_with(model, features, self.method, ref)
        for name, values in _columns(predicted, model, self.method, self.output_column).items():
            result[name] = values
        log.info("Scored %d rows with %s (%s)", len(result), ref.model_uri, self.method)
        return result


def model_of_run(model: Any, context: Context) -> Any:
    """Return what an asset means in this DAG run: the triggering event's version, else the alias."""
    if not isinstance(model, ModelAsset):
        return model
    triggering = context.get("triggering_asset_events") or {}
    events = [event for asset, found in triggering.items() if asset.uri == model.uri for event in found]
    for event in sorted(events, key=lambda event: event.timestamp, reverse=True):
        if version := event_extra(event).get("version"):
            log.info("This run was started by %s moving to version %s", model.name, version)
            return f"models:/{model.registered_model_name}/{version}"
    return model


def features_of(model: Any, frame: pd.DataFrame, ref: ModelRef) -> pd.DataFrame:
    """
    Pick the columns that a model was trained on, in its order.

    :raises ModelInputError: naming the columns that are missing.
    """
    schema = model.metadata.get_input_schema()
    if schema is not None and schema.has_input_names():
        optional = set(schema.optional_input_names())
        wanted = [name for name in schema.input_names() if name in frame.columns or name not in optional]
    elif (named := trained_columns(_raw(model), frame.columns)) is not None:
        wanted = named  # logged without a signature
    else:
        return frame
    if missing := [name for name in wanted if name not in frame.columns]:
        raise ModelInputError(
            f"{ref.model_uri} needs the columns {missing}, which the data lacks; it has {_names(frame)}"
        )
    return frame[wanted]


def predict_with(model: Any, features: pd.DataFrame, method: str, ref: ModelRef) -> Any:
    """
    Call a loaded pyfunc model.

    :raises ValueError: if it has no ``predict_proba``.
    """
    if method == "predict":
        return model.predict(features)
    raw = _raw(model)
    if not hasattr(raw, "predict_proba"):
        raise ValueError(f"{ref.model_uri} ({type(raw).__name__}) has no predict_proba; use method='predict'")
    return raw.predict_proba(features)


def _raw(model: Any) -> Any:
    """Return the library's own model, or the PythonModel; MLflow's generic one where there is neither."""
    from mlflow import MlflowException

    with suppress(NotImplementedError):
        return model.get_raw_model()
    with suppress(MlflowException):
        return model.unwrap_python_model()
    return model


def _columns(predicted: Any, model: Any, method: str, output_column: str) -> dict[str, Any]:
    """Name the columns of a prediction: one is ``output_column``, several get a suffix."""
    import numpy as np
    import pandas as pd

    if isinstance(predicted, pd.DataFrame):
        labels: list[Any] = list(predicted.columns)
        values = predicted.to_numpy()
        if predicted.shape[1] > 1:  # a column each, of its own dtype
            return {f"{output_column}_{name}": predicted[name].to_numpy() for name in labels}
    else:
        values = np.asarray(predicted)
        labels = list(range(values.shape[1])) if values.ndim > 1 else []
    if values.ndim == 1:
        return {output_column: values}
    known = getattr(_raw(model), "classes_", None) if method == "predict_proba" else None
    if known is not None:
        labels = list(known)
    if len(labels) == 2 and method == "predict_proba":
        return {output_column: values[:, 1]}
    if len(labels) == 1 and known is None:  # the one class of a model may be either of two
        return {output_column: values[:, 0]}
    return {f"{output_column}_{label}": values[:, place] for place, label in enumerate(labels)}


def _no_predictions(model: Any, method: str, output_column: str) -> dict[str, Any]:
    """Name the columns that predictions would have."""
    import numpy as np
    import pandas as pd

    if method == "predict_proba":
        classes = len(getattr(_raw(model), "classes_", (False, True)))
        return _columns(np.empty((0, classes)), model, method, output_column)
    schema = model.metadata.get_output_schema()
    kinds = []
    if schema is not None:
        kinds = schema.numpy_types() if schema.is_tensor_spec() else schema.pandas_types()
    return {output_column: pd.Series([], dtype=kinds[0] if len(kinds) == 1 else "float64")}


def _names(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns]
