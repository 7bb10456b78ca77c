# SPDX-License-Identifier: Apache-2.0
"""Close the MLflow runs that lost workers left open."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_ml_provider.operators.base import MlflowTask

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_ml_provider.tracking.sweep import Finding

log = logging.getLogger(__name__)


class SweepRunsOperator(MlflowTask, BaseOperator):
    """
    Close MLflow runs that are open although their task instance is over or waits for its next try.

    A task closes its run itself, and a watchdog does when the task's process is killed. A machine that dies
    takes both along: put this operator into a DAG that runs every hour or so. Runs of task instances that
    Airflow says are running or deferred stay open.

    Returns what was found: a list of dicts with the run, its task instance, what it became and why.

    .. versionadded:: 0.1.0

    :param experiments: Names of the MLflow experiments to look at; by default all. (templated)
    :param older_than: Leave runs alone that began later than so long ago; a timedelta or seconds.
    :param close: False only reports what would be closed.
    :param close_unknown: Close runs as well whose task instance this Airflow does not know, because its DAG
        run was deleted. Leave it off where several Airflows share the MLflow server.
    :param mlflow_conn_id: Connection of the tracking server; by default ``[ml_provider] mlflow_conn_id``.
    """

    template_fields: Sequence[str] = ("experiments",)

    def __init__(
        self,
        *,
        experiments: Sequence[str] | str = (),
        older_than: timedelta | float = timedelta(minutes=5),
        close: bool = True,
        close_unknown: bool = False,
        mlflow_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(older_than, timedelta | int | float):
            raise TypeError(f"older_than must be a timedelta or a number of seconds, got {older_than!r}")
        self.experiments = experiments
        self.older_than = older_than
        self.close = close
        self.close_unknown = close_unknown
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        from airflow_ml_provider.tracking.sweep import sweep

        ti = context["ti"]

        def states(dag_id: str, run_ids: Sequence[str]) -> Mapping[str, Mapping[str, str | None]]:
            found: Mapping[str, Mapping[str, str | None]] = ti.get_task_states(
                dag_id=dag_id, run_ids=list(run_ids)
            )
            return found

        age = (
            self.older_than if isinstance(self.older_than, timedelta) else timedelta(seconds=self.older_than)
        )
        named = [self.experiments] if isinstance(self.experiments, str) else list(self.experiments)
        findings = sweep(
            self.hook.client,
            states,
            experiments=named,
            older_than=age,
            close=self.close,
            close_unknown=self.close_unknown,
        )
        for finding in findings:
            log.info(
                "%s of %s: %s: %s",
                finding.run.mlflow_run_id,
                finding.run.task_instance,
                outcome_of(finding),
                finding.why,
            )
        log.info("%d runs are open, %d were closed", len(findings), sum(each.closed for each in findings))
        return [row_of(finding) for finding in findings]


def outcome_of(finding: Finding) -> str:
    """Say in a word or two what became of a run."""
    if finding.becomes is None:
        return "stays open"
    return f"closed as {finding.becomes}" if finding.closed else f"would become {finding.becomes}"


def row_of(finding: Finding) -> dict[str, Any]:
    """Return a finding as plain values."""
    run = asdict(finding.run)
    return {
        "mlflow_run_id": run["mlflow_run_id"],
        "status": run["status"],
        "outcome": outcome_of(finding),
        "why": finding.why,
        "dag_id": run["dag_id"],
        "dag_run_id": run["dag_run_id"],
        "task_id": run["task_id"],
        "map_index": run["map_index"],
        "started_at": finding.run.started_at.isoformat(),
    }
