# SPDX-License-Identifier: Apache-2.0
"""The JSON that the pages get, from what the ground floor answers. Described in docs/reference/ui-api.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.lineage.graph import node_of_evaluation, node_of_model, node_of_version
from airflow_ml_provider.plugins.api.mlflow_pages import MlflowPages, mlflow_pages
from airflow_ml_provider.tracking.ledger import actor_text

if TYPE_CHECKING:
    from airflow_ml_provider.lineage.answers import Measured, Verdict, Version, VersionDetail
    from airflow_ml_provider.lineage.records import TaskRecord, VersionUse
    from airflow_ml_provider.tracking.ledger import AliasMove

Json = dict[str, Any]


def when(value: datetime | str | None) -> str | None:
    """Give a time in ISO 8601, UTC; None for what is none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if value is None:
        return None
    return (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).isoformat()


def interval(value: Any) -> list[str | None] | None:
    """Give a data interval as two times."""
    return None if not value else [when(value[0]), when(value[1])]


def number(value: Any) -> Any:
    """Give a number, and as text one that JSON lacks: ``NaN``, ``Infinity``, ``-Infinity``."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    if math.isfinite(found):
        return value if isinstance(value, int) and not isinstance(value, bool) else found
    return "NaN" if math.isnan(found) else "Infinity" if found > 0 else "-Infinity"


def numbers(values: Mapping[str, Any] | None) -> Json:
    """Give metrics by name."""
    return {str(name): number(value) for name, value in sorted((values or {}).items())}


def plain(value: Any) -> Any:
    """Give JSON of whatever a record holds."""
    if isinstance(value, datetime):
        return when(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def task(found: Any) -> Json | None:
    """Name an attempt, given as an object or as JSON that has its ids."""
    if found is None:
        return None
    get: Callable[[str], Any] = (
        found.get if isinstance(found, Mapping) else lambda name: getattr(found, name, None)
    )
    if not get("dag_id") or not get("task_id"):
        return None
    mapped = get("map_index")
    return {
        "dag_id": get("dag_id"),
        "run_id": get("run_id"),
        "task_id": get("task_id"),
        "map_index": -1 if mapped is None else int(mapped),
        "try_number": get("try_number"),
    }


def version(found: Version) -> Json:
    """One stored version."""
    return {
        "name": found.name,
        "version_id": found.version_id,
        "type": found.type,
        "format": found.format,
        "size_bytes": found.size_bytes,
        "digest": found.digest,
        "recorded_at": when(found.recorded_at),
        "effective_at": when(found.effective_at),
        "data_interval": interval(found.data_interval),
        "producer": task(found.producer),
        "parts": found.shares,
        "node": node_of_version(found.name, found.version_id),
    }


def version_detail(found: VersionDetail) -> Json:
    """One stored version with what its manifest shows of the content."""
    return {
        **version(found),
        "uri": found.uri,
        "schema": plain(found.schema),
        "preview": plain(found.preview),
    }


def use(found: VersionUse) -> Json:
    """A version as a record names it, without its manifest."""
    return {
        "name": found.name,
        "version_id": found.version_id,
        "type": found.type,
        "size_bytes": found.size_bytes,
        "digest": found.digest,
        "loaded": found.loaded,
        "producer": task(found.producer),
        "node": node_of_version(found.name, found.version_id),
    }


def gates(found: Iterable[Any]) -> list[Json]:
    """The verdicts of gates."""
    return [plain(gate) for gate in found if isinstance(gate, Mapping)]


def node_of_move(found: AliasMove) -> str | None:
    """Name the node of the model that an alias points at since a move."""
    if found.version is None:
        return None
    return node_of_model(
        {
            "model_id": found.model_id,
            "registered_model_name": found.registered_model_name,
            "version": found.version,
        }
    )


@dataclass(frozen=True)
class Shapes:
    """
    The shapes that name MLflow's pages, or things that belong to a DAG.

    :param may_read: Whether the user may see what a DAG left.
    """

    may_read: Callable[[str | None], bool]
    pages: MlflowPages

    @classmethod
    def of(cls, may_read: Callable[[str | None], bool]) -> Shapes:
        return cls(may_read, mlflow_pages())

    def model(self, found: Mapping[str, Any], metrics: Mapping[str, Any] | None = None) -> Json:
        """A model as a record names it."""
        name, number_ = found.get("registered_model_name"), found.get("version")
        model_id = found.get("model_id")
        return {
            "model_uri": found.get("model_uri"),
            "registered_model_name": name,
            "version": number_,
            "alias": found.get("alias"),
            "role": found.get("role"),
            "model_id": model_id,
            "mlflow_run_id": found.get("mlflow_run_id"),
            "metrics": numbers(metrics if metrics is not None else found.get("metrics")),
            "mlflow_run_url": self.pages.run(found.get("experiment_id"), found.get("mlflow_run_id")),
            "mlflow_model_url": self.pages.model(name, number_),
            "node": node_of_model(found),
        }

    def evaluation(self, found: Mapping[str, Any] | None, by: TaskRecord | Measured) -> Json | None:
        """What an evaluation measured."""
        if not found:
            return None
        return {
            "task": task(by),
            "effective_at": when(found.get("effective_at")) or when(by.effective_at),
            "recorded_at": when(by.recorded_at),
            **{
                name: found.get(name)
                for name in (
                    "registered_model_name",
                    "version",
                    "model_uri",
                    "model_id",
                    "baseline_uri",
                    "baseline_version",
                    "rows",
                    "mlflow_run_id",
                    "clock",
                )
            },
            "as_of": when(found.get("as_of")),
            "data": plain(found.get("data")),
            "slices": plain(found.get("slices")),
            "gains": plain(found.get("gains")),
            "metrics": numbers(found.get("metrics")),
            "baseline_metrics": None
            if found.get("baseline_metrics") is None
            else numbers(found["baseline_metrics"]),
            "mlflow_run_url": self.pages.run(found.get("experiment_id"), found.get("mlflow_run_id")),
            "node": node_of_evaluation(found["mlflow_run_id"]) if found.get("mlflow_run_id") else None,
        }

    def decision(self, found: Mapping[str, Any] | None, by: TaskRecord | Measured) -> Json | None:
        """What a promotion task decided, as its record has it."""
        if not found:
            return None
        return {
            "kind": _KINDS.get(str(found.get("verdict")), str(found.get("verdict"))),
            "moved": bool(found.get("moved")),
            "registered_model_name": found.get("registered_model_name"),
            "alias": found.get("alias"),
            "version": found.get("version"),
            "previous_version": found.get("previous_version"),
            "effective_at": when(found.get("effective_at")) or when(by.effective_at),
            "recorded_at": when(by.recorded_at),
            "task": task(by),
            "by": actor_text(task(by) or {}),
            "reasons": [str(reason) for reason in found.get("reasons") or ()],
            "gates": gates(found.get("gates") or ()),
            "metrics": numbers(found.get("metrics")),
            "baseline_metrics": numbers(found.get("baseline_metrics")),
            "model_id": found.get("model_id"),
            "model_uri": found.get("model_uri"),
            "mlflow_run_id": found.get("mlflow_run_id"),
            "node": node_of_model(found),
        }

    def verdict(self, found: Verdict) -> Json:
        """What a promotion task decided, from the list of decisions."""
        fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
        return self.decision(fields, found) or {}  # type: ignore[arg-type]

    def move(self, found: AliasMove) -> Json:
        """A move of an alias, from the ledger."""
        return {
            "kind": found.kind if found.version is not None else "removal",
            "moved": True,
            "registered_model_name": found.registered_model_name,
            "alias": found.alias,
            "version": found.version,
            "previous_version": found.previous_version,
            "effective_at": when(found.effective_at),
            "recorded_at": when(found.recorded_at),
            "task": task(found.actor),
            "by": actor_text(found.actor),
            "reasons": [str(reason) for reason in found.reasons],
            "gates": gates(found.evidence.get("gates") or ()),
            "metrics": numbers(found.metrics),
            "baseline_metrics": numbers((found.evidence.get("evaluation") or {}).get("baseline_metrics")),
            "model_id": found.model_id,
            "model_uri": found.model_uri,
            "mlflow_run_id": found.mlflow_run_id,
            "node": node_of_move(found),
        }


_KINDS = {"promoted": "promotion", "rolled_back": "rollback"}
