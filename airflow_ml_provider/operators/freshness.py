# SPDX-License-Identifier: Apache-2.0
"""Raise the alarm when the model behind an alias was not evaluated for too long."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_ml_provider.assets.handlers import check_alias, check_registered_model_name
from airflow_ml_provider.exceptions import ModelNotEvaluatedError
from airflow_ml_provider.operators.base import MlflowTask, ledger, note_model
from airflow_ml_provider.operators.outlets import announce, is_asset, silence
from airflow_ml_provider.operators.register import check_name_or_template
from airflow_ml_provider.tracking.approval import choice
from airflow_ml_provider.tracking.freshness import Clock, judge_freshness, last_evaluation
from airflow_ml_provider.tracking.registry import version_details
from airflow_ml_provider.xcom.context import effective_at_of, run_type_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_ml_provider.tracking.models import ModelRef

    OnStale = Literal["fail", "emit"]

log = logging.getLogger(__name__)


class StaleModelError(ModelNotEvaluatedError, AirflowFailException):
    """A :class:`ModelNotEvaluatedError` that Airflow does not retry: the alarm must not wait."""


class CheckModelFreshnessOperator(MlflowTask, BaseOperator):
    """
    Say whether the model behind an alias was evaluated recently; else fail, or emit an event.

    Returns ``{"fresh", "reason", "version", "age_days", "last_evaluation", ...}``. Evaluations by any DAG
    count, in which the model was the one to judge or the baseline. A champion that was not evaluated yet is
    as old as its promotion.

    .. versionadded:: 0.1.0

    :param registered_model_name: Name of the registered model. (templated)
    :param max_age: Evaluations older than this are too old.
    :param alias: The alias whose model is meant. (templated)
    :param clock: ``data``: the age is from the data time of the evaluation to that of this run, so an
        evaluation of old data does not count as recent. ``wall``: from when the evaluation ended to now.
    :param on_stale: ``fail``: the task fails at once, without retries, with
        :class:`ModelNotEvaluatedError`, so that ``on_failure_callback``, notifiers and alerts do what they
        always do. ``emit``: it succeeds and emits the events of its outlets, so that a DAG that evaluates
        runs. A fresh model is no event.
    :param emit_in_backfill: Emit the events in backfill runs too.
    :param mlflow_conn_id: Connection of the tracking server; by default ``[ml_provider] mlflow_conn_id``.
    """

    template_fields: Sequence[str] = ("registered_model_name", "alias")
    ui_color = "#e8f0fb"
    outlets: list[Any]

    def __init__(
        self,
        *,
        registered_model_name: str,
        max_age: timedelta,
        alias: str = "champion",
        clock: Clock = "data",
        on_stale: OnStale = "fail",
        emit_in_backfill: bool = False,
        mlflow_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_name_or_template(registered_model_name)
        if isinstance(alias, str) and "{" not in alias:
            check_alias(alias)
        if not isinstance(max_age, timedelta):
            raise TypeError(f"max_age must be a timedelta, got {max_age!r}")
        if max_age <= timedelta(0):
            raise ValueError(f"max_age must be more than no time, got {max_age!r}")
        if not isinstance(emit_in_backfill, bool):
            raise TypeError(f"emit_in_backfill must be True or False, got {emit_in_backfill!r}")
        self.registered_model_name = registered_model_name
        self.max_age = max_age
        self.alias = alias
        self.clock: Clock = choice("clock", clock, Clock)
        self.on_stale: OnStale = choice("on_stale", on_stale, Literal["fail", "emit"])
        self.emit_in_backfill = emit_in_backfill
        self.mlflow_conn_id = mlflow_conn_id
        assets = any(map(is_asset, self.outlets))
        if on_stale == "emit" and not assets:
            raise ValueError("on_stale='emit' needs the asset whose event it emits: outlets=[Asset(...)]")
        if on_stale == "fail" and assets:
            raise ValueError(
                "a task that fails emits no events, so the assets in outlets would wait for ever; give "
                "on_stale='emit', or no assets"
            )

    def execute(self, context: Context) -> dict[str, Any]:
        check_registered_model_name(self.registered_model_name)
        check_alias(self.alias)
        client = self.hook.client
        ref = self.resolve(f"models:/{self.registered_model_name}@{self.alias}")
        self.show_model(context, ref.registered_model_name, ref.version)
        note_model(context, ref, "read")
        last = last_evaluation(client, ref, self.clock)
        now = effective_at_of(context) if self.clock == "data" else datetime.now(UTC)
        name = f"{self.registered_model_name}@{self.alias} (version {ref.version})"
        verdict = judge_freshness(
            name, last, self._champion_since(ref), max_age=self.max_age, now=now, clock=self.clock
        )
        age = verdict.age
        result: dict[str, Any] = {
            "fresh": verdict.fresh,
            "reason": verdict.reason,
            "registered_model_name": self.registered_model_name,
            "alias": self.alias,
            "version": ref.version,
            "model_id": ref.model_id,
            "age_days": None if age is None else round(age.total_seconds() / 86_400, 3),
            "last_evaluation": None if last is None else last.mlflow_run_id,
            "clock": self.clock,
            "effective_at": effective_at_of(context).isoformat(),
        }
        if verdict.fresh:
            silence(self, context)
            log.info("%s", verdict.reason)
            return result
        if self.on_stale == "fail":
            raise StaleModelError(f"{verdict.reason}; run an evaluation of it, or raise max_age")
        if run_type_of(context) == "backfill" and not self.emit_in_backfill:
            silence(self, context)
            result["reason"] += "; a backfill run emits no event, emit_in_backfill=True would"
        else:
            announce(self, context, result)
        log.warning("%s", result["reason"])
        return result

    def _champion_since(self, ref: ModelRef) -> datetime | None:
        """Since when the version has the alias: by the ledger, else when the version was made."""
        name, version = str(ref.registered_model_name), str(ref.version)
        move = ledger().latest_turn(name, self.alias)
        if move is not None and move.version == version:
            since: datetime = move.effective_at if self.clock == "data" else move.recorded_at
            return since
        details = version_details(self.hook.client, name, version)
        return datetime.fromtimestamp(details.creation_timestamp / 1000, UTC)
