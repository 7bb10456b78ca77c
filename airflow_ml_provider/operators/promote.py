# SPDX-License-Identifier: Apache-2.0
"""Move an alias to a model that passes its gates."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_ml_provider.assets.handlers import check_alias, check_registered_model_name
from airflow_ml_provider.exceptions import StaleEvaluationError
from airflow_ml_provider.operators.alias import MovesAlias, actor_of
from airflow_ml_provider.operators.base import coerce_model, dated, ledger, note_model, note_promotion
from airflow_ml_provider.operators.register import actor_tags, check_name_or_template
from airflow_ml_provider.operators.train import finite
from airflow_ml_provider.tracking.gates import MetricGate, decide
from airflow_ml_provider.tracking.ledger import AliasMove
from airflow_ml_provider.tracking.moves import Standing, make_move, where
from airflow_ml_provider.tracking.registry import alias_version, register_version
from airflow_ml_provider.xcom.context import effective_at_of, identity_of, run_type_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_ml_provider.tracking.models import ModelRef

log = logging.getLogger(__name__)

PROMOTION = "promotion"
PROMOTION_TAG = "airflow.promotion"
REASON_TAG = "airflow.promotion.reason"
# MLflow keeps 8,000 characters of a run's tag and 5,000 of a version's.
_TAG_CHARACTERS = 5_000


def previous_version_tag(alias: str) -> str:
    """Name the tag of a version that says what the alias pointed at before it."""
    return f"airflow.previous_version.{alias}"


class PromoteModelOperator(MovesAlias, BaseOperator):
    """
    Register a model and point an alias at it, if it passes the gates.

    Returns ``{"promoted", "version", "previous_version", "reasons", ...}``. A rejection is a result and not
    a failure: the task succeeds, says why in its result, its log and on the model in MLflow, moves nothing,
    and emits no event for the asset of the alias.

    A crash at any point and a retry end in the same state as no crash: one version, one entry in the ledger,
    the alias moved. The alias must still point at the version that the evaluation compared with. Of two
    tasks that move the same alias at once one wins; the other fails with :class:`AliasMovedError` or
    :class:`StaleEvaluationError`, which name the winner, and overwrites nothing.

    In a backfill run the alias stays where it is, unless ``move_in_backfill``.

    .. versionadded:: 0.1.0

    :param model: What ``@task.train`` returned, or a model URI. (templated)
    :param registered_model_name: Name of the registered model; made if missing. (templated)
    :param evaluation: What an evaluation of this model returned. Needed for gates, and they for it. Leave
        out both to promote without looking. (templated)
    :param alias: The alias to move. (templated)
    :param gates: Conditions on the metrics; all must pass.
    :param bootstrap: Let gates that compare with a baseline pass where there is none yet.
    :param move_in_backfill: Move the alias in backfill runs too.
    :param mlflow_conn_id: Connection of the tracking server; by default ``[ml_provider] mlflow_conn_id``.
    """

    template_fields: Sequence[str] = ("model", "registered_model_name", "evaluation", "alias")
    ui_color = "#fdf2d0"

    def __init__(
        self,
        *,
        model: Any,
        registered_model_name: str,
        evaluation: Any = None,
        alias: str = "champion",
        gates: Sequence[MetricGate] = (),
        bootstrap: bool = False,
        move_in_backfill: bool = False,
        mlflow_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_name_or_template(registered_model_name)
        if isinstance(alias, str) and "{" not in alias:
            check_alias(alias)
        if isinstance(gates, MetricGate) or not all(isinstance(gate, MetricGate) for gate in gates):
            raise TypeError(f"gates must be a list of MetricGate, got {gates!r}")
        if gates and evaluation is None:
            raise ValueError("gates need the evaluation=... whose metrics they judge")
        if evaluation is not None and not gates:
            raise ValueError(
                "an evaluation decides nothing without gates; give gates=[MetricGate(...)], or neither"
            )
        for option, value in (("bootstrap", bootstrap), ("move_in_backfill", move_in_backfill)):
            if not isinstance(value, bool):
                raise TypeError(f"{option} must be True or False, got {value!r}")
        self.model = model
        self.registered_model_name = registered_model_name
        self.evaluation = evaluation
        self.alias = alias
        self.gates = tuple(gates)
        self.bootstrap = bootstrap
        self.move_in_backfill = move_in_backfill
        self.mlflow_conn_id = mlflow_conn_id
        self.check_outlets()

    def execute(self, context: Context) -> dict[str, Any]:
        check_registered_model_name(self.registered_model_name)
        check_alias(self.alias)
        client = self.hook.client
        ref = self.resolve(self.model)
        self.show_run(context, ref.experiment_id, ref.mlflow_run_id)
        evaluation = check_evaluation(self.evaluation, ref)
        metrics = dict(evaluation["metrics"]) if evaluation else dict(ref.metrics)
        decision = decide(
            self.gates,
            metrics,
            evaluation.get("baseline_metrics") if evaluation else None,
            bootstrap=self.bootstrap,
            slices=evaluation.get("slices") if evaluation else None,
            gains=evaluation.get("gains") if evaluation else None,
        )
        reasons = list(decision.reasons)
        result: dict[str, Any] = {
            "promoted": False,
            "moved": False,
            "registered_model_name": self.registered_model_name,
            "alias": self.alias,
            "version": None,
            "previous_version": alias_version(client, self.registered_model_name, self.alias),
            "reasons": reasons,
            "gates": [asdict(gate_result) for gate_result in decision.results],
            "model_uri": ref.model_uri,
            "model_id": ref.model_id,
            "mlflow_run_id": ref.mlflow_run_id,
            "metrics": metrics,
            "effective_at": effective_at_of(context).isoformat(),
        }
        if not decision.promoted:
            return self._withhold(context, ref, result, "rejected")
        if run_type_of(context) == "backfill" and not self.move_in_backfill:
            reasons.append(
                f"a backfill run leaves the alias {self.alias!r} where it is; "
                "move_in_backfill=True would move it"
            )
            return self._withhold(context, ref, result, "withheld")
        return self._promote(context, ref, evaluation, result)

    def _promote(
        self, context: Context, ref: ModelRef, evaluation: Mapping[str, Any] | None, result: dict[str, Any]
    ) -> dict[str, Any]:
        client, name, alias = self.hook.client, self.registered_model_name, self.alias
        book, actor = ledger(), actor_of(context)
        standing = where(client, book, name, alias)
        made = standing.move if standing.move is not None and standing.move.made_by(actor) else None
        if made is None and actor["try_number"] > 1:
            made = book.made_in_turn(name, alias, actor, PROMOTION)
        if made is None and evaluation is not None:
            # Before a version is made: a stale evaluation must leave nothing behind.
            self._refuse_stale(evaluation, standing, ref)
        ref = dated(ref, context)
        version = register_version(client, ref, name, actor_tags(identity_of(context)))
        result |= {"promoted": True, "version": version}
        if made is None and standing.version != version:
            made = make_move(
                client, book, self._as_move(ref, version, standing, evaluation, result, actor), standing
            )
        elif made is None:
            return self._stay(context, ref, result, standing, actor)
        elif standing.move is None or made.sequence != standing.move.sequence:
            result |= {"moved": True, "previous_version": made.previous_version}
            result["superseded_by"] = standing.version
            result["reasons"].append(f"an earlier try moved the alias; since then {standing.move}")
            return self._leave(context, ref, result)
        result |= {"moved": True, "previous_version": made.previous_version}
        return self._finish(context, ref, result, made)

    def _as_move(
        self,
        ref: ModelRef,
        version: str,
        standing: Standing,
        evaluation: Mapping[str, Any] | None,
        result: Mapping[str, Any],
        actor: dict[str, Any],
    ) -> AliasMove:
        known = ("mlflow_run_id", "baseline_version", "baseline_metrics", "rows", "data", "effective_at")
        evidence = self.announcing()
        if result["gates"]:
            evidence["gates"] = result["gates"]
        if evaluation is not None:
            evidence["evaluation"] = {
                key: evaluation[key] for key in known if evaluation.get(key) is not None
            }
        return AliasMove(
            registered_model_name=self.registered_model_name,
            alias=self.alias,
            version=version,
            previous_version=standing.version,
            effective_at=datetime.fromisoformat(result["effective_at"]),
            recorded_at=datetime.now(UTC),
            kind=PROMOTION,
            reasons=list(result["reasons"]),
            actor=actor,
            model_id=ref.model_id,
            mlflow_run_id=ref.mlflow_run_id,
            metrics=finite(result["metrics"]),
            evidence=evidence,
        )

    def _stay(
        self,
        context: Context,
        ref: ModelRef,
        result: dict[str, Any],
        standing: Standing,
        actor: Mapping[str, Any],
    ) -> dict[str, Any]:
        """End where the alias points at this version already."""
        move = standing.move
        if move is not None and move.made_by(actor, also_before_a_clear=True):
            # Moved before this task was cleared, perhaps by a try that died before its event was emitted.
            result |= {"moved": True, "previous_version": move.previous_version}
            return self._finish(context, ref, result, move)
        result["reasons"].append(f"{self.alias!r} points at version {standing.version} already")
        return self._leave(context, ref, result)

    def _finish(
        self, context: Context, ref: ModelRef, result: dict[str, Any], move: AliasMove
    ) -> dict[str, Any]:
        """Say everywhere that the alias points at the model. A retry repeats it and changes nothing."""
        version, previous = result["version"], result["previous_version"]
        self.hook.client.set_model_version_tag(
            self.registered_model_name, version, previous_version_tag(self.alias), previous or ""
        )
        self._tag(ref, "promoted", result["reasons"])
        self._show(context, ref, version)
        self._announce(context, result, move)
        note_promotion(context, result, "promoted", self.evaluation)
        log.info(
            "%s of %r moved from version %s to %s: %s",
            self.alias,
            self.registered_model_name,
            previous,
            version,
            "; ".join(result["reasons"]),
        )
        return result

    def _leave(self, context: Context, ref: ModelRef, result: dict[str, Any]) -> dict[str, Any]:
        """End without a move of this try, and so without an event."""
        self._silence(context)
        self._show(context, ref, result["version"])
        note_promotion(context, result, "stayed", self.evaluation)
        log.info("%s: %s", ref.model_uri, "; ".join(result["reasons"]))
        return result

    def _show(self, context: Context, ref: ModelRef, version: str) -> None:
        self.show_model(context, self.registered_model_name, version)
        made = ref.at(version=version, registered_model_name=self.registered_model_name)
        note_model(context, made, "written", "promoted")

    def _refuse_stale(self, evaluation: Mapping[str, Any], standing: Standing, ref: ModelRef) -> None:
        """Raise if the alias is neither where the evaluation saw it nor at this very model."""
        asked = evaluation.get("baseline_uri")
        if asked is None:
            return
        baseline = coerce_model(asked)
        if (baseline.registered_model_name, baseline.alias) != (self.registered_model_name, self.alias):
            return
        compared, current = evaluation.get("baseline_version"), standing.version
        if compared == current:
            return
        if current is not None:
            holder = self.resolve(f"models:/{self.registered_model_name}/{current}")
            if holder.model_id is not None and holder.model_id == ref.model_id:
                return  # moved to this model already
        was, now = (f"version {version}" if version else "nothing" for version in (compared, current))
        hint = "Clear the evaluation task to compare with that"
        if when := evaluation.get("as_of"):
            since = "" if standing.move is None else f", which counts from {standing.move.effective_at}"
            hint = (
                f"The evaluation asked as of {when}, so clearing it compares with {was} again. Looking back, "
                f"an alias can only move on: run the backfill forwards (without --run-backwards), over data "
                f"after its latest move{since}. Without move_in_backfill it stays where it is"
            )
        raise StaleEvaluationError(
            f"the evaluation compared with {was}, but {asked!r} points at {now} by now: {standing.move}; "
            f"nothing was overwritten. {hint}"
        )

    def _withhold(
        self, context: Context, ref: ModelRef, result: dict[str, Any], verdict: str
    ) -> dict[str, Any]:
        self._silence(context)
        self._tag(ref, verdict, result["reasons"])
        self.show_model(context, self.registered_model_name, None)
        note_model(context, ref, "read", verdict)
        note_promotion(context, result, verdict, self.evaluation)
        log.info("%s not promoted: %s", ref.model_uri, "; ".join(result["reasons"]))
        return result

    def _tag(self, ref: ModelRef, verdict: str, reasons: Sequence[str]) -> None:
        """Say on the training run and on the model what became of it."""
        tags = {PROMOTION_TAG: verdict, REASON_TAG: "; ".join(reasons)[:_TAG_CHARACTERS]}
        if ref.mlflow_run_id:
            for key, value in tags.items():
                self.hook.client.set_tag(ref.mlflow_run_id, key, value)
        if ref.model_id:
            self.hook.client.set_logged_model_tags(ref.model_id, tags)


def check_evaluation(evaluation: Any, ref: ModelRef) -> Mapping[str, Any] | None:
    """
    Return an evaluation if it is one, of this model.

    :raises TypeError: if it is none.
    :raises ValueError: if it judged another model.
    """
    if evaluation is None:
        return None
    if not isinstance(evaluation, Mapping) or not isinstance(evaluation.get("metrics"), Mapping):
        raise TypeError(
            f"evaluation must be what an evaluation task returned, a dict with 'metrics'; "
            f"got {evaluation!r:.200}"
        )
    judged = evaluation.get("model_id")
    if judged is not None and ref.model_id is not None and judged != ref.model_id:
        raise ValueError(
            f"the evaluation judged the model {judged!r}, but {ref.model_id!r} is to be promoted"
        )
    return evaluation
