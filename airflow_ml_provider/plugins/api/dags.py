# SPDX-License-Identifier: Apache-2.0
"""The tabs of a DAG run and of a DAG, and the table that compares runs."""

# No "from __future__ import annotations" here: FastAPI reads the annotations of endpoints.

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from fastapi import APIRouter

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.lineage import index
from airflow_ml_provider.lineage.answers import Measured, Page, latest_attempts
from airflow_ml_provider.lineage.answers import Run as RecordedRun
from airflow_ml_provider.lineage.comparison import Compared, compare
from airflow_ml_provider.lineage.graph import node_of_version
from airflow_ml_provider.lineage.queries import Queries
from airflow_ml_provider.lineage.records import TaskRecord, VersionUse
from airflow_ml_provider.plugins.api import shapes
from airflow_ml_provider.plugins.api.access import ANY_DAG, ONE_DAG, Access, AccessDep
from airflow_ml_provider.plugins.api.answers import not_found
from airflow_ml_provider.plugins.api.evaluations import champions_of, evaluations_of_dag
from airflow_ml_provider.plugins.api.parameters import (
    Cursor,
    DagId,
    Limit,
    NameCursor,
    OneDagId,
    OtherRunId,
    QueriesDep,
    RunId,
    Search,
)
from airflow_ml_provider.plugins.api.runs_in_airflow import run, runs_in_airflow, with_the_killed
from airflow_ml_provider.plugins.api.shapes import Json, Shapes
from airflow_ml_provider.plugins.api.tasks import brief, shows_use

router = APIRouter()

_MOST_TASKS = 500
_MOST_ROWS = 1000
_MOST_CHANGES = 100


@router.get("/dags", dependencies=ANY_DAG)
def dags(queries: QueriesDep, search: Search = "", limit: Limit = 50, cursor: NameCursor = None) -> Json:
    """Return the DAGs that left records."""
    wanted = search.casefold()
    names = [
        name for name in queries.dags() if wanted in name.casefold() and (cursor is None or name > cursor)
    ]
    return {
        "items": [{"dag_id": name} for name in names[:limit]],
        "next": names[limit - 1] if len(names) > limit else None,
    }


@router.get("/dags/{dag_id}/runs/{run_id}", dependencies=ONE_DAG)
def dag_run(dag_id: DagId, run_id: RunId, access: AccessDep, queries: QueriesDep) -> Json:
    """Return what the task instances of a run read, wrote and measured, in their latest attempts."""
    page = queries.run_attempts(dag_id, run_id, limit=_MOST_TASKS)
    attempts = sorted(latest_attempts(page.items), key=lambda each: str(each.started_at or each.recorded_at))
    airflow = runs_in_airflow(dag_id, [run_id])
    if not attempts:
        return {
            "run": run(RecordedRun(dag_id, run_id), airflow) if airflow else None,
            "tasks": [],
            "tasks_total": 0,
            "truncated": False,
            "previous": None,
        }
    before = _previous(queries, attempts)
    return {
        "run": run(attempts[-1], airflow),
        "tasks": [brief(each, access) for each in with_the_killed(attempts)],
        "tasks_total": len(attempts),
        "truncated": page.cursor is not None,
        "previous": None
        if before is None
        else {"run_id": before.run_id, "effective_at": shapes.when(before.effective_at)},
    }


@router.get("/dags/{dag_id}/runs/{run_id}/comparison", dependencies=ONE_DAG)
def comparison(
    dag_id: DagId, run_id: RunId, access: AccessDep, queries: QueriesDep, other: OtherRunId = None
) -> Json:
    """Return what changed since another run of the DAG, by default the one before."""
    page = queries.run_attempts(dag_id, run_id, limit=_MOST_TASKS)
    if not page.items:
        raise not_found("record of this run")
    if other is None:
        previous = _previous(queries, list(page.items))
        other = None if previous is None else previous.run_id
    pages = [page]
    if other is not None:
        pages.insert(0, queries.run_attempts(dag_id, other, limit=_MOST_TASKS))
        if not pages[0].items:
            raise not_found("record of the run to compare with")
    *first, after = _read_of_all(pages)
    before = first[0] if first else []
    airflow = runs_in_airflow(dag_id, [run_id, *([other] if other else [])])
    seen = [[_visible(each, access) for each in with_the_killed(attempts)] for attempts in (before, after)]
    found = compare(seen) if other is not None else []
    return {
        "run": run(page.items[-1], airflow),
        "with": run(pages[0].items[-1], airflow) if other is not None else None,
        "tasks": _task_changes(found, *({(each.task_id, each.map_index) for each in side} for side in seen)),
        "metrics": [_metric(each) for each in found if each.what == "metric"],
        "hidden": sum(
            len(each.reads) + len(each.reused) - len(shown.reads) - len(shown.reused)
            for sides in zip((before, after), seen, strict=True)
            for each, shown in zip(*sides, strict=True)
        ),
        "truncated": any(each.cursor is not None for each in pages),
    }


@router.get("/dags/{dag_id}/metrics", dependencies=ONE_DAG)
def dag_metrics(dag_id: DagId, queries: QueriesDep, limit: Limit = 50, cursor: Cursor = None) -> Json:
    """Return what was measured in each run, the latest run first."""
    found, rest = _measured_runs(queries, dag_id, limit, cursor)
    airflow = runs_in_airflow(dag_id, [rows[0].run_id for rows in found])
    return {
        "items": [
            {
                "run": run(rows[0], airflow),
                "tasks": [
                    {
                        "task_id": row.task_id,
                        "map_index": row.map_index,
                        "outcome": row.outcome,
                        "params": shapes.plain(row.params),
                        "metrics": shapes.numbers(row.metrics),
                        "decision": (row.promotion or {}).get("verdict"),
                    }
                    for row in rows
                ],
            }
            for rows in found
        ],
        "names": sorted({name for rows in found for row in rows for name in row.metrics}),
        "next": rest,
    }


@router.get("/dags/{dag_id}/evaluations", dependencies=ONE_DAG)
def dag_evaluations(
    dag_id: DagId, access: AccessDep, queries: QueriesDep, limit: Limit = 80, cursor: Cursor = None
) -> Json:
    """Return the evaluations of a DAG, the latest run first, and the moves of their models' aliases."""
    found, rest = evaluations_of_dag(queries, dag_id, Shapes.of(access.may_read), limit=limit, cursor=cursor)
    models = sorted({each["registered_model_name"] for each in found if each["registered_model_name"]})
    champions, hidden = champions_of(models, queries, access)
    return {
        "items": found,
        "models": models,
        "names": sorted({name for each in found for name in each["metrics"]}),
        "champions": champions,
        "hidden": hidden,
        "next": rest,
    }


@router.get("/runs", dependencies=ONE_DAG)
def runs(queries: QueriesDep, dag_id: OneDagId, limit: Limit = 50, cursor: Cursor = None) -> Json:
    """Return one row of parameters and metrics for each run of a DAG."""
    found, rest = _measured_runs(queries, dag_id, limit, cursor)
    airflow = runs_in_airflow(dag_id, [rows[0].run_id for rows in found])
    items = [_row(rows, airflow) for rows in found]
    return {
        "items": items,
        "param_names": sorted({name for item in items for name in item["params"]}),
        "metric_names": sorted({name for item in items for name in item["metrics"]}),
        "next": rest,
    }


def _row(rows: list[Measured], airflow: Mapping[str, Mapping[str, Any]]) -> Json:
    return {
        "run": run(rows[0], airflow),
        "params": {
            _column(row, name): shapes.plain(value) for row in rows for name, value in row.params.items()
        },
        "metrics": {
            _column(row, name): shapes.number(value) for row in rows for name, value in row.metrics.items()
        },
        "tasks": len(rows),
        "decision": next((row.promotion.get("verdict") for row in rows if row.promotion), None),
    }


def _column(row: Measured, name: str) -> str:
    mapped = f"[{row.map_index}]" if row.map_index >= 0 else ""
    return f"{row.task_id}{mapped}.{name}"


def _measured_runs(
    queries: Queries, dag_id: str, limit: int, cursor: str | None
) -> tuple[list[list[Measured]], str | None]:
    """Return the rows of so many runs; each run whole, unless it alone has more than a page."""
    rows: list[Measured] = []
    position = cursor
    while True:
        page = queries.measured(dag_id, limit=200, cursor=position)
        rows.extend(page.items)
        position = page.cursor
        found = [list(group) for _, group in groupby(rows, key=lambda row: row.run_id)]
        if position is None and len(found) <= limit:
            return found, None
        if len(found) > limit or len(rows) >= _MOST_ROWS:
            break
    # The last run may go on after the last row.
    whole = found[:limit] if len(found) > limit else found[:-1] or found
    return whole, _after(whole[-1])


def _after(rows: list[Measured]) -> str:
    """Where the rows after those of a run begin, as ``Queries.measured`` takes it."""
    # A row without the time of its run is under no key, so it was never listed.
    latest = datetime.max.replace(tzinfo=UTC)
    return max(
        index.metrics_name(row.run_id, row.run_after or latest, row.task_id, row.map_index) for row in rows
    )


def _read_of_all(pages: list[Page[TaskRecord]]) -> list[list[TaskRecord]]:
    """
    Return the last attempts of runs, of the task instances up to where the page of each of them reaches.

    One that was not read of one run would look as if it had not been in it.
    """
    ends = [_place(each.items[-1]) for each in pages if each.cursor is not None]
    end = min(ends, default=None)
    # Some tries of the instance at the end may be on the next page.
    kept = [[each for each in page.items if end is None or _place(each) < end] for page in pages]
    return [latest_attempts(attempts) for attempts in kept]


def _place(found: TaskRecord) -> str:
    """Where a task instance is in the order of a page."""
    task = found.key.removeprefix(keys.run_records_prefix(found.dag_id, found.run_id))
    return f"{task.rpartition('/')[0]}/"


def _previous(queries: Queries, attempts: list[TaskRecord]) -> RecordedRun | None:
    """The run before: by the time for which Airflow scheduled it, as its own lists."""
    run_after = next((each.run["run_after"] for each in attempts if each.run.get("run_after")), None)
    if run_after is None:
        return None
    place = index.run_place(attempts[0].run_id, datetime.fromisoformat(run_after))
    page = queries.runs(attempts[0].dag_id, limit=1, cursor=f"{place}.json")
    return page.items[0] if page.items else None


def _visible(found: TaskRecord, access: Access) -> TaskRecord:
    """A record without the versions of DAGs that the user may not see."""

    def kept(uses: tuple[VersionUse, ...]) -> tuple[VersionUse, ...]:
        return tuple(use for use in uses if shows_use(use, access))

    return replace(found, reads=kept(found.reads), writes=kept(found.writes), reused=kept(found.reused))


def _task_changes(
    found: list[Compared], before: set[tuple[str, int]], after: set[tuple[str, int]]
) -> list[Json]:
    """Group differences by task instance."""
    told = []
    for who, group in groupby(found, key=lambda each: (each.task_id, each.map_index)):
        changes = [_change(each) for each in group if not each.same and each.what != "metric"]
        state = "changed" if changes else "same"
        if who not in before or who not in after:
            state, changes = ("added" if who in after else "removed"), []
        told.append(
            {
                "task_id": who[0],
                "map_index": who[1],
                "change": state,
                "changes": changes[:_MOST_CHANGES],
                "more": max(0, len(changes) - _MOST_CHANGES),
            }
        )
    return told


def _change(found: Compared) -> Json:
    before, after = found.values
    if found.what in ("read", "written"):
        before, after = (_versions(found.name, value) for value in (before, after))
    what = "write" if found.what == "written" else found.what
    return {"what": what, "name": found.name, "before": shapes.plain(before), "after": shapes.plain(after)}


def _versions(name: str, value: Any) -> list[Json]:
    ids = [] if value is None else value if isinstance(value, list) else [value]
    return [{"name": name, "version_id": each, "node": node_of_version(name, each)} for each in ids]


def _metric(found: Compared) -> Json:
    before, after = found.values
    both = before is not None and after is not None
    return {
        "task_id": found.task_id,
        "map_index": found.map_index,
        "name": found.name,
        "before": None if before is None else shapes.number(before),
        "after": None if after is None else shapes.number(after),
        "delta": shapes.number(after - before) if both else None,
    }
