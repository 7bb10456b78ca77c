# SPDX-License-Identifier: Apache-2.0
"""Move an alias back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_ml_provider.assets.handlers import check_alias, check_registered_model_name
from airflow_ml_provider.operators.alias import MovesAlias, actor_of
from airflow_ml_provider.operators.base import ledger, note_model, note_promotion
from airflow_ml_provider.operators.register import check_name_or_template
from airflow_ml_provider.operators.train import finite
from airflow_ml_provider.tracking.ledger import AliasMove
from airflow_ml_provider.tracking.moves import ROLLBACK, before, make_move, where
from airflow_ml_provider.tracking.registry import version_ref
from airflow_ml_provider.xcom.context import effective_at_of, run_type_of

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class RollbackModelOperator(MovesAlias, BaseOperator):
    """
    Point an alias back at the version before, or at a named one.

    An ordinary move: it is recorded in the ledger with its reason, and its asset event starts the DAGs that
    wait for the alias. Returns ``{"rolled_back", "version", "previous_version", "reasons", ...}``.

    The version before is the one that the current version took the alias from, so that a second rollback
    goes one further back. A retry does not.

    .. versionadded:: 0.1.0

    :param registered_model_name: Name of the registered model. (templated)
    :param alias: The alias to move. (templated)
    :param version: The version to go back to; by default the one before. (templated)
    :param reason: Why, for the ledger. (templated)
    :param move_in_backfill: Move the alias in backfill runs too.
    :param mlflow_conn_id: Connection of the tracking server; by default ``[ml_provider] mlflow_conn_id``.
    """

    template_fields: Sequence[str] = ("registered_model_name", "alias", "version", "reason")
    ui_color = "#fbe5d6"

    def __init__(
        self,
        *,
        registered_model_name: str,
        alias: str = "champion",
        version: str | int | None = None,
        reason: str | None = None,
        move_in_backfill: bool = False,
        mlflow_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_name_or_template(registered_model_name)
        if isinstance(alias, str) and "{" not in alias:
            check_alias(alias)
        if not isinstance(move_in_backfill, bool):
            raise TypeError(f"move_in_backfill must be True or False, got {move_in_backfill!r}")
        self.registered_model_name = registered_model_name
        self.alias = alias
        self.version = version
        self.reason = reason
        self.move_in_backfill = move_in_backfill
        self.mlflow_conn_id = mlflow_conn_id
        self.check_outlets()

    def execute(self, context: Context) -> dict[str, Any]:
        check_registered_model_name(self.registered_model_name)
        check_alias(self.alias)
        client, name, alias = self.hook.client, self.registered_model_name, self.alias
        wanted = _version(self.version)
        reasons = [str(self.reason)] if self.reason else []
        result: dict[str, Any] = {
            "rolled_back": False,
            "registered_model_name": name,
            "alias": alias,
            "version": None,
            "previous_version": None,
            "reasons": reasons,
            "effective_at": effective_at_of(context).isoformat(),
        }
        if run_type_of(context) == "backfill" and not self.move_in_backfill:
            reasons.append(
                f"a backfill run leaves the alias {alias!r} where it is; move_in_backfill=True would move it"
            )
            return self._leave(context, result)

        book, actor = ledger(), actor_of(context)
        standing = where(client, book, name, alias)
        made = book.made_in_turn(name, alias, actor, ROLLBACK) if actor["try_number"] > 1 else None
        if made is None:
            if wanted is None:
                undone = before(book, standing, name, alias)
                wanted = undone.previous_version
                reasons.append(f"version {wanted} is what version {standing.version} took the alias from")
            if wanted == standing.version:
                result |= {"version": wanted, "previous_version": wanted}
                reasons.append(f"{alias!r} points at version {wanted} already")
                return self._leave(context, result)
            ref = version_ref(client, name, str(wanted))
            made = make_move(
                client,
                book,
                AliasMove(
                    registered_model_name=name,
                    alias=alias,
                    version=wanted,
                    previous_version=standing.version,
                    effective_at=datetime.fromisoformat(result["effective_at"]),
                    recorded_at=datetime.now(UTC),
                    kind=ROLLBACK,
                    reasons=reasons,
                    actor=actor,
                    model_id=ref.model_id,
                    mlflow_run_id=ref.mlflow_run_id,
                    metrics=finite(ref.metrics),
                    evidence=self.announcing(),
                ),
                standing,
            )
        elif standing.move is not None and standing.move.sequence != made.sequence:
            log.warning("An earlier try rolled back; since then %s", standing.move)
            result |= {"rolled_back": True, "version": made.version, "superseded_by": standing.version}
            result["previous_version"] = made.previous_version
            return self._leave(context, result)
        ref = version_ref(client, name, str(made.version))
        result |= {
            "rolled_back": True,
            "version": made.version,
            "previous_version": made.previous_version,
            "reasons": list(made.reasons),
            "model_id": ref.model_id,
            "mlflow_run_id": ref.mlflow_run_id,
            "metrics": dict(ref.metrics),
        }
        self.show_model(context, name, made.version)
        note_model(context, ref, "read", "rolled_back")
        note_promotion(context, result, "rolled_back")
        self._announce(context, result, made)
        log.info("%s", made)
        return result

    def _leave(self, context: Context, result: dict[str, Any]) -> dict[str, Any]:
        self._silence(context)
        note_promotion(context, result, "rolled_back" if result["rolled_back"] else "stayed")
        self.show_model(context, self.registered_model_name, result["version"])
        log.info("%s@%s stays: %s", self.registered_model_name, self.alias, "; ".join(result["reasons"]))
        return result


def _version(version: Any) -> str | None:
    """Read a (rendered) version; None or empty: not given."""
    if version is None or str(version).strip() in ("", "None"):
        return None
    text = str(version).strip()
    if not text.isdigit():
        raise ValueError(f"version must be the number of a version, such as 3, got {version!r}")
    return text
