# SPDX-License-Identifier: Apache-2.0
"""What garbage collection must leave alone for reasons that the store itself does not know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.collection import BATCH, version_ids_in
from airflow_ml_provider.artifacts.objects import at_once
from airflow_ml_provider.cli.console import has_metadata_database, one_line, say
from airflow_ml_provider.exceptions import (
    ArtifactCorruptError,
    ArtifactNotFoundError,
    MLProviderError,
    TrackingError,
)

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.objects import ObjectStore
    from airflow_ml_provider.artifacts.refs import ArtifactRef


class Needed:
    """
    What open runs and models with aliases need. The metadata database and MLflow are asked when it matters.

    :param strict: Raise if one of them cannot be asked; otherwise say so and go on.
    :param models: A rule may let versions go that models were trained on.
    """

    def __init__(self, objects: ObjectStore, *, strict: bool, models: bool) -> None:
        self._objects = objects
        self._strict = strict
        self._models = models

    def version(self, ref: ArtifactRef) -> str | None:
        """Say why a version stays; None if nobody needs it."""
        if ref.producer is not None and (ref.producer.dag_id, ref.producer.run_id) in self.open_runs:
            return f"its run {ref.producer.run_id!r} of {ref.producer.dag_id!r} is open"
        return self._used.get(ref.version_id) if self._models else None

    def record(self, key: str) -> str | None:
        """Say why the record of an attempt stays; None if nobody needs it."""
        if keys.run_of_record(key) in self._open_prefixes:
            return "its run is open"
        alias = self._makers.get(key)
        return f"it tells who made the model {alias}" if alias else None

    def look_again(self) -> None:
        """Ask anew from now on."""
        for name in ("open_runs", "_open_prefixes", "_makers", "_used"):
            self.__dict__.pop(name, None)

    @cached_property
    def open_runs(self) -> set[tuple[str, str]]:
        try:
            return _open_runs()
        except MLProviderError as exc:
            if self._strict:
                raise
            say(f"warning: {one_line(exc)}; runs that are open may hold more back")
            return set()

    @cached_property
    def _open_prefixes(self) -> frozenset[str]:
        return frozenset(keys.run_records_prefix(*run) for run in self.open_runs)

    @cached_property
    def _makers(self) -> dict[str, str]:
        """The records of the attempts that made models with aliases, and these."""
        aliased = list(_aliased_in_ledger(self._objects))
        try:
            aliased += _aliased_in_mlflow()
        except TrackingError as exc:
            if self._strict:
                raise
            say(f"warning: {one_line(exc)}; models that aliases point at may hold more back")
        return dict(_makers_of(self._objects, aliased))

    @cached_property
    def _used(self) -> dict[str, str]:
        """The versions that open runs used or models with aliases were trained on, and why they stay."""
        used: dict[str, str] = {}
        runs = sorted(self.open_runs)
        listed = at_once(lambda run: list(self._objects.list(keys.run_records_prefix(*run))), runs)
        for _, record in _records(self._objects, [entry.key for entries in listed for entry in entries]):
            why = f"the run {record['run_id']!r} of {record['dag_id']!r}, which is open, used it"
            # What its tasks reused or an event named, too: the next task may load it.
            used.update(dict.fromkeys(version_ids_in(record), why))
        for key, record in _records(self._objects, sorted(self._makers)):
            for use in record.get("reads") or ():
                used[str(use["version_id"])] = f"the model {self._makers[key]} was trained on it"
        return used


def _open_runs() -> set[tuple[str, str]]:
    """
    Return the DAG ids and run ids of the runs that are queued or running.

    Empty on machines without the metadata database: there only the records in the store tell of runs.
    """
    if not has_metadata_database():
        say("no metadata database here: only runs that wrote a record in the grace period count as open")
        return set()
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError

    unfinished = select(DagRun.dag_id, DagRun.run_id).where(
        DagRun.state.in_([DagRunState.QUEUED, DagRunState.RUNNING])
    )
    try:
        with create_session() as session:
            return {(dag_id, run_id) for dag_id, run_id in session.execute(unfinished)}
    except SQLAlchemyError as exc:
        first = str(exc).splitlines()[0]
        raise MLProviderError(
            f"cannot ask the metadata database for open runs: {first}; start it, or correct "
            "[database] sql_alchemy_conn"
        ) from exc


class _Aliased(NamedTuple):
    """
    A model that an alias points at.

    :param alias: ``name@alias``.
    :param filed_under: What records may file it under, see :func:`..lineage.records.model_key`.
    :param mlflow_run_id: The run that trained it, if that may have left a record.
    :param of_run: DAG id and run id of the task that did, where MLflow knows them.
    """

    alias: str
    filed_under: frozenset[str]
    mlflow_run_id: str | None
    of_run: tuple[str, str] | None = None


def _aliased_in_ledger(objects: ObjectStore) -> Iterator[_Aliased]:
    """Yield the models that our operators moved aliases to last."""
    from airflow_ml_provider.lineage.records import registered_version
    from airflow_ml_provider.tracking.ledger import Ledger

    ledger, now = Ledger(objects), datetime.now(UTC)
    for name, alias in ledger.aliases():
        move = ledger.as_of(name, alias, now, clock="wall")
        if move is not None and move.version is not None:
            known = registered_version(objects, name, move.version) or {}
            names = {f"{name}/{move.version}", move.model_id, known.get("model_key")}
            yield _Aliased(f"{name}@{alias}", frozenset(filter(None, names)), move.mlflow_run_id)


def _aliased_in_mlflow() -> Iterator[_Aliased]:
    """Yield the models that aliases point at now, whoever moved them."""
    from airflow.sdk.exceptions import AirflowNotFoundException

    from airflow_ml_provider.hooks.mlflow import MlflowHook
    from airflow_ml_provider.settings import load_settings

    hook = MlflowHook(load_settings().mlflow_conn_id)
    _check_that_places_of_connections_answer(hook.mlflow_conn_id)
    try:
        client: Any = hook.client
    except AirflowNotFoundException:
        say("no MLflow connection here: only aliases that our operators moved count")
        return
    token = None
    while True:
        page = client.search_registered_models(max_results=100, page_token=token)
        for model in page:
            for alias in model.aliases or {}:
                version = client.get_model_version_by_alias(model.name, alias)
                uri = f"models:/{model.name}/{version.version}"
                names = {uri, f"{model.name}/{version.version}", version.model_id, version.source}
                yield _Aliased(
                    f"{model.name}@{alias}",
                    frozenset(filter(None, names)),
                    *(_trained_by(client, version.run_id) if version.run_id else (None, None)),
                )
        token = page.token
        if not token:
            return


def _check_that_places_of_connections_answer(conn_id: str) -> None:
    """
    Raise if a connection is found nowhere and one of the places could not be asked.

    Airflow passes over such a place, and says in the end that there is no such connection.
    """
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    failed: tuple[str, Exception] | None = None
    for backend in ensure_secrets_backend_loaded():
        try:
            if backend.get_connection(conn_id=conn_id):
                return
        except Exception as exc:  # noqa: BLE001 - backends are anybody's code, and it is raised below
            failed = failed or (type(backend).__name__, exc)
    if failed is not None:
        name, error = failed
        # Its words may quote the connection, with the password.
        raise TrackingError(
            f"cannot tell whether there is a connection {conn_id!r}: {name} failed with "
            f"{type(error).__name__}; make it answer, or correct what it holds"
        ) from error


def _trained_by(client: Any, mlflow_run_id: str) -> tuple[str | None, tuple[str, str] | None]:
    """Return a run that a task may have made, and which task's run that was, if MLflow still knows."""
    from mlflow.exceptions import MlflowException

    from airflow_ml_provider.tracking.errors import is_missing

    try:
        tags = client.get_run(mlflow_run_id).data.tags
    except MlflowException as exc:
        if is_missing(exc):
            return mlflow_run_id, None
        raise
    if "airflow.dag_id" not in tags or "airflow.dag_run_id" not in tags:
        return None, None  # no task of ours made it
    return mlflow_run_id, (tags["airflow.dag_id"], tags["airflow.dag_run_id"])


def _makers_of(objects: ObjectStore, aliased: Sequence[_Aliased]) -> Iterator[tuple[str, str]]:
    """
    Yield the records of the attempts that made models, and the alias of each.

    A few requests for each model. Where what is filed under its names does not tell who trained it, the
    records of the DAG run are looked through that MLflow names, and all only where it names none.
    """
    from airflow_ml_provider.lineage.records import MADE, makers_of_model

    def made(model: _Aliased) -> list[dict[str, Any]]:
        return [maker for key in sorted(model.filed_under) for maker in makers_of_model(objects, key)]

    unknown: dict[str, str] = {}
    for model, makers in zip(aliased, at_once(made, aliased), strict=True):
        yield from ((maker["record"], model.alias) for maker in makers)
        trained = any((maker.get("role") or "written") in MADE for maker in makers)
        if model.mlflow_run_id is None or trained:
            continue
        if model.of_run is None:
            unknown[model.mlflow_run_id] = model.alias
            continue
        of_run = keys.run_records_prefix(*model.of_run)
        yield from _that_wrote(objects, of_run, {model.mlflow_run_id: model.alias})
    if unknown:
        yield from _that_wrote(objects, "records", unknown)


def _that_wrote(objects: ObjectStore, prefix: str, trained_by: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the records that name a model of some MLflow runs as written, and the alias of each."""
    for key, record in _records(objects, [entry.key for entry in objects.list(prefix)]):
        for model in record.get("models_written") or ():
            if isinstance(model, dict) and (alias := trained_by.get(str(model.get("mlflow_run_id")))):
                yield key, alias


def _records(objects: ObjectStore, found: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield records that can be read and their keys, some hundred at a time."""

    def read(key: str) -> Any:
        try:
            return objects.get_json(key)
        except (ArtifactNotFoundError, ArtifactCorruptError):
            return None

    for start in range(0, len(found), BATCH):
        some = found[start : start + BATCH]
        for key, record in zip(some, at_once(read, some), strict=True):
            if isinstance(record, dict):
                yield key, record
