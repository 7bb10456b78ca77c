# SPDX-License-Identifier: Apache-2.0
"""The tab of a task instance: what one attempt read, wrote, measured and decided."""

# No "from __future__ import annotations" here: FastAPI reads the annotations of endpoints.

import logging
from typing import Any

from fastapi import APIRouter

from airflow_ml_provider.artifacts.objects import at_once
from airflow_ml_provider.exceptions import ArtifactError, ArtifactNotFoundError, StoreError
from airflow_ml_provider.lineage.graph import node_of_task
from airflow_ml_provider.lineage.queries import Queries
from airflow_ml_provider.lineage.records import TaskRecord, VersionUse
from airflow_ml_provider.plugins.api import shapes
from airflow_ml_provider.plugins.api.access import ONE_DAG, Access, AccessDep
from airflow_ml_provider.plugins.api.parameters import (
    DagId,
    MapIndex,
    QueriesDep,
    RunId,
    TaskId,
    TryNumber,
)
from airflow_ml_provider.plugins.api.runs_in_airflow import with_the_killed
from airflow_ml_provider.plugins.api.shapes import Json, Shapes, when
from airflow_ml_provider.plugins.api.steps import metrics_over_steps

log = logging.getLogger(__name__)

router = APIRouter(prefix="/dags/{dag_id}/runs/{run_id}/tasks/{task_id}", dependencies=ONE_DAG)

# A task after a thousand mapped ones reads a thousand versions; the page shows these with their previews.
_MOST_DETAILS = 100


@router.get("")
def task_instance(
    dag_id: DagId,
    run_id: RunId,
    task_id: TaskId,
    access: AccessDep,
    queries: QueriesDep,
    map_index: MapIndex = -1,
    try_number: TryNumber = None,
) -> Json:
    """Return the record of an attempt; 200 with no record for a task that left none."""
    attempts = queries.attempts(dag_id, run_id, task_id, map_index)
    found = next((each for each in attempts if try_number in (None, each.try_number)), None)
    return {
        "task": {
            "dag_id": dag_id,
            "run_id": run_id,
            "task_id": task_id,
            "map_index": map_index,
            "try_number": try_number if found is None else found.try_number,
        },
        "tries": sorted(each.try_number for each in attempts),
        "record": None if found is None else record(with_the_killed([found])[0], queries, access),
    }


@router.get("/metrics")
def task_metrics(
    dag_id: DagId,
    run_id: RunId,
    task_id: TaskId,
    queries: QueriesDep,
    map_index: MapIndex = -1,
    try_number: TryNumber = None,
) -> Json:
    """Return metrics over steps, which only MLflow keeps."""
    attempts = queries.attempts(dag_id, run_id, task_id, map_index)
    found = next((each for each in attempts if try_number in (None, each.try_number)), None)
    return metrics_over_steps(None if found is None else found.mlflow_run_id)


def record(found: TaskRecord, queries: Queries, access: Access) -> Json:
    """Give a record with its versions' schemas and previews, without what the user may not see."""
    reads, writes, reused = (
        _versions(uses, queries, access) for uses in (found.reads, found.writes, found.reused)
    )
    return {
        **brief(found, access),
        "reads": reads["shown"],
        "writes": writes["shown"],
        "reused": reused["shown"],
        "more": {"reads": reads["more"], "writes": writes["more"], "reused": reused["more"]},
        "hidden": reads["hidden"] + writes["hidden"] + reused["hidden"],
        "data_interval": shapes.interval(found.data_interval),
        "inlets": list(found.inlets),
        "outlets": list(found.outlets),
        "triggered_by": [_event(each) for each in found.triggered_by if _shows_event(each, access)],
        "triggered_by_total": found.triggered_by_total,
        "emitted": [_event(each) for each in found.emitted],
        "code": shapes.plain(found.code),
        "environment": shapes.plain(found.environment),
    }


def brief(found: TaskRecord, access: Access) -> Json:
    """Give what a record says in a list: versions without schemas and previews."""
    made = Shapes.of(access.may_read)
    pages = made.pages
    visible = {
        name: [each for each in getattr(found, name) if shows_use(each, access)]
        for name in ("reads", "writes", "reused")
    }
    return {
        "task": shapes.task(found),
        "outcome": found.outcome,
        "started_at": when(found.started_at),
        "recorded_at": when(found.recorded_at),
        "effective_at": when(found.effective_at),
        **{name: [shapes.use(each) for each in uses[:_MOST_DETAILS]] for name, uses in visible.items()},
        "hidden": sum(len(getattr(found, name)) - len(uses) for name, uses in visible.items()),
        "models_read": [made.model(each) for each in found.models_read],
        "models_written": [made.model(each) for each in found.models_written],
        "params": shapes.plain(found.params),
        "metrics": shapes.numbers(found.metrics),
        "cache": _cache(found.cached, access),
        "evaluation": made.evaluation(found.evaluation, found),
        "decision": made.decision(found.promotion, found),
        "error": found.error,
        "mlflow": None
        if not found.mlflow_run_id
        else {
            "run_id": found.mlflow_run_id,
            "experiment_id": found.experiment_id,
            "run_url": pages.run(found.experiment_id, found.mlflow_run_id),
        },
        "node": node_of_task(found.dag_id, found.run_id, found.task_id, found.map_index, found.try_number),
    }


def _versions(uses: tuple[VersionUse, ...], queries: Queries, access: Access) -> Json:
    visible = [each for each in uses if shows_use(each, access)]

    def detail(each: VersionUse) -> Json | None:
        try:
            return {**shapes.use(each), **shapes.version_detail(queries.version(each.name, each.version_id))}
        except ArtifactNotFoundError:
            # Without a producer it may be there and of a DAG that this user may not see.
            return {**shapes.use(each), "gone": True} if each.producer else None
        except StoreError:
            raise
        except ArtifactError as exc:
            # Such as one that was signed with another key: the record and the other versions can be shown.
            log.warning("the manifest of %s, version %s, cannot be read: %s", each.name, each.version_id, exc)
            return {**shapes.use(each), "unreadable": True} if each.producer else None

    details = at_once(detail, visible[:_MOST_DETAILS])
    shown = [each for each in details if each is not None]
    return {
        "shown": shown,
        "more": max(0, len(visible) - _MOST_DETAILS),
        "hidden": len(uses) - len(visible) + len(details) - len(shown),
    }


def shows_use(each: VersionUse, access: Access) -> bool:
    """Whether the user may see a version that a record names."""
    # A record of an early release names no producer; the manifest decides then.
    return not each.producer or access.may_read(each.producer.get("dag_id"))


def _cache(cached: dict[str, Any] | None, access: Access) -> Json | None:
    if not cached:
        return None
    told: Json = shapes.plain(cached)
    origin = cached.get("reused_from")
    visible = origin is not None and access.may_read(origin.get("dag_id"))
    told["reused_from"] = shapes.task(origin) if visible else None
    return told


def _shows_event(event: dict[str, Any], access: Access) -> bool:
    return access.may_read((event.get("source") or {}).get("dag_id"))


def _event(event: dict[str, Any]) -> Json:
    told: Json = shapes.plain(event)
    return told
