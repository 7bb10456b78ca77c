# SPDX-License-Identifier: Apache-2.0
"""Move an alias to a model that passes its gates."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator

from airflow_ml_provider.assets.assets import ModelAsset
from airflow_ml_provider.assets.handlers import check_alias, check_registered_model_name
from airflow_ml_provider.exceptions import StaleEvaluationError
from airflow_ml_provider.operators.base import MlflowTask, coerce_model, ledger, note_model
from airflow_ml_provider.operators.register import actor_tags, check_name_or_template
from airflow_ml_provider.operators.train import finite
from airflow_ml_provider.tracking.gates import MetricGate, decide
from airflow_ml_provider.tracking.ledger import AliasMove
from airflow_ml_provider.tracking.registry import alias_version, move_alias, register_version
from airflow_ml_provider.xcom.context import effective_at_of, identity_of, run_type_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_ml_provider.tracking.models import ModelRef

log = logging.getLogger(__name__)

PROMOTION_TAG = "airflow.promotion"
REASON_TAG = "airflow.promotion.reason"
# MLflow keeps 8,000 characters of a run's tag and 5,000 of a version's.
_TAG_CHARACTERS = 5_000


def previous_version_tag(alias: str) -> str:
    """Name the tag of a version that says what the alias pointed at before it."""
    return f"airflow.previous_version.{alias}"


class PromoteModelOperator(MlflowTask, BaseOperator):
    """
    Register a model and point an alias at it, if it passes the gates.

    Returns ``{"promoted", "version", "previous_version", "reasons", ...}``. A rejection is a result and not
    a failure: the task succeeds, says why in its result, its log and on the model in MLflow, moves nothing,
    and emits no event for the asset of the alias.

    A crash at any point and a retry end in the same state as no crash: one version, one entry in the ledger,
    the alias moved. The alias must still point at the version that the evaluation compared with.

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
    outlets: list[Any]

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
        for outlet in self.outlets:
            if isinstance(outlet, ModelAsset) and not _may_announce(outlet, registered_model_name, alias):
                raise ValueError(
                    f"the outlet {outlet.name!r} announces a move that this task does not make; it moves "
                    f"{alias!r} of {registered_model_name!r}"
                )
        self.model = model
        self.registered_model_name = registered_model_name
        self.evaluation = evaluation
        self.alias = alias
        self.gates = tuple(gates)
        self.bootstrap = bootstrap
        self.move_in_backfill = move_in_backfill
        self.mlflow_conn_id = mlflow_conn_id

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
        )
        reasons = list(decision.reasons)
        result: dict[str, Any] = {
            "promoted": False,
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
        current = result["previous_version"]
        identity = identity_of(context)
        if ref.effective_at is None:
            ref = replace(ref, effective_at=result["effective_at"])
        if evaluation is not None:
            # Before a version is made: a stale evaluation must leave nothing behind.
            self._refuse_stale(evaluation, current, ref)
        version = register_version(client, ref, name, actor_tags(identity))
        previous = self._previous_version(version, current)
        client.set_model_version_tag(name, version, previous_version_tag(alias), previous or "")

        # Each step below is repeated by a retry and changes nothing the second time. The ledger comes first:
        # an alias never points anywhere without an entry that says why.
        ledger().record(
            AliasMove(
                registered_model_name=name,
                alias=alias,
                version=version,
                previous_version=previous,
                effective_at=datetime.fromisoformat(result["effective_at"]),
                recorded_at=datetime.now(UTC),
                kind="promotion",
                reasons=result["reasons"],
                actor={
                    "dag_id": identity.dag_id,
                    "run_id": identity.run_id,
                    "task_id": identity.task_id,
                    "map_index": identity.map_index,
                    "try_number": identity.try_number,
                },
                model_id=ref.model_id,
                mlflow_run_id=ref.mlflow_run_id,
                metrics=finite(result["metrics"]),
            )
        )
        move_alias(client, name, alias, version)
        self._tag(ref, "promoted", result["reasons"])
        result |= {"promoted": True, "version": version, "previous_version": previous}
        self.show_model(context, name, version)
        note_model(context, ref.at(version=version, registered_model_name=name), "written")
        self._announce(context, result)
        log.info(
            "%s of %r moved from version %s to %s: %s",
            alias,
            name,
            previous,
            version,
            "; ".join(result["reasons"]),
        )
        return result

    def _refuse_stale(self, evaluation: Mapping[str, Any], current: str | None, ref: ModelRef) -> None:
        """Raise if the alias is neither where the evaluation saw it nor at this very model."""
        asked = evaluation.get("baseline_uri")
        if asked is None:
            return
        baseline = coerce_model(asked)
        if (baseline.registered_model_name, baseline.alias) != (self.registered_model_name, self.alias):
            return
        compared = evaluation.get("baseline_version")
        if compared == current:
            return
        if current is not None:
            holder = self.resolve(f"models:/{self.registered_model_name}/{current}")
            if holder.model_id is not None and holder.model_id == ref.model_id:
                return  # an earlier attempt moved it
        was, now = (f"version {version}" if version else "nothing" for version in (compared, current))
        raise StaleEvaluationError(
            f"the evaluation compared with {was}, but {asked!r} points at {now} by now; "
            "clear the evaluation task to compare with that"
        )

    def _previous_version(self, version: str, current: str | None) -> str | None:
        """Return what the alias pointed at before this promotion, whichever attempt moves it."""
        if current != version:
            return current
        tags = self.hook.client.get_model_version(self.registered_model_name, version).tags
        return tags.get(previous_version_tag(self.alias)) or None

    def _withhold(
        self, context: Context, ref: ModelRef, result: dict[str, Any], verdict: str
    ) -> dict[str, Any]:
        self._silence(context)
        self._tag(ref, verdict, result["reasons"])
        self.show_model(context, self.registered_model_name, None)
        note_model(context, ref, "read")
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

    def _announces(self, outlet: Any) -> bool:
        asset = ModelAsset(self.registered_model_name, self.alias)
        return getattr(outlet, "uri", None) == asset.uri or getattr(outlet, "name", None) == asset.name

    def _announce(self, context: Context, result: Mapping[str, Any]) -> None:
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
        }
        for outlet in self.outlets:
            if self._announces(outlet):
                context["outlet_events"][outlet].extra.update(extra)

    def _silence(self, context: Context) -> None:
        """Drop the asset of the alias from the outlets of this attempt, so that its success is no event."""
        kept = [outlet for outlet in self.outlets if not self._announces(outlet)]
        # Airflow reads them from the task it runs; the DAG's own list must stay as it is.
        self.outlets = kept
        running = context["ti"].task
        if running is not self:
            running.outlets = [outlet for outlet in running.outlets if not self._announces(outlet)]


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


def _may_announce(outlet: Asset, registered_model_name: str, alias: str) -> bool:
    """Whether a promotion may be a move of this asset, as far as templates let us know."""
    if any(not isinstance(text, str) or "{" in text for text in (registered_model_name, alias)):
        return True
    return outlet.uri == ModelAsset(registered_model_name, alias).uri
