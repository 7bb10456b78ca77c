# SPDX-License-Identifier: Apache-2.0
"""Evaluations over data time, and the moves of the aliases to mark beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_ml_provider.lineage.answers import Measured
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
    versions: Mapping[str, str] | None = None,
) -> tuple[list[Json], str | None]:
    """
    Return evaluations that a DAG's tasks measured, those of the latest run first, and where to go on.

    A training judges its model before it registers it: then its versions, or the decision that came of the
    evaluation, tell the name.

    :param model: Of this registered model alone.
    :param versions: Of this model: version by model id.
    """
    rows: list[Measured] = []
    known: dict[str, tuple[str, str | None]] = {}
    for _ in range(_MOST_PAGES):
        page = queries.measured(dag_id, limit=limit, cursor=cursor, judged=True)
        rows.extend(row for row in page.items if row.evaluation)
        for row in page.items:
            decided = row.promotion or {}
            if decided.get("model_id") and decided.get("registered_model_name"):
                known[decided["model_id"]] = (decided["registered_model_name"], decided.get("version"))
        cursor = page.cursor
        if cursor is None or len(rows) >= limit:
            break
    for model_id, version in (versions or {}).items():
        known[model_id] = (str(model), version)
    shown = [made.evaluation(_named(row.evaluation or {}, known), row) for row in rows]
    return [each for each in shown if each and model in (None, each["registered_model_name"])], cursor


def _named(evaluation: Json, known: Mapping[str, tuple[str, str | None]]) -> Json:
    name, version = known.get(str(evaluation.get("model_id")), (None, None))
    if evaluation.get("registered_model_name") or name is None:
        return evaluation
    return {**evaluation, "registered_model_name": name, "version": version}


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
