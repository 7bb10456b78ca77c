# SPDX-License-Identifier: Apache-2.0
"""Measure a model, and the champion beside it, on the same rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_ml_provider.artifacts.refs import Artifact, ArtifactRef
from airflow_ml_provider.assets.assets import ArtifactAsset
from airflow_ml_provider.operators.base import (
    MlflowTask,
    coerce_model,
    data_time,
    load_frame,
    note_evaluation,
    note_model,
)
from airflow_ml_provider.tracking.leakage import Horizon, model_leak, refuse, rows_leak
from airflow_ml_provider.tracking.registry import alias_version, version_details
from airflow_ml_provider.xcom import state as states
from airflow_ml_provider.xcom.context import (
    data_interval_of,
    effective_at_of,
    identity_of,
    run_type_of,
    slice_of,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_ml_provider.operators.base import Clock
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
    :param data: A DataFrame, or an artifact that holds one, with the features and the target. The name of an
        artifact, or an :class:`ArtifactAsset`, means its version of the run's data time. (templated)
    :param target: Name of the column to predict. (templated)
    :param model_type: ``classifier`` or ``regressor``.
    :param baseline: Model to compare with, named as ``model`` is. An alias that does not exist yet is no
        baseline; anything else that cannot be found is an error. (templated)
    :param as_of: Follow the aliases in ``model`` and ``baseline`` to the versions that they pointed at then,
        by the ledger of moves: e.g. ``"{{ data_interval_end }}"``. A datetime or ISO 8601 text; without a
        time zone it counts as UTC. By default now; in backfill runs, and with ``clock="wall"``, the run's
        data time. (templated)
    :param clock: What ``as_of`` is: ``data``, the time of the data that the alias's moves count from, or
        ``wall``, when they were made: what was really serving then.
    :param allow_leakage: Names of registered models and artifacts that may know more than the evaluation:
        versions that learned from the data they are judged on, and rows that speak for a later time. Others
        fail the task with :class:`LeakageError`, in runs with a data interval or partition and where
        ``as_of`` is given.
    :param experiment: Name of the MLflow experiment; by default the DAG's id. (templated)
    :param evaluator_config: Options of MLflow's evaluator, such as ``pos_label``.
    :param plots: Draw curves and the confusion matrix in MLflow; costs one to two seconds.
    :param slices: Columns of the data whose values are measured one by one too, for ``MetricGate(by=...)``.
    :param bootstrap_draws: How often to draw the rows again to say how sure the gain over the baseline is,
        for ``MetricGate(confidence=...)``; 1,000 is usual, 0 does not.
    :param bootstrap_seed: Of the draws: the same seed and rows give the same numbers.
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
        clock: Clock = "data",
        allow_leakage: Sequence[str] = (),
        experiment: str | None = None,
        evaluator_config: Mapping[str, Any] | None = None,
        plots: bool = True,
        slices: Sequence[str] = (),
        bootstrap_draws: int = 0,
        bootstrap_seed: int = 0,
        mlflow_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_evaluation_options(
            target=target,
            model_type=model_type,
            evaluator_config=evaluator_config,
            clock=clock,
            allow_leakage=allow_leakage,
            slices=slices,
            bootstrap_draws=bootstrap_draws,
            bootstrap_seed=bootstrap_seed,
        )
        self.model = model
        self.data = data
        self.target = target
        self.model_type = model_type
        self.baseline = baseline
        self.as_of = as_of
        self.clock = clock
        self.allow_leakage = tuple(allow_leakage)
        self.experiment = experiment
        self.evaluator_config = evaluator_config
        self.plots = plots
        self.slices = tuple(slices)
        self.bootstrap_draws = bootstrap_draws
        self.bootstrap_seed = bootstrap_seed
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        return evaluate(self, context, lambda: self.data)


def check_evaluation_options(
    *,
    target: Any,
    model_type: Any,
    evaluator_config: Any,
    clock: Any = "data",
    allow_leakage: Any = (),
    slices: Any = (),
    bootstrap_draws: Any = 0,
    bootstrap_seed: Any = 0,
) -> None:
    """Raise for options that are wrong whatever the templates render to."""
    if target is None or target == "":
        raise ValueError("target must name the column to predict")
    if model_type not in MODEL_TYPES:
        raise ValueError(f"model_type must be one of {', '.join(MODEL_TYPES)}, got {model_type!r}")
    if evaluator_config is not None and not isinstance(evaluator_config, Mapping):
        raise TypeError(f"evaluator_config must be a dict of options, got {evaluator_config!r}")
    if clock not in ("data", "wall"):
        raise ValueError(f"clock must be 'data' or 'wall', got {clock!r}")
    if isinstance(slices, str) or not all(isinstance(column, str) and column for column in slices):
        raise TypeError(f"slices must be a list of columns, got {slices!r}")
    for option, value in (("bootstrap_draws", bootstrap_draws), ("bootstrap_seed", bootstrap_seed)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1_000_000:
            raise ValueError(f"{option} must be a number from 0 to 1,000,000, got {value!r}")
    named = not isinstance(allow_leakage, str) and isinstance(allow_leakage, Collection)
    if not named or not all(isinstance(name, str) and name for name in allow_leakage):
        raise TypeError(
            f"allow_leakage must be a list of names of registered models and artifacts, got {allow_leakage!r}"
        )


def evaluate(operator: Any, context: Context, data: Callable[[], Any]) -> dict[str, Any]:
    """
    Run the evaluation that an operator describes, all of it inside its MLflow run.

    :param data: Gives what to judge on, once the run is open: so that the record of a slice says of each
        attempt how it went, also of one that had no rows.
    """
    from airflow_ml_provider.tracking.evaluation import evaluate_model

    identity = identity_of(context)
    as_of = asked_as_of(operator, context)
    # The run's own data time is what the evaluation speaks for; a run without one speaks for ``as_of``.
    effective_at = effective_at_of(context, as_of if identity.slice is None else None)
    tags = {
        "airflow.role": "evaluation",
        "airflow.effective_at": effective_at.isoformat(),
        # Empty, so that judging again clears what an earlier attempt said.
        "evaluation.as_of": "" if as_of is None else as_of.isoformat(),
        "evaluation.clock": "" if as_of is None else operator.clock,
    }
    with operator.mlflow_run(
        context, experiment=operator.experiment, key=evaluation_key(identity), tags=tags
    ) as run:
        rows = find_rows(operator, context, data(), effective_at, as_of)
        model = operator.resolve(operator.model, as_of=as_of, clock=operator.clock)
        baseline = find_baseline(operator, as_of)
        leaks = refuse_leakage(operator, context, model, baseline, rows, effective_at, as_of)
        if baseline is not None and _same(model, baseline):
            log.info(
                "The baseline %s is the model itself (version %s): every gain will be zero",
                operator.baseline,
                baseline.version,
            )
        if baseline is not None:
            note_model(context, baseline, "read", "baseline")
        note_model(context, model, "read", "evaluated")
        operator.show_model(context, model.registered_model_name, model.version)
        measured = evaluate_model(
            model,
            load_frame(rows, option="data"),
            operator.target,
            operator.model_type,
            run=run,
            baseline_uri=baseline,
            dataset=rows if isinstance(rows, ArtifactRef) else None,
            about=_about(rows, identity),
            evaluator_config=operator.evaluator_config,
            plots=operator.plots,
            effective_at=effective_at.isoformat(),
            slices=operator.slices,
            bootstrap_draws=operator.bootstrap_draws,
            bootstrap_seed=operator.bootstrap_seed,
            tags={"evaluation.leakage": "; ".join(leaks)},
        )
    # The baseline as it was asked for: a promotion checks that the alias has not moved since.
    asked = coerce_model(operator.baseline).model_uri if operator.baseline else None
    result = {
        **measured,
        "baseline_uri": asked,
        "as_of": None if as_of is None else as_of.isoformat(),
        "clock": operator.clock,
        "leakage": leaks,
    }
    baseline_id = None if baseline is None else baseline.model_id
    note_evaluation(context, {**result, "baseline_model_id": baseline_id})
    return result


def asked_as_of(operator: Any, context: Context) -> datetime | None:
    """
    Say at which time the evaluation follows aliases; None: now.

    What ``as_of`` says. Else the run's data time in backfills, and on the clock of the wall, which is there
    to look back; a run that is about no slice of data has none.
    """
    as_of = data_time(operator.as_of, option="as_of")
    looks_back = run_type_of(context) == "backfill" or operator.clock == "wall"
    if as_of is None and looks_back and slice_of(context) is not None:
        return effective_at_of(context)
    return as_of


def find_rows(
    operator: Any, context: Context, data: Any, effective_at: datetime, as_of: datetime | None
) -> Any:
    """
    Follow the name of an artifact to the version to judge on; other data are what they are.

    It is the version of the run's data time, so that a backfill finds it again; of ``as_of`` in a run
    without a slice of data, and the latest one where neither is given.

    :raises ArtifactNotFoundError: if there is none.
    """
    name = data.artifact_name if isinstance(data, ArtifactAsset) else data
    name = name.name if isinstance(name, Artifact) else name
    if not isinstance(name, str):
        return data
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    store = ArtifactStoreHook().store
    if slice_of(context) is not None:
        found = store.as_of(name, effective_at)
    elif as_of is not None:
        found = store.as_of(name, as_of, clock=operator.clock)
    else:
        found = store.get(name)
    log.info("Judging on version %s of the artifact %r, of %s", found.version_id, name, found.effective_at)
    states.begin(context).note_read(found)
    return found


def refuse_leakage(
    operator: Any,
    context: Context,
    model: ModelRef,
    baseline: ModelRef | None,
    data: Any,
    effective_at: datetime,
    as_of: datetime | None,
) -> list[str]:
    """
    Raise if a model has learned from what it is judged on, or the rows speak for a later time.

    Runs that are about no slice of data, and do not look back, have nothing to leak.

    :returns: What leaks and was allowed by name.
    """
    interval = data_interval_of(context)
    begins = interval[0] if interval is not None and interval[0] < interval[1] else None
    if begins is None and as_of is None and not context.get("partition_key"):
        return []
    horizon = Horizon(begins or effective_at, effective_at)
    found = []
    for ref in (model, baseline):
        leak = None if ref is None else model_leak(ref, horizon)
        if ref is None or leak is None or _made_here(operator, context, ref):
            continue
        fix = (
            "ask for the model before by as_of, such as '{{ data_interval_start }}', say where its data end "
            "by data_until of @task.train"
        )
        found.append(refuse(leak, str(ref.registered_model_name), operator.allow_leakage, fix))
    if isinstance(data, ArtifactRef):
        leak = rows_leak(data, horizon)
        found.append(refuse(leak, data.name, operator.allow_leakage, "judge on the version of that time"))
    leaks = [leak for leak in found if leak is not None]
    for leak in leaks:
        log.warning("Leakage, allowed by name: %s", leak)
    return leaks


def _made_here(operator: Any, context: Context, ref: ModelRef) -> bool:
    """
    Whether this DAG made a version for this very slice of data, in a run before this one was made again.

    Then it knows as much as the one that this run makes. Airflow clears a data interval's run to process it
    again, and makes another run of a partition.
    """
    identity = identity_of(context)
    details = version_details(operator.hook.client, str(ref.registered_model_name), str(ref.version))
    if details.tags.get("airflow.dag_id") != identity.dag_id:
        return False
    made_for = details.tags.get("airflow.slice")
    if made_for and identity.slice:
        return bool(made_for == identity.slice)
    return bool(details.tags.get("airflow.dag_run_id") == identity.run_id)


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
        found = operator.resolve_as_of(asked, as_of, operator.clock)
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
