# SPDX-License-Identifier: Apache-2.0
"""From the state of an attempt to its lineage record."""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.lineage.records import MOST_EVENTS, RUNNING

if TYPE_CHECKING:
    from airflow_ml_provider.lineage.records import TaskRecord, VersionUse
    from airflow_ml_provider.xcom.state import TaskState

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_EARLY_RECORDS = 1.0
_MOST_SECONDS_TO_ASK = 5.0
_MOST_VALUES = 100
_TEXT_CHARACTERS = 250
_ERROR_CHARACTERS = 500
_SOURCE_CHARACTERS = 8_000
# Of an event's extra, what names a version; the rest is the user's, and may be long.
_EXTRA = (
    "alias",
    "digest",
    "effective_at",
    "kind",
    "model_id",
    "previous_version",
    "registered_model_name",
    "sequence",
    "type",
    "version",
    "version_id",
)
# Modules and the distributions whose version says what a result was computed with.
_LIBRARIES = {
    "airflow": "apache-airflow",
    "airflow_ml_provider": "airflow-ml-provider",
    "catboost": "catboost",
    "jax": "jax",
    "keras": "keras",
    "lightgbm": "lightgbm",
    "mlflow": "mlflow",
    "numpy": "numpy",
    "pandas": "pandas",
    "polars": "polars",
    "pyarrow": "pyarrow",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "skops": "skops",
    "tensorflow": "tensorflow",
    "torch": "torch",
    "transformers": "transformers",
    "xgboost": "xgboost",
}


def record_attempt(state: TaskState, task_instance: Any, outcome: str, error: Any = None) -> bool:
    """Write the record of an attempt that touched data or models; return whether there was any."""
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
    from airflow_ml_provider.lineage.records import write_record

    if not _is_worth_a_record(state, task_instance.task):
        return False
    record = _record(state, task_instance, outcome, error)
    write_record(ArtifactStoreHook().store.objects, record, already=state.edges)
    return True


def watch_attempt(state: TaskState, task_instance: Any) -> None:
    """
    Record what an attempt has read by now, and what it goes on to read, in case its process is killed.

    It is written again when the attempt ends; in between at most once a second, when it read something new.
    """
    # Before a task of many inputs reads the next one, the one before it was waited for: no thread is needed.
    written = float("-inf")

    def met_input() -> None:
        nonlocal written
        if time.monotonic() - written < _SECONDS_BETWEEN_EARLY_RECORDS:
            return
        try:
            record_attempt(state, task_instance, RUNNING)
        except Exception:
            log.exception("recording what %s has read so far failed; its end records it", task_instance)
        written = time.monotonic()

    state.on_input = met_input
    if state.reads or state.handed or state.models_read:
        met_input()


def close_attempt_before(state: TaskState) -> None:
    """
    Say of the try before this one that it was killed, if that is all that is known of it.

    Each retry asks, of tasks without artifacts too: a store that hangs delays it by a few seconds at most.
    """
    if state.try_number < 2:
        return
    if not _in_time(lambda: _close(state)):
        log.warning(
            "the artifact store did not say in %.0f seconds how try %d of %s ended; it goes on meanwhile",
            _MOST_SECONDS_TO_ASK,
            state.try_number - 1,
            state.task_id,
        )


def pause_attempt(state: TaskState) -> None:
    """
    Record what an attempt that waits now has done so far: it goes on in another process.

    Airflow may let it go on at once, so a store that hangs must not keep this process alive for long.
    """

    def record() -> None:
        try:
            record_attempt(state, state.context["ti"], RUNNING)
        except Exception:
            log.exception("recording what %s did before it waits failed", state.task_id)

    if not _in_time(record):
        log.warning(
            "the artifact store did not take in %.0f seconds what %s did before it waits; its record lacks "
            "that",
            _MOST_SECONDS_TO_ASK,
            state.task_id,
        )


def recall_attempt(state: TaskState) -> None:
    """Take over what this very attempt did before it was deferred, from its record, so that none is lost."""
    found: list[Mapping[str, Any]] = []
    if not _in_time(lambda: found.extend(_record_so_far(state))):
        log.warning(
            "the artifact store did not say in %.0f seconds what %s did before it was deferred; its record "
            "lacks that",
            _MOST_SECONDS_TO_ASK,
            state.task_id,
        )
    elif found:
        state.recall(found[0])


def _record_so_far(state: TaskState) -> Iterator[Mapping[str, Any]]:
    from airflow_ml_provider.exceptions import ArtifactNotFoundError
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
    from airflow_ml_provider.lineage.records import read_record

    try:
        record = read_record(ArtifactStoreHook().store.objects, *state.key, state.try_number)
    except ArtifactNotFoundError:  # it touched nothing by then
        return
    except Exception:  # it only informs
        log.exception("reading what %s did before it was deferred failed", state.task_id)
        return
    if record["outcome"] == RUNNING:
        yield record


def _in_time(work: Callable[[], None]) -> bool:
    """Ask the store, for a few seconds at most; tell whether that was enough."""
    thread = threading.Thread(target=work, name="ml-provider-record", daemon=True)
    thread.start()
    thread.join(_MOST_SECONDS_TO_ASK)
    return not thread.is_alive()


def _close(state: TaskState) -> None:
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
    from airflow_ml_provider.lineage.records import close_killed

    before = {
        "dag_id": state.dag_id,
        "run_id": state.run_id,
        "task_id": state.task_id,
        "map_index": state.map_index,
        "try_number": state.try_number - 1,
    }
    try:
        if close_killed(ArtifactStoreHook().store.objects, before, state.try_number):
            log.warning("try %d of %s ended without a word", state.try_number - 1, state.task_id)
    except Exception:  # it only informs
        log.exception("closing the record of try %d of %s failed", state.try_number - 1, state.task_id)


def _is_worth_a_record(state: TaskState, task: Any) -> bool:
    used = (state.reads, state.handed, state.writes, state.reused, state.models_read, state.models_written)
    measured = (state.metrics, state.mlflow_run_id, state.cached, state.evaluation, state.promotion)
    return any(used) or any(measured) or bool(task.inlets or task.outlets or state.earlier)


def _record(state: TaskState, task_instance: Any, outcome: str, error: Any) -> TaskRecord:
    from airflow_ml_provider.lineage.records import TaskRecord, VersionUse
    from airflow_ml_provider.xcom.context import run_type_of

    task, context = task_instance.task, state.context
    dag_run = context.get("dag_run")
    events = list(getattr(dag_run, "consumed_asset_events", None) or ())
    events.sort(key=lambda event: event.timestamp, reverse=True)
    handed = [ref for version_id, ref in state.handed.items() if version_id not in state.reads]
    return TaskRecord(
        dag_id=state.dag_id,
        run_id=state.run_id,
        task_id=state.task_id,
        map_index=state.map_index,
        try_number=state.try_number,
        outcome=outcome,
        started_at=task_instance.start_date,
        effective_at=state.effective_at,
        data_interval=state.data_interval,
        run={
            "run_type": run_type_of(context) or None,
            "run_after": getattr(dag_run, "run_after", None),
            "logical_date": context.get("logical_date"),
            "partition_key": context.get("partition_key"),
        },
        triggered_by=tuple(_consumed(event) for event in events[:MOST_EVENTS]),
        triggered_by_total=len(events),
        reads=_with_earlier(
            state,
            "reads",
            [
                *(VersionUse.of(ref) for ref in state.reads.values()),
                *(VersionUse.of(ref, loaded=False) for ref in handed),
            ],
        ),
        writes=_with_earlier(state, "writes", [VersionUse.of(ref) for ref in state.writes.values()]),
        reused=_with_earlier(state, "reused", [VersionUse.of(ref) for ref in state.reused.values()]),
        models_read=tuple(dict(model) for model in state.models_read),
        models_written=tuple(dict(model) for model in state.models_written),
        inlets=tuple(_uri(asset) for asset in task.inlets),
        outlets=tuple(_uri(asset) for asset in task.outlets),
        emitted=tuple(_emitted(task, context)) if outcome == "success" else (),
        params=_shown(state.params),
        metrics=dict(list(state.metrics.items())[:_MOST_VALUES]),
        mlflow_run_id=state.mlflow_run_id,
        experiment_id=state.experiment_id,
        cached=state.cached,
        evaluation=state.evaluation,
        promotion=state.promotion,
        code=_code(state, task, getattr(task_instance, "bundle_instance", None)),
        environment=_environment(task_instance),
        error=_told(error) if isinstance(error, BaseException) else None,
    )


def _with_earlier(state: TaskState, what: str, now: Sequence[VersionUse]) -> tuple[VersionUse, ...]:
    """Add what the attempt did before it was deferred."""
    from airflow_ml_provider.lineage.records import VersionUse

    found = {use["version_id"]: VersionUse(**use) for use in state.earlier.get(what, ())}
    found |= {use.version_id: use for use in now if use.loaded or use.version_id not in found}
    return tuple(found.values())


def _consumed(event: Any) -> dict[str, Any]:
    from airflow_ml_provider.assets.events import event_extra

    source = None
    if event.source_task_id:
        source = {
            "dag_id": event.source_dag_id,
            "run_id": event.source_run_id,
            "task_id": event.source_task_id,
            "map_index": -1 if event.source_map_index is None else event.source_map_index,
        }
    return {
        "uri": event.asset.uri,
        "name": event.asset.name,
        "timestamp": event.timestamp.isoformat(),
        "source": source,
        "partition_key": getattr(event, "partition_key", None),
        "extra": _versions_of(event_extra(event)),
    }


def _emitted(task: Any, context: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the asset events that Airflow raises for this success, those of aliases too."""
    from airflow.sdk import Asset, AssetAlias
    from airflow.sdk.definitions.asset import AssetRef

    accessors = context.get("outlet_events", {})
    # Asking for one that is not there would add it.
    known = {getattr(each, "uri", each.name): accessors[each] for each in accessors}
    for outlet in task.outlets:
        if isinstance(outlet, AssetRef):
            try:
                said = accessors[outlet]  # Airflow knows which asset it is; it has sent the events by now
            except Exception:
                log.exception("finding the asset of the outlet %s failed; its event is not recorded", outlet)
                continue
            yield {
                "uri": said.key.uri,
                "name": said.key.name,
                "extra": _versions_of(said.extra),
                "partition_keys": sorted(said.partition_keys),
            }
        elif isinstance(outlet, Asset):
            said = known.get(outlet.uri)
            yield {
                "uri": outlet.uri,
                "name": outlet.name,
                "extra": _versions_of(said.extra if said else {}),
                "partition_keys": sorted(said.partition_keys) if said else [],
            }
        elif isinstance(outlet, AssetAlias) and outlet.name in known:
            for event in known[outlet.name].asset_alias_events:
                key = event.dest_asset_key
                yield {
                    "uri": key.uri,
                    "name": key.name,
                    "extra": _versions_of(event.extra),
                    "partition_keys": [],
                }


def _versions_of(extra: Mapping[str, Any]) -> dict[str, Any]:
    return {name: extra[name] for name in _EXTRA if isinstance(extra.get(name), (str, int, float))}


def _shown(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as small JSON, without secrets."""
    from airflow.sdk.log import redact

    from airflow_ml_provider.artifacts.preview import cell, masked, short
    from airflow_ml_provider.settings import load_settings

    found = {}
    for name, value in list(params.items())[:_MOST_VALUES]:
        plain = short(value, _TEXT_CHARACTERS) if isinstance(value, str) else cell(value)
        found[str(name)] = redact(plain, str(name))
    shown: dict[str, Any] = masked(found, load_settings().preview_mask) or {}
    return shown


def _told(error: BaseException) -> str:
    from airflow.sdk.log import redact

    return str(redact(f"{type(error).__name__}: {error}"))[:_ERROR_CHARACTERS]


def _code(state: TaskState, task: Any, bundle: Any) -> dict[str, Any]:
    function = getattr(task, "python_callable", None)
    function = None if function is None else inspect.unwrap(function)
    if state.code is None:  # git is asked once an attempt
        state.code = _code_of(task, function, bundle)
    trained = any(model["role"] == "trained" for model in state.models_written)
    return {**state.code, "source": _source(function)} if trained and function is not None else state.code


def _code_of(task: Any, function: Any, bundle: Any) -> dict[str, Any]:
    from airflow_ml_provider.tracking.code import code_state, function_digest

    found: dict[str, Any] = {
        "operator": f"{type(task).__module__}.{type(task).__qualname__}",
        "bundle": getattr(bundle, "name", None),
        "bundle_version": getattr(bundle, "version", None),
    }
    path = getattr(getattr(task, "dag", None), "fileloc", None)
    if function is not None:
        found["function"] = f"{function.__module__}.{getattr(function, '__qualname__', function)}"
        found["function_digest"] = function_digest(function)
        path = getattr(getattr(function, "__code__", None), "co_filename", None) or path
    found["file"] = os.path.basename(path) if path else None
    return {**found, **code_state(path)}


def _source(function: Any) -> str | None:
    """Return the source of a function that trained a model, so that two trainings can be compared."""
    from airflow.sdk.log import redact

    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return None
    return str(redact(source)) if len(source) <= _SOURCE_CHARACTERS else None


def _environment(task_instance: Any) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "hostname": task_instance.hostname or platform.node(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": dict(_packages()),
    }


def _packages() -> Iterator[tuple[str, str]]:
    for module, distribution in _LIBRARIES.items():
        if module in sys.modules:
            try:
                yield distribution, importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                version = getattr(sys.modules[module], "__version__", None)
                if isinstance(version, str):
                    yield distribution, version


def _uri(asset: Any) -> str:
    return str(getattr(asset, "uri", None) or getattr(asset, "name", None) or asset)
