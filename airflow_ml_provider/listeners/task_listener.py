# SPDX-License-Identifier: Apache-2.0
"""
The listener that notes who a task instance is when it starts and writes its record when it ends.

It only observes: what goes wrong here is logged loudly and never fails the user's task.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.listeners import hookimpl

log = logging.getLogger(__name__)


def _in_task_process(task_instance: Any) -> bool:
    # The API server calls the same hooks, with a database row, when a user sets a state by hand.
    # dag.test() makes task instances without a bundle, so only the class tells.
    return type(task_instance).__module__ == "airflow.sdk.execution_time.task_runner"


@hookimpl
def on_task_instance_running(previous_state: Any, task_instance: Any) -> None:
    """Note the data time, names and attempt of a task instance before it runs."""
    if not _in_task_process(task_instance):
        return
    from airflow_ml_provider.xcom import state

    try:
        attempt = state.begin(task_instance.get_template_context())
    except Exception:
        log.exception("noting the start of %s failed; its artifacts get default names", task_instance)
        return
    from airflow_ml_provider.listeners.recording import close_attempt_before, recall_attempt, watch_attempt
    from airflow_ml_provider.tracking import models

    models.on_load(state.note_loaded_model)
    try:
        if getattr(getattr(task_instance, "_ti_context_from_server", None), "next_method", None):
            recall_attempt(attempt)
        close_attempt_before(attempt)
        watch_attempt(attempt, task_instance)
    except Exception:
        log.exception("recording the start of %s failed; it is recorded at its end", task_instance)


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    """Record what a successful attempt read and wrote, and clear its checkpoints."""
    if _in_task_process(task_instance):
        _clear_checkpoints(task_instance)
    _record(task_instance, "success")


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:
    """Record what a failed attempt read and wrote before it failed."""
    _record(task_instance, "failed", error)


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:
    """Record what a skipped attempt read before it skipped."""
    _record(task_instance, "skipped")


@hookimpl
def before_stopping(component: Any) -> None:
    """Record what an attempt that waits now has done so far: it goes on in another process."""
    if not _in_task_process(component):
        return
    from airflow_ml_provider.listeners.recording import pause_attempt
    from airflow_ml_provider.xcom import state

    for attempt in state.waiting():
        pause_attempt(attempt)


def _clear_checkpoints(task_instance: Any) -> None:
    from airflow_ml_provider.xcom import state

    for checkpoint in state.checkpoints_of(task_instance):
        try:
            checkpoint.succeeded()
        except Exception:
            log.exception(
                "clearing the checkpoints of %s failed; `airflow ml gc` removes them", task_instance
            )


def _record(task_instance: Any, outcome: str, error: Any = None) -> None:
    if not _in_task_process(task_instance):
        return
    from airflow_ml_provider.listeners.recording import record_attempt
    from airflow_ml_provider.xcom import state

    attempt = state.end(task_instance)
    if attempt is None:
        return
    try:
        record_attempt(attempt, task_instance, outcome, error)
    except Exception:
        log.exception("recording the lineage of %s failed; the task itself is not affected", task_instance)
