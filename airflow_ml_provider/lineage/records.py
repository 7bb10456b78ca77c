# SPDX-License-Identifier: Apache-2.0
"""
What one attempt of a task read, wrote and measured, and the reverse edges that lead back to it.

::

    records/<dag>/<run>/<task>/<map index>/<try>.json    the record of an attempt
    consumers/<version id>/<attempt>                     who read, was handed or reused an artifact version
    models/<model key>/{written,read}/<attempt>          who made and who used a model
    registered/<name>/<version, newest first>.json       which model a registered version is
    evaluations/<MLflow run id>/{written,read}/<attempt> who made an evaluation and who decided by it
    events/<asset uri>/<event>/<dag>/<run>.json          which DAG run an asset event started

One record an attempt and one small object for each thing that it touched: O(inputs + outputs) requests. An
attempt that read something leaves a first record before its code runs, so that a process which is killed
without a word is known by what it read; the attempt after it says so.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.objects import at_once
from airflow_ml_provider.exceptions import ArtifactNotFoundError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.objects import ObjectStore
    from airflow_ml_provider.artifacts.refs import ArtifactRef

KIND = "ml-record/v1"
RUNNING = "running"
KILLED = "killed"
# What a task does with a model that it makes; others register it or promote it.
MADE = ("trained", "written")
# A run that an asset event starts after a long pause may have consumed thousands.
MOST_EVENTS = 50
# So many edges are read at once: a champion that scores every hour has thousands.
_TOGETHER = 64

_ATTEMPT = ("dag_id", "run_id", "task_id", "map_index", "try_number")
_MODEL = ("model_uri", "model_id", "registered_model_name", "version", "mlflow_run_id")


@dataclass(frozen=True)
class VersionUse:
    """
    An artifact version as a record names it.

    :param loaded: False for a reference that was handed to the task, whose content it did not fetch.
    :param producer: The attempt that wrote it, so that the way back is known where the version is gone.
    """

    name: str
    version_id: str
    digest: str
    type: str
    size_bytes: int
    loaded: bool = True
    producer: dict[str, Any] | None = field(default=None, hash=False)

    @classmethod
    def of(cls, ref: ArtifactRef, *, loaded: bool = True) -> VersionUse:
        producer = None if ref.producer is None else asdict(ref.producer)
        return cls(ref.name, ref.version_id, ref.digest, ref.type, ref.size_bytes, loaded, producer)


@dataclass(frozen=True)
class TaskRecord:
    """One attempt of one task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    outcome: str
    """``success``, ``failed``, ``skipped``; ``running`` until it ends, ``killed`` if it never said so."""
    started_at: datetime | None = None
    effective_at: datetime | None = None
    data_interval: tuple[datetime, datetime] | None = None
    run: dict[str, Any] = field(default_factory=dict)
    """Of the DAG run: ``run_type``, ``run_after``, ``logical_date``, ``partition_key``."""
    triggered_by: tuple[dict[str, Any], ...] = ()
    """The asset events that started the run: ``uri``, ``name``, ``timestamp``, ``source``, ``extra``."""
    triggered_by_total: int = 0
    reads: tuple[VersionUse, ...] = ()
    writes: tuple[VersionUse, ...] = ()
    reused: tuple[VersionUse, ...] = ()
    """Versions that a cache hit returned in place of new ones; their producer wrote them."""
    models_read: tuple[dict[str, Any], ...] = ()
    models_written: tuple[dict[str, Any], ...] = ()
    inlets: tuple[str, ...] = ()
    outlets: tuple[str, ...] = ()
    emitted: tuple[dict[str, Any], ...] = ()
    """The asset events that a success raised: ``uri``, ``name``, ``extra``, ``partition_keys``."""
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    mlflow_run_id: str | None = None
    experiment_id: str | None = None
    cached: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    promotion: dict[str, Any] | None = None
    code: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    recorded_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def key(self) -> str:
        """Where the record lives under the artifact root."""
        return keys.record_key(self.dag_id, self.run_id, self.task_id, self.map_index, self.try_number)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON, times in ISO 8601 with zone, numbers JSON lacks as text."""
        doc: dict[str, Any] = {"kind": KIND}
        for name in self.__dataclass_fields__:
            doc[name] = _plain(getattr(self, name))
        return doc


def write_record(objects: ObjectStore, record: TaskRecord, *, already: set[str] | None = None) -> None:
    """
    Write a record and the reverse edges to it.

    An attempt that is written twice (while it runs and when it ended) replaces its own record.

    :param already: Edges that this attempt wrote, by key and part that it played; they are not written again,
        and new ones are added.
    """
    from airflow_ml_provider.lineage.index import index_attempt

    known = set() if already is None else already
    written = record.to_json()
    objects.put_json(record.key, written, create_only=False)
    registered = _registered_in(written)
    # What was handed over as an input may turn out to be what is evaluated: then the edge is written again.
    edges = {key: doc for key, doc in edges_of(written) if key in registered or _mark(key, doc) not in known}

    def put(key: str) -> None:
        # Who registers a version is believed, for MLflow counts from 1 again where a model was deleted; who
        # uses it is where nobody said.
        told = key.startswith("registered/") and key not in registered
        objects.put_json(key, edges[key], create_only=told)

    at_once(put, edges)
    known.update(_mark(key, doc) for key, doc in edges.items())
    if record.outcome != RUNNING:
        index_attempt(objects, written)


def key_of(record: Mapping[str, Any]) -> str:
    """
    Return where a record lives under the artifact root.

    :param record: :meth:`TaskRecord.to_json`, or the identity of an attempt as in it.
    """
    return keys.record_key(*(record[name] for name in _ATTEMPT))


def close_killed(objects: ObjectStore, record: Mapping[str, Any], found_by: int) -> bool:
    """
    Say of the attempt before this one that it was killed, if it left nothing but its first record.

    :param record: The attempt's identity as of a record: ``dag_id`` and so on.
    :param found_by: The number of the try that asks.
    :returns: Whether it was so. One request, two if it was.
    """
    key = key_of(record)
    try:
        doc = objects.get_json(key)
    except ArtifactNotFoundError:
        return False
    if doc.get("outcome") != RUNNING:
        return False
    doc |= {"outcome": KILLED, "error": f"its process ended without a word; try {found_by} found it so"}
    objects.put_json(key, doc, create_only=False)
    return True


def read_record(
    objects: ObjectStore, dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int
) -> dict[str, Any]:
    """
    Return the record of an attempt as JSON.

    :raises ArtifactNotFoundError: if the attempt left none.
    """
    found: dict[str, Any] = objects.get_json(keys.record_key(dag_id, run_id, task_id, map_index, try_number))
    return found


def consumer_key(version_id: str, record: TaskRecord) -> str:
    """Place the reverse edge of one attempt beside the others of the version it read."""
    return f"{keys.consumers_prefix(version_id)}{_place(record)}"


def consumers_of(objects: ObjectStore, version_id: str) -> Iterator[dict[str, Any]]:
    """Yield the attempts that read an artifact version, were handed it or reused it; ``use`` says which."""
    return _edges_under(objects, keys.consumers_prefix(version_id))


def model_key(model: Mapping[str, Any]) -> str | None:
    """
    Return what a model is filed under: its MLflow id, else its registered name and version, else its URI.

    :param model: As a record names it: ``model_id``, ``registered_model_name``, ``version``, ``model_uri``.
    """
    if model.get("model_id"):
        return str(model["model_id"])
    if model.get("registered_model_name") and model.get("version"):
        return f"{model['registered_model_name']}/{model['version']}"
    return str(model["model_uri"]) if model.get("model_uri") else None


def makers_of_model(objects: ObjectStore, key: str) -> Iterator[dict[str, Any]]:
    """Yield the attempts that trained, registered or promoted a model; ``role`` says which."""
    return _edges_under(objects, keys.model_edges_prefix(key, "written"))


def users_of_model(objects: ObjectStore, key: str) -> Iterator[dict[str, Any]]:
    """Yield the attempts that evaluated, scored with, loaded ... a model; ``role`` says which."""
    return _edges_under(objects, keys.model_edges_prefix(key, "read"))


def registered_version(
    objects: ObjectStore, registered_model_name: str, version: str
) -> dict[str, Any] | None:
    """Return which model a registered version is; None if no record knows. One request."""
    try:
        found: dict[str, Any] = objects.get_json(keys.registered_key(registered_model_name, str(version)))
    except ArtifactNotFoundError:
        return None
    return found


def registered_versions(
    objects: ObjectStore, registered_model_name: str, *, limit: int | None = None, after: str | None = None
) -> list[dict[str, Any]]:
    """
    Return the versions of a registered model that records know, the highest first.

    :param after: Go on after this version.
    """
    prefix = keys.registered_prefix(registered_model_name)
    start = None if after is None else keys.registered_key(registered_model_name, str(after))
    found = [entry.key for entry in objects.list(prefix, after=start, limit=limit)]
    return at_once(objects.get_json, found)


def makers_of_evaluation(objects: ObjectStore, mlflow_run_id: str) -> Iterator[dict[str, Any]]:
    """Yield the attempts that measured an evaluation."""
    return _edges_under(objects, keys.evaluation_edges_prefix(mlflow_run_id, "written"))


def users_of_evaluation(objects: ObjectStore, mlflow_run_id: str) -> Iterator[dict[str, Any]]:
    """Yield the attempts that decided by an evaluation."""
    return _edges_under(objects, keys.evaluation_edges_prefix(mlflow_run_id, "read"))


def event_id(source: Mapping[str, Any] | None, timestamp: str | None) -> str:
    """
    Name an asset event among those of its asset.

    By the task instance that raised it, which does not learn the time that Airflow gives the event; by that
    time if a watcher, a webhook or a person raised it.
    """
    if source and source.get("task_id"):
        who = [str(source.get(name)) for name in ("dag_id", "run_id", "task_id")]
        who.append(str(-1 if source.get("map_index") is None else source["map_index"]))
        return f"task-{hashlib.sha256(repr(who).encode()).hexdigest()[:24]}"
    return f"time-{timestamp or 'unknown'}"


def runs_started_by(objects: ObjectStore, uri: str, event: str) -> Iterator[dict[str, Any]]:
    """Yield the DAG runs that an asset event started; ``timestamp`` is the event's own."""
    return _edges_under(objects, keys.event_prefix(uri, event))


def edges_of(record: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Name the objects that lead back to a record, and say what is in them.

    :param record: :meth:`TaskRecord.to_json`.
    """
    key = key_of(record)
    place = key.removeprefix("records/")
    who = {**{name: record[name] for name in _ATTEMPT}, "recorded_at": record["recorded_at"], "record": key}
    if record["outcome"] != RUNNING:
        # An edge is written once, by then the outcome may be open; the record knows it.
        who["outcome"] = record["outcome"]
    uses = [("read" if use["loaded"] else "handed", use) for use in record.get("reads") or ()]
    for how, use in (*(("reused", use) for use in record.get("reused") or ()), *uses):
        yield keys.consumers_prefix(use["version_id"]) + place, {**who, "name": use["name"], "use": how}
    for direction in ("read", "written"):
        for model in record.get(f"models_{direction}") or ():
            filed = model_key(model)
            if filed is None:
                continue
            yield keys.model_edges_prefix(filed, direction) + place, {**who, **model}
            name, version = model.get("registered_model_name"), model.get("version")
            if name and version:
                known = {label: model.get(label) for label in _MODEL}
                yield keys.registered_key(name, str(version)), {**known, "model_key": filed}
    if made := (record.get("evaluation") or {}).get("mlflow_run_id"):
        yield keys.evaluation_edges_prefix(made, "written") + place, who
    if used := (record.get("promotion") or {}).get("evaluation_run_id"):
        yield keys.evaluation_edges_prefix(used, "read") + place, who
    run = f"{keys.segment(record['dag_id'])}/{keys.segment(record['run_id'])}.json"
    for event in record.get("triggered_by") or ():
        started = {"dag_id": record["dag_id"], "run_id": record["run_id"], **event}
        place = keys.event_prefix(event["uri"], event_id(event.get("source"), event.get("timestamp")))
        yield place + run, started


def _registered_in(record: Mapping[str, Any]) -> set[str]:
    """Return where it stands which models the versions are that an attempt registered or promoted."""
    return {
        keys.registered_key(model["registered_model_name"], str(model["version"]))
        for model in record.get("models_written") or ()
        if model.get("model_id") and model.get("registered_model_name") and model.get("version")
    }


def _mark(key: str, doc: Mapping[str, Any]) -> str:
    return f"{key} {doc.get('role') or doc.get('use') or ''}"


def _edges_under(objects: ObjectStore, prefix: str) -> Iterator[dict[str, Any]]:
    listed = objects.list(prefix)
    while batch := [entry.key for entry in islice(listed, _TOGETHER)]:
        yield from at_once(objects.get_json, batch, objects.at_hand)


def _place(record: TaskRecord) -> str:
    return record.key.removeprefix("records/")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, VersionUse):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
