# SPDX-License-Identifier: Apache-2.0
"""What Airflow's own database knows of runs and tasks: their state. Records outlive what is deleted there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_ml_provider.lineage.records import KILLED, RUNNING, TaskRecord
from airflow_ml_provider.plugins.api.shapes import Json, when

if TYPE_CHECKING:
    from airflow_ml_provider.lineage.answers import Measured, Run
    from airflow_ml_provider.lineage.graph import Node

A = TypeVar("A", "TaskRecord", "Node")

# A process tells Airflow that its task is over, and then writes the end of its record.
_ENDING = timedelta(minutes=1)
_OVER_BY_A_KILL = ("failed", "up_for_retry")
_COLUMNS = ("run_id", "state", "run_type", "run_after", "logical_date", "start_date", "end_date")


def runs_in_airflow(dag_id: str, run_ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Return the runs of a DAG that Airflow has, by run id. One query."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    wanted = list(run_ids)
    if not wanted:
        return {}
    columns = [getattr(DagRun, name) for name in _COLUMNS]
    with create_session() as session:
        rows = session.execute(select(*columns).where(DagRun.dag_id == dag_id, DagRun.run_id.in_(wanted)))
        return {row.run_id: row._mapping for row in rows}


def run(found: Run | Measured | TaskRecord, airflow: Mapping[str, Mapping[str, Any]]) -> Json:
    """
    Describe a run.

    :param found: Something that was recorded in it.
    :param airflow: What :func:`runs_in_airflow` gave; a run that is not there was deleted.
    """
    own = airflow.get(found.run_id, {})
    recorded = getattr(found, "run", None)
    get: Callable[[str], Any] = (
        recorded.get if isinstance(recorded, Mapping) else lambda name: getattr(found, name, None)
    )
    return {
        "dag_id": found.dag_id,
        "run_id": found.run_id,
        "state": None if not own.get("state") else str(own["state"]),
        "in_airflow": bool(own),
        "run_type": str(own["run_type"]) if own.get("run_type") else get("run_type"),
        "run_after": when(own.get("run_after") or get("run_after")),
        "logical_date": when(own.get("logical_date") or get("logical_date")),
        "partition_key": get("partition_key"),
        "effective_at": when(found.effective_at),
        "start_date": when(own.get("start_date")),
        "end_date": when(own.get("end_date")),
    }


def with_the_killed(attempts: Sequence[A]) -> list[A]:
    """
    Say of attempts that Airflow counts as failed, and whose records have no end, that they were killed.

    The next try writes that into the record; after the last one nobody does. No query where none is open.

    :param attempts: Of any runs, and among nodes of a graph also what is no attempt.
    """
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    opened = {_identity(each) for each in attempts if each.outcome == RUNNING}
    if not opened:
        return list(attempts)
    dags, runs, tasks = ({identity[place] for identity in opened} for place in range(3))
    columns = ("dag_id", "run_id", "task_id", "map_index", "try_number")
    with create_session() as session:
        rows = session.execute(
            select(*(getattr(TaskInstance, name) for name in columns)).where(
                TaskInstance.dag_id.in_(dags),
                TaskInstance.run_id.in_(runs),
                TaskInstance.task_id.in_(tasks),
                TaskInstance.state.in_(_OVER_BY_A_KILL),
                TaskInstance.end_date < datetime.now(UTC) - _ENDING,
            )
        )
        over = opened & {tuple(row) for row in rows}
    return [_killed(each) if _identity(each) in over else each for each in attempts]


def _identity(attempt: TaskRecord | Node) -> tuple[Any, ...]:
    return attempt.dag_id, attempt.run_id, attempt.task_id, attempt.map_index, attempt.try_number


def _killed(attempt: A) -> A:
    if isinstance(attempt, TaskRecord):
        why = "its process ended without a word; Airflow counts it as failed"
        return replace(attempt, outcome=KILLED, error=why)
    return replace(attempt, outcome=KILLED)
