# SPDX-License-Identifier: Apache-2.0
"""What one could do about a model: answer who asks, roll back."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_ml_provider.artifacts.preview import short

if TYPE_CHECKING:
    from airflow_ml_provider.lineage.answers import Model
    from airflow_ml_provider.plugins.api.access import Access
    from airflow_ml_provider.plugins.api.shapes import Json

_MOST_ASKED = 20


def hints_for(found: Model, access: Access) -> list[Json]:
    """Return hints about a model, as far as the user may see what they are about."""
    hints = _asked(found.name, access)
    for alias, move in sorted(found.aliases.items()):
        if not access.may_read(move.actor.get("dag_id")):
            continue
        if move.version is not None and move.previous_version is not None:
            text = (
                f"To put {alias} back to version {move.previous_version}, run a DAG with "
                f"RollbackModelOperator(registered_model_name={found.name!r}, alias={alias!r})"
            )
            hints.append({"kind": "rollback", "text": text, "command": None, "href": None})
    return hints


def _asked(name: str, access: Access) -> list[Json]:
    """Return the tasks that wait for a person to decide about a model. One query."""
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    question = (
        select(
            TaskInstance.dag_id,
            TaskInstance.run_id,
            TaskInstance.task_id,
            TaskInstance.map_index,
            HITLDetail.subject,
        )
        .join(TaskInstance, TaskInstance.id == HITLDetail.ti_id)
        # How a promotion begins its question, see tracking/approval.py.
        .where(
            HITLDetail.responded_at.is_(None),
            HITLDetail.subject.startswith(f"{name}: make ", autoescape=True),
            TaskInstance.state == "awaiting_input",
        )
        .order_by(HITLDetail.created_at.desc())
        .limit(_MOST_ASKED)
    )
    with create_session() as session:
        rows = session.execute(question).all()
    hints: list[Json] = []
    for row in rows:
        if not access.may_see_questions(row.dag_id):
            continue
        parts = [quote(str(part), safe="") for part in (row.dag_id, row.run_id, row.task_id)]
        mapped = f"/mapped/{row.map_index}" if row.map_index >= 0 else ""
        page = f"/dags/{parts[0]}/runs/{parts[1]}/tasks/{parts[2]}{mapped}/required_actions"
        hints.append({"kind": "approve", "text": short(row.subject, 300), "command": None, "href": page})
    return hints
