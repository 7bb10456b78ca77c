# SPDX-License-Identifier: Apache-2.0
"""Move an alias to a model that passes its gates."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_ml_provider.assets.handlers import check_alias, check_registered_model_name
from airflow_ml_provider.exceptions import GateMetricError, NoBaselineError, StaleEvaluationError
from airflow_ml_provider.operators.alias import MovesAlias, actor_of
from airflow_ml_provider.operators.approval import AsksForApproval, OutdatedApprovalError
from airflow_ml_provider.operators.base import coerce_model, dated, ledger, note_model, note_promotion
from airflow_ml_provider.operators.register import actor_tags, check_name_or_template
from airflow_ml_provider.operators.train import finite
from airflow_ml_provider.tracking.approval import (
    Answer,
    Approval,
    OnTimeout,
    Question,
    question_about,
    reasons_to_ask,
)
from airflow_ml_provider.tracking.gates import GateResult, MetricGate, decide
from airflow_ml_provider.tracking.ledger import AliasMove
from airflow_ml_provider.tracking.moves import Standing, make_move, where
from airflow_ml_provider.tracking.registry import alias_version, register_version, registered_version
from airflow_ml_provider.xcom.context import effective_at_of, identity_of, run_type_of

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier, Context
    from airflow.sdk.execution_time.hitl import HITLUser

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


class PromoteModelOperator(AsksForApproval, MovesAlias, BaseOperator):
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

    With ``approval`` a person decides after the gates: the task waits, on no worker and in no triggerer,
    until somebody approves or rejects on Airflow's page of required actions or by its REST API. Who, when
    and why stands on the model version, in the ledger and in the result. A person's rejection is recorded as
    a gate's is. If the alias or the comparison changed meanwhile, an approval moves nothing and the task
    fails with :class:`StaleApprovalError`.

    .. versionadded:: 0.1.0

    :param model: What ``@task.train`` returned, or a model URI. (templated)
    :param registered_model_name: Name of the registered model; made if missing. (templated)
    :param evaluation: What an evaluation of this model returned. Needed for gates, and they for it. Leave
        out both to promote without looking. (templated)
    :param alias: The alias to move. (templated)
    :param gates: Conditions on the metrics; all must pass.
    :param bootstrap: Let gates that compare with a baseline pass where there is none yet.
    :param move_in_backfill: Move the alias in backfill runs too.
    :param approval: ``"always"``: a person approves every move. ``"on_regression"``: those where the
        challenger passed its gates and yet is worse than the champion by more than noise, on some metric or
        slice, or was not compared with it. ``"never"``: gates alone decide.
    :param approvers: Who may answer: ids of Airflow users, or ``{"id": ..., "name": ...}``. By default
        whoever may answer required actions of the DAG.
    :param approval_timeout: How long to wait for an answer; by default for ever.
    :param on_approval_timeout: What no answer means then: ``"reject"``, ``"approve"`` or ``"fail"``.
    :param approval_notifiers: Airflow notifiers to call when a person is asked.
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
        approval: Approval = "never",
        approvers: Sequence[str | HITLUser] | str | HITLUser = (),
        approval_timeout: timedelta | None = None,
        on_approval_timeout: OnTimeout = "reject",
        approval_notifiers: Sequence[BaseNotifier] | BaseNotifier = (),
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
        self.take_approval_options(
            approval=approval,
            approvers=approvers,
            approval_timeout=approval_timeout,
            on_approval_timeout=on_approval_timeout,
            approval_notifiers=approval_notifiers,
        )
        if approval == "on_regression" and evaluation is None:
            raise ValueError("approval='on_regression' needs the evaluation=... that shows regressions")
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
        return self._decide(context)

    def execute_complete(
        self, context: Context, event: dict[str, Any], asked: dict[str, Any]
    ) -> dict[str, Any]:
        """Go on with what a person answered."""
        return self._decide(context, (self.hear(context, event, asked), asked))

    def _decide(
        self, context: Context, heard: tuple[Answer, Mapping[str, Any]] | None = None
    ) -> dict[str, Any]:
        check_registered_model_name(self.registered_model_name)
        check_alias(self.alias)
        client = self.hook.client
        ref = self.resolve(self.model)
        self.show_run(context, ref.experiment_id, ref.mlflow_run_id)
        evaluation = check_evaluation(self.evaluation, ref)
        if self.gates and evaluation is None:
            raise GateMetricError(
                f"gates judge an evaluation of {ref.model_uri}, and there is none: the task that makes it "
                "was skipped or returned nothing; nothing was promoted. Let this task be skipped with it "
                "(trigger_rule='all_success'), or clear the evaluation"
            )
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
            "approval": None,
        }
        if not decision.promoted:
            return self._withhold(context, ref, result, "rejected")
        if run_type_of(context) == "backfill" and not self.move_in_backfill:
            reasons.append(
                f"a backfill run leaves the alias {self.alias!r} where it is; "
                "move_in_backfill=True would move it"
            )
            return self._withhold(context, ref, result, "withheld")
        return self._promote(context, ref, evaluation, result, decision.results, heard)

    def _promote(
        self,
        context: Context,
        ref: ModelRef,
        evaluation: Mapping[str, Any] | None,
        result: dict[str, Any],
        gates: Sequence[GateResult],
        heard: tuple[Answer, Mapping[str, Any]] | None,
    ) -> dict[str, Any]:
        client, name, alias = self.hook.client, self.registered_model_name, self.alias
        book, actor = ledger(), actor_of(context)
        standing = where(client, book, name, alias)
        made = standing.move if standing.move is not None and standing.move.made_by(actor) else None
        if made is None and actor["try_number"] > 1:
            made = book.made_in_turn(name, alias, actor, PROMOTION)
        if made is not None and made.version != registered_version(client, ref, name):
            made = None  # by a deleted run of the same id, which trained another model
        if made is None and heard is None and evaluation is not None:
            # Before a version is made: a stale evaluation must leave nothing behind.
            self._refuse_stale(evaluation, standing, ref)
        rejected = heard is not None and not heard[0].approved
        if made is None and self.approval != "never" and (rejected or not self._holds(standing, ref)):
            answer = self._approval(context, ref, evaluation, result, gates, standing, heard)
            if answer is not None:
                result["reasons"].append(str(answer))
                result["approval"] = answer.to_json()
                if not answer.approved:
                    return self._turn_down(context, ref, result, answer)
        ref = dated(ref, context)
        version = register_version(client, ref, name, actor_tags(identity_of(context)))
        result |= {"promoted": True, "version": version}
        if made is None and standing.version != version:
            move = self._as_move(ref, version, standing, evaluation, result, actor)
            made = make_move(client, book, move, standing)
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
        if result["approval"]:
            evidence["approval"] = result["approval"]
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
        tags = {previous_version_tag(self.alias): previous or ""}
        if approval := move.evidence.get("approval"):
            result["approval"] = approval
            tags |= Answer.from_json(approval).tags(self.alias)
        for key, value in tags.items():
            self.hook.client.set_model_version_tag(self.registered_model_name, version, key, value)
        self._tag(ref, "promoted", result["reasons"])
        self._show(context, ref, version)
        self._announce(context, result, move)
        note_promotion(context, result, "promoted", self.evaluation)
        if result["approval"]:
            self.use_up(context)
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

    def _approval(
        self,
        context: Context,
        ref: ModelRef,
        evaluation: Mapping[str, Any] | None,
        result: Mapping[str, Any],
        gates: Sequence[GateResult],
        standing: Standing,
        heard: tuple[Answer, Mapping[str, Any]] | None,
    ) -> Answer | None:
        """Return what a person answered; None if nobody need be asked. Ends this process if one must be."""
        name, alias = self.registered_model_name, self.alias
        why = reasons_to_ask(self.approval, standing, evaluation, self.gates, registered_model_name=name)
        if not why and heard is None:
            return None
        version = registered_version(self.hook.client, ref, name)
        question = question_about(
            registered_model_name=name,
            alias=alias,
            challenger=ref,
            challenger_version=version,
            champion=standing,
            evaluation=evaluation,
            metrics=result["metrics"],
            gates=self.gates,
            results=gates,
            why=why,
            links=self._pages(ref, version, standing, evaluation),
        )
        if heard is not None:
            answer, asked = heard
            self._refuse_other(question, answer, asked, standing)
            return answer
        known = self.answer_to(context, question)
        if known is None:
            self.ask(context, question)
        return known

    def _pages(
        self,
        ref: ModelRef,
        version: str | None,
        standing: Standing,
        evaluation: Mapping[str, Any] | None,
    ) -> dict[str, str | None]:
        name, hook, seen = self.registered_model_name, self.hook, evaluation or {}

        def run(experiment_id: str | None, run_id: str | None) -> str | None:
            return hook.run_url(experiment_id, run_id) if experiment_id and run_id else None

        return {
            "champion": hook.model_url(name, standing.version) if standing.version else None,
            "challenger": hook.model_url(name, version) if version else None,
            "run": run(ref.experiment_id, ref.mlflow_run_id),
            "evaluation": run(seen.get("experiment_id"), seen.get("mlflow_run_id")),
        }

    def _refuse_other(
        self, question: Question, answer: Answer, asked: Mapping[str, Any], standing: Standing
    ) -> None:
        """Raise if the answer is not about what would happen now."""
        if question.key == asked["key"] or (not answer.approved and question.model == asked["model"]):
            return
        name = f"{self.registered_model_name}@{self.alias}"
        if standing.version != asked["champion"]:
            was, now = (
                f"version {version}" if version else "nothing"
                for version in (asked["champion"], standing.version)
            )
            raise OutdatedApprovalError(
                f"{asked['model']} was {answer}; when the question was asked {name} pointed at {was}, and it "
                f"points at {now} by now: {standing.move}; nothing was overwritten. Start a new run of the "
                "DAG to compare with that"
            )
        raise OutdatedApprovalError(
            f"{asked['model']} was {answer}; but the model or its evaluation changed since the question was "
            f"asked, and {question.model} would be promoted now; nothing was. Start a new run of the DAG"
        )

    def _turn_down(
        self, context: Context, ref: ModelRef, result: dict[str, Any], answer: Answer
    ) -> dict[str, Any]:
        """End with a person's rejection, which is recorded as a gate's is."""
        client, name, tags = self.hook.client, self.registered_model_name, answer.tags(self.alias)
        self._withhold(context, ref, result, "rejected", tags)
        if (version := registered_version(client, ref, name)) is not None:
            for key, value in {**_verdict("rejected", result["reasons"]), **tags}.items():
                client.set_model_version_tag(name, version, key, value)
        self.use_up(context)
        return result

    def _holds(self, standing: Standing, ref: ModelRef) -> bool:
        """Whether the alias points at this very model."""
        if standing.version is None:
            return False
        holder = self.resolve(f"models:/{self.registered_model_name}/{standing.version}")
        if holder.model_id is None or ref.model_id is None:
            return holder.model_uri == ref.model_uri
        return holder.model_id == ref.model_id

    def _refuse_stale(self, evaluation: Mapping[str, Any], standing: Standing, ref: ModelRef) -> None:
        """Raise if the alias is neither where the evaluation saw it nor at this very model."""
        asked = evaluation.get("baseline_uri")
        baseline = None if asked is None else coerce_model(asked)
        if baseline is None or (baseline.registered_model_name, baseline.alias) != (
            self.registered_model_name,
            self.alias,
        ):
            if evaluation.get("baseline_metrics") is None:
                self._refuse_bootstrap(standing, ref)
            return
        compared, current = evaluation.get("baseline_version"), standing.version
        if compared == current or self._holds(standing, ref):
            return
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

    def _refuse_bootstrap(self, standing: Standing, ref: ModelRef) -> None:
        """Raise if a gate compares with a baseline, none was measured, and this is no first version."""
        if standing.version is None or not any(gate.needs_baseline for gate in self.gates):
            return
        if not self._holds(standing, ref):
            name = f"{self.registered_model_name}@{self.alias}"
            raise NoBaselineError(
                f"a gate compares with a baseline, and bootstrap=True is for the first version alone; but "
                f"{name} points at version {standing.version}, and the evaluation compared with nothing. "
                f"Give the evaluation baseline='models:/{name}'"
            )

    def _withhold(
        self,
        context: Context,
        ref: ModelRef,
        result: dict[str, Any],
        verdict: str,
        tags: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        self._silence(context)
        self._tag(ref, verdict, result["reasons"], tags)
        self.show_model(context, self.registered_model_name, None)
        note_model(context, ref, "read")
        note_promotion(context, result, verdict, self.evaluation)
        log.info("%s not promoted: %s", ref.model_uri, "; ".join(result["reasons"]))
        return result

    def _tag(
        self, ref: ModelRef, verdict: str, reasons: Sequence[str], more: Mapping[str, str] | None = None
    ) -> None:
        """Say on the training run and on the model what became of it."""
        tags = {**_verdict(verdict, reasons), **(more or {})}
        if ref.mlflow_run_id:
            for key, value in tags.items():
                self.hook.client.set_tag(ref.mlflow_run_id, key, value)
        if ref.model_id:
            self.hook.client.set_logged_model_tags(ref.model_id, tags)


def _verdict(verdict: str, reasons: Sequence[str]) -> dict[str, str]:
    return {PROMOTION_TAG: verdict, REASON_TAG: "; ".join(reasons)[:_TAG_CHARACTERS]}


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
