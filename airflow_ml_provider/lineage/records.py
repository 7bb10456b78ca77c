# SPDX-License-Identifier: Apache-2.0
"""
What one attempt of a task read and wrote, and the reverse edge from a version to its readers.

One record an attempt and one small object for each version it read: O(inputs + outputs) requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.artifacts import keys

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.objects import ObjectStore
    from airflow_ml_provider.artifacts.refs import ArtifactRef


@dataclass(frozen=True)
class VersionUse:
    """An artifact version as a record names it."""

    name: str
    version_id: str
    digest: str
    type: str
    size_bytes: int

    @classmethod
    def of(cls, ref: ArtifactRef) -> VersionUse:
        return cls(ref.name, ref.version_id, ref.digest, ref.type, ref.size_bytes)


@dataclass(frozen=True)
class TaskRecord:
    """One attempt of one task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    outcome: str
    """``success``, ``failed`` or ``skipped``."""
    started_at: datetime | None = None
    effective_at: datetime | None = None
    data_interval: tuple[datetime, datetime] | None = None
    reads: tuple[VersionUse, ...] = ()
    writes: tuple[VersionUse, ...] = ()
    models_read: tuple[dict[str, Any], ...] = ()
    models_written: tuple[dict[str, Any], ...] = ()
    inlets: tuple[str, ...] = ()
    outlets: tuple[str, ...] = ()
    code: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    recorded_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def key(self) -> str:
        """Where the record lives under the artifact root."""
        return keys.record_key(self.dag_id, self.run_id, self.task_id, self.map_index, self.try_number)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON, times in ISO 8601 with zone."""
        doc: dict[str, Any] = {"kind": "ml-record/v1"}
        for name in self.__dataclass_fields__:
            doc[name] = _plain(getattr(self, name))
        return doc


def write_record(objects: ObjectStore, record: TaskRecord) -> None:
    """
    Write a record and the reverse edges of what it read.

    An attempt that is written twice (a listener called again) replaces its own record.
    """
    objects.put_json(record.key, record.to_json(), create_only=False)
    consumer = {
        "dag_id": record.dag_id,
        "run_id": record.run_id,
        "task_id": record.task_id,
        "map_index": record.map_index,
        "try_number": record.try_number,
        "outcome": record.outcome,
        "recorded_at": record.recorded_at.isoformat(),
        "record": record.key,
    }
    for use in record.reads:
        objects.put_json(consumer_key(use.version_id, record), consumer, create_only=False)


def consumer_key(version_id: str, record: TaskRecord) -> str:
    """Place the reverse edge of one attempt beside the others of the version it read."""
    return f"{keys.consumers_prefix(version_id)}{record.key.removeprefix('records/')}"


def read_record(
    objects: ObjectStore, dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int
) -> dict[str, Any]:
    """
    Return the record of an attempt as JSON.

    :raises ArtifactNotFoundError: if the attempt left none.
    """
    found: dict[str, Any] = objects.get_json(keys.record_key(dag_id, run_id, task_id, map_index, try_number))
    return found


def consumers_of(objects: ObjectStore, version_id: str) -> Iterator[dict[str, Any]]:
    """Yield the attempts that read an artifact version."""
    for entry in objects.list(keys.consumers_prefix(version_id)):
        yield objects.get_json(entry.key)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, VersionUse):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
