# SPDX-License-Identifier: Apache-2.0
"""
What is new about an alias since it was last announced: for the watcher, and for the webhook.

The moves of an alias are numbered turns in the ledger (``moves.py``); what was announced is told by the
number of the last one. So a move is announced once by whoever comes first, and what the ledger knows of
moves between two looks is announced too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.exceptions import ModelNotFoundError
from airflow_ml_provider.tracking.moves import where
from airflow_ml_provider.tracking.registry import version_ref

if TYPE_CHECKING:
    from airflow_ml_provider.tracking.ledger import AliasMove, Ledger

#: Where the state of an alias's asset keeps the Watermark.
WATERMARK_KEY = "airflow_ml_provider.announced"
#: In a move's evidence: the task that makes it announces it, by its own outlet.
ANNOUNCED_BY_TASK = "announced_by_task"


@dataclass(frozen=True)
class Watermark:
    """
    How far the moves of an alias were announced.

    :param version: What the alias pointed at then.
    :param sequence: The number of the last turn; -1 before the first.
    """

    version: str | None
    sequence: int

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any) -> Watermark | None:
        """Read what :meth:`to_json` gave; None for anything else, such as nothing."""
        if not isinstance(document, Mapping) or not isinstance(document.get("sequence"), int):
            return None
        version = document.get("version")
        return cls(None if version is None else str(version), document["sequence"])


def news_of(
    client: Any, ledger: Ledger, registered_model_name: str, alias: str, known: Watermark | None
) -> tuple[list[dict[str, Any]], Watermark]:
    """
    Say which moves are to be announced, the oldest first, and how far that gets.

    Moves made by other means than our operators are written into the ledger on the way. Not announced are
    the removal of an alias, a move that the task that made it announces itself, and whatever was so before
    anybody looked.

    :param known: How far moves were announced; None if nobody has looked yet.
    """
    standing = where(client, ledger, registered_model_name, alias)
    reached = Watermark(standing.version, standing.sequence)
    if known is None:
        return [], reached
    fresh = takewhile(lambda move: _number(move) > known.sequence, ledger.moves(registered_model_name, alias))
    # Moves that others make while this looks belong to the next time.
    moves = [move for move in fresh if known.sequence < _number(move) <= reached.sequence]
    return [
        announcement(client, move)
        for move in reversed(moves)
        if move.version is not None and not move.evidence.get(ANNOUNCED_BY_TASK)
    ], reached


def announcement(client: Any, move: AliasMove) -> dict[str, Any]:
    """Say of a move what ``PromoteModelOperator`` says in the event of its asset."""
    model_id, mlflow_run_id, metrics = move.model_id, move.mlflow_run_id, dict(move.metrics)
    if not metrics or mlflow_run_id is None:
        try:
            ref = version_ref(client, move.registered_model_name, str(move.version))
        except ModelNotFoundError:  # deleted since; that it moved is still true
            pass
        else:
            model_id, mlflow_run_id = model_id or ref.model_id, mlflow_run_id or ref.mlflow_run_id
            metrics = metrics or dict(ref.metrics)
    return {
        "registered_model_name": move.registered_model_name,
        "alias": move.alias,
        "version": move.version,
        "previous_version": move.previous_version,
        "model_id": model_id,
        "mlflow_run_id": mlflow_run_id,
        "metrics": {name: value for name, value in metrics.items() if math.isfinite(value)},
        "effective_at": move.effective_at.isoformat(),
        "kind": move.kind,
        "sequence": move.sequence,
    }


def _number(move: AliasMove) -> int:
    return -1 if move.sequence is None else move.sequence
