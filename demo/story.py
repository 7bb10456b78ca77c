# SPDX-License-Identifier: Apache-2.0
"""What the demo does on a running cluster, and how it watches Airflow do it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from demo.airflow_api import FINISHED, Json
from demo.cluster import LOG_TAIL, LocalCluster
from demo.errors import ApiError, DemoError, StalledError, TaskFailedError
from demo.summary import (
    Decision,
    Summary,
    collect,
    decision_of,
    evaluation_of,
    interval_start,
    month_of,
    short,
)

if TYPE_CHECKING:
    from demo.output import Output

TRAINING = "flight_delay_training"
SCORING = "flight_delay_scoring"
EVALUATION = "flight_delay_evaluation"
PLAIN = "plain_weather_report"

OTHER_DEPTH = 4
BACKFILL_DAYS = 14
BACKFILL_ATTEMPTS = 20
DAYS_BEFORE_THE_CHANGE = 7
POLL_INTERVAL = 1.0  # seconds
STALLED_AFTER = 300.0  # seconds without any task starting or ending


class Story:
    """
    The demo on a cluster that runs already.

    :param cluster: Where it happens.
    :param output: Where it is told.
    """

    def __init__(self, cluster: LocalCluster, output: Output) -> None:
        self.cluster = cluster
        self.airflow = cluster.airflow
        self.output = output
        self.seconds: dict[str, float] = {}
        self.decisions: list[Decision] = []
        self._told: set[tuple[str, str]] = set()
        self._last_sign: tuple[Any, float] = (None, time.monotonic())

    def run(self) -> Summary:
        """
        Train, score, evaluate; return what came of it.

        :raises TaskFailedError: if a task fails; it names the task and shows the end of its log.
        :raises ComponentDiedError: if a component dies.
        """
        self.output.doing("Airflow reads the DAG files")
        self.cluster.wait_for_dags((TRAINING, SCORING, EVALUATION, PLAIN))
        self.mark("started")
        # Who listens must listen before there is something to hear.
        for dag_id in (SCORING, PLAIN):
            self.airflow.unpause(dag_id)
        self.airflow.unpause(TRAINING)
        self.output.line(
            f"{TRAINING} is on: the scheduler catches up month by month; {SCORING} waits for a champion"
        )
        self.airflow.trigger(PLAIN)

        self.wait_until("the trainings are over", self.trainings_are_over)
        self.mark("trained")
        self.try_another_depth()
        first, last, change = self.days_to_evaluate()
        self.output.line(
            f"{EVALUATION} is backfilled from {first:%Y-%m-%d} to {last:%Y-%m-%d}, around {change}", "bold"
        )
        self.backfill(first, last)
        self.wait_until("the backfill is over", lambda: self.finished(EVALUATION) >= BACKFILL_DAYS)
        self.wait_until("the training by hand is over", self.trainings_are_over)
        self.wait_until("the champion is scored with", self.scorings_are_over)
        self.wait_until(f"{PLAIN} is over", lambda: self.finished(PLAIN) >= 1)
        self.mark("evaluated")
        return collect(
            self.cluster,
            training=TRAINING,
            scoring=SCORING,
            evaluation=EVALUATION,
            wall_seconds=self.output.seconds,
            seconds=self.seconds,
        )

    def backfill(self, first: datetime, last: datetime) -> None:
        """
        Ask for the daily evaluations.

        On SQLite, Airflow creates the runs of a backfill one by one, and refuses (503) and deletes them again
        if another component writes in between. A scheduler that had begun with one of them would die of that,
        so the DAG stays paused until all are there.
        """
        for attempt in range(1, BACKFILL_ATTEMPTS + 1):
            try:
                self.airflow.backfill(EVALUATION, first, last, max_active_runs=self.cluster.parallelism)
            except ApiError as exc:
                if exc.status != HTTPStatus.SERVICE_UNAVAILABLE or attempt == BACKFILL_ATTEMPTS:
                    raise
                self.cluster.check()
                self.airflow.drop_backfills(EVALUATION)
                time.sleep(POLL_INTERVAL)
            else:
                break
        self.airflow.unpause(EVALUATION)

    def try_another_depth(self) -> None:
        """Start one training by hand: its tables are those of the scheduled run, so they are reused."""
        last = max(interval_start(run) for run in self.airflow.dag_runs(TRAINING))
        # A run by hand is about the interval that ended at or before its logical date.
        run_id = self.airflow.trigger(
            TRAINING, conf={"max_depth": OTHER_DEPTH}, logical_date=last + timedelta(days=14)
        )
        month = month_of(self.airflow.dag_run(TRAINING, run_id))
        self.output.line(
            f"{TRAINING} is started by hand for {month} with max_depth={OTHER_DEPTH}: "
            "it finds that month's tables, and computes the model alone",
            "bold",
        )

    def mark(self, stage: str) -> None:
        self.seconds[stage] = self.output.seconds

    def wait_until(self, what: str, happened: Callable[[], bool]) -> None:
        while True:
            # What ends between two requests must be told, or raised, too: the last look comes after this.
            over = happened()
            self.watch()
            if over:
                return
            if self.stalled_for() > STALLED_AFTER:
                raise StalledError(
                    f"no task started or ended for {STALLED_AFTER:.0f} s while waiting until {what}; "
                    f"the logs are in {self.cluster.logs}"
                )
            time.sleep(POLL_INTERVAL)

    def watch(self) -> None:
        """Look once: tell what is new. Raises if a component died or a task failed."""
        self.cluster.check()
        runs = self.airflow.dag_runs()  # before the tasks: where a run failed already, its task did
        active = self.airflow.task_instances(
            states=("running", "failed", "queued", "up_for_retry", "scheduled")
        )
        for task in active:
            if task["state"] == "failed":
                raise task_failed(self.cluster, task)
            if task["state"] == "up_for_retry":
                self.tell_once(
                    task["id"], f"try{task['try_number']}", f"{name_of(task)} failed and is tried again"
                )
        running = [name_of(task) for task in active if task["state"] == "running"]
        self.output.doing("running: " + (", ".join(running) or "nothing yet"))
        self._sign(sorted((task["id"], task["state"]) for task in active))
        for run in runs:
            if run["state"] == "failed":
                raise DemoError(
                    f"{run['dag_id']} run {run['dag_run_id']} failed, though none of its tasks did"
                )
            if run["state"] == "success" and (run["dag_id"], run["dag_run_id"]) not in self._told:
                self._told.add((run["dag_id"], run["dag_run_id"]))
                self.tell_run(run)

    def tell_once(self, subject: str, what: str, text: str) -> None:
        if (subject, what) not in self._told:
            self._told.add((subject, what))
            self.output.line(text, "yellow")

    def tell_run(self, run: Json) -> None:
        dag_id, seconds = run["dag_id"], f"({run['duration'] or 0:.0f} s)"
        match dag_id:
            case _ if dag_id == TRAINING:
                if (found := decision_of(self.airflow, run)) is None:
                    raise DemoError(f"{dag_id} run {run['dag_run_id']} succeeded, but decided nothing")
                self.decisions.append(found)
                self.output.line(
                    f"{dag_id} {found.month}{' by hand' if found.by_hand else ''}: {decision_text(found)}"
                    f"{reuse_text(found)} {seconds}",
                    decision_style(found),
                )
            case _ if dag_id == SCORING:
                events = self.airflow.upstream_asset_events(dag_id, run["dag_run_id"])
                event = max(events, key=lambda each: str(each["timestamp"]), default={})
                version = (event.get("extra") or {}).get("version", "?")
                self.output.line(f"{dag_id}: ran because version {version} became champion {seconds}")
            case _ if dag_id == EVALUATION:
                row = evaluation_of(self.airflow, run)
                self.output.line(
                    f"{dag_id} {row.date}: version {row.model_version}, {short(row.metrics)} {seconds}"
                )
            case _:
                self.output.line(f"{dag_id}: done {seconds}")

    def _sign(self, sign: Any) -> None:
        if sign != self._last_sign[0]:
            self._last_sign = (sign, time.monotonic())

    def stalled_for(self) -> float:
        return time.monotonic() - self._last_sign[1]

    def finished(self, dag_id: str) -> int:
        return sum(told == dag_id for told, _ in self._told)

    def trainings_are_over(self) -> bool:
        """Tell whether the scheduler has no month left to catch up, and each run ended."""
        more = self.airflow.request("GET", f"/dags/{TRAINING}")["next_dagrun_run_after"]
        if more is not None and datetime.fromisoformat(more) <= datetime.now(
            datetime.fromisoformat(more).tzinfo
        ):
            return False
        runs = self.airflow.dag_runs(TRAINING)
        return bool(runs) and all(run["state"] in FINISHED for run in runs)

    def scorings_are_over(self) -> bool:
        """Tell whether each promotion was answered by a run of the scoring DAG."""
        runs = self.airflow.dag_runs(SCORING)
        if any(run["state"] not in FINISHED for run in runs):
            return False
        heard = {
            event["id"]
            for run in runs
            for event in self.airflow.upstream_asset_events(SCORING, run["dag_run_id"])
        }
        said = {
            event["id"]
            for event in self.airflow.asset_events(source_dag_id=TRAINING)
            if (event.get("extra") or {}).get("registered_model_name")
        }
        return said <= heard

    def days_to_evaluate(self) -> tuple[datetime, datetime, str]:
        """
        Choose the days whose evaluations show two champions, from what the trainings decided.

        :returns: The first and the last day, and what happens between them.
        """
        return days_around_a_change(self.decisions)


def days_around_a_change(decisions: Sequence[Decision]) -> tuple[datetime, datetime, str]:
    """
    Choose 14 days around the first day on which one champion followed another.

    A champion counts from ``effective_at`` on, and a day is judged with the champion at its end. So the day
    that ends then is the new champion's first, and seven come before it.
    """
    moves = [d for d in decisions if d.promoted and d.effective_at]
    if not moves:
        raise DemoError("no training promoted a model, so there is no champion to evaluate")
    changes = [d for d in moves if d.previous_version is not None]
    chosen = min(changes or moves, key=lambda d: d.effective_at or "")
    effective_at = datetime.fromisoformat(str(chosen.effective_at))
    midnight = effective_at.replace(hour=0, minute=0, second=0, microsecond=0)
    first = midnight - timedelta(days=1 + DAYS_BEFORE_THE_CHANGE if changes else 0)
    last = first + timedelta(days=BACKFILL_DAYS - 1)
    if changes:
        return (
            first,
            last,
            f"the day when version {chosen.version} followed version {chosen.previous_version}",
        )
    return first, last, f"the time of version {chosen.version}, the only champion"


def decision_text(decision: Decision) -> str:
    if decision.promoted:
        against = f" after version {decision.previous_version}" if decision.previous_version else ""
        return f"version {decision.version} is champion{against}, {short(decision.metrics)}"
    return "rejected: " + "; ".join(decision.why)


def reuse_text(decision: Decision) -> str:
    return f"; reused: {', '.join(decision.reused)}" if decision.reused else ""


def decision_style(decision: Decision) -> str:
    return "green" if decision.promoted else "yellow"


def name_of(task: Json) -> str:
    when = str(task["logical_date"] or task["run_after"])[:10]
    mapped = f"[{task['map_index']}]" if task["map_index"] >= 0 else ""
    return f"{task['dag_id']}.{task['task_id']}{mapped} of {when}"


def task_failed(cluster: LocalCluster, task: Json) -> TaskFailedError:
    """Say which task failed, with the end of its log."""
    try:
        lines = cluster.airflow.task_log(task)
    except ApiError as exc:
        lines = [f"(its log cannot be had: {exc})"]
    text = "\n".join(lines[-LOG_TAIL:]) or "(its log is empty)"
    return TaskFailedError(
        f"{name_of(task)} failed on try {task['try_number']} (run {task['dag_run_id']}). "
        f"The end of its log:\n{text}"
    )


__all__ = ["EVALUATION", "PLAIN", "SCORING", "TRAINING", "Story", "days_around_a_change", "month_of"]
