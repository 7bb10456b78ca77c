# SPDX-License-Identifier: Apache-2.0
"""What one could do about a model: approve what waits, roll back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_ml_provider.lineage.answers import Model
    from airflow_ml_provider.plugins.api.access import Access
    from airflow_ml_provider.plugins.api.shapes import Json


def hints_for(found: Model, access: Access) -> list[Json]:
    """Return hints about the aliases of a model that the user may see."""
    hints: list[Json] = []
    for alias, move in sorted(found.aliases.items()):
        if not access.may_read(move.actor.get("dag_id")):
            continue
        if move.version is not None and move.previous_version is not None:
            hints.append(
                {
                    "kind": "rollback",
                    "text": (
                        f"To put {alias} back to version {move.previous_version}, run a DAG with "
                        f"RollbackModelOperator(registered_model_name={found.name!r}, alias={alias!r})"
                    ),
                    "command": None,
                    "href": None,
                }
            )
    return hints
