# SPDX-License-Identifier: Apache-2.0
"""What Airflow's own database knows of DAG runs: their state. Records outlive runs that are deleted there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.plugins.api.shapes import Json, when

if TYPE_CHECKING:
    from airflow_ml_provider.lineage.answers import Measured, Run
    from airflow_ml_provider.lineage.records import TaskRecord

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
