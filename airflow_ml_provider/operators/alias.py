# SPDX-License-Identifier: Apache-2.0
"""What operators that move an alias have in common: who they are, and the event of the alias's asset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.assets.assets import ModelAsset
from airflow_ml_provider.operators.base import MlflowTask
from airflow_ml_provider.operators.outlets import announce, silence
from airflow_ml_provider.operators.train import finite
from airflow_ml_provider.tracking.moves import ANNOUNCED_BY_TASK
from airflow_ml_provider.xcom.context import identity_of

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

    from airflow_ml_provider.tracking.ledger import AliasMove


class MovesAlias(MlflowTask):
    """
    Mixed into operators that move an alias.

    The event of the alias's asset is emitted if this task instance made the move, whichever try it was
    in; a try that moves nothing takes the asset off its outlets.
    """

    registered_model_name: str
    alias: str
    outlets: list[Any]

    def check_outlets(self) -> None:
        """Raise for outlets that announce another alias than this task moves, as far as templates tell."""
        for outlet in self.outlets:
            if isinstance(outlet, ModelAsset) and not _may_announce(
                outlet, self.registered_model_name, self.alias
            ):
                raise ValueError(
                    f"the outlet {outlet.name!r} announces a move that this task does not make; it moves "
                    f"{self.alias!r} of {self.registered_model_name!r}"
                )

    def _announces(self, outlet: Any) -> bool:
        asset = ModelAsset(self.registered_model_name, self.alias)
        return getattr(outlet, "uri", None) == asset.uri or getattr(outlet, "name", None) == asset.name

    def announcing(self) -> dict[str, Any]:
        """Say in the evidence of a move whether this task announces it, so that a watcher need not."""
        return {ANNOUNCED_BY_TASK: True} if any(map(self._announces, self.outlets)) else {}

    def _announce(self, context: Context, result: Mapping[str, Any], move: AliasMove) -> None:
        """Put where the alias points now into the event of its asset."""
        extra = {
            "registered_model_name": self.registered_model_name,
            "alias": self.alias,
            "version": result["version"],
            "previous_version": result["previous_version"],
            "model_id": result["model_id"],
            "mlflow_run_id": result["mlflow_run_id"],
            "metrics": finite(result["metrics"]),
            "effective_at": result["effective_at"],
            "kind": move.kind,
            "sequence": move.sequence,
        }
        announce(self, context, extra, self._announces)

    def _silence(self, context: Context) -> None:
        """Drop the asset of the alias from the outlets of this attempt, so that its success is no event."""
        silence(self, context, self._announces)


def actor_of(context: Context) -> dict[str, Any]:
    """Say to the ledger which task instance this is, and who started its run by hand."""
    identity, ti = identity_of(context), context["ti"]
    actor: dict[str, Any] = {
        "dag_id": identity.dag_id,
        "run_id": identity.run_id,
        "task_id": identity.task_id,
        "map_index": identity.map_index,
        "try_number": identity.try_number,
        # Airflow adds the tries that were made to ``max_tries`` when it clears a task instance.
        "cleared_after_try": max(0, (getattr(ti, "max_tries", 0) or 0) - (ti.task.retries or 0)),
    }
    if user := getattr(context.get("dag_run"), "triggering_user_name", None):
        actor["user"] = user
    return actor


def _may_announce(outlet: Asset, registered_model_name: Any, alias: Any) -> bool:
    """Whether a move may be one of this asset, as far as templates let us know."""
    if any(not isinstance(text, str) or "{" in text for text in (registered_model_name, alias)):
        return True
    return outlet.uri == ModelAsset(registered_model_name, alias).uri
