# SPDX-License-Identifier: Apache-2.0
"""
One MLflow run for one task instance, whose status is the task's.

A task instance finds its run by the tag ``airflow.key``, on a retry and after a clear too, and resumes it.
The instances of a mapped task are children of one parent run (see ``parents.py``).

What a run says of the task:

- success: FINISHED; a skip too, with the tag ``airflow.state`` = ``skipped``;
- an exception: FAILED;
- SIGTERM, a timeout, ``sys.exit`` and the like: KILLED;
- SIGKILL, out of memory: KILLED within seconds, by a small process that outlives the task (see
  ``watchdog.py``). It works with tracking servers over http(s); with a store such as ``sqlite:///`` such
  a run stays RUNNING until the retry resumes it. A machine that dies takes the watchdog with it: then the
  retry resumes the run, or a sweep closes it (``sweep.py``).
- deferred or to be rescheduled: SCHEDULED, until the task goes on.

Params never change in MLflow. A run that is resumed with other params than before would mix two executions,
so :meth:`TaskRun.log_params` begins a new run then, which takes over the key; the old one keeps its params,
metrics and status and gets the tag ``airflow.superseded_by``. Call it first, as what was logged before it
in the same try stays with the old run (tags and inputs are repeated on the new one).
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.exceptions import TrackingError
from airflow_ml_provider.tracking.datasets import dataset_inputs
from airflow_ml_provider.tracking.errors import is_duplicate
from airflow_ml_provider.tracking.guard import Guard, start_guard
from airflow_ml_provider.tracking.identity import KEY_TAG, TRY_TAG, TaskIdentity
from airflow_ml_provider.tracking.parents import (
    PARENT_TAG,
    Best,
    find_parents,
    mirror_status,
    settle,
    show_best,
)
from airflow_ml_provider.tracking.session import Credentials, session

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

#: Tells the attempts at one task instance apart, also in one try (``dag.test`` runs are all try 1).
ATTEMPT_TAG = "airflow.attempt_id"
STATE_TAG = "airflow.state"
FINGERPRINT_TAG = "airflow.fingerprint"
SUPERSEDED_TAG = "airflow.superseded_by"
# MLflow keeps 6,000 characters of a param.
_PARAM_CHARACTERS = 6000
_PARAM_NAME_CHARACTERS = 250
_NOT_IN_NAMES = re.compile(r"[^\w.\- :/]")
# Airflow's exceptions that end an attempt without failing it, by name: this floor knows no Airflow.
_WAITS = frozenset({"TaskDeferred", "TaskAwaitingInput", "AirflowRescheduleException"})
_SKIPS = frozenset({"AirflowSkipException"})
# They tell Airflow what to do next, and the task is a success.
_SUCCESSES = frozenset({"DownstreamTasksSkipped", "DagRunTriggerException"})

_log = logging.getLogger(__name__)
_current: ContextVar[TaskRun | None] = ContextVar("airflow_ml_provider_task_run", default=None)


class TaskRun:
    """The MLflow run of the task instance at hand. Made by :func:`task_run`."""

    def __init__(
        self,
        client: Any,
        *,
        run: Any,
        resumed: bool,
        tags: Mapping[str, str],
        run_name: str,
        attempt: Mapping[str, str],
    ) -> None:
        #: What the run was opened with.
        self.client = client
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        #: Whether an earlier try or clear made the run.
        self.resumed = resumed
        #: Tags that only this attempt has.
        self.attempt = dict(attempt)
        self._tags = dict(tags)
        self._run_name = run_name
        self._params: dict[str, str] = dict(run.data.params) if resumed else {}
        self._before = (run.info.status, run.info.end_time) if resumed else ("KILLED", None)
        self._mends = resumed and run.info.status in {"FAILED", "KILLED"}
        #: Tags that the run had before this attempt.
        self.tags_before: dict[str, str] = dict(run.data.tags) if resumed else {}
        #: Whether MLflow's fluent functions of this process write to the run.
        self.fluent = True
        self.log_system_metrics = False
        #: The datasets that this attempt logged.
        self.inputs: list[DatasetInput] = []
        self._guard: Guard | None = None
        self._killed = False
        self._outdated = False

    def __repr__(self) -> str:
        return f"TaskRun({self.run_id!r})"

    def log_params(self, params: Mapping[str, Any]) -> None:
        """
        Record what the task was called with.

        What MLflow allows in no name of a param, such as the brackets in a dict's key, becomes ``_``.

        Params that the run has already, with the same value, cost nothing. A value that an earlier try
        recorded differently begins a new run (see the module's docstring); ``run_id`` then changes.
        """
        from mlflow.entities import Param

        given: dict[str, str] = {}
        for key, value in params.items():
            name = plain = _param_name(str(key))
            number = 1
            while name in given:
                number += 1
                name = f"{plain[: _PARAM_NAME_CHARACTERS - 8]}_{number}"
            given[name] = str(value)[:_PARAM_CHARACTERS]
        changed = sorted(
            key for key, value in given.items() if key in self._params and self._params[key] != value
        )
        if changed and self.resumed:
            self._supersede(f"params changed: {', '.join(changed)}")
        new = {key: value for key, value in given.items() if self._params.get(key) != value}
        if new:
            self.client.log_batch(self.run_id, params=[Param(key, value) for key, value in new.items()])
            self._params.update(new)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Record numbers. A re-run adds a value to each metric's history, and the latest is the metric."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(key, float(value), now, step) for key, value in metrics.items()]
        if batch:
            self.client.log_batch(self.run_id, metrics=batch)

    def metrics(self) -> dict[str, float]:
        """Ask MLflow for the latest value of each metric, but for what the task took of the machine."""
        found = self.client.get_run(self.run_id).data.metrics
        return {key: value for key, value in found.items() if not key.startswith("system/")}

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags, which unlike params may change."""
        from mlflow.entities import RunTag

        given = {str(key): str(value) for key, value in tags.items()}
        if given:
            self._tags.update(given)
            self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in given.items()])

    def log_inputs(self, values: Sequence[Any], context: str = "training") -> None:
        """
        Record the artifacts, or DataFrames that came from no artifact, that went into the run.

        :param values: ArtifactRefs; nothing is loaded.
        """
        self.log_datasets(dataset_inputs(values, context=context))

    def log_datasets(self, inputs: Sequence[DatasetInput]) -> None:
        """Record datasets in MLflow's own words."""
        if inputs:
            self.inputs.extend(inputs)
            self.client.log_inputs(self.run_id, datasets=list(inputs))

    def kill(self) -> None:
        """
        Say that the task is being ended from outside; the run becomes KILLED at once.

        For signal handlers: it takes no lock and sends no request, the watchdog does.
        """
        self._killed = True
        if self._guard is not None:
            self._guard.tell("kill")

    @property
    def killed(self) -> bool:
        """Whether :meth:`kill` was called."""
        return self._killed

    def _supersede(self, why: str) -> None:
        import mlflow

        old = self.run_id
        _log.warning("MLflow run %s is superseded by a new one: %s", old, why)
        made = self.client.create_run(
            self.experiment_id, tags={**self._tags, "airflow.supersedes": old}, run_name=self._run_name
        )
        self.client.set_tag(old, SUPERSEDED_TAG, made.info.run_id)
        self.client.delete_tag(old, KEY_TAG)
        status, end_time = self._before
        status = "KILLED" if status in {"RUNNING", "SCHEDULED"} else status
        active = _leave(old, status=status)
        self.client.set_terminated(old, status=status, end_time=end_time)
        self.run_id = made.info.run_id
        self.resumed = False
        self.tags_before = {}
        self._params = {}
        if self._guard is not None:
            self._guard.tell(f"run {self.run_id}")
        if active:
            mlflow.start_run(run_id=self.run_id, nested=True, log_system_metrics=self.log_system_metrics)
        if self.inputs:
            self.client.log_inputs(self.run_id, datasets=self.inputs)


def _param_name(key: str) -> str:
    name = _NOT_IN_NAMES.sub("_", key)[:_PARAM_NAME_CHARACTERS]
    return name if posixpath.normpath(name) == name else name.replace("/", "_")


@contextmanager
def task_run(
    client: Any,
    *,
    experiment: str,
    identity: TaskIdentity,
    run_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    key: str | None = None,
    credentials: Credentials | None = None,
    fingerprint: str | None = None,
    group: bool = False,
    best: Best | None = None,
    fluent: bool = True,
    log_system_metrics: bool = False,
) -> Iterator[TaskRun]:
    """
    Open the MLflow run of a task instance, as the fluent active run, and close it with the task's status.

    :param client: An ``MlflowClient`` or what ``MlflowHook.client`` gives.
    :param experiment: Name of the experiment; made if missing.
    :param run_name: Shown by MLflow; the task, its data slice and map index where not given.
    :param key: What a retry finds the run by; the task instance where not given.
    :param credentials: Of the server; the client's where not given.
    :param fingerprint: Text that is the same for the same code and settings. A run of an earlier try with
        another fingerprint is superseded as if its params had changed.
    :param group: Put the run below one of the whole DAG run.
    :param best: What the parent of the run tells the best of its runs by.
    :param fluent: Whether the run becomes the active one of this process. Otherwise ``os.environ`` and
        MLflow's globals stay as they are: for tasks whose code runs in a process of its own.
    :param log_system_metrics: Let MLflow sample the machine while the run is active. Needs psutil.
    """
    from mlflow.tracking import fluent as fluently

    address = client.tracking_uri
    credentials = credentials or getattr(client, "credentials", None) or Credentials()
    label = getattr(client, "label", None)
    registry_uri = getattr(client, "registry_uri", None)
    if fluent:
        held: AbstractContextManager[None] = session(
            address, credentials, registry_uri=registry_uri, label=label
        )
    else:
        held = nullcontext()
    with held:
        experiment_id = find_experiment(client, experiment)
        attempt = {TRY_TAG: str(identity.try_number), ATTEMPT_TAG: uuid.uuid4().hex}
        wanted = {
            "mlflow.source.name": f"{identity.dag_id}.{identity.task_id}",
            "mlflow.source.type": "JOB",
            **(tags or {}),
            **identity.tags(),
            KEY_TAG: key or identity.key,
            **attempt,
        }
        if fingerprint is not None:
            wanted[FINGERPRINT_TAG] = fingerprint
        found = find_run(client, experiment_id, wanted[KEY_TAG])
        parent_id = found.data.tags.get(PARENT_TAG) if found is not None else None
        if parent_id is None:
            parent_id = find_parents(client, experiment_id, identity, tags or {}, group=group)
        if parent_id is not None:
            wanted[PARENT_TAG] = parent_id
        run = _open(
            client, experiment_id, wanted, found=found, attempt=attempt, run_name=run_name or identity.label
        )
        run.fluent, run.log_system_metrics = fluent, log_system_metrics
        outer = _current.set(run)
        chosen_before = getattr(fluently, "_active_experiment_id", None)
        if fluent:
            fluently._active_experiment_id = experiment_id
        try:
            run._guard = start_guard(
                tracking_uri=address, run_id=run.run_id, tags=attempt, credentials=credentials
            )
            yield from _watched(client, run, identity, group=group, best=best)
        finally:
            if fluent:
                fluently._active_experiment_id = chosen_before
            _current.reset(outer)


def _watched(
    client: Any, run: TaskRun, identity: TaskIdentity, *, group: bool, best: Best | None
) -> Iterator[TaskRun]:
    owner = os.getpid()
    status = "FINISHED"
    failed = True
    try:
        _start(client, run)
        if run._outdated:
            run._supersede("the code or its settings changed")
        yield run
        failed = False
    except BaseException as exc:
        names = {base.__name__ for base in type(exc).__mro__}
        if names & _WAITS:
            status = "SCHEDULED"
        elif names & _SKIPS:
            _note_skip(run)
        elif not names & _SUCCESSES:
            status = "FAILED" if isinstance(exc, Exception) else "KILLED"
        raise
    finally:
        if os.getpid() == owner:
            status = "KILLED" if run.killed else status
            if _end(client, run, status, failed=failed):
                _tell_parents(client, run, status, identity, group=group, best=best)


def _start(client: Any, run: TaskRun) -> None:
    if run.fluent:
        import mlflow

        mlflow.start_run(run_id=run.run_id, nested=True, log_system_metrics=run.log_system_metrics)
    elif run.resumed:
        client.update_run(run.run_id, status="RUNNING")


def _note_skip(run: TaskRun) -> None:
    try:
        run.set_tags({STATE_TAG: "skipped"})
    except Exception:  # noqa: BLE001 - it only informs, and must not make a failure of a skip
        _log.exception("MLflow run %s does not say that its task was skipped", run.run_id)


def _tell_parents(
    client: Any, run: TaskRun, status: str, identity: TaskIdentity, *, group: bool, best: Best | None
) -> None:
    """Let the parents show how the run ended; they only inform, so a failure does not fail the task."""
    parent_id = run._tags.get(PARENT_TAG)
    if parent_id is None or status == "SCHEDULED":
        return
    try:
        parent_id = settle(client, run.experiment_id, run.run_id, parent_id, identity, group=group)
        if status != "FINISHED" or run._mends:
            mirror_status(client, parent_id, failed=status != "FINISHED")
        if best is not None:
            show_best(client, parent_id, best)
    except Exception:  # noqa: BLE001 - it only informs
        _log.exception("the parent %s of MLflow run %s was not told how it ended", parent_id, run.run_id)


def open_run() -> TaskRun | None:
    """Give the innermost open :func:`task_run`, None if there is none."""
    return _current.get()


def current_run() -> TaskRun:
    """
    Give the innermost open :func:`task_run`.

    :raises TrackingError: if there is none.
    """
    run = open_run()
    if run is None:
        raise TrackingError(
            "no MLflow run is open here; use @task.train, ml.tracked or tracking.runs.task_run"
        )
    return run


def find_experiment(client: Any, name: str) -> str:
    """
    Give the id of an experiment, made if missing.

    :raises TrackingError: if it was deleted; a task does not undo that.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except Exception as exc:
            if not is_duplicate(exc):
                raise
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"MLflow experiment {name!r} ({found.experiment_id}) is deleted; restore it "
            f"(mlflow experiments restore --experiment-id {found.experiment_id}) or name another one"
        )
    return str(found.experiment_id)


def find_run(client: Any, experiment_id: str, key: str) -> Any | None:
    """Give the run that holds a key, whatever its status; None if there is none. One request."""
    found = client.search_runs(
        [experiment_id],
        filter_string=f"tags.`{KEY_TAG}` = '{key}'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    return found[0] if found else None


def _open(
    client: Any,
    experiment_id: str,
    tags: dict[str, str],
    *,
    found: Any | None,
    attempt: Mapping[str, str],
    run_name: str,
) -> TaskRun:
    from mlflow.entities import RunTag

    if found is None:
        made = client.create_run(experiment_id, tags=tags, run_name=run_name)
        return TaskRun(client, run=made, resumed=False, tags=tags, run_name=run_name, attempt=attempt)
    run = TaskRun(client, run=found, resumed=True, tags=tags, run_name=run_name, attempt=attempt)
    old_print = found.data.tags.get(FINGERPRINT_TAG)
    if FINGERPRINT_TAG in tags and old_print is not None and old_print != tags[FINGERPRINT_TAG]:
        run._outdated = True
        tags = {name: value for name, value in tags.items() if name != FINGERPRINT_TAG}
    for stale in (STATE_TAG, "airflow.closed_by"):
        if stale in found.data.tags:
            client.delete_tag(found.info.run_id, stale)
    client.log_batch(found.info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    return run


def _end(client: Any, run: TaskRun, status: str, *, failed: bool) -> bool:
    """Close a run; return whether MLflow took it."""
    guard, run._guard = run._guard, None
    try:
        ended = _leave(run.run_id, status="KILLED" if status == "SCHEDULED" else status)
        if status == "SCHEDULED":
            client.update_run(run.run_id, status=status)
        elif not ended:
            client.set_terminated(run.run_id, status=status)
    except Exception:
        if guard is not None and guard.dismiss(f"end {status}", wait=False):
            _log.exception(
                "MLflow run %s could not be closed as %s; a watchdog keeps trying for 5 minutes",
                run.run_id,
                status,
            )
            return False
        if failed:  # the task's own exception must not be hidden by this one
            _log.exception("MLflow run %s could not be closed as %s", run.run_id, status)
            return False
        raise
    if guard is not None:
        guard.dismiss()
    return True


def _leave(run_id: str, *, status: str) -> bool:
    """
    End a run if it is on MLflow's stack of active runs, after those that user code left open above it.

    :returns: False if user code took it off the stack already.
    """
    import mlflow
    from mlflow.tracking import fluent

    if all(active.info.run_id != run_id for active in fluent._active_run_stack.get()):
        return False
    while (active := mlflow.active_run()) is not None:
        ours = active.info.run_id == run_id
        mlflow.end_run(status)
        if ours:
            break
    return True
