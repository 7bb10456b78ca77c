# SPDX-License-Identifier: Apache-2.0
"""
Closes MLflow runs that nobody works on any more.

A task closes its own run, and a watchdog beside it does so when its process is killed. When a whole machine
is lost both are gone, and the run stays RUNNING. So does one that is SCHEDULED when its deferred task was
ended without going on: by a trigger, or by people. Airflow knows better: it has noticed that the task failed,
waits for a retry, or is over.

This module asks for the states and decides; who can ask Airflow gives it a function that does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_ml_provider.tracking.identity import KEY_TAG, TRY_TAG
from airflow_ml_provider.tracking.parents import PARENT_TAG, mirror_status
from airflow_ml_provider.tracking.runs import ATTEMPT_TAG, STATE_TAG

CLOSED_BY_TAG = "airflow.closed_by"
#: Asks Airflow: given a DAG id and run ids, the states of tasks by run id, then by :func:`state_key`. What is
#: not there does not exist.
TaskStates = Callable[[str, Sequence[str]], Mapping[str, Mapping[str, str | None]]]

_OPEN = ("RUNNING", "SCHEDULED")
_RUNS_A_QUESTION = 50
_EXPERIMENTS_A_SEARCH = 500
_OVER = frozenset({"success", "skipped", "failed", "upstream_failed", "removed"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenRun:
    """A run that is not closed, and the task instance that it belongs to."""

    mlflow_run_id: str
    experiment_id: str
    status: str
    started_at: datetime
    dag_id: str
    dag_run_id: str
    task_id: str
    map_index: int
    try_number: str | None
    attempt: str | None
    parent_id: str | None

    @property
    def task_instance(self) -> str:
        """The task instance, for people."""
        index = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id}.{self.task_id}{index} of {self.dag_run_id}"


@dataclass(frozen=True)
class Finding:
    """What became of an open run."""

    run: OpenRun
    becomes: str | None
    """The status that it should have; None: it stays open."""
    why: str
    state: str | None = None
    """Of the task instance, as Airflow says."""
    closed: bool = False


def state_key(task_id: str, map_index: int) -> str:
    """Name a task instance in its run, as Airflow's API does."""
    return task_id if map_index < 0 else f"{task_id}_{map_index}"


def sweep(
    client: Any,
    states: TaskStates,
    *,
    experiments: Sequence[str] = (),
    older_than: timedelta = timedelta(minutes=5),
    close: bool = False,
    close_unknown: bool = False,
) -> list[Finding]:
    """
    Look at all open runs of tasks, and close those whose task does not work on them any more.

    Requests: one a page of a thousand runs for each of the two open statuses, one to Airflow a DAG and 50
    runs of it, and three to MLflow a run that is closed, five with a parent.

    :param experiments: Names; all experiments where none is given.
    :param older_than: Leave runs alone that began later than so long ago.
    :param close: Do it; otherwise only say what would be done.
    :param close_unknown: Close runs as well whose task instance Airflow does not know: its DAG run was
        deleted, or it belongs to another Airflow that shares the MLflow server.
    """
    limit = datetime.now(UTC) - older_than
    found = [run for run in open_runs(client, experiments) if run.started_at <= limit]
    asked: dict[str, dict[str, Mapping[str, str | None]]] = {}
    for dag_id in sorted({run.dag_id for run in found}):
        run_ids = sorted({run.dag_run_id for run in found if run.dag_id == dag_id})
        asked[dag_id] = {}
        for start in range(0, len(run_ids), _RUNS_A_QUESTION):
            asked[dag_id].update(states(dag_id, run_ids[start : start + _RUNS_A_QUESTION]))
    findings = []
    for run in found:
        known = asked[run.dag_id].get(run.dag_run_id, {})
        key = state_key(run.task_id, run.map_index)
        finding = decide(run, exists=key in known, state=known.get(key), close_unknown=close_unknown)
        if close and finding.becomes is not None:
            finding = _close(client, finding)
        findings.append(finding)
    return findings


def decide(run: OpenRun, *, exists: bool, state: str | None, close_unknown: bool = False) -> Finding:
    """
    Say what should become of an open run, by the state of its task instance.

    :param exists: Whether Airflow knows the task instance.
    """
    if not exists:
        becomes = "KILLED" if close_unknown else None
        why = "Airflow knows no such task instance"
        return Finding(run, becomes, why if becomes else f"{why}; it may be another Airflow's", None)
    if state in ("success", "skipped"):
        return Finding(run, "FINISHED", f"the task instance is over: {state}", state)
    if state in _OVER:
        # A worker that was lost said nothing; a task that was waiting is failed by Airflow.
        becomes = "KILLED" if run.status == "RUNNING" else "FAILED"
        return Finding(run, becomes, f"the task instance is over: {state}", state)
    if state == "up_for_retry" and run.status == "RUNNING":
        return Finding(run, "KILLED", "the try that opened it is over, and the next one has not begun", state)
    return Finding(run, None, f"the task instance is {state or 'to be run again'}", state)


def open_runs(client: Any, experiments: Sequence[str] = ()) -> Iterator[OpenRun]:
    """
    Yield the runs of tasks that are RUNNING or SCHEDULED.

    :raises ValueError: if there is no experiment of a given name.
    """
    ids = list(_experiment_ids(client, experiments))
    for status in _OPEN:
        for start in range(0, len(ids), _EXPERIMENTS_A_SEARCH):
            token = None
            while True:
                page = client.search_runs(
                    ids[start : start + _EXPERIMENTS_A_SEARCH],
                    filter_string=f"attributes.status = '{status}' and tags.`{KEY_TAG}` LIKE '%'",
                    max_results=1000,
                    page_token=token,
                )
                for run in page:
                    if (opened := _open_run(run)) is not None:
                        yield opened
                token = page.token
                if not token:
                    break


def _experiment_ids(client: Any, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise ValueError(f"there is no MLflow experiment {name!r}")
        yield found.experiment_id
    token = None
    while not names:
        page = client.search_experiments(max_results=1000, page_token=token)
        yield from (experiment.experiment_id for experiment in page)
        token = page.token
        if not token:
            return


def _open_run(run: Any) -> OpenRun | None:
    tags = run.data.tags
    if not all(f"airflow.{name}" in tags for name in ("dag_id", "dag_run_id", "task_id")):
        return None
    return OpenRun(
        mlflow_run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        status=run.info.status,
        started_at=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        dag_id=tags["airflow.dag_id"],
        dag_run_id=tags["airflow.dag_run_id"],
        task_id=tags["airflow.task_id"],
        map_index=int(tags.get("airflow.map_index", -1)),
        try_number=tags.get(TRY_TAG),
        attempt=tags.get(ATTEMPT_TAG),
        parent_id=tags.get(PARENT_TAG),
    )


def _close(client: Any, finding: Finding) -> Finding:
    """Close a run, unless somebody took it up since we looked."""
    run, becomes = finding.run, str(finding.becomes)
    now = _open_run(client.get_run(run.mlflow_run_id))
    if now is None or (now.status, now.attempt) != (run.status, run.attempt):
        return replace(finding, becomes=None, why="it was taken up or closed meanwhile")
    client.set_terminated(run.mlflow_run_id, status=becomes, end_time=int(time.time() * 1000))
    from mlflow.entities import RunTag

    tags = [RunTag(CLOSED_BY_TAG, "sweep")]
    if finding.state == "skipped":
        tags.append(RunTag(STATE_TAG, "skipped"))
    client.log_batch(run.mlflow_run_id, tags=tags)
    if run.parent_id is not None and becomes != "FINISHED":
        mirror_status(client, run.parent_id, failed=True)
    _log.info(
        "closed MLflow run %s of %s as %s: %s", run.mlflow_run_id, run.task_instance, becomes, finding.why
    )
    return replace(finding, closed=True)
