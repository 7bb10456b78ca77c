# SPDX-License-Identifier: Apache-2.0
"""What our operators have in common: an MLflow run, links to it, references for inputs."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.assets.assets import ModelAsset
from airflow_ml_provider.exceptions import ModelNotFoundError
from airflow_ml_provider.links.mlflow import MlflowModelLink, MlflowRunLink
from airflow_ml_provider.settings import load_settings
from airflow_ml_provider.tracking.clocks import moment
from airflow_ml_provider.tracking.models import ModelRef
from airflow_ml_provider.xcom import state as states
from airflow_ml_provider.xcom.context import (
    data_interval_of,
    effective_at_of,
    identity_of,
    partition_end_of,
)

if TYPE_CHECKING:
    import pandas as pd
    from airflow.sdk import Context

    from airflow_ml_provider.hooks.mlflow import MlflowHook
    from airflow_ml_provider.tracking.runs import TaskRun

    Model = ModelRef | ModelAsset | Mapping[str, Any] | str
    Clock = Literal["data", "wall"]

log = logging.getLogger(__name__)

_MOST_EVIDENCE_CHARACTERS = 8_000


class MlflowTask:
    """
    Mixed into operators that talk to MLflow.

    An operator of ours gets an :class:`ArtifactRef` for each artifact among its inputs and loads it when it
    needs the value.
    """

    ml_lazy_artifacts = True
    operator_extra_links = (MlflowRunLink(), MlflowModelLink())

    mlflow_conn_id: str | None
    _task_run: TaskRun | None = None

    @functools.cached_property
    def hook(self) -> MlflowHook:
        """The connection to MLflow; by default the one that ``[ml_provider] mlflow_conn_id`` names."""
        from airflow_ml_provider.hooks.mlflow import MlflowHook

        return MlflowHook(self.mlflow_conn_id or load_settings().mlflow_conn_id)

    @contextmanager
    def mlflow_run(
        self,
        context: Context,
        *,
        experiment: str | None,
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
        fingerprint: str | None = None,
        **options: Any,
    ) -> Iterator[TaskRun]:
        """
        Open the MLflow run of this task instance; it ends with the task's own status.

        :param experiment: Name of the experiment; None: the DAG's id.
        :param key: What a later attempt finds the run by; None: the task instance.
        :param options: More of :func:`~airflow_ml_provider.tracking.runs.task_run`.
        """
        from airflow_ml_provider.tracking.runs import task_run

        identity = identity_of(context)
        with task_run(
            self.hook.client,
            experiment=experiment or identity.dag_id,
            identity=identity,
            tags={**times_of(context), **(tags or {})},
            key=key,
            credentials=self.hook.credentials,
            fingerprint=fingerprint,
            **options,
        ) as run:
            self._task_run = run
            states.begin(context).note_mlflow_run(run.run_id, run.experiment_id)
            self.show_run(context, run.experiment_id, run.run_id)
            try:
                yield run
            finally:
                # Other params than before begin a new run.
                states.begin(context).note_mlflow_run(run.run_id, run.experiment_id)
                self._task_run = None

    def on_kill(self) -> None:
        """Say in MLflow that the task was killed."""
        if self._task_run is not None:
            self._task_run.kill()
        super().on_kill()  # type: ignore[misc]

    def show_run(self, context: Context, experiment_id: str | None, mlflow_run_id: str | None) -> None:
        """Show the button that leads to an MLflow run."""
        if experiment_id and mlflow_run_id:
            MlflowRunLink().publish(self, context, self.hook.run_url(experiment_id, mlflow_run_id))

    def show_model(self, context: Context, registered_model_name: str | None, version: str | None) -> None:
        """Show the button that leads to a registered model."""
        if registered_model_name:
            MlflowModelLink().publish(self, context, self.hook.model_url(registered_model_name, version))

    def resolve(self, model: Model, *, as_of: datetime | None = None, clock: Clock = "data") -> ModelRef:
        """
        Follow what a user named to the one model it means.

        :param as_of: Follow an alias to the version that it pointed at then, by the ledger.
        :param clock: What ``as_of`` is: a data time, or a time on the wall.
        :raises ModelNotFoundError: if there is none.
        """
        from airflow_ml_provider.tracking.registry import resolve_model_uri

        ref = coerce_model(model)
        if as_of is None or not ref.alias:
            return with_connection(resolve_model_uri(self.hook.client, ref), self.hook)
        found = self.resolve_as_of(ref, as_of, clock)
        if found is None:
            raise ModelNotFoundError(
                f"{ref.model_uri!r} pointed at no version as of {as_of.isoformat()} in {clock} time, by "
                f"the ledger of moves; evaluate a later time, or name a version: models:/<name>/<version>"
            )
        return found

    def resolve_as_of(self, ref: ModelRef, when: datetime, clock: Clock = "data") -> ModelRef | None:
        """Return the version that an alias pointed at by the ledger; None if it did not exist yet."""
        from airflow_ml_provider.tracking.registry import version_ref

        name, alias = ref.registered_model_name, ref.alias
        move = ledger().as_of(name, alias, when, clock=clock)
        if move is None or move.version is None:
            return None
        log.info(
            "%s was version %s as of %s (since %s)", ref.model_uri, move.version, when, move.effective_at
        )
        return with_connection(version_ref(self.hook.client, str(name), move.version), self.hook)


def coerce_model(model: Any) -> ModelRef:
    """Accept a model as users name it: ModelRef, its JSON, a model URI or a ModelAsset."""
    if isinstance(model, ModelAsset):
        model = model.model_uri
    if isinstance(model, ArtifactRef):
        raise TypeError(
            f"expected a model from MLflow, got the artifact {model.name!r} of type {model.type}; "
            "train it under @task.train, which returns a ModelRef"
        )
    return ModelRef.coerce(model)


def with_connection(ref: ModelRef, hook: MlflowHook) -> ModelRef:
    """Say in a reference how to reach its server."""
    from dataclasses import replace

    return replace(
        ref,
        tracking_uri=ref.tracking_uri or hook.tracking_uri,
        mlflow_conn_id=ref.mlflow_conn_id or hook.mlflow_conn_id,
    )


def dated(ref: ModelRef, context: Context) -> ModelRef:
    """
    Say in a reference which data time the model speaks for: this run's, where nothing else is known.

    A run of a partition speaks for the time at which the partition begins. What it trains knows the data up
    to the partition's end.
    """
    from dataclasses import replace

    if ref.effective_at is not None:
        return ref
    ends = partition_end_of(context)
    return replace(
        ref,
        effective_at=effective_at_of(context).isoformat(),
        data_until=ref.data_until or (None if ends is None else ends.isoformat()),
    )


def ledger() -> Any:
    """Return the deployment's ledger of alias moves."""
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
    from airflow_ml_provider.tracking.ledger import Ledger

    return Ledger(ArtifactStoreHook().store.objects)


def times_of(context: Context) -> dict[str, str]:
    """Tags that say which data time an MLflow run speaks for."""
    tags = {"airflow.effective_at": effective_at_of(context).isoformat()}
    if interval := data_interval_of(context):
        tags["airflow.data_interval_start"] = interval[0].isoformat()
        tags["airflow.data_interval_end"] = interval[1].isoformat()
    return tags


def note_model(
    context: Context, ref: ModelRef, direction: Literal["read", "written"], role: str | None = None
) -> None:
    """
    Remember for the lineage record that this task instance made or used a model.

    :param role: As what: ``trained``, ``registered``, ``evaluated``, ``scored`` ...
    """
    states.begin(context).note_model(ref, direction, role or direction)


def note_evaluation(context: Context, result: Mapping[str, Any]) -> None:
    """Remember for the lineage record what an evaluation measured, small."""
    state = states.begin(context)
    state.metrics.update(result["metrics"])
    told = {name: value for name, value in result.items() if name not in ("slices", "gains")}
    for name in ("slices", "gains"):
        if result.get(name) and len(json.dumps(result[name], default=str)) <= _MOST_EVIDENCE_CHARACTERS:
            told[name] = result[name]
    state.evaluation = {**told, "slice": identity_of(context).slice}


def note_promotion(
    context: Context, result: Mapping[str, Any], verdict: str, evaluation: Mapping[str, Any] | None = None
) -> None:
    """
    Remember for the lineage record what was decided about an alias.

    :param verdict: ``promoted``, ``rejected``, ``withheld``, ``stayed``, ``rolled_back`` ...
    :param evaluation: What the decision rests on.
    """
    states.begin(context).promotion = {
        **result,
        "verdict": verdict,
        "evaluation_run_id": (evaluation or {}).get("mlflow_run_id"),
        "baseline_metrics": (evaluation or {}).get("baseline_metrics"),
    }


def to_xcom(ref: ModelRef) -> ModelRef | dict[str, Any]:
    """Return what crosses XCom: the reference, or its JSON where another XCom backend is in use."""
    from airflow.sdk.execution_time.xcom import XCom

    from airflow_ml_provider.xcom.backend import ArtifactXComBackend

    return ref if issubclass(XCom, ArtifactXComBackend) else ref.to_json()


def data_time(value: Any, *, option: str) -> datetime | None:
    """
    Read a (rendered) point in data time.

    :param value: A datetime or ISO 8601 text; naive counts as UTC. None or empty: not given.
    """
    if value is None or value == "":
        return None
    found = moment(value)
    if found is None:
        raise ValueError(f"{option} must be a datetime or ISO 8601 text, got {value!r}")
    return found


def is_of_other_library(value: Any) -> bool:
    """Whether a value is a table of Arrow or polars, or a part of one, of which pandas can make its own."""
    return type(value).__module__.partition(".")[0] in {"pyarrow", "polars"} and hasattr(value, "to_pandas")


def load_frame(data: Any, *, option: str) -> pd.DataFrame:
    """
    Return the DataFrame that an input stands for, of a table of Arrow or polars as pandas makes one of it.

    :raises TypeError: naming what it is instead.
    """
    import pandas as pd

    value = data.load() if isinstance(data, ArtifactRef) else data
    if isinstance(value, pd.DataFrame):
        return value
    if is_of_other_library(value):
        frame = value.to_pandas()
        if isinstance(frame, pd.DataFrame):  # of one column it is a Series
            return frame
    raise TypeError(
        f"{option} must be a DataFrame or an artifact that holds one, got {_described(data, value)}"
    )


def _described(data: Any, value: Any) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"{kind} from {data.uri}" if isinstance(data, ArtifactRef) else kind
