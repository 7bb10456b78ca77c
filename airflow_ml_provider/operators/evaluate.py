# SPDX-License-Identifier: Apache-2.0
"""Measure a model, and the champion beside it, on the same rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.operators.base import MlflowTask, coerce_model, data_time, load_frame, note_model
from airflow_ml_provider.tracking.registry import alias_version
from airflow_ml_provider.xcom.context import effective_at_of, identity_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_ml_provider.tracking.identity import TaskIdentity
    from airflow_ml_provider.tracking.models import ModelRef

log = logging.getLogger(__name__)

MODEL_TYPES = ("classifier", "regressor")


class EvaluateModelOperator(MlflowTask, BaseOperator):
    """
    Measure a model on a DataFrame with MLflow's evaluator, and a baseline on the same rows.

    Returns a dict for :class:`PromoteModelOperator`: the metrics of both, which versions they are, the
    number of rows, the data's version and the data time. In MLflow it is one run for each task and slice of
    data (data interval, partition or logical date), so that a backfill that is deleted and made again
    updates the run; without a slice it is one for each task instance.

    .. versionadded:: 0.1.0

    :param model: The model to judge: what ``@task.train`` returned, a :class:`ModelAsset`, or a URI such as
        ``models:/flight_delay@challenger``. (templated)
    :param data: A DataFrame, or an artifact that holds one, with the features and the target. (templated)
    :param target: Name of the column to predict. (templated)
    :param model_type: ``classifier`` or ``regressor``.
    :param baseline: Model to compare with, named as ``model`` is. An alias that does not exist yet is no
        baseline; anything else that cannot be found is an error. (templated)
    :param as_of: Follow the aliases in ``model`` and ``baseline`` to the versions that they pointed at in
        data time, by the ledger of moves: e.g. ``"{{ data_interval_end }}"``. A datetime or ISO 8601 text;
        without a time zone it counts as UTC. (templated)
    :param experiment: Name of the MLflow experiment; by default the DAG's id. (templated)
    :param evaluator_config: Options of MLflow's evaluator, such as ``pos_label``.
    :param plots: Draw curves and the confusion matrix in MLflow; costs one to two seconds.
    :param mlflow_conn_id: Connection of the tracking server; by default ``[ml_provider] mlflow_conn_id``.
    """

    template_fields: Sequence[str] = ("model", "data", "target", "baseline", "as_of", "experiment")
    ui_color = "#e9f7ef"

    def __init__(
        self,
        *,
        model: Any,
        data: Any,
        target: str,
        model_type: str = "classifier",
        baseline: Any = None,
        as_of: str | datetime | None = None,
        experiment: str | None = None,
        evaluator_config: Mapping[str, Any] | None = None,
        plots: bool = True,
        mlflow_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_evaluation_options(target=target, model_type=model_type, evaluator_config=evaluator_config)
        self.model = model
        self.data = data
        self.target = target
        self.model_type = model_type
        self.baseline = baseline
        self.as_of = as_of
        self.experiment = experiment
        self.evaluator_config = evaluator_config
        self.plots = plots
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        return evaluate(self, context, self.data)


def check_evaluation_options(*, target: Any, model_type: Any, evaluator_config: Any) -> None:
    """Raise for options that are wrong whatever the templates render to."""
    if target is None or target == "":
        raise ValueError("target must name the column to predict")
    if model_type not in MODEL_TYPES:
        raise ValueError(f"model_type must be one of {', '.join(MODEL_TYPES)}, got {model_type!r}")
    if evaluator_config is not None and not isinstance(evaluator_config, Mapping):
        raise TypeError(f"evaluator_config must be a dict of options, got {evaluator_config!r}")


def evaluate(operator: Any, context: Context, data: Any) -> dict[str, Any]:
    """Run the evaluation that an operator describes, on ``data``."""
    from airflow_ml_provider.tracking.evaluation import evaluate_model

    as_of = data_time(operator.as_of, option="as_of")
    identity = identity_of(context)
    # The run's own data time is what the evaluation speaks for; a run without one speaks for ``as_of``.
    effective_at = effective_at_of(context, as_of if identity.slice is None else None)
    with operator.hook.session():
        model = operator.resolve(operator.model, as_of=as_of)
        baseline = find_baseline(operator, as_of)
        if baseline is not None and _same(model, baseline):
            log.info(
                "The baseline %s is the model itself (version %s): every gain will be zero",
                operator.baseline,
                baseline.version,
            )
        note_model(context, model, "read")
        if baseline is not None:
            note_model(context, baseline, "read")
        operator.show_model(context, model.registered_model_name, model.version)
        frame = load_frame(data, option="data")
        with operator.mlflow_run(
            context,
            experiment=operator.experiment,
            key=evaluation_key(identity),
            tags={"airflow.role": "evaluation"},
        ) as run:
            measured = evaluate_model(
                model,
                frame,
                operator.target,
                operator.model_type,
                run=run,
                baseline_uri=baseline,
                dataset=data if isinstance(data, ArtifactRef) else None,
                about=_about(data, identity),
                evaluator_config=operator.evaluator_config,
                plots=operator.plots,
                effective_at=effective_at.isoformat(),
            )
    # The baseline as it was asked for: a promotion checks that the alias has not moved since.
    asked = coerce_model(operator.baseline).model_uri if operator.baseline else None
    return {**measured, "baseline_uri": asked}


def evaluation_key(identity: TaskIdentity) -> str:
    """
    Return what later attempts find the MLflow run of an evaluation by.

    With a slice of data it is the slice and not the DAG run: a backfill that is deleted and made again
    evaluates the same thing.
    """
    if identity.slice is None:
        return identity.key
    return replace(identity, run_id=f"slice={identity.slice}").key


def find_baseline(operator: Any, as_of: datetime | None) -> ModelRef | None:
    """Return the baseline, None if none was asked for or its alias does not exist yet."""
    if not operator.baseline:
        return None
    asked = coerce_model(operator.baseline)
    if not asked.alias:
        found: ModelRef | None = operator.resolve(asked)
        return found
    if as_of is not None:
        found = operator.resolve_as_of(asked, as_of)
    elif alias_version(operator.hook.client, str(asked.registered_model_name), asked.alias) is not None:
        found = operator.resolve(asked)
    else:
        found = None
    if found is None:
        log.info("No baseline: %s does not exist %s", asked.model_uri, f"as of {as_of}" if as_of else "yet")
    return found


def _same(model: ModelRef, baseline: ModelRef) -> bool:
    if model.model_id and baseline.model_id:
        return model.model_id == baseline.model_id
    return model.model_uri == baseline.model_uri


def _about(data: Any, identity: TaskIdentity) -> str | None:
    """Say what the rows are, for people."""
    name = f"the artifact {data.name!r}" if isinstance(data, ArtifactRef) else "the evaluation data"
    return f"{name} of {identity.slice}" if identity.slice else None
