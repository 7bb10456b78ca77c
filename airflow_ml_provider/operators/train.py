# SPDX-License-Identifier: Apache-2.0
"""Train a model by a Python function, as an MLflow run."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.python import PythonOperator

from airflow_ml_provider.operators.arguments import Call, LoadsArguments
from airflow_ml_provider.operators.base import (
    MlflowTask,
    data_time,
    is_of_other_library,
    note_model,
    to_xcom,
    with_connection,
)
from airflow_ml_provider.operators.surroundings import code_path, code_tags, fingerprint_of, redacted
from airflow_ml_provider.tracking.autolog import Autolog, autologging, check_autolog
from airflow_ml_provider.tracking.environment import environment_tags, log_surroundings, measured
from airflow_ml_provider.tracking.models import ModelRef, trained_columns
from airflow_ml_provider.tracking.parents import Best
from airflow_ml_provider.xcom import state as states
from airflow_ml_provider.xcom.context import effective_at_of, partition_end_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_ml_provider.tracking.runs import TaskRun

log = logging.getLogger(__name__)

_SAMPLE_ROWS = 100
_RESULTS = "the model, (model, {metric: number}), or the ModelInfo of a model that it logged itself"


class TrainModelOperator(LoadsArguments, MlflowTask, PythonOperator):
    """
    Call a function that fits a model, and keep the model in MLflow with what made it.

    The task instance is one MLflow run, across retries and clears; its status is the task's. The run gets
    the function's scalar arguments as parameters, its input artifacts as datasets, the code's git state and
    the data time as tags. The returned model is logged with signature and requirements, and the task returns
    a :class:`ModelRef` to it.

    Arguments that are artifacts reach the function as values, except where a parameter is annotated
    ``ArtifactRef``: that one gets the reference.

    .. versionadded:: 0.1.0

    :param python_callable: Returns the model, ``(model, {metric: number})``, or the ``ModelInfo`` of a model
        that it logged itself.
    :param experiment: Name of the MLflow experiment; by default the DAG's id. (templated)
    :param autolog: True records what MLflow's autologging sees (parameters and training metrics of the
        libraries in use; the model itself is logged once, from the return value). A list names libraries:
        ``"sklearn"``, ``"xgboost"``, ``"lightgbm"``, ``"torch"`` ... A dict gives options of
        ``mlflow.autolog``.
    :param model_name: Name of the logged model in the run; by default the task's id. (templated)
    :param requirements: Pip requirements to keep with the model; by default those of its library, as
        installed.
    :param signature: The ``mlflow.models.ModelSignature`` of the model; by default inferred from the
        argument that holds the columns the model was fitted on.
    :param data_until: Where the training data end in data time, e.g. ``"{{ data_interval_start }}"`` for a
        training on what came before its interval. Evaluations of later data may use the model; without it
        they may from the run's own data time on. A datetime or ISO 8601 text. (templated)
    :param parent_run: Whether the run is put below one run of the whole DAG run. Instances of a mapped task
        are below a run of that task in any case.
    :param best: The metric by which the run above tells its best run: a name, or ``(name, "max")`` or
        ``(name, "min")`` for a metric of your own.
    :param log_environment: Whether the installed packages, and the code's uncommitted changes, are kept as
        artifacts of the run.
    :param log_system_metrics: Whether MLflow samples CPU, memory, disk, network and GPU every 10 seconds.
    :param mlflow_conn_id: Connection of the tracking server; by default ``[ml_provider] mlflow_conn_id``.
    """

    template_fields: Sequence[str] = (
        *PythonOperator.template_fields,
        "experiment",
        "model_name",
        "data_until",
    )
    ui_color = "#e7f0ff"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        experiment: str | None = None,
        autolog: Autolog = False,
        model_name: str | None = None,
        requirements: Sequence[str] | None = None,
        signature: Any = None,
        data_until: str | datetime | None = None,
        parent_run: bool = False,
        best: str | Sequence[str] | None = None,
        log_environment: bool = True,
        log_system_metrics: bool = False,
        mlflow_conn_id: str | None = None,
        show_return_value_in_logs: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable, show_return_value_in_logs=show_return_value_in_logs, **kwargs
        )
        if isinstance(requirements, str) or not all(isinstance(item, str) for item in requirements or ()):
            raise TypeError(f"requirements must be a list of pip requirements, got {requirements!r}")
        for option, value in (("experiment", experiment), ("model_name", model_name)):
            if isinstance(value, str) and not value.strip():
                raise ValueError(f"{option} must not be empty; leave it out for the default")
        self.experiment = experiment
        self.autolog = check_autolog(autolog)
        self.model_name = model_name
        self.requirements = list(requirements) if requirements is not None else None
        self.signature = signature
        self.data_until = data_until
        Best.of(best)  # a wrong one is refused when the DAG is parsed
        self.parent_run = parent_run
        self.best = best
        self.log_environment = log_environment
        self.log_system_metrics = log_system_metrics
        self.mlflow_conn_id = mlflow_conn_id
        self._call: Call | None = None
        self._context: Context | None = None

    def execute(self, context: Context) -> ModelRef | dict[str, Any]:
        from airflow_ml_provider.tracking.flavors import models_logged

        self._context = context
        effective_at = effective_at_of(context).isoformat()
        # A run of a partition speaks for where it begins, and what it trains knows the partition's data.
        data_until = data_time(self.data_until, option="data_until") or partition_end_of(context)
        with self.mlflow_run(
            context,
            experiment=self.experiment,
            tags={**environment_tags(), **code_tags(self.python_callable, context)},
            fingerprint=fingerprint_of(self.python_callable),
            group=self.parent_run,
            best=Best.of(self.best),
            log_system_metrics=self.log_system_metrics,
        ) as run:
            with models_logged() as logged, measured(run), autologging(self.autolog):
                result = super().execute(context)
            ref = self._log_result(result, run, logged, effective_at)
        self._call = None
        ref = replace(with_connection(ref, self.hook), effective_at=ref.effective_at or effective_at)
        if data_until is not None:
            ref = replace(ref, data_until=data_until.isoformat())
        note_model(context, ref, "written", "trained")
        states.begin(context).metrics.update(ref.metrics)
        log.info("Trained %s in MLflow run %s", ref.model_uri, ref.mlflow_run_id)
        return to_xcom(ref)

    def before_call(self, call: Call) -> None:
        """Say in MLflow what the function is called with."""
        run = self._task_run
        assert run is not None, "the function is called inside the run"  # noqa: S101
        scalars = redacted(call.scalars)
        run.log_params(scalars)
        if call.refs:
            run.log_inputs(list({ref.version_id: ref for ref in call.refs}.values()), context="training")
        if self._context is not None:  # other parameters than before begin a new run
            self.show_run(self._context, run.experiment_id, run.run_id)
            states.begin(self._context).params.update(scalars)
            if self.log_environment:
                log_surroundings(run, code_path=code_path(self.python_callable, self._context))
        self._call = call

    def _log_result(
        self, result: Any, run: TaskRun, logged: Sequence[tuple[str, Any]], effective_at: str
    ) -> ModelRef:
        from airflow_ml_provider.tracking.flavors import log_model

        model, metrics = split_result(result, self.task_id)
        if metrics:
            run.log_metrics(metrics)
        if isinstance(model, ModelRef):
            return replace(model, metrics={**model.metrics, **metrics})
        if is_model_info(model):
            return self._ref_of(model.model_uri, metrics)
        for model_uri, each in reversed(logged):
            if each is model:  # and not, say, the scaler before it
                log.info("Using the model %s that was logged while the function ran", model_uri)
                return self._ref_of(model_uri, metrics)
        return log_model(
            model,
            run=run,
            name=self.model_name or self.task_id.rpartition(".")[2],
            X_sample=sample_for(model, self._call.loaded.values())
            if self._call and self.signature is None
            else None,
            signature=self.signature,
            requirements=self.requirements,
            mlflow_conn_id=self.hook.mlflow_conn_id,
            effective_at=effective_at,
        )

    def _ref_of(self, model_uri: str, metrics: Mapping[str, float]) -> ModelRef:
        ref = self.resolve(model_uri)
        return replace(ref, metrics={**ref.metrics, **metrics})


def is_model_info(value: Any) -> bool:
    """Whether a value is what MLflow's ``log_model`` functions return."""
    return type(value).__name__ == "ModelInfo" and type(value).__module__.startswith("mlflow.")


def split_result(result: Any, task_id: str) -> tuple[Any, dict[str, float]]:
    """
    Read what a training function returned as a model and its metrics.

    :raises TypeError: naming what came back, if it is no model.
    """
    model, metrics = result, {}
    if isinstance(result, tuple) and not hasattr(result, "predict"):
        if len(result) != 2 or not isinstance(result[1], Mapping):
            kinds = ", ".join(type(item).__name__ for item in result)
            raise TypeError(f"the function of {task_id!r} returned a tuple ({kinds}); it returns {_RESULTS}")
        model = result[0]
        metrics = {name: _number(name, value, task_id) for name, value in result[1].items()}
    if model is None or isinstance(model, (str, bytes, int, float, dict, list, set)):
        raise TypeError(
            f"the function of {task_id!r} returned {_kind(model)}, which is no model; it returns {_RESULTS}"
        )
    return model, metrics


def _number(name: Any, value: Any, task_id: str) -> float:
    try:
        if isinstance(name, str) and not isinstance(value, (str, bytes)):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(
        f"the function of {task_id!r} returned the metric {name!r} = {value!r}; metrics are numbers"
    )


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def sample_for(model: Any, arguments: Any) -> Any:
    """
    Find the rows that a model's signature can be inferred from: the first argument with its columns.

    Estimators of scikit-learn's family say what they were fitted on: ``feature_names_in_``, or
    ``n_features_in_`` where they saw an array.
    """
    named = getattr(model, "feature_names_in_", None) is not None
    count = getattr(model, "n_features_in_", None)
    for value in arguments:
        if is_of_other_library(value):
            value = value.slice(0, _SAMPLE_ROWS).to_pandas()  # noqa: PLW2901 - its columns are values
        columns = getattr(value, "columns", None)
        if columns is not None:
            names = trained_columns(model, columns)
            if names is not None and set(names) <= set(columns):
                return value[names].head(_SAMPLE_ROWS)
            continue
        shape = tuple(getattr(value, "shape", ()))
        if not named and len(shape) == 2 and shape[-1] == count:
            # Some sparse matrices, such as what scipy.sparse.hstack returns, cannot be sliced as they are.
            return (value.tocsr() if hasattr(value, "tocsr") else value)[:_SAMPLE_ROWS]
    if named or count is not None:
        log.warning(
            "No argument of the function holds the columns that the model was fitted on, so it has no "
            "signature; pass signature=..., or prepare the features in the task before"
        )
    return None


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that JSON has numbers for."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
