# SPDX-License-Identifier: Apache-2.0
"""Evaluations over data time, and the moves of the aliases to mark beside them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_ml_provider.lineage.queries import Queries
    from airflow_ml_provider.plugins.api.access import Access
    from airflow_ml_provider.plugins.api.shapes import Json, Shapes

# Rows without an evaluation must not make a page of none, nor a DAG without any a walk through all its runs.
_MOST_PAGES = 5
_MOST_MOVES = 1000


def evaluations_of_dag(
    queries: Queries,
    dag_id: str,
    made: Shapes,
    *,
    limit: int,
    cursor: str | None = None,
    model: str | None = None,
) -> tuple[list[Json], str | None]:
    """
    Return evaluations that a DAG's tasks measured, those of the latest run first, and where to go on.

    :param model: Of this registered model alone.
    """
    found: list[Json] = []
    for _ in range(_MOST_PAGES):
        page = queries.measured(dag_id, limit=limit, cursor=cursor)
        for row in page.items:
            shown = made.evaluation(row.evaluation, row)
            if shown is not None and model in (None, shown["registered_model_name"]):
                found.append(shown)
        cursor = page.cursor
        if cursor is None or len(found) >= limit:
            break
    return found, cursor


def champions_of(models: Iterable[str], queries: Queries, access: Access) -> tuple[list[Json], int]:
    """Return the moves of the models' aliases, the oldest first, and how many the user may not see."""
    from airflow_ml_provider.plugins.api.shapes import Shapes

    made = Shapes.of(access.may_read)
    told: list[Json] = []
    hidden = 0
    for name in models:
        for alias in queries.ledger.aliases_of(name):
            moves = queries.moves(name, alias, limit=_MOST_MOVES).items
            shown = [each for each in moves if access.may_read(each.actor.get("dag_id"))]
            hidden += len(moves) - len(shown)
            if shown:
                told.append(
                    {
                        "registered_model_name": name,
                        "alias": alias,
                        "moves": [made.move(each) for each in reversed(shown)],
                    }
                )
    return told, hidden
