# SPDX-License-Identifier: Apache-2.0
"""``airflow ml gc``: remove versions that retention lets go, and content that nobody refers to."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.configuration import conf

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.collection import BATCH, Decision, Retention, Totals, execute, plan
from airflow_ml_provider.artifacts.objects import at_once
from airflow_ml_provider.cli.console import FAILED, command, one_line, say, show_rows, working
from airflow_ml_provider.exceptions import (
    ArtifactCorruptError,
    ArtifactNotFoundError,
    MLProviderError,
    TrackingError,
)
from airflow_ml_provider.tracking.checkpoints import PASSING

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.objects import ObjectStore
    from airflow_ml_provider.artifacts.refs import ArtifactRef


@command
def collect_garbage(args: Namespace) -> int:
    """Say what goes and why; with ``--delete``, remove it."""
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    policy = Retention(
        keep_last=args.keep_last,
        keep_for=None if args.keep_days is None else timedelta(days=args.keep_days),
        include=tuple(args.name or ("*",)),
        exclude=tuple(args.exclude or ()),
        passing=(f"{PASSING}*",),
        passing_for=_checkpoints_are_kept_for(args.checkpoint_days),
        grace=timedelta(hours=args.grace_hours),
    )
    store = ArtifactStoreHook().store
    protected = _protection(store.objects, strict=args.delete, models=policy.lets_go)
    with working("Looking at all versions and contents"):
        found = plan(store.objects, store.signer, policy=policy, protected=protected)

    shown = found.decisions if args.verbose else [*found.going, *found.problems]
    rows = [_row(item) for item in shown]
    if args.delete:
        with working(f"Removing {_count(found.totals())}"):
            outcome = execute(found)
        _show(rows, args.output)
        say(
            f"removed {_count(outcome.removed)}; {_count(found.totals(goes=False))} stay; "
            f"{_bytes(outcome.freed_bytes)} are free now, what went to the trash is after the grace period, "
            "by a later gc"
        )
        for key in outcome.restored:
            say(f"{key} was put back: a version refers to it")
    else:
        _show(rows, args.output)
        say(
            f"{_count(found.totals())} would go, {_count(found.totals(goes=False))} stay; nothing was "
            "deleted, --delete does it"
        )
    for item in found.problems:
        say(f"look at {item.key}: {item.reason}")
    return FAILED if found.problems else 0


def _row(item: Decision) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "decision": "goes" if item.goes else "stays",
        "object": item.key,
        "size_bytes": item.size_bytes,
        "reason": item.reason,
    }


def _show(rows: list[dict[str, Any]], output: str) -> None:
    show_rows(rows, output)
    sys.stdout.flush()  # the totals come after it on a terminal too


def _count(totals: Totals) -> str:
    return f"{totals.versions} versions, {totals.blobs} blobs, {_bytes(totals.bytes)}"


def _bytes(number: int) -> str:
    return f"{number:,} bytes"


def _checkpoints_are_kept_for(days: float | None) -> timedelta | None:
    """As asked; else as long as Airflow remembers them. It is told to do that for ever by 0."""
    if days is not None:
        return timedelta(days=days)
    remembered = conf.getint("state_store", "default_retention_days", fallback=30)
    return timedelta(days=remembered) if remembered else None


def _protection(objects: ObjectStore, *, strict: bool, models: bool) -> Callable[[ArtifactRef], str | None]:
    """
    Return what keeps versions beyond what the store itself knows: open runs and aliased models.

    :param strict: Raise if somebody who would know cannot be asked; otherwise say so and go on.
    :param models: A rule may let versions go that models were trained on.
    """
    if not models:
        return _OpenRuns(strict)
    open_runs: set[tuple[str, str]] = set()
    try:
        open_runs = _open_runs()
    except MLProviderError as exc:
        if strict:
            raise
        say(f"warning: {one_line(exc)}; runs that are open may hold more back")
    aliased = list(_aliased_in_ledger(objects))
    try:
        aliased += _aliased_in_mlflow()
    except TrackingError as exc:
        if strict:
            raise
        say(f"warning: {one_line(exc)}; models that aliases point at may hold more back")
    used = dict(_used_by_runs(objects, open_runs))
    used |= dict(_used_by_trainings(objects, aliased))

    def reason(ref: ArtifactRef) -> str | None:
        if ref.producer is not None and (ref.producer.dag_id, ref.producer.run_id) in open_runs:
            return f"its run {ref.producer.run_id!r} of {ref.producer.dag_id!r} is open"
        return used.get(ref.version_id)

    return reason


class _OpenRuns:
    """Keep what open runs made; asks when the first version could go."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._open: set[tuple[str, str]] | None = None

    def __call__(self, ref: ArtifactRef) -> str | None:
        if self._open is None:
            try:
                self._open = _open_runs()
            except MLProviderError as exc:
                if self._strict:
                    raise
                say(f"warning: {one_line(exc)}; runs that are open may hold more back")
                self._open = set()
        if ref.producer is not None and (ref.producer.dag_id, ref.producer.run_id) in self._open:
            return f"its run {ref.producer.run_id!r} of {ref.producer.dag_id!r} is open"
        return None


def _open_runs() -> set[tuple[str, str]]:
    """
    Return the DAG ids and run ids of the runs that are queued or running.

    Empty on machines without the metadata database: there only the records in the store tell of runs.
    """
    address = conf.get("database", "sql_alchemy_conn", fallback="") or ""
    if not address or (address.startswith("sqlite:") and not Path(address.partition(":///")[2]).is_file()):
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
    """

    alias: str
    filed_under: frozenset[str]
    mlflow_run_id: str | None


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
                run_id = version.run_id if version.run_id and _is_of_a_task(client, version.run_id) else None
                yield _Aliased(f"{model.name}@{alias}", frozenset(filter(None, names)), run_id)
        token = page.token
        if not token:
            return


def _is_of_a_task(client: Any, mlflow_run_id: str) -> bool:
    """Tell whether a run was made by a task of ours; one that is gone may have been."""
    from mlflow.exceptions import MlflowException

    from airflow_ml_provider.tracking.errors import is_missing

    try:
        return "airflow.dag_id" in client.get_run(mlflow_run_id).data.tags
    except MlflowException as exc:
        if is_missing(exc):
            return True
        raise


def _used_by_runs(objects: ObjectStore, open_runs: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the versions that runs read or wrote, and why they stay."""
    found = at_once(lambda run: list(objects.list(keys.run_records_prefix(*run))), sorted(open_runs))
    for record in _records(objects, [entry.key for entries in found for entry in entries]):
        for use in (*record.get("reads", ()), *record.get("writes", ())):
            why = f"the run {record['run_id']!r} of {record['dag_id']!r}, which is open, used it"
            yield str(use["version_id"]), why


def _used_by_trainings(objects: ObjectStore, aliased: Sequence[_Aliased]) -> Iterator[tuple[str, str]]:
    """
    Yield the versions that the tasks which made these models read, and why they stay.

    A few requests for each model. Only where what is filed under its names does not tell who trained it, all
    records are looked through.
    """
    from airflow_ml_provider.lineage.records import MADE, makers_of_model

    def made(model: _Aliased) -> list[dict[str, Any]]:
        return [maker for key in sorted(model.filed_under) for maker in makers_of_model(objects, key)]

    unknown: dict[str, str] = {}
    for model, makers in zip(aliased, at_once(made, aliased), strict=True):
        if model.mlflow_run_id and not any((maker.get("role") or "written") in MADE for maker in makers):
            unknown[model.mlflow_run_id] = model.alias
        for record in _records(objects, [maker["record"] for maker in makers]):
            yield from _reads(record, model.alias)
    if unknown:
        for record in _records(objects, [entry.key for entry in objects.list("records")]):
            for written in record.get("models_written") or ():
                if isinstance(written, dict) and (alias := unknown.get(str(written.get("mlflow_run_id")))):
                    yield from _reads(record, alias)


def _reads(record: dict[str, Any], alias: str) -> Iterator[tuple[str, str]]:
    for use in record.get("reads") or ():
        yield str(use["version_id"]), f"the model {alias} was trained on it"


def _records(objects: ObjectStore, found: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield records that can be read, some hundred at a time."""

    def read(key: str) -> Any:
        try:
            return objects.get_json(key)
        except (ArtifactNotFoundError, ArtifactCorruptError):
            return None

    for start in range(0, len(found), BATCH):
        yield from (
            record for record in at_once(read, found[start : start + BATCH]) if isinstance(record, dict)
        )
