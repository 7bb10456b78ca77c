# SPDX-License-Identifier: Apache-2.0
"""
Small objects that are in the order in which people ask, so that a page of a list is one request.

Records are found by DAG, run and task. What is asked for newest first stands once more under keys that begin
with a time, inverted as in version ids::

    runs/<dag>/<run after>-<run>.json                             a run that left a record
    metrics/<dag>/<run after>-<run>-<task>-<map index + 1>.json   what a task instance measured last
    decisions/<model>/<alias>/<started>-<digest>.json             what a promotion decided, rejections too

Runs and tasks of metrics are hashed, and all are in one folder: some stores list many small folders slowly.
They are written after the record and hold nothing that it does not hold.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.artifacts import keys

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.objects import ObjectStore

_METRICS_NAME = re.compile(r"[0-9a-f]{15}-[0-9a-f]{16}-[0-9a-f]{16}-[0-9]{1,9}[.]json")
_WHO = ("dag_id", "run_id", "task_id", "map_index", "try_number")
_WHEN = ("started_at", "recorded_at", "effective_at")
_RUN = ("run_type", "run_after", "logical_date", "partition_key")
_MEASURED = ("params", "metrics", "mlflow_run_id", "evaluation", "promotion", "models_written")


def runs_prefix(dag_id: str) -> str:
    return f"runs/{keys.segment(dag_id)}/"


def metrics_prefix(dag_id: str) -> str:
    return f"metrics/{keys.segment(dag_id)}/"


def metrics_name(run_id: str, run_after: datetime, task_id: str, map_index: int) -> str:
    """Name what a task instance measured: beside the others of its run, those of the latest run first."""
    return (
        f"{keys.before_versions_at(run_after)}-{_hashed(run_id)}-{_hashed(task_id)}-{int(map_index) + 1}.json"
    )


def check_metrics_name(name: Any) -> str:
    """Return a name of :func:`metrics_name`; ``ValueError`` if it cannot be one."""
    if not isinstance(name, str) or not _METRICS_NAME.fullmatch(name):
        raise ValueError(f"not a name of metrics: {name!r:.100}")
    return name


def is_of_task(name: str, task_id: str) -> bool:
    """Tell whether a name of :func:`metrics_name` is that of a task's instance."""
    return name.split("-")[2] == _hashed(task_id)


def _hashed(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def decisions_prefix(registered_model_name: str, alias: str) -> str:
    return f"decisions/{keys.segment(registered_model_name)}/{keys.segment(alias)}/"


def run_place(run_id: str, run_after: datetime) -> str:
    """Name a run so that the latest one sorts first."""
    return f"{keys.before_versions_at(run_after)}-{keys.segment(run_id)}"


def index_attempt(objects: ObjectStore, record: Mapping[str, Any]) -> None:
    """
    Write what lists are made of: one request, and one more for each of metrics and a promotion.

    :param record: ``TaskRecord.to_json()``. Without ``run["run_after"]`` nothing can be put in order, and
        nothing is written.
    """
    run = record.get("run") or {}
    run_after = _moment(run.get("run_after"))
    if run_after is None:
        return
    # Every attempt of the run says the same; the first one writes it.
    entry = {
        "kind": "ml-run/v1",
        "dag_id": record["dag_id"],
        "run_id": record["run_id"],
        **{name: run.get(name) for name in _RUN},
        "data_interval": record.get("data_interval"),
        "effective_at": record.get("effective_at"),
    }
    objects.put_json(_run_key(record, run_after), entry, create_only=True)

    if any(record.get(name) for name in _MEASURED):
        row = {
            "kind": "ml-metrics/v1",
            **{name: record.get(name) for name in (*_WHO, "outcome", *_WHEN, *_MEASURED, "cached")},
            **{name: run.get(name) for name in _RUN},
        }
        objects.put_json(_metrics_key(record, run_after), row, create_only=False)

    promotion = record.get("promotion") or {}
    if promotion.get("registered_model_name") and promotion.get("alias"):
        when = _moment(record.get("started_at")) or _moment(record.get("recorded_at")) or run_after
        who = hashlib.sha256(repr([record[name] for name in _WHO]).encode()).hexdigest()[:16]
        decision = {
            "kind": "ml-decision/v1",
            **{name: record.get(name) for name in (*_WHO, *_WHEN)},
            **promotion,
        }
        prefix = decisions_prefix(promotion["registered_model_name"], promotion["alias"])
        objects.put_json(f"{prefix}{keys.before_versions_at(when)}-{who}.json", decision, create_only=False)


def places_of(record: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the keys of a record's run and of what its task instance measured; None if it is in no order."""
    run_after = _moment((record.get("run") or {}).get("run_after"))
    return None if run_after is None else (_run_key(record, run_after), _metrics_key(record, run_after))


def _run_key(record: Mapping[str, Any], run_after: datetime) -> str:
    return f"{runs_prefix(record['dag_id'])}{run_place(record['run_id'], run_after)}.json"


def _metrics_key(record: Mapping[str, Any], run_after: datetime) -> str:
    name = metrics_name(record["run_id"], run_after, record["task_id"], record["map_index"])
    return f"{metrics_prefix(record['dag_id'])}{name}"


def _moment(value: Any) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
